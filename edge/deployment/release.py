"""A group's releases: which deployments its devices may run, and which devices come first.

`GROUP/releases.json` is one signed target of the repository. Each release names a deployment by
its revision and the digest of its manifest, which pins everything else. A device runs the highest
revision that includes it; a higher one than it has is a step forward, a lower one is never taken:
going back on purpose is a new revision with the old files.

Which devices come first is the same for every release, and follows from their names alone: the
share below `percent` of a hash of group and device id.
"""

import hashlib
from typing import Annotated, Final, Literal, Self

from pydantic import Field, ValidationError, model_validator

from edge.config import explain
from edge.deployment.schema import Name, Sha256, Strict
from edge.errors import DeploymentError

FILE: Final = "releases.json"
MAX_BYTES: Final = 64 << 10
"""Eight releases take 2 KB."""
MAX_RELEASES: Final = 8


class Release(Strict):
    """One deployment, offered to a part of the group.

    Attributes:
        manifest_bytes: Its size; a device fetches no more.
        percent: Share of the group's devices that it is for.
        halted: Offered to no further device; those that run it stay with it.
    """

    name: Name
    revision: int = Field(ge=1, le=2**53)
    manifest: Sha256
    manifest_bytes: int = Field(ge=1, le=256 << 10)
    percent: float = Field(ge=0, le=100, allow_inf_nan=False)
    halted: bool = False

    def includes(self, group: str, device: str) -> bool:
        """Whether the device may take it."""
        return not self.halted and position(group, device) < self.percent


class Releases(Strict):
    """The document."""

    v: Literal[1] = 1
    group: Name
    releases: Annotated[tuple[Release, ...], Field(strict=False, max_length=MAX_RELEASES)]

    @model_validator(mode="after")
    def _each_revision_once(self) -> Self:
        revisions = [release.revision for release in self.releases]
        for revision in revisions:
            if revisions.count(revision) > 1:
                raise ValueError(f"revision {revision} is released twice")
        return self

    def choose(self, device: str) -> Release | None:
        """Return what the device is to run: the highest revision that includes it."""
        offered = [each for each in self.releases if each.includes(self.group, device)]
        return max(offered, key=lambda release: release.revision, default=None)


def position(group: str, device: str) -> float:
    """Return where a device stands in its group's order, 0 to just below 100."""
    digest = hashlib.sha256(f"{group}/{device}".encode()).digest()
    return int.from_bytes(digest[:6], "big") * 100 / (1 << 48)


def read(content: bytes, where: str) -> Releases:
    """Read the document.

    Raises:
        DeploymentError: It is too large or not what it must be; the message lists every finding.
    """
    if len(content) > MAX_BYTES:
        raise DeploymentError(f"{where}: is larger than {MAX_BYTES} bytes")
    try:
        return Releases.model_validate_json(content)
    except ValidationError as invalid:
        raise DeploymentError(f"{where}: {explain(invalid)}") from None
