"""What a repository may tell this device: TUF metadata, verified, and never older than what it saw.

python-tuf holds thresholds, expiry, hashes, and versions against its own cache. Obligations on top
of it, in their order:
 1. the chain of trust begins at the root file that was installed with the device, each time;
 2. every role's version is at least the highest that this device has ever accepted, even with an
    emptied cache (python-tuf then takes a rolled-back repository); it starts anew only with new
    keys of that role, as after a stolen key that signed a huge version;
 3. no metadata is accepted that had expired when newer one was signed: the time at which the
    publisher signed is a floor under this device's clock, which may say 1970; it too starts anew
    with new keys, as after a stolen one that signed in a far future;
 4. the time of this device moves no floor: a clock of 2099 must not lock updates out for good.
"""

import contextlib
import datetime as dt
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Final, NamedTuple

import msgspec
from tuf.api import exceptions
from tuf.api.metadata import Metadata, Root, Signed, Snapshot, TargetFile, Targets, Timestamp
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from edge import durable
from edge.deployment.transport import Transport
from edge.errors import AbsentError, StorageError, TransportError, UntrustedError

SIGNED_AT: Final = "x-edge-signed-at"
"""Field of the timestamp role: when the publisher signed it, RFC 3339 in UTC."""
METADATA: Final = "metadata"
TARGETS: Final = "targets"
"""Folders of a repository."""
MAX_METADATA_BYTES: Final = {
    Root.type: 64 << 10,
    Timestamp.type: 16 << 10,
    Snapshot.type: 256 << 10,
    Targets.type: 1 << 20,
}
"""The most that is read of each; of groups as of targets."""
_CONFIG: Final = UpdaterConfig(
    max_root_rotations=256,
    max_delegations=64,
    root_max_length=MAX_METADATA_BYTES[Root.type],
    timestamp_max_length=MAX_METADATA_BYTES[Timestamp.type],
    snapshot_max_length=MAX_METADATA_BYTES[Snapshot.type],
    targets_max_length=MAX_METADATA_BYTES[Targets.type],
)
_HIGH_WATER: Final = "high-water.json"


class Target(NamedTuple):
    """A signed file: where it lies in the repository, and what it must be."""

    path: str
    sha256: str
    bytes: int


class _Mark(msgspec.Struct, frozen=True):
    """The highest version of a role that was accepted, and the keys that signed for it."""

    version: Annotated[int, msgspec.Meta(ge=1)]
    keys: tuple[str, ...]


class _HighWater(msgspec.Struct, frozen=True):
    floor: dt.datetime = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    roles: dict[str, _Mark] = {}


