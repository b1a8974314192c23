"""A TUF repository of static files: its metadata read, changed, signed, and put into place.

```
metadata/N.root.json N.targets.json N.GROUP.json N.snapshot.json timestamp.json
targets/GROUP/releases.json GROUP/REVISION/PATH     each name with its sha256 in front
```

Root needs two of three keys, which belong offline; every other role has one. Files never change
once they are there, but for `timestamp.json`, which is replaced last: whoever reads while a release
is published sees the old state or the new one.
"""

import datetime as dt
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final, TypeVar

from securesystemslib.signer import SSlibKey
from tuf.api import exceptions
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Key,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from edge import durable
from edge.deployment.trust import MAX_METADATA_BYTES, SIGNED_AT
from edge.errors import DeploymentError
from edge.fleet.publisher.keys import KeyRing

VALID_DAYS: Final = {"timestamp": 45, "snapshot": 90, "targets": 365, "root": 3_650}
"""Of groups as of targets. A plant may be cut off for weeks, and a thief's time is bounded."""
RENEW_DAYS: Final = {"timestamp": 30, "snapshot": 45, "targets": 120, "root": 365}
"""A role with less than this left is renewed when anything is published."""
ROOT_KEYS: Final = 3
ROOT_THRESHOLD: Final = 2
DEPTH: Final = 6
"""Levels of GROUP/REVISION/PATH: a pattern of TUF matches one level at a time."""
MAX_PARTS: Final = DEPTH - 2
"""Parts that PATH may have: deeper ones no device would find signed."""
_SERIALIZER: Final = JSONSerializer(compact=True)
_VERSIONED: Final = re.compile(r"^([1-9][0-9]{0,8})\.(.+)\.json$")

T = TypeVar("T", Root, Targets, Snapshot, Timestamp)


