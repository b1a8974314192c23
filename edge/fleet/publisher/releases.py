"""Releases: a deployment folder becomes signed files of a group, offered to a share of its devices.

Three steps, so that the key of a group may stay on another machine than the web server: `build`
writes a draft of the group's metadata, `sign` adds signatures to it, `publish` puts it into place.
Widening, halting and resuming a release wait for no draft: they are signed and in place at once.
"""

import contextlib
import datetime as dt
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Self

from pydantic import Field
from securesystemslib.signer import SSlibKey
from tuf.api.metadata import Metadata, Root, TargetFile, Targets

from edge import config, durable
from edge.config import BrokerSection, Section
from edge.deployment import pins, release
from edge.deployment.folder import LoadedDeployment, load_folder
from edge.deployment.release import MAX_RELEASES, Release, Releases
from edge.errors import ConfigError, DeploymentError
from edge.fleet.publisher import keys
from edge.fleet.publisher.keys import KeyRing
from edge.fleet.publisher.repository import MAX_PARTS, ROOT_KEYS, Repository, holds, read, write

SETTINGS: Final = "fleet.toml"
REPOSITORY: Final = "repository"
KEYS: Final = "keys"
ROOT: Final = "root.json"
_DRAFTS: Final = "drafts"
_LOCK: Final = "lock"
PATIENCE_S: Final = 15.0
"""For another command that changes the fleet; it takes a second or two."""
KEPT: Final = 3
"""Newest releases of a group that stay in its metadata; so does the one that most devices run."""
_MAX_NAME: Final = 64


class FleetConfig(Section):
    """`fleet.toml`: what the publisher's side of a fleet is set to."""

    name: str = Field("fleet", min_length=1, max_length=_MAX_NAME, description="For people.")
    broker: BrokerSection = Field(
        default_factory=BrokerSection, description="Where devices report, and hints are sent."
    )
    max_failed_percent: float = Field(
        5.0, ge=0, le=100, description="A rollout halts when more of its devices than that failed."
    )


