"""What the daemon and its fetch process say: one request, lines of progress, one outcome.

Apart from the process itself, so that the daemon carries neither TUF nor an HTTP client.
"""

import msgspec


class Known(msgspec.Struct, frozen=True):
    """A revision that this device knows, and the manifest that it stands for."""

    revision: int
    manifest: str


class Request(msgspec.Struct, frozen=True):
    """What to look for.

    Attributes:
        repository: Address, as `Transport` takes it.
        root: The root metadata that was installed with the device.
        folder: Of trust and store.
        deadline_s: For all of it.
        active: The deployment that it runs; None: it has none.
        known: What a repository has given this device before.
        keep: Digests of the deployments that stay in the store.
        barred: Revisions that are not to be offered again.
    """

    repository: str
    root: bytes
    group: str
    device: str
    folder: str
    deadline_s: float
    least_bytes_per_s: int
    store_bytes: int
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    active: Known | None = None
    known: tuple[Known, ...] = ()
    barred: tuple[int, ...] = ()
    keep: tuple[str, ...] = ()


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """A file is here: bytes of the deployment that are, of how many."""

    path: str
    held_bytes: int
    total_bytes: int


class Fetched(msgspec.Struct, frozen=True, tag="fetched"):
    """A deployment is here, whole."""

    name: str
    revision: int
    manifest: str
    received_bytes: int


class Nothing(msgspec.Struct, frozen=True, tag="nothing"):
    """There is nothing to do, and why."""

    detail: str
    received_bytes: int


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """It failed.

    Attributes:
        error: Class of the error: `UntrustedError`, `TransportError`, `StorageError`, ...
        revision: Of the release at fault; 0 where none was chosen yet.
    """

    error: str
    detail: str
    revision: int = 0


Line = Progress | Fetched | Nothing | Refused
Outcome = Fetched | Nothing | Refused
