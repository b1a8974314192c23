"""The deployments of this device: its journal on disk, and the store beside it.

One process writes here, the daemon, which holds the lock of its storage folder. Every change is
durable before it is acted on; a change that cannot be written is no change. Methods may be called
from any thread: a disk that takes its time must not hold up the daemon's event loop.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from edge import durable
from edge.deployment import rollout
from edge.deployment.folder import LoadedDeployment, load_folder
from edge.deployment.rollout import Deployed, Event, Journal, State, Step
from edge.deployment.store import Store
from edge.errors import DeploymentError, UntrustedError

FOLDER: Final = "deployments"
"""Below `storage.path`."""
_JOURNAL: Final = "journal.json"
_MAX_JOURNAL_BYTES: Final = 4 << 20


class Installed:
    """What is installed, and what runs.

    Args:
        folder: Made where it is absent.
        store_bytes: The most that fetched files may take.
        now_ns: UTC.

    Attributes:
        folder: As given.
        store: The files.
        undone: Failures of deployments that the start found; it tells nobody by itself.

    Raises:
        StorageError: The folder or the journal cannot be used.
    """

    def __init__(self, folder: Path, store_bytes: int, now_ns: Callable[[], int]) -> None:
        self.folder = folder
        self.store = Store(folder, store_bytes)
        self._now_ns = now_ns
        self._writing = threading.Lock()
        self._journal = read_journal(folder)
        self.undone: tuple[Step, ...] = ()

    @property
    def journal(self) -> Journal:
        """What is remembered."""
        return self._journal

    def settled(self) -> Journal:
        """Return the journal once no change is under way: what others read on disk."""
        with self._writing:
            return self._journal

    def advance(
        self,
        event: Event,
        *,
        offered: Deployed | None = None,
        reason: str = "",
        detail: str = "",
        evidence: dict[str, Any] | None = None,
    ) -> Journal:
        """Take an event, as `rollout.advance` does; on return it is durable.

        Raises:
            StorageError: It could not be written; nothing has changed.
        """
        with self._writing:
            after = rollout.advance(
                self._journal,
                event,
                self._now_ns(),
                offered=offered,
                reason=reason,
                detail=detail,
                evidence=evidence,
            )
            self._write(after)
            return after

    def pin(self, *, pinned: bool) -> None:
        """Take no deployment but by hand, or take them again.

        Raises:
            StorageError: It could not be written; nothing has changed.
        """
        with self._writing:
            self._write(rollout.pinned(self._journal, pinned))

    def load(self, deployed: Deployed) -> LoadedDeployment:
        """Read a deployment of the store, every file compared with its digest.

        Raises:
            UntrustedError: A file is not the pinned one.
            DeploymentError: It is not there, or unsound.
        """
        loaded = load_folder(self.store.deployments / deployed.digest)
        if loaded.digest != deployed.digest:
            raise UntrustedError(
                f"{loaded.root}: its manifest has sha256 {loaded.digest[:12]}, and the folder is "
                f"that of {deployed.digest[:12]}"
            )
        return loaded.as_signed() if deployed.signed else loaded

    def start(self) -> LoadedDeployment | None:
        """Begin a run of the daemon: return what it is to run; None where there is nothing yet.

        A deployment on probation that cannot be loaded has failed. One that was committed and
        cannot be loaded any more gives way to its predecessor; where there is none, the device has
        no deployment, and the next look fetches it anew.

        Raises:
            DeploymentError: Neither the active deployment nor the one before can be loaded.
            StorageError: The journal cannot be written.
        """
        before = self._journal.history
        try:
            return self._start()
        finally:
            self.undone = tuple(step for step in self._journal.history if step not in before)

    def _start(self) -> LoadedDeployment | None:
        self._write(rollout.advance(self._journal, Event.STARTED, self._now_ns()))
        unreadable: DeploymentError | None = None
        while (active := self._journal.active) is not None:
            try:
                return self.load(active)
            except DeploymentError as broken:
                unreadable = broken
                self.store.forget(active.digest)  # whatever is left of it is fetched anew
                if self._journal.state is State.PROBATION:
                    self.advance(Event.FAILED, reason="unreadable", detail=str(broken))
                else:
                    self._write(rollout.fallen_back(self._journal, self._now_ns(), str(broken)))
        if unreadable is not None:
            raise unreadable
        return None

    def collect(self) -> int:
        """Remove what no deployment needs; return the bytes that were freed.

        Raises:
            StorageError: The disk failed.
        """
        return self.store.collect(self._journal.needed)

    def _write(self, journal: Journal) -> None:
        if journal == self._journal:
            return
        path = self.folder / _JOURNAL
        try:
            durable.replace(path, rollout.encode(journal))
        except OSError as failed:
            raise durable.storage_error(f"{path}: cannot be written", failed) from failed
        self._journal = journal


def read_journal(folder: Path) -> Journal:
    """Read the journal of a device's deployments; an empty one where there is none yet.

    Raises:
        StorageError: It cannot be read.
    """
    path = folder / _JOURNAL
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_JOURNAL_BYTES)
    except FileNotFoundError:
        return Journal()
    except OSError as failed:
        raise durable.storage_error(f"{path}: cannot be read", failed) from failed
    return rollout.decode(content, str(path))
