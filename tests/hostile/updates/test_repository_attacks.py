"""A repository that attacks: each attempt is refused, named in the error, and what runs, runs on.

The control of every test here is its first lines: the same device takes what the sound repository
offers.
"""

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from repositories import (
    GROUP,
    NOW,
    Device,
    Publisher,
    days,
    serving,
    signed_at,
    spoil,
)
from tuf.api.metadata import TargetFile, Targets

from edge.config import UpdateSection, explain
from edge.deployment.fetch_messages import Fetched, Refused
from edge.deployment.release import Release, Releases
from edge.fleet.publisher import keys, repository


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    """A fleet that has released revision 1."""
    made = Publisher(tmp_path, (GROUP, "other"))
    made.release(1)
    return made


@pytest.fixture
def device(tmp_path: Path, publisher: Publisher) -> Device:
    """A device that runs revision 1."""
    made = Device(tmp_path / "device", publisher)
    made.takes(publisher.web, 1)
    return made


def _emptied(device: Device) -> None:
    """Take away all that python-tuf keeps."""
    shutil.rmtree(device.folder / "metadata")


def _offer(publisher: Publisher, change: Callable[[Targets], object]) -> None:
    publisher.resign(GROUP, change)


def _say(publisher: Publisher, *releases: Release, group: str = GROUP) -> None:
    """Have the group's document say this, with its own key."""
    document = Releases.model_construct(v=1, group=group, releases=releases)
    content = document.model_dump_json(warnings=False).encode()
    _offer(publisher, lambda signed: publisher.lay(signed, f"{GROUP}/releases.json", content))


@pytest.mark.parametrize("emptied", [False, True])
def test_a_rolled_back_repository_is_refused(
    device: Device, publisher: Publisher, emptied: bool
) -> None:
    old = publisher.copy("old")
    publisher.release(2)
    device.takes(publisher.web, 2)
    if emptied:
        _emptied(device)
    device.refused(old, "UntrustedError", "rollback")
    device.finds_nothing(publisher.web, "revision 2 runs")


def test_a_rollback_with_emptied_caches_goes_unseen_without_the_high_water_mark(
    device: Device, publisher: Publisher
) -> None:
    """The control of the test above: that mark is what holds it."""
    old = publisher.copy("old")
    publisher.release(2)
    device.takes(publisher.web, 2)
    _emptied(device)
    (device.folder / "high-water.json").unlink()
    device.finds_nothing(old, "revision 2 runs")  # only the revision holds it now
    device.running = None
    device.takes(old, 1)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{}", b"\x00" * 200, b'{"floor":"never"}', b"[" * 9_000),
        b'{"roles":{"\xff":{"version":1,"keys":[]}}}',
    ],
)
def test_a_corrupted_high_water_mark_blocks_updates_and_names_the_remedy(
    device: Device, publisher: Publisher, content: bytes
) -> None:
    mark = device.folder / "high-water.json"
    mark.write_bytes(content)
    publisher.release(2)
    if content == b"{}":  # a whole mark that says nothing: the caches still hold
        device.takes(publisher.web, 2)
        return
    device.refused(publisher.web, "StorageError", "high-water.json", "remove the file")
    mark.unlink()
    device.takes(publisher.web, 2)


@pytest.mark.parametrize("content", [b"", b"\x00" * 4_096, b"{" * 20_000, None])
def test_corrupted_and_emptied_metadata_caches_are_fetched_anew(
    device: Device, publisher: Publisher, content: bytes | None
) -> None:
    for path in (device.folder / "metadata").rglob("*.json"):
        path.unlink() if content is None else path.write_bytes(content)
    publisher.release(2)
    device.takes(publisher.web, 2)


def test_a_frozen_repository_is_refused_when_it_expires(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path)
    publisher.release(1)
    past = publisher.at(NOW - days(60))
    past.resign("timestamp", signed_at(NOW - days(60)))
    past.resign("timestamp", lambda t: setattr(t, "expires", NOW - days(15)))
    device = Device(tmp_path / "device", publisher)
    device.refused(publisher.web, "UntrustedError", "expired", "this clock says", "edge fleet")


