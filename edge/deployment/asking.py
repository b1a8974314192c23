"""What a device asks its fetch process for, and how long it waits before it asks again."""

import random
from pathlib import Path
from typing import Final

from edge.config import UpdateSection
from edge.deployment.fetch_messages import Known, Request
from edge.deployment.rollout import Deployed, Journal
from edge.errors import ConfigError

LEAST_PAUSE_S: Final = 2.0
"""Between two looks, whoever asks for them."""
_JITTER: Final = 0.25
_MAX_ROOT_BYTES: Final = 64 << 10


def pause_s(poll_s: float, chance: random.Random) -> float:
    """Return how long a device waits for a hint before it looks by itself.

    Spread by a quarter, so that devices that started together drift apart.
    """
    return poll_s * chance.uniform(1 - _JITTER, 1 + _JITTER)


def read_root(section: UpdateSection) -> bytes:
    """Return the root metadata that was installed with the device.

    Raises:
        ConfigError: The file cannot be read.
    """
    assert section.root_file is not None, "held by the config"
    try:
        with section.root_file.open("rb") as file:
            return file.read(_MAX_ROOT_BYTES)
    except OSError as failed:
        raise ConfigError(
            "updates.root_file",
            f"{section.root_file} cannot be read: {failed.strerror}",
            "install the root.json that `edge fleet init` wrote",
        ) from failed


def request_of(
    section: UpdateSection, device: str, folder: Path, journal: Journal, repository: str = ""
) -> Request:
    """Say what a device looks for.

    Args:
        section: Where, and within what bounds.
        device: Its id.
        folder: Of the installed deployments.
        journal: What is known, and what is barred.
        repository: Another address than the section's: a stick, say.

    Raises:
        ConfigError: The root file cannot be read.
    """
    seen = [step.deployment for step in journal.history]
    known = [each for each in (journal.active, journal.previous, *seen) if each and each.signed]
    tls = section.tls
    return Request(
        repository=repository or section.repository,
        root=read_root(section),
        group=section.group,
        device=device,
        folder=str(folder),
        deadline_s=float(section.deadline_s),
        least_bytes_per_s=section.least_bytes_per_s,
        store_bytes=section.store_bytes,
        ca_file=str(tls.ca_file) if tls else "",
        certificate_file=str(tls.certificate_file or "") if tls else "",
        key_file=str(tls.key_file or "") if tls else "",
        active=_known(journal.active) if journal.active else None,
        known=tuple({_known(each): None for each in known}),
        barred=tuple(sorted({each.revision for each in seen if each.digest in journal.barred})),
        keep=tuple(sorted(journal.needed)),
    )


def _known(deployed: Deployed) -> Known:
    return Known(deployed.revision, deployed.digest)
