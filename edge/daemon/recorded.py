"""From the daemon to the ledger: what is recorded of a verdict, and which frames are kept."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from edge.config import LedgerSection
from edge.contracts.plan import PipelinePlan
from edge.contracts.verdict import Verdict
from edge.daemon.intake import Frame
from edge.daemon.outlets import Seen
from edge.ledger.entry import Entry, Pinned, Runtime
from edge.ledger.kept import FOLDER, Keeper, Keeping


def entry_of(
    plan: PipelinePlan,
    pinned: Pinned,
    runtime: Runtime,
    frame: Frame,
    verdict: Verdict,
    seen: Seen,
) -> Entry:
    """Return what is to be recorded of a verdict that goes out now."""
    reference, judged = seen.reference, seen.judged
    names = (grant.name for grant in plan.signals)
    return Entry(
        verdict=verdict,
        decided_at_ns=time.time_ns(),
        pinned=pinned,
        digest_reference=(lambda: reference.digest) if reference else None,
        reference=reference.payload if reference else b"",
        signals=dict(zip(names, seen.signals, strict=True)),
        fingerprint=frame.fingerprint,
        content=str(frame.content),
        reference_content=str(reference.content) if reference else "",
        policy=judged.before if judged else None,
        findings=judged.findings if judged else "",
        runtime=runtime if judged else Runtime(),
    )


def keeper_of(
    section: LedgerSection,
    folder: Path,
    loop: asyncio.AbstractEventLoop,
    on_trouble: Callable[[str], None],
) -> Keeper | None:
    """Return who keeps frames beside the ledger of a folder; None where the config wants none."""
    frames = section.frames
    if not frames.enabled:
        return None
    keeping = Keeping(
        pass_share=frames.pass_share,
        max_bytes=frames.max_bytes,
        max_age_s=frames.max_age_days * 86_400,
        min_free_bytes=frames.min_free_bytes,
    )

    def tell(trouble: str) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody is left to be told
            loop.call_soon_threadsafe(on_trouble, trouble)

    return Keeper(folder / FOLDER, keeping, tell)