def test_a_freeze_is_seen_although_the_clock_is_slow(device: Device, publisher: Publisher) -> None:
    """Metadata that this clock takes for valid, and that had run out when the publisher signed."""
    frozen = publisher.copy("frozen")
    later = publisher.at(NOW + days(60))
    later.resign("timestamp", signed_at(NOW + days(60)))
    device.finds_nothing(publisher.web)
    device.refused(frozen, "UntrustedError", "rollback")
    _emptied(device)
    device.refused(frozen, "UntrustedError", "rollback")


def test_a_role_that_ran_out_before_the_timestamp_was_signed_is_refused(
    device: Device, publisher: Publisher
) -> None:
    publisher.resign("timestamp", signed_at(NOW + days(100)))  # the snapshot is for 90 days
    device.refused(publisher.web, "UntrustedError", "freeze", "snapshot", "this clock says")


@pytest.mark.parametrize("said", [None, "yesterday", "2026-11-22T10:00:00", 7, "9999-12-31T00:00Z"])
def test_a_timestamp_that_does_not_say_when_it_was_signed_is_refused(
    device: Device, publisher: Publisher, said: object
) -> None:
    def change(timestamp: Any) -> None:
        timestamp.version += 1
        timestamp.unrecognized_fields["x-edge-signed-at"] = said

    publisher.resign("timestamp", change)
    device.refused(publisher.web, "UntrustedError", "x-edge-signed-at", "not made by edge fleet")


def test_mixed_metadata_is_refused(device: Device, publisher: Publisher) -> None:
    """Roles of two states of one repository, each soundly signed."""
    old = publisher.copy("old")
    publisher.release(2)
    number = publisher.fleet.repository.version("snapshot")
    mixed = publisher.copy("mixed2")
    shutil.copy(
        old / f"metadata/{number - 1}.snapshot.json", mixed / f"metadata/{number}.snapshot.json"
    )
    device.refused(mixed, "UntrustedError", "metadata", "snapshot")
    mixed = publisher.copy("mixed")
    number = publisher.fleet.repository.version(GROUP)
    shutil.copy(
        old / f"metadata/{number - 1}.{GROUP}.json", mixed / f"metadata/{number}.{GROUP}.json"
    )
    device.refused(mixed, "UntrustedError", "metadata", GROUP)
    device.takes(publisher.web, 2)


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", GROUP])
@pytest.mark.parametrize(
    "spoiling",
    ["changed", "truncated", "garbage", "deep", "empty", "another kind"],
)
def test_tampered_metadata_is_refused(
    device: Device, publisher: Publisher, role: str, spoiling: str
) -> None:
    publisher.release(2)
    if role == "targets":
        publisher.resign("targets", lambda _: None)
    repository = publisher.fleet.repository
    name = "timestamp.json" if role == "timestamp" else f"{repository.version(role)}.{role}.json"
    web = publisher.copy("tampered")
    file = web / "metadata" / name
    match spoiling:
        case "changed":
            spoil(
                file, lambda found: found["signed"].update(version=found["signed"]["version"] + 5)
            )
        case "truncated":
            file.write_bytes(file.read_bytes()[:-20])
        case "garbage":
            file.write_bytes(b"<html>log in to the plant's network</html>")
        case "deep":
            file.write_bytes(b"[" * 15_000)
        case "empty":
            file.write_bytes(b"")
        case _:
            shutil.copy(web / "metadata" / "1.root.json", file)
    device.refused(web, "UntrustedError", "metadata" if spoiling != "changed" else "")
    device.takes(publisher.web, 2)