class Repository:
    """The repository's metadata.

    Args:
        folder: Of the static files.
        keys: The private keys at hand.
        now: UTC.
    """

    def __init__(self, folder: Path, keys: KeyRing, now: dt.datetime) -> None:
        self._folder = folder
        self.metadata = folder / "metadata"
        self.targets = folder / "targets"
        self._keys = keys
        self._now = now.replace(microsecond=0)

    @classmethod
    def create(
        cls,
        folder: Path,
        keys: KeyRing,
        public: dict[str, list[SSlibKey]],
        groups: Iterable[str],
        now: dt.datetime,
    ) -> "Repository":
        """Make a repository without releases.

        Args:
            folder: Of the static files; must not hold a repository.
            keys: Every private key, to sign the first versions.
            public: The keys of each role; root's are signed for by two of them.
            groups: A delegated role each.
            now: UTC.

        Raises:
            DeploymentError: There is a repository already, or it cannot be written.
        """
        made = cls(folder, keys, now)
        if made.metadata.exists():
            raise DeploymentError(f"{folder}: holds a repository already")
        for each in (made.metadata, made.targets):
            made.make_folder(each)
        root = Root(consistent_snapshot=True)
        for role in ("root", "targets", "snapshot", "timestamp"):
            for key in public[role]:
                root.add_key(key, role)
        root.roles["root"].threshold = ROOT_THRESHOLD
        delegated = {
            group: DelegatedRole(
                group, [key.keyid for key in public[group]], 1, True, paths=_patterns(group)
            )
            for group in groups
        }
        keys_of_groups: dict[str, Key] = {
            key.keyid: key for group in delegated for key in public[group]
        }
        targets = Targets(delegations=Delegations(keys_of_groups, delegated))
        made.put("root", made.signed(Metadata(made._dated(root, "root")), root))
        made.put("targets", made.signed(Metadata(made._dated(targets, "targets")), root))
        for group in delegated:
            made.put(
                group, made.signed(Metadata(made._dated(Targets(), "targets")), targets, group)
            )
        made.refresh()
        return made

    def make_folder(self, path: Path) -> None:
        """Make a folder of the static files, and those above it; anybody may read them.

        Whatever the umask is: what a web server may not enter is not there for devices.

        Raises:
            DeploymentError: It cannot be made.
        """
        try:
            for each in reversed((path, *path.parents)):
                if each.is_relative_to(self._folder) and not each.exists():
                    each.mkdir(parents=True)
                    each.chmod(0o755)
        except OSError as failed:
            raise DeploymentError(f"{path}: cannot be made: {failed.strerror}") from failed

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups."""
        delegations = self.load(Targets, "targets").signed.delegations
        return tuple(delegations.roles or ()) if delegations else ()

    def version(self, role: str) -> int:
        """Return the newest version of a role that lies here; 0 where there is none."""
        found = [0]
        for path in self.metadata.glob(f"*.{role}.json"):
            matched = _VERSIONED.match(path.name)
            if matched and matched[2] == role:
                found.append(int(matched[1]))
        return max(found)

    def load(self, kind: type[T], role: str) -> Metadata[T]:
        """Return the newest metadata of a role.

        Raises:
            DeploymentError: It is not there, or is damaged.
        """
        name = f"{role}.json" if kind is Timestamp else f"{self.version(role)}.{role}.json"
        return read(kind, self.metadata / name)

    def next(self, role: str) -> Metadata[Targets]:
        """Return the next version of a group's metadata, or of `targets`: dated, not signed."""
        metadata = self.load(Targets, role)
        metadata.signed.version += 1
        self._dated(metadata.signed, "targets")
        metadata.signatures.clear()
        return metadata

    def signed(
        self, metadata: Metadata[T], delegator: Root | Targets, role: str = ""
    ) -> Metadata[T]:
        """Sign with every key at hand that the delegator names for the role.

        Raises:
            DeploymentError: They are fewer than the role needs; the message names those that miss.
        """
        role = role or metadata.signed.type
        for signer in self._keys.find(delegator.get_delegated_role(role).keyids):
            metadata.sign(signer, append=True)
        self.check(metadata, delegator, role)
        return metadata

    def can_sign(self, delegator: Root | Targets, role: str) -> bool:
        """Whether enough of a role's keys are at hand."""
        delegated = delegator.get_delegated_role(role)
        return len(self._keys.find(delegated.keyids)) >= delegated.threshold

    def rotate(self, role: str, keys: list[SSlibKey]) -> None:
        """Give a role new keys, revoke its old ones, and sign anew what they had signed.

        Devices follow by themselves, however long they were away: each version of root is signed
        by keys of the one before.

        Args:
            role: One of TUF's four, or a group.
            keys: Their private halves are at hand, as are the old ones of root, or of targets.

        Raises:
            DeploymentError: A key that must sign is not at hand, or there is no such role.
        """
        if role in self.groups:
            self._rotate_group(role, keys)
        else:
            self._rotate_top(role, keys)
        self.refresh()

    def _rotate_top(self, role: str, keys: list[SSlibKey]) -> None:
        before = self.load(Root, "root").signed
        if role not in before.roles:
            raise DeploymentError(f"there is no role and no group {role!r}")
        after = self.load(Root, "root")
        for keyid in list(after.signed.roles[role].keyids):
            after.signed.revoke_key(keyid, role)
        for key in keys:
            after.signed.add_key(key, role)
        after.signed.version += 1
        self._dated(after.signed, "root")
        after.signatures.clear()
        for signer in self._keys.find(
            {*before.roles["root"].keyids, *after.signed.roles["root"].keyids}
        ):
            after.sign(signer, append=True)
        for delegator in (before, after.signed):
            self.check(after, delegator, "root")
        self.put("root", after)
        if role == "targets":
            self.put(role, self.signed(self.next(role), after.signed))

    def _rotate_group(self, group: str, keys: list[SSlibKey]) -> None:
        root = self.load(Root, "root").signed
        targets = self.next("targets")
        for keyid in list(targets.signed.get_delegated_role(group).keyids):
            targets.signed.revoke_key(keyid, group)
        for key in keys:
            targets.signed.add_key(key, group)
        own = self.signed(self.next(group), targets.signed, group)
        self.put("targets", self.signed(targets, root))
        self.put(group, own)

    def check(self, metadata: Metadata[T], delegator: Root | Targets, role: str) -> None:
        """Hold metadata to the signatures that its role needs.

        Raises:
            DeploymentError: They are fewer than that.
        """
        found = delegator.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
        if not found.verified:
            missing = ", ".join(keyid[:12] for keyid in found.unsigned)
            raise DeploymentError(
                f"{role}: signed by {len(found.signed)} of the {found.threshold} keys that it "
                f"needs; missing among {missing} (edge fleet sign; name the folder that "
                "holds the key by --keys)"
            )

    def put(self, role: str, metadata: Metadata[T]) -> None:
        """Put metadata into its place, durably.

        Raises:
            DeploymentError: It is larger than devices take, or cannot be written.
        """
        name = f"{metadata.signed.version}.{role}.json" if role != "timestamp" else "timestamp.json"
        most = MAX_METADATA_BYTES[metadata.signed.type]
        if (size := len(metadata.to_bytes(_SERIALIZER))) > most:
            raise DeploymentError(
                f"{role}: takes {size} bytes, and devices read {most} at the most (fewer files in "
                "a deployment, or fewer groups in a fleet)"
            )
        write(metadata, self.metadata / name)

    def refresh(self) -> None:
        """Make snapshot and timestamp say what lies here, and renew what will soon expire.

        Raises:
            DeploymentError: A key is not at hand, or a file cannot be written.
        """
        root = self.load(Root, "root").signed
        described = {f"{role}.json": self._described(role) for role in ("targets", *self.groups)}
        if self.version("snapshot") == 0:
            self.put("snapshot", self._fresh(Snapshot(meta=described), root))
        else:
            snapshot = self.load(Snapshot, "snapshot")
            if (
                snapshot.signed.meta != described
                or self.soon_expires(snapshot.signed)
                or not holds(snapshot, root, "snapshot")
            ):
                snapshot.signed.meta = described
                snapshot.signed.version += 1
                self.put("snapshot", self._fresh(snapshot.signed, root))
        timestamp = Timestamp()
        if (self.metadata / "timestamp.json").exists():
            timestamp = self.load(Timestamp, "timestamp").signed
            timestamp.version += 1
        timestamp.snapshot_meta = self._described("snapshot")
        timestamp.unrecognized_fields[SIGNED_AT] = self._now.isoformat()
        self.put("timestamp", self._fresh(timestamp, root))

    def _fresh(self, signed: T, root: Root) -> Metadata[T]:
        return self.signed(Metadata(self._dated(signed, signed.type)), root)

    def soon_expires(self, signed: Root | Targets | Snapshot | Timestamp) -> bool:
        """Whether a role is to be renewed."""
        return signed.expires - self._now < dt.timedelta(days=RENEW_DAYS[signed.type])

    def _dated(self, signed: T, kind: str) -> T:
        signed.expires = self._now + dt.timedelta(days=VALID_DAYS[kind])
        return signed

    def _described(self, role: str) -> MetaFile:
        version = self.version(role)
        content = (self.metadata / f"{version}.{role}.json").read_bytes()
        return MetaFile.from_data(version, content, ["sha256"])