class Fleet:
    """A fleet's folder.

    Args:
        folder: Made by `create`.
        key_folders: Where private keys are looked for beside `keys/`.
        now: UTC.

    Raises:
        ConfigError: `fleet.toml` is not there or unsound.
    """

    def __init__(
        self, folder: Path, key_folders: Iterable[Path] = (), now: dt.datetime | None = None
    ) -> None:
        self.folder = folder
        if not (folder / SETTINGS).is_file():
            raise ConfigError(folder, "is no fleet: it has no fleet.toml", "edge fleet init")
        self.settings = config.load_as(FleetConfig, folder / SETTINGS)
        ring = KeyRing((folder / KEYS, *key_folders))
        self.repository = Repository(folder / REPOSITORY, ring, now or dt.datetime.now(dt.UTC))
        self._held = False

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Change the fleet while no other command does; what changes it in there enters freely.

        Two that read the same version would each write the next one, and a device might see both.

        Raises:
            DeploymentError: Another command holds it, or the folder cannot be written.
        """
        if self._held:
            yield
            return
        try:
            descriptor = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as failed:
            raise DeploymentError(
                f"{self.folder / _LOCK}: cannot be opened: {failed.strerror}"
            ) from failed
        try:
            self._await_turn(descriptor)
            self._held = True
            durable.clear(self.folder, below=True)
            yield
        finally:
            self._held = False
            os.close(descriptor)

    def _await_turn(self, descriptor: int) -> None:
        ends = time.monotonic() + PATIENCE_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > ends:
                    raise DeploymentError(
                        f"{self.folder}: another command changes this fleet, and has for "
                        f"{PATIENCE_S:g} s (try again when it is done)"
                    ) from None
                time.sleep(0.05)
            else:
                return

    @classmethod
    def create(cls, folder: Path, groups: tuple[str, ...], name: str = "fleet") -> Self:
        """Make a fleet: keys, an empty repository, and the root file for its devices.

        Raises:
            DeploymentError: A group, or the fleet, has no usable name, something is in the way, or
                a file cannot be written.
        """
        if not (0 < len(name) <= _MAX_NAME and name.isprintable()):
            raise DeploymentError(
                f"{name!r} is no name of a fleet: 1 to {_MAX_NAME} printable characters"
            )
        for group in groups:
            if not config.is_group(group):
                raise DeploymentError(
                    f"{group!r} is no name of a group: letters, digits, - and _, at most 64, and "
                    "not that of a TUF role"
                )
        if (folder / SETTINGS).exists() or (folder / KEYS).exists():
            raise DeploymentError(f"{folder}: is a fleet already")
        names = {"root": [f"root-{n + 1}" for n in range(ROOT_KEYS)]}
        names |= {role: [role] for role in ("targets", "snapshot", "timestamp", *groups)}
        public = {
            role: [keys.create(folder / KEYS, each) for each in found]
            for role, found in names.items()
        }
        now = dt.datetime.now(dt.UTC)
        made = Repository.create(folder / REPOSITORY, KeyRing([folder / KEYS]), public, groups, now)
        shutil.copy(made.metadata / "1.root.json", folder / ROOT)
        text = (
            "# Settings of the publisher; docs/updates.md explains them.\n"
            # A JSON string of printable characters is one of TOML.
            f"name = {json.dumps(name, ensure_ascii=False)}\n\n"
            '[broker]\nhost = "127.0.0.1"\nport = 1883\n'
        )
        durable.replace(folder / SETTINGS, text.encode(), mode=0o644)
        return cls(folder, now=now)

    def releases(self, group: str) -> Releases:
        """Return what a group is offered now.

        Raises:
            DeploymentError: There is no such group, or its document is damaged.
        """
        self._known(group)
        target = self.repository.load(Targets, group).signed.targets.get(_document(group))
        if target is None:
            return Releases(group=group, releases=())
        path = self._place(target)
        try:
            return release.read(path.read_bytes(), str(path))
        except OSError as failed:
            raise DeploymentError(f"{path}: cannot be read: {failed.strerror}") from failed

    def drafts(self) -> list[str]:
        """Return the groups whose draft waits to be signed or published."""
        return sorted(path.stem for path in (self.folder / _DRAFTS).glob("*.json"))

    def build(self, group: str, deployment: Path, percent: float) -> Release:
        """Write a draft that releases a deployment folder.

        Args:
            group: To whom.
            deployment: A folder as a device loads it.
            percent: The share of the group's devices that it is for at first.

        Raises:
            DeploymentError: The folder is unsound, its revision is not above all that the group was
                offered, the percent is none, or a draft waits.
        """
        _hold_percent(percent)
        loaded = load_folder(deployment)  # a halt must not wait until a large model was read
        with self.alone():
            return self._build(group, deployment, loaded, percent)

    def _build(
        self, group: str, deployment: Path, loaded: LoadedDeployment, percent: float
    ) -> Release:
        for path in _files(loaded):
            if path.count("/") >= MAX_PARTS:
                raise DeploymentError(
                    f"{deployment}: {path} lies {path.count('/') + 1} levels deep; "
                    f"{MAX_PARTS} are signed for (move it up)"
                )
        section = loaded.manifest.deployment
        offered = self.releases(group).releases
        highest = max((each.revision for each in offered), default=0)
        if section.revision <= highest:
            raise DeploymentError(
                f"{deployment}: is revision {section.revision}, and group {group!r} was offered "
                f"{highest} (raise deployment.revision; old files may come again under a new one)"
            )
        made = Release(
            name=section.name,
            revision=section.revision,
            manifest=loaded.digest,
            manifest_bytes=(loaded.root / pins.MANIFEST).stat().st_size,
            percent=percent,
        )
        draft = self._draft(group)
        for path in _files(loaded):
            self._add(draft.signed, loaded.root / path, f"{group}/{made.revision}/{path}")
        self._offer(draft, group, (*_kept(offered), made))
        (self.folder / _DRAFTS).mkdir(exist_ok=True)
        write(draft, self._draft_path(group))
        return made

    def find(self, group: str, revision: int) -> Release:
        """Return a release of a group.

        Raises:
            DeploymentError: The group has none of that revision.
        """
        offered = self.releases(group).releases
        found = next((each for each in offered if each.revision == revision), None)
        if found is None:
            known = ", ".join(str(each.revision) for each in offered) or "none"
            raise DeploymentError(
                f"group {group!r} has no release of revision {revision}; it has {known}"
            )
        return found

    def change(
        self, group: str, revision: int, *, percent: float | None = None, halted: bool | None = None
    ) -> Release:
        """Widen, narrow, halt or resume a release, at once.

        A draft of the group that waits is overtaken by it, and is refused when it is published.

        Raises:
            DeploymentError: The group has no such release, the percent is none, or a key of group,
                snapshot or timestamp is not at hand.
        """
        if percent is not None:
            _hold_percent(percent)
        with self.alone():
            return self._change(group, revision, percent, halted)

    def _change(
        self, group: str, revision: int, percent: float | None, halted: bool | None
    ) -> Release:
        before = self.find(group, revision)
        changes: dict[str, float | bool] = {}
        if percent is not None:
            changes["percent"] = percent
        if halted is not None:
            changes["halted"] = halted
        after = Release.model_validate({**before.model_dump(), **changes})
        offered = self.releases(group).releases
        changed = self.repository.next(group)
        self._offer(changed, group, tuple(after if each == before else each for each in offered))
        targets = self.repository.load(Targets, "targets").signed
        self.repository.put(group, self.repository.signed(changed, targets, group))
        self._renew()
        self.repository.refresh()
        return after

    def sign(self, group: str) -> int:
        """Add the signatures of the keys at hand to a draft; return how many it bears.

        Raises:
            DeploymentError: No draft waits, or the group's key is not at hand.
        """
        with self.alone():
            draft = self._waiting(group)
            targets = self.repository.load(Targets, "targets").signed
            write(self.repository.signed(draft, targets, group), self._draft_path(group))
        return len(draft.signatures)

    def publish(self) -> list[str]:
        """Put all drafts into place, and make the repository say so; return their groups.

        It renews what will soon expire, also where a draft is not ready and so none is published: a
        nightly call keeps devices updating while a key is away.

        Raises:
            DeploymentError: A draft lacks signatures, or was overtaken by another one; or a key of
                snapshot or timestamp is missing.
        """
        with self.alone():
            targets = self.repository.load(Targets, "targets").signed
            waiting = self.drafts()
            drafts = {group: self._waiting(group) for group in waiting}
            try:
                for group, draft in drafts.items():
                    self._refuse_overtaken(group, draft)
                    self.repository.check(draft, targets, group)
                for group, draft in drafts.items():
                    self.repository.put(group, draft)
                    self._draft_path(group).unlink()
            finally:
                self._renew()
                self.repository.refresh()
        return waiting

    def rotate(self, role: str, made: list[SSlibKey]) -> None:
        """Give a role or a group new keys (`Repository.rotate`).

        Raises:
            DeploymentError: A key that must sign is not at hand, or there is no such role.
        """
        with self.alone():
            self.repository.rotate(role, made)

    def discard(self, group: str) -> None:
        """Drop a draft.

        Raises:
            DeploymentError: None waits.
        """
        with self.alone():
            self._waiting(group)
            self._draft_path(group).unlink()

    def _renew(self) -> None:
        """Sign anew what will soon expire, where the key is at hand.

        And what a rotation that was killed left signed by keys that count no more. A group whose
        draft waits is left for that, which would be overtaken.
        """
        root = self.repository.load(Root, "root").signed
        targets = self.repository.load(Targets, "targets").signed
        delegators: dict[str, Root | Targets] = {
            "targets": root,
            **dict.fromkeys(self.repository.groups, targets),
        }
        waiting = self.drafts()
        for role, delegator in delegators.items():
            standing = self.repository.load(Targets, role)
            due = self.repository.soon_expires(standing.signed) and role not in waiting
            if (due or not holds(standing, delegator, role)) and self.repository.can_sign(
                delegator, role
            ):
                fresh = self.repository.next(role)
                self.repository.put(role, self.repository.signed(fresh, delegator, role))

    def _draft(self, group: str) -> Metadata[Targets]:
        self._known(group)
        if self._draft_path(group).exists():
            raise DeploymentError(
                f"a draft of group {group!r} waits: publish it (edge fleet publish) or drop it "
                "(edge fleet discard)"
            )
        return self.repository.next(group)

    def _offer(self, metadata: Metadata[Targets], group: str, offered: tuple[Release, ...]) -> None:
        """Make metadata say what the group is offered, and forget the files of what it is not."""
        assert len(offered) <= MAX_RELEASES
        revisions = {str(each.revision) for each in offered}
        for path in list(metadata.signed.targets):
            _, _, rest = path.partition("/")
            if rest.partition("/")[0] not in revisions:
                del metadata.signed.targets[path]
        document = Releases(group=group, releases=offered).model_dump_json().encode()
        target = TargetFile.from_data(_document(group), document, ["sha256"])
        metadata.signed.targets[target.path] = target
        self._lay(target, document)

    def _add(self, signed: Targets, file: Path, path: str) -> None:
        content = file.read_bytes()
        target = TargetFile.from_data(path, content, ["sha256"])
        signed.targets[path] = target
        self._lay(target, content)

    def _lay(self, target: TargetFile, content: bytes) -> None:
        place = self._place(target)
        self.repository.make_folder(place.parent)
        try:
            if not place.exists() or place.read_bytes() != content:
                durable.replace(place, content, mode=0o644)
        except OSError as failed:
            raise DeploymentError(f"{place}: cannot be written: {failed.strerror}") from failed

    def _place(self, target: TargetFile) -> Path:
        path = self.repository.targets / target.path
        return path.with_name(f"{target.hashes['sha256']}.{path.name}")

    def _known(self, group: str) -> None:
        if group not in self.repository.groups:
            raise DeploymentError(
                f"the fleet has no group {group!r}; it has {', '.join(self.repository.groups)}"
            )

    def _refuse_overtaken(self, group: str, draft: Metadata[Targets]) -> None:
        """Refuse a draft that knows nothing of what its group was offered since."""
        standing = self.repository.load(Targets, group)
        # The very same lies there where a publisher died before the draft was gone.
        if draft.signed.version <= standing.signed.version and draft != standing:
            raise DeploymentError(
                f"the draft of group {group!r} is to be version {draft.signed.version} of its "
                f"metadata, and version {standing.signed.version} is published: it was made "
                "before, and would take that back (edge fleet discard, then build or change anew)"
            )

    def _draft_path(self, group: str) -> Path:
        return self.folder / _DRAFTS / f"{group}.json"

    def _waiting(self, group: str) -> Metadata[Targets]:
        self._known(group)
        if not self._draft_path(group).exists():
            raise DeploymentError(f"no draft of group {group!r} waits (edge fleet build makes one)")
        return read(Targets, self._draft_path(group))


def _kept(offered: tuple[Release, ...]) -> list[Release]:
    """Return the releases that stay beside a new one: the newest, and the one of most devices.

    Without that one a device that is new, or whose disk was replaced, would find nothing to run
    after a row of releases that were halted.
    """
    newest = sorted(offered, key=lambda each: each.revision)[-(KEPT - 1) :]
    going = [each for each in offered if not each.halted]
    most = max(going, key=lambda each: (each.percent, each.revision), default=None)
    return newest if most is None or most in newest else [most, *newest]


def _hold_percent(percent: float) -> None:
    if not 0 <= percent <= 100:  # noqa: PLR2004 - percent
        raise DeploymentError(f"{percent:g} is no percent of a group: expected 0 to 100")


def _document(group: str) -> str:
    return f"{group}/{release.FILE}"


def _files(loaded: LoadedDeployment) -> list[str]:
    pinned = (*pins.of_manifest(loaded.manifest), *pins.of_cards(loaded.manifest, loaded.cards))
    return [pins.MANIFEST, *(pin.path for pin in pinned)]