@pytest.mark.parametrize("change", ["changed", "truncated", "longer", "absent", "empty"])
@pytest.mark.parametrize("name", ["manifest.toml", "board.int8.onnx", "releases.json"])
def test_tampered_targets_are_refused_and_not_kept(
    device: Device, publisher: Publisher, name: str, change: str
) -> None:
    publisher.release(2, model=b"another model" * 1_000)
    web = publisher.copy("tampered")
    for file in web.rglob(f"*.{name}"):
        content = file.read_bytes()
        match change:
            case "changed":
                file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
            case "truncated":
                file.write_bytes(content[:-1])
            case "longer":
                file.write_bytes(content + b"!")
            case "empty":
                file.write_bytes(b"")
            case _:
                file.unlink()
    error, words = {
        "changed": ("UntrustedError", "what the repository sends is not the signed file"),
        "truncated": ("TransportError", "ended 1 bytes early"),
        "longer": ("UntrustedError", "sends more than its"),
        "empty": ("TransportError", "early"),
        "absent": ("TransportError", "is not there"),
    }[change]
    device.refused(web, error, name, words)
    device.takes(publisher.web, 2)


def test_metadata_signed_by_a_foreign_key_is_refused(
    device: Device, publisher: Publisher, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    thief = Publisher(tmp_path / "elsewhere", (GROUP, "other"))
    thief.release(2)
    device.refused(thief.web, "UntrustedError", "signatures")
    publisher.resign(GROUP, lambda _: None, keys_of="other")
    device.refused(publisher.web, "UntrustedError", "signatures", GROUP)
    assert list(device.folder.glob("deployments/*"))


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", GROUP])
def test_a_revoked_key_counts_for_nothing(device: Device, publisher: Publisher, role: str) -> None:
    fleet = publisher.fleet
    old_keys = fleet.folder / "old-keys"
    old_keys.mkdir()
    shutil.move(fleet.folder / "keys" / f"{role}.pem", old_keys)
    made = keys.create(fleet.folder / "keys", f"{role}.1")
    rotating = type(fleet)(fleet.folder, [old_keys])
    rotating.repository.rotate(role, [made])
    publisher.fleet = type(fleet)(fleet.folder)
    publisher.release(2)
    device.takes(publisher.web, 2)
    # The thief of the old key signs what comes next.
    thief = type(fleet)(fleet.folder, [old_keys]).repository
    metadata = thief.load(_kind(role), role)
    metadata.signed.version += 1
    metadata.signatures.clear()
    (signer,) = keys.KeyRing([old_keys]).find([*_keyids(old_keys)])
    metadata.sign(signer)
    name = "timestamp" if role == "timestamp" else f"{metadata.signed.version}.{role}"
    (thief.metadata / f"{name}.json").write_bytes(metadata.to_bytes())
    if role != "timestamp":
        publisher._describe(role)
    device.refused(publisher.web, "UntrustedError", "signatures", role)


@pytest.mark.parametrize("writes", [0, 1, 2])
@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets", GROUP])
def test_a_rotation_that_was_killed_is_completed_by_the_next_publication(
    device: Device,
    publisher: Publisher,
    monkeypatch: pytest.MonkeyPatch,
    role: str,
    writes: int,
) -> None:
    fleet = publisher.fleet
    names = [f"root-{n}.1" for n in (1, 2, 3)] if role == "root" else [f"{role}.1"]
    made = [keys.create(fleet.folder / "keys", name) for name in names]
    left = iter(range(writes))

    def write(metadata: Any, path: Path, sound: Any = repository.write) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        sound(metadata, path)

    with monkeypatch.context() as killing:
        killing.setattr(repository, "write", write)
        with contextlib.suppress(KeyboardInterrupt):  # some take two writes and are done
            type(fleet)(fleet.folder).rotate(role, made)
    publisher.fleet = type(fleet)(fleet.folder)
    publisher.fleet.publish()
    device.finds_nothing(publisher.web)
    publisher.release(2)
    device.takes(publisher.web, 2)


def _kind(role: str) -> Any:
    from tuf.api.metadata import Snapshot, Timestamp

    return {"snapshot": Snapshot, "timestamp": Timestamp}.get(role, Targets)


def _keyids(folder: Path) -> list[str]:
    return list(keys.KeyRing([folder])._signers)


def test_a_root_that_too_few_have_signed_is_refused(device: Device, publisher: Publisher) -> None:
    publisher.resign("root", lambda _: None)
    root = publisher.web / "metadata" / "2.root.json"

    def one(found: dict[str, Any]) -> None:
        found["signatures"] = found["signatures"][:1]

    spoil(root, one)
    device.refused(publisher.web, "UntrustedError", "signatures", "root")

    def twice(found: dict[str, Any]) -> None:
        found["signatures"] = found["signatures"][:1] * 2

    spoil(root, twice)
    device.refused(publisher.web, "UntrustedError")


def test_one_group_may_not_speak_for_another(device: Device, publisher: Publisher) -> None:
    """The key of group `other` signs files below `press/`."""
    document = Releases(group=GROUP, releases=()).model_dump_json().encode()
    publisher.resign("other", lambda s: publisher.lay(s, f"{GROUP}/evil.json", document))
    device.finds_nothing(publisher.web)
    own = publisher.fleet.releases(GROUP)
    publisher.resign(GROUP, lambda s: s.targets.pop(f"{GROUP}/releases.json"))
    publisher.resign(
        "other",
        lambda s: publisher.lay(s, f"{GROUP}/releases.json", own.model_dump_json().encode()),
    )
    device.finds_nothing(publisher.web, "no releases for group")
    web = publisher.copy("swapped")
    number = publisher.fleet.repository.version(GROUP)
    other = publisher.fleet.repository.version("other")
    shutil.copy(web / f"metadata/{other}.other.json", web / f"metadata/{number}.{GROUP}.json")
    shutil.rmtree(device.folder / "metadata")
    device.refused(web, "UntrustedError")


def test_a_group_that_is_not_there_is_told(publisher: Publisher, tmp_path: Path) -> None:
    stranger = Device(tmp_path / "stranger", publisher, group="nowhere")
    stranger.finds_nothing(publisher.web, "no releases for group 'nowhere'")


def test_a_document_for_another_group_is_refused(device: Device, publisher: Publisher) -> None:
    _say(publisher, group="other")
    device.refused(publisher.web, "UntrustedError", "speaks of 'other'")


def _released(publisher: Publisher, **changes: Any) -> Release:
    (release,) = publisher.fleet.releases(GROUP).releases
    return Release.model_construct(**{**release.model_dump(), **changes})


def test_two_manifests_for_one_revision_are_refused(device: Device, publisher: Publisher) -> None:
    one, other = _released(publisher), _released(publisher, manifest="b" * 64)
    _say(publisher, one, other)
    device.refused(publisher.web, "DeploymentError", "revision 1 is released twice")
    _say(publisher, other)
    device.refused(publisher.web, "UntrustedError", "revision 1 was manifest", "never changes")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"revision": 2}, "released as bench revision 2, but its manifest says bench revision 1"),
        ({"name": "pump", "revision": 2}, "released as pump"),
    ],
)
def test_a_manifest_that_is_not_what_was_released_is_refused(
    device: Device, publisher: Publisher, changes: dict[str, Any], words: str
) -> None:
    content = next(publisher.web.rglob("*.manifest.toml")).read_bytes()
    _say(publisher, _released(publisher, **changes))
    _offer(publisher, lambda s: publisher.lay(s, f"{GROUP}/2/manifest.toml", content))
    refused = device.refused(publisher.web, "UntrustedError", words)
    assert refused.revision == 2