def holds(metadata: Metadata[T], delegator: Root | Targets, role: str) -> bool:
    """Whether the keys that the role has now have signed it."""
    return delegator.get_verification_result(
        role, metadata.signed_bytes, metadata.signatures
    ).verified


def read(kind: type[T], path: Path) -> Metadata[T]:
    """Read metadata of our own.

    Raises:
        DeploymentError: It is not there, or is damaged.
    """
    try:
        found: Metadata[T] = Metadata.from_bytes(path.read_bytes())
    except OSError as failed:
        raise DeploymentError(f"{path}: cannot be read: {failed.strerror}") from failed
    except exceptions.RepositoryError as wrong:
        raise DeploymentError(f"{path}: is no TUF metadata: {wrong}") from wrong
    if not isinstance(found.signed, kind):
        raise DeploymentError(f"{path}: is metadata of {found.signed.type}, not of {kind.type}")
    return found


def write(metadata: Metadata[T], path: Path) -> None:
    """Write metadata, whole and durably; anybody may read it.

    Raises:
        DeploymentError: It cannot be written.
    """
    try:
        durable.replace(path, metadata.to_bytes(_SERIALIZER), mode=0o644)
    except OSError as failed:
        raise DeploymentError(f"{path}: cannot be written: {failed.strerror}") from failed


def _patterns(group: str) -> list[str]:
    return [f"{group}/" + "/".join("*" * levels) for levels in range(1, DEPTH)]