class Trust:
    """A repository, as far as it may be believed.

    Args:
        folder: Where metadata and the high-water mark are kept.
        root: The root metadata that was installed with the device: version 1, or a later one.
        transport: Reads the repository.
        group: The device's group.
        now: Of this device's clock, for the words of errors.
    """

    def __init__(
        self, folder: Path, root: bytes, transport: Transport, group: str, now: dt.datetime
    ) -> None:
        self._folder = folder
        self._group = group
        self._now = now
        self._fetcher = _Fetcher(transport)
        self._updater = self._open(root)
        self._refreshed = False

    def target(self, name: str) -> Target | None:
        """Return a file of the group by its name below the group; None where there is none.

        The first call refreshes the metadata.

        Raises:
            UntrustedError: The repository breaks a rule; the message names it.
            TransportError: It cannot be read.
            StorageError: The metadata cannot be kept.
        """
        with self._translated():
            found = self._updater.get_targetinfo(f"{self._group}/{name}")
        if not self._refreshed:
            self._hold_to_high_water()
            self._refreshed = True
        return None if found is None else _target(found)

    def _open(self, root: bytes) -> Updater:
        with self._translated():
            (self._folder / METADATA).mkdir(parents=True, exist_ok=True, mode=0o700)
            return Updater(
                str(self._folder / METADATA),
                f"{METADATA}/",
                fetcher=self._fetcher,
                config=_CONFIG,
                bootstrap=root,  # 1
            )

    def _hold_to_high_water(self) -> None:
        seen = self._read_high_water()
        with self._translated():
            accepted, floor = self._accepted()
        _, keys = accepted[Timestamp.type]
        before = seen.roles.get(Timestamp.type)
        if before is None or before.keys == keys:
            floor = max(seen.floor, floor)
        for name, (signed, keys) in accepted.items():
            mark = seen.roles.get(name)
            if mark is not None and mark.keys == keys and signed.version < mark.version:  # 2
                raise UntrustedError(
                    f"rollback: the repository's {name} is version {signed.version}, and this "
                    f"device has accepted {mark.version} before"
                )
            if signed.is_expired(floor):  # 3
                raise UntrustedError(
                    f"freeze: the repository's {name} expired on {signed.expires:%Y-%m-%d}, and "
                    f"newer metadata was signed on {floor:%Y-%m-%d}; this clock says "
                    f"{self._now:%Y-%m-%d}"
                )
        roles = {name: _Mark(signed.version, keys) for name, (signed, keys) in accepted.items()}
        self._write_high_water(_HighWater(floor, {**seen.roles, **roles}), seen)

    def _accepted(self) -> tuple[dict[str, tuple[Signed, tuple[str, ...]]], dt.datetime]:
        """What python-tuf verified and kept: each role with its keys, and when it was signed."""
        root = Metadata[Root].from_file(self._file(Root.type)).signed
        timestamp = Metadata[Timestamp].from_file(self._file(Timestamp.type)).signed
        snapshot = Metadata[Snapshot].from_file(self._file(Snapshot.type)).signed
        targets = Metadata[Targets].from_file(self._file(Targets.type)).signed
        accepted: dict[str, tuple[Signed, tuple[str, ...]]] = {Root.type: (root, ())}
        for top in (timestamp, snapshot, targets):
            accepted[top.type] = (top, tuple(sorted(root.roles[top.type].keyids)))
        roles = targets.delegations.roles if targets.delegations else None
        if roles is not None and self._group in roles:
            group = Metadata[Targets].from_file(self._file(self._group)).signed
            accepted[self._group] = (group, tuple(sorted(roles[self._group].keyids)))
        return accepted, _signed_at(timestamp)

    def _file(self, role: str) -> str:
        return str(self._folder / METADATA / f"{role}.json")

    def _read_high_water(self) -> _HighWater:
        path = self._folder / _HIGH_WATER
        try:
            return msgspec.json.decode(path.read_bytes(), type=_HighWater)
        except FileNotFoundError:
            return _HighWater()
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as unusable:
            raise StorageError(
                f"{path}: cannot be read, so that a rollback would go unseen: {unusable} (if the "
                "repository is known to be sound, remove the file)"
            ) from unusable

    def _write_high_water(self, mark: _HighWater, before: _HighWater) -> None:
        if mark == before:
            return
        path = self._folder / _HIGH_WATER
        try:
            durable.replace(path, msgspec.json.encode(mark))
        except OSError as failed:
            raise durable.storage_error(str(path), failed) from failed

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except exceptions.ExpiredMetadataError as expired:
            raise UntrustedError(
                f"expired: {_words(expired)}; this clock says {self._now:%Y-%m-%d %H:%M} UTC (set "
                "the clock, or have the publisher renew: edge fleet renew)"
            ) from expired
        except exceptions.BadVersionNumberError as wrong:
            raise UntrustedError(f"rollback: {_words(wrong)}") from wrong
        except exceptions.UnsignedMetadataError as wrong:
            raise UntrustedError(f"signatures: {_words(wrong)}") from wrong
        except exceptions.DownloadLengthMismatchError as wrong:
            raise UntrustedError(
                f"endless metadata: {self._fetcher.asked}: {_words(wrong)}"
            ) from wrong
        except (exceptions.LengthOrHashMismatchError, exceptions.RepositoryError) as wrong:
            raise UntrustedError(
                f"metadata: {self._fetcher.asked}: {_words(wrong)} (it was changed, does "
                "not fit the rest, or is no metadata at all: the page of a portal, say)"
            ) from wrong
        except exceptions.DownloadError as failed:
            raise TransportError(_words(failed.__cause__ or failed)) from failed
        except OSError as failed:
            raise durable.storage_error(str(self._folder), failed) from failed


class _Fetcher(FetcherInterface):
    """Our transport in python-tuf's place for one.

    Attributes:
        asked: What was asked for last; whatever is wrong is wrong with it.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.asked = "root.json"

    def _fetch(self, url: str) -> Iterator[bytes]:
        self.asked = url
        stack = contextlib.ExitStack()
        try:
            stream = stack.enter_context(self._transport.open(url))
        except AbsentError as absent:
            raise exceptions.DownloadHTTPError(str(absent), 404) from absent
        return _closing(stack, stream.chunks)


def _closing(stack: contextlib.ExitStack, chunks: Iterator[bytes]) -> Iterator[bytes]:
    with stack:
        yield from chunks


def _target(found: TargetFile) -> Target:
    # It becomes the name of a file here, and python-tuf takes any text for one.
    sha256 = found.hashes.get("sha256", "")
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise UntrustedError(f"{found.path}: is signed without a sha256")
    path = PurePosixPath(TARGETS) / found.path
    return Target(str(path.with_name(f"{sha256}.{path.name}")), sha256, found.length)


def _signed_at(timestamp: Signed) -> dt.datetime:
    said = timestamp.unrecognized_fields.get(SIGNED_AT)
    try:
        when = dt.datetime.fromisoformat(str(said))
        if when.tzinfo is None or when > timestamp.expires:
            raise ValueError
    except ValueError:
        raise UntrustedError(
            f"the repository's timestamp says {said!r} for {SIGNED_AT}, which is no time in UTC "
            "before its expiry: it was not made by edge fleet"
        ) from None
    return when


def _words(failed: BaseException) -> str:
    return " ".join(str(failed).split()) or type(failed).__name__