@pytest.mark.parametrize("path", ["guests/pre.wasm", "model/card.toml", "model/board.int8.onnx"])
def test_a_pinned_file_that_is_not_signed_is_refused(
    device: Device, publisher: Publisher, path: str
) -> None:
    publisher.release(2)
    _offer(publisher, lambda s: s.targets.pop(f"{GROUP}/2/{path}"))
    device.refused(publisher.web, "UntrustedError", path, "is pinned, but no signed file")


def test_a_file_signed_as_another_than_is_pinned_is_refused(
    device: Device, publisher: Publisher
) -> None:
    publisher.release(2)
    path = f"{GROUP}/2/guests/pre.wasm"
    _offer(publisher, lambda s: publisher.lay(s, path, b"evil"))
    device.refused(publisher.web, "UntrustedError", "guests/pre.wasm", "and signed as")


@pytest.mark.parametrize("path", ["manifest.toml", "model/card.toml", "guests/pre.wasm"])
def test_oversized_files_are_refused_before_a_byte_of_them_moves(
    device: Device, publisher: Publisher, path: str
) -> None:
    publisher.release(2)

    def grow(signed: Targets) -> None:
        signed.targets[f"{GROUP}/2/{path}"].length = 1 << 40

    _offer(publisher, grow)
    with serving(publisher.web) as site:
        device.refused(site.address, "UntrustedError", path, "1099511627776 bytes; at most")
        assert not [asked for asked, _ in site.asked if asked.endswith(path.rpartition("/")[2])]


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[" * 60_000,
        b'{"v":2,"group":"press","releases":[]}',
        b'{"v":1,"group":"../../etc","releases":[]}',
        b'{"v":1,"group":"press","releases":[],"more":1}',
        b"\xff\xfe",
        b'{"v":1,"group":"press","releases":[{"name":"../../x","revision":2,"manifest":"../../../x",'
        b'"manifest_bytes":1,"percent":1e999}]}',
    ],
)
def test_a_document_of_nonsense_is_refused_in_one_sentence(
    device: Device, publisher: Publisher, document: bytes
) -> None:
    _offer(publisher, lambda s: publisher.lay(s, f"{GROUP}/releases.json", document))
    outcome = device.refused(publisher.web, "DeploymentError", "press/releases.json")
    assert len(outcome.detail) < 2_000


def test_a_document_without_end_is_refused(device: Device, publisher: Publisher) -> None:
    _offer(publisher, lambda s: publisher.lay(s, f"{GROUP}/releases.json", b" " * (65 << 10)))
    before = list((device.folder / "blobs").iterdir())
    device.refused(publisher.web, "UntrustedError", "are taken")
    assert list((device.folder / "blobs").iterdir()) == before  # not a byte of it was fetched


@pytest.mark.parametrize(
    "path",
    ["../../evil.wasm", "/etc/passwd", "guests/../../x", ".hidden/x", "a//b", "C:\\x", "x\\n"],
)
def test_a_manifest_whose_paths_leave_its_folder_is_refused(
    device: Device, publisher: Publisher, tmp_path: Path, path: str
) -> None:
    content = next(publisher.web.rglob("*.manifest.toml")).read_text()
    content = content.replace("revision = 1", "revision = 2")
    content = content.replace('"guests/pre.wasm"', f"'{path}'")
    raw = content.encode()
    import hashlib

    digest = hashlib.sha256(raw).hexdigest()
    _say(
        publisher,
        _released(publisher, revision=2, manifest=digest, manifest_bytes=len(raw)),
    )
    _offer(publisher, lambda s: publisher.lay(s, f"{GROUP}/2/manifest.toml", raw))
    before = sorted(tmp_path.rglob("*evil*"))
    device.refused(publisher.web, "DeploymentError", "path")
    assert sorted(tmp_path.rglob("*evil*")) == before


def test_names_of_targets_that_leave_the_repository_reach_nothing(
    device: Device, publisher: Publisher, tmp_path: Path
) -> None:
    """Only names that the device makes of checked parts are asked for; a signed one is no path."""
    secret = tmp_path / "secret"
    secret.write_text("secret")

    def name(signed: Targets) -> None:
        for path in ("press/../../secret", "../secret", "press/%2e%2e/secret"):
            signed.targets[path] = TargetFile.from_data(path, b"secret", ["sha256"])

    _offer(publisher, name)
    with serving(publisher.web) as site:
        device.finds_nothing(site.address)
        assert not [asked for asked, _ in site.asked if "secret" in asked]


def test_a_fast_forward_attack_is_recovered_from_by_new_keys(
    device: Device, publisher: Publisher
) -> None:
    """A thief of all online keys signed huge versions, in a far future; new keys undo all of it."""
    sound = publisher.copy("sound")

    def far(signed: Any) -> None:
        signed.version = 10**8
        signed.expires = NOW + days(900_000)

    for role in (GROUP, "targets", "snapshot"):
        publisher.resign(role, far)
    publisher.resign("timestamp", far)
    publisher.resign("timestamp", signed_at(NOW + days(3_000)))
    device.finds_nothing(publisher.web)
    shutil.rmtree(publisher.web)
    shutil.copytree(sound, publisher.web)
    device.refused(publisher.web, "UntrustedError", "rollback")
    for role in ("timestamp", "snapshot", "targets", GROUP):
        made = keys.create(publisher.fleet.folder / "keys", f"{role}.1")
        type(publisher.fleet)(publisher.fleet.folder).repository.rotate(role, [made])
    publisher.fleet = type(publisher.fleet)(publisher.fleet.folder)
    publisher.release(2)
    device.takes(publisher.web, 2)


def test_a_year_offline_and_every_key_rotated_is_caught_up_with(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path).at(NOW - days(380))
    publisher.release(1)
    device = Device(tmp_path / "device", publisher)
    for number in range(12):
        for role in ("root", "timestamp", "snapshot", "targets", GROUP):
            names = (
                [f"root-{n}.{number}" for n in (1, 2, 3)]
                if role == "root"
                else [f"{role}.{number}"]
            )
            made = [keys.create(publisher.fleet.folder / "keys", name) for name in names]
            publisher.at(NOW - days(380 - 30 * number)).fleet.repository.rotate(role, made)
    publisher = publisher.at(NOW)
    publisher.release(2)
    device.takes(publisher.web, 2)


def test_a_repository_that_changes_while_it_is_read_gives_the_old_state_or_the_new(
    tmp_path: Path,
) -> None:
    publisher = Publisher(tmp_path)
    publisher.release(1)
    with serving(publisher.web) as site:
        for step in ("root.json", "timestamp.json", "snapshot.json", f"{GROUP}.json", "manifest"):
            revision = publisher.fleet.releases(GROUP).releases[-1].revision
            device = Device(tmp_path / f"device-{revision}", publisher)

            def publish(exchange: Any, revision: int = revision, step: str = step) -> None:
                from repositories import soundly

                if site.rules.pop(step, None):
                    publisher.release(revision + 1)
                soundly(exchange)

            site.rules[step] = publish
            outcome = device.look(site.address)
            assert isinstance(outcome, Fetched), outcome
            assert outcome.revision in (revision, revision + 1)
            assert step not in site.rules, "it was published meanwhile"


def test_an_update_refused_leaves_no_secret_and_no_traceback_in_its_sentence(
    device: Device, publisher: Publisher
) -> None:
    outcome = device.look("http://operator:hunter2@127.0.0.1:9/repository")
    assert isinstance(outcome, Refused)
    assert outcome.error == "ConfigError"
    assert "hunter2" not in outcome.detail
    for address in ("http://[bad", "ftp://x/y", "http://host:port/", "http://host/?token=hunter2"):
        outcome = device.look(address)
        assert isinstance(outcome, Refused)
        assert outcome.error == "ConfigError", outcome


def test_a_device_config_takes_no_password_in_the_address_and_does_not_show_it() -> None:
    with pytest.raises(ValidationError) as refused:
        UpdateSection(repository="https://operator:hunter2@host/x")
    said = explain(refused.value)
    assert "carries a name or a password" in said
    assert "hunter2" not in said


@pytest.mark.parametrize("digest", ["..", "a/b", "a\0b", "", "x" * 64, "A" * 64, "0" * 65])
def test_what_is_signed_with_a_digest_that_is_none_is_refused(
    device: Device, publisher: Publisher, digest: str
) -> None:
    def forge(signed: Targets) -> None:
        signed.targets[f"{GROUP}/releases.json"].hashes["sha256"] = digest

    _offer(publisher, forge)
    before = sorted(device.folder.rglob("*"))
    device.refused(publisher.web, "UntrustedError", "is signed without a sha256")
    after = sorted(path for path in device.folder.rglob("*") if "metadata" not in path.parts)
    assert after == [path for path in before if "metadata" not in path.parts]
