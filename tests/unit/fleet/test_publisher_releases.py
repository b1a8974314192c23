"""The publisher: what devices would refuse is refused here, and what became of releases."""

import datetime as dt
import os
import shutil
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from crashes import killed_aside
from deployment_samples import edit
from hypothesis import given
from hypothesis import strategies as st
from repositories import BOX, GROUP, Device, Publisher, days, sample
from tuf.api.metadata import TargetFile, Timestamp

from edge.cli.main import main
from edge.deployment.pin import pin
from edge.deployment.release import Release, position
from edge.deployment.report import Outcome, Report
from edge.deployment.rollout import Deployed, Event, State
from edge.errors import ConfigError, DeploymentError
from edge.fleet.publisher import keys
from edge.fleet.publisher.keys import KeyRing
from edge.fleet.publisher.releases import Fleet
from edge.fleet.publisher.rings import Counting, Fate, fate, tally


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    """A fleet of one group."""
    return Publisher(tmp_path)


@pytest.fixture
def strict_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.mark.usefixtures("strict_umask")
def test_a_web_server_may_enter_a_repository_that_was_made_under_a_strict_umask(
    tmp_path: Path,
) -> None:
    publisher = Publisher(tmp_path)
    publisher.release(1)
    folders = [publisher.web, *(path for path in publisher.web.rglob("*") if path.is_dir())]
    assert len(folders) > 4
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o755}
    assert stat.S_IMODE((publisher.fleet.folder / "keys").stat().st_mode) == 0o700


def test_keys_are_their_owners_alone_and_never_overwritten(publisher: Publisher) -> None:
    folder = publisher.fleet.folder / "keys"
    names = {path.stem for path in folder.iterdir()}
    assert names == {"root-1", "root-2", "root-3", "targets", "snapshot", "timestamp", GROUP}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    with pytest.raises(DeploymentError, match="never overwritten"):
        keys.create(folder, GROUP)
    for path in publisher.web.rglob("*.json"):
        assert b"PRIVATE" not in path.read_bytes()


def test_who_changes_a_fleet_waits_for_whoever_does(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = sample(tmp_path / "one", 1)
    other = Fleet(publisher.fleet.folder)
    monkeypatch.setattr("edge.fleet.publisher.releases.PATIENCE_S", 0.0)
    with other.alone():
        with pytest.raises(DeploymentError, match="another command changes this fleet"):
            publisher.fleet.build(GROUP, deployment, 100)
        with pytest.raises(DeploymentError, match="another command changes this fleet"):
            publisher.fleet.publish()
        with pytest.raises(DeploymentError, match="another command changes this fleet"):
            publisher.fleet.rotate("timestamp", [])
        other.build(GROUP, deployment, 50)  # who holds it goes on
        other.discard(GROUP)
    assert publisher.fleet.build(GROUP, deployment, 100).percent == 100


def test_who_widens_beside_others_writes_a_version_of_his_own(publisher: Publisher) -> None:
    publisher.release(1)
    before = publisher.fleet.repository.version(GROUP)

    def widen(percent: float) -> None:
        fleet = Fleet(publisher.fleet.folder)
        with fleet.alone():
            fleet.change(GROUP, 1, percent=percent)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(widen, (10, 20, 30, 40)))
    assert publisher.fleet.repository.version(GROUP) == before + 4
    assert not publisher.fleet.drafts()


def test_a_command_removes_what_one_that_was_killed_left_aside(publisher: Publisher) -> None:
    metadata = publisher.fleet.repository.metadata
    left = [killed_aside(folder / "any.json") for folder in (publisher.fleet.folder, metadata)]
    whole = set(publisher.fleet.folder.rglob("*.json"))
    publisher.fleet.publish()
    assert not [each for each in left if each.exists()]
    assert whole <= set(publisher.fleet.folder.rglob("*.json"))


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"nonsense", b"-----BEGIN PRIVATE KEY-----\n"),
        # One byte of it makes it another kind's key, of a wrong length.
        b"-----BEGIN PRIVATE KEY-----\n"
        b"MC4CAQAwBQYDK2VvBCIEIAaPx1POJXJ5pMiG383axwtZ3MG7GLBDbYMFufONwOAP\n"
        b"-----END PRIVATE KEY-----\n",
    ],
    ids=range(4),
)
def test_a_file_that_is_no_key_is_named(publisher: Publisher, content: bytes) -> None:
    (publisher.fleet.folder / "keys" / "stray.pem").write_bytes(content)
    with pytest.raises(DeploymentError, match=r"stray\.pem: is no unencrypted private key"):
        Fleet(publisher.fleet.folder)


@pytest.mark.parametrize("group", ["root", "../x", "a/b", "", "x" * 65, "timestamp"])
def test_a_group_without_a_usable_name_is_refused(tmp_path: Path, group: str) -> None:
    with pytest.raises(DeploymentError, match="is no name of a group"):
        Fleet.create(tmp_path / "new", (group,))
    assert not (tmp_path / "new").exists()


def test_a_folder_is_made_a_fleet_once(publisher: Publisher, tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match="is a fleet already"):
        Fleet.create(publisher.fleet.folder, (GROUP,))
    with pytest.raises(ConfigError, match="edge fleet init"):
        Fleet(tmp_path)


@pytest.mark.parametrize("name", ["", "x" * 65, "a\nb = 1", "\x7f"])
def test_a_fleet_without_a_usable_name_is_not_made(tmp_path: Path, name: str) -> None:
    with pytest.raises(DeploymentError, match="is no name of a fleet"):
        Fleet.create(tmp_path / "new", (GROUP,), name)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ['line "A"', "Prüffeld \\ 2", "線 😀"])
def test_a_fleet_may_have_any_name_that_prints(tmp_path: Path, name: str) -> None:
    assert Fleet.create(tmp_path / "new", (GROUP,), name).settings.name == name


def test_a_key_is_on_the_medium_before_a_repository_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(
        "os.fsync", lambda descriptor: synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
    )
    keys.create(tmp_path / "keys", "root-1")
    assert synced[0].name.startswith(".aside-")
    assert synced[1:] == [tmp_path / "keys"]
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["root-1.pem"]


def test_what_most_devices_may_run_stays_though_release_after_release_is_halted(
    publisher: Publisher, tmp_path: Path
) -> None:
    publisher.release(1)
    for revision in range(2, 7):
        publisher.release(revision, percent=10)
        publisher.fleet.change(GROUP, revision, halted=True)
    Device(tmp_path / "device", publisher).takes(publisher.web, 1)
    assert [each.revision for each in publisher.fleet.releases(GROUP).releases] == [1, 4, 5, 6]


def test_a_draft_that_was_overtaken_takes_nothing_back(
    publisher: Publisher, tmp_path: Path
) -> None:
    publisher.release(1)
    fleet = publisher.fleet
    draft, away = fleet._draft_path(GROUP), tmp_path / "away.json"
    fleet.build(GROUP, sample(tmp_path / "other", 2, ("call_ms = 5", "call_ms = 6")), 50)
    fleet.sign(GROUP)
    shutil.move(draft, away)  # to another machine, and meanwhile
    publisher.release(2)
    shutil.move(away, draft)
    with pytest.raises(DeploymentError, match=r"would take that back .edge fleet discard"):
        fleet.publish()
    assert [each.revision for each in fleet.releases(GROUP).releases] == [1, 2]
    fleet.discard(GROUP)
    assert fleet.publish() == []


def test_a_release_is_halted_whatever_drafts_wait(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path, (GROUP, "other"))
    publisher.release(1)
    fleet, device = publisher.fleet, Device(tmp_path / "device", publisher)
    for group in (GROUP, "other"):  # and nobody has signed them
        fleet.build(group, sample(tmp_path / f"{group}-draft", 2), 100)
    assert fleet.change(GROUP, 1, halted=True).halted
    device.finds_nothing(publisher.web)
    for group in (GROUP, "other"):
        fleet.sign(group)
    with pytest.raises(DeploymentError, match=r"the draft of group 'press'.*take that back"):
        fleet.publish()
    fleet.discard(GROUP)
    assert fleet.publish() == ["other"]
    device.finds_nothing(publisher.web)
    assert not fleet.change(GROUP, 1, halted=False).halted
    device.takes(publisher.web, 1)


def test_revisions_only_rise(publisher: Publisher, tmp_path: Path) -> None:
    publisher.release(5)
    for revision in (4, 5):
        with pytest.raises(DeploymentError, match=r"was offered 5 .raise deployment\.revision"):
            publisher.fleet.build(GROUP, sample(tmp_path / str(revision), revision), 1)


@pytest.mark.parametrize("percent", [-1.0, 100.5, float("nan"), float("inf")])
def test_what_is_no_percent_is_refused(
    publisher: Publisher, percent: float, tmp_path: Path
) -> None:
    publisher.release(1)
    with pytest.raises(DeploymentError, match="is no percent of a group"):
        publisher.fleet.build(GROUP, sample(tmp_path / "two", 2), percent)
    with pytest.raises(DeploymentError, match="is no percent of a group"):
        publisher.fleet.change(GROUP, 1, percent=percent)
    assert publisher.fleet.drafts() == []


def test_an_unsound_folder_is_no_release(publisher: Publisher, tmp_path: Path) -> None:
    folder = sample(tmp_path / "one", 1)
    (folder / "guests" / "pre.wasm").write_bytes(b"changed")
    with pytest.raises(DeploymentError, match=r"pre\.wasm: is not the file that was pinned"):
        publisher.fleet.build(GROUP, folder, 1)


def _moved(folder: Path, depth: int) -> Path:
    """A deployment whose guest lies so many levels deep."""
    path = "/".join(["d"] * (depth - 1) + ["pre.wasm"])
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    shutil.move(folder / "guests" / "pre.wasm", folder / path)
    edit(folder / "manifest.toml", "guests/pre.wasm", path)
    pin(folder)
    return folder


def test_the_deepest_path_that_is_signed_reaches_devices_and_a_deeper_one_is_refused(
    publisher: Publisher, tmp_path: Path
) -> None:
    with pytest.raises(DeploymentError, match="lies 5 levels deep; 4 are signed for"):
        publisher.fleet.build(GROUP, _moved(sample(tmp_path / "deep", 1), 5), 100)
    publisher.fleet.build(GROUP, _moved(sample(tmp_path / "edge", 1), 4), 100)
    publisher.fleet.sign(GROUP)
    publisher.fleet.publish()
    Device(tmp_path / "device", publisher).takes(publisher.web, 1)


def test_metadata_that_devices_would_not_read_is_not_published(publisher: Publisher) -> None:
    metadata = publisher.fleet.repository.next(GROUP)
    for number in range(12_000):
        path = f"{GROUP}/1/{number}"
        metadata.signed.targets[path] = TargetFile.from_data(path, b"", ["sha256"])
    with pytest.raises(DeploymentError, match="devices read 1048576 at the most"):
        publisher.fleet.repository.put(GROUP, metadata)


def test_a_draft_is_signed_published_or_dropped(publisher: Publisher, tmp_path: Path) -> None:
    fleet = publisher.fleet
    device = Device(tmp_path / "device", publisher)
    with pytest.raises(DeploymentError, match="no draft of group 'press' waits"):
        fleet.sign(GROUP)
    fleet.build(GROUP, sample(tmp_path / "one", 1), 100)
    with pytest.raises(DeploymentError, match="a draft of group 'press' waits"):
        fleet.change(GROUP, 1) if fleet.releases(GROUP).releases else fleet.build(
            GROUP, tmp_path / "one", 1
        )
    with pytest.raises(DeploymentError, match="signed by 0 of the 1 keys"):
        fleet.publish()
    device.finds_nothing(publisher.web)
    fleet.discard(GROUP)
    assert fleet.drafts() == []
    publisher.fleet.build(GROUP, tmp_path / "one", 100)
    away = tmp_path / "away"
    away.mkdir()
    shutil.move(fleet.folder / "keys" / f"{GROUP}.pem", away)
    with pytest.raises(
        DeploymentError, match="edge fleet sign; name the folder that holds the key by --keys"
    ):
        Fleet(fleet.folder).sign(GROUP)
    assert Fleet(fleet.folder, [away]).sign(GROUP) == 1
    assert Fleet(fleet.folder).publish() == [GROUP]
    device.takes(publisher.web, 1)


def test_a_file_that_was_damaged_in_the_repository_is_laid_anew(
    publisher: Publisher, tmp_path: Path
) -> None:
    publisher.release(1)
    for path in publisher.web.rglob("*.wasm"):
        path.write_bytes(b"")
    fleet = publisher.fleet
    (folder,) = tmp_path.glob(f"{GROUP}-1")
    edit(folder / "manifest.toml", "revision = 1", "revision = 2")
    fleet.build(GROUP, folder, 100)
    fleet.sign(GROUP)
    fleet.publish()
    Device(tmp_path / "device", publisher).takes(publisher.web, 2)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in publisher.web.rglob("*.wasm")}
    assert modes == {0o644}, "a web server reads them"


def test_roles_that_soon_expire_are_renewed_by_publishing(
    publisher: Publisher, tmp_path: Path
) -> None:
    publisher.release(1)
    later = publisher.at(dt.datetime.now(dt.UTC) + days(300))
    later.fleet.publish()
    for role, least in ((GROUP, 200), ("targets", 200)):
        expires = later.fleet.repository.next(role).signed.expires
        assert expires > dt.datetime.now(dt.UTC) + days(300 + least)
    Device(tmp_path / "device", publisher).takes(publisher.web, 1)


def test_a_draft_that_waits_for_its_key_holds_no_renewal_up_and_none_overtakes_it(
    publisher: Publisher, tmp_path: Path
) -> None:
    publisher.release(1)
    publisher.fleet.build(GROUP, sample(tmp_path / "two", 2), 100)
    later = publisher.at(dt.datetime.now(dt.UTC) + days(300)).fleet
    before = later.repository.version(GROUP)
    with pytest.raises(DeploymentError, match="press: signed by 0 of the 1 keys"):
        later.publish()
    expires = later.repository.load(Timestamp, "timestamp").signed.expires
    assert expires > dt.datetime.now(dt.UTC) + days(340)
    assert later.repository.version(GROUP) == before
    Device(tmp_path / "device", publisher).takes(publisher.web, 1)
    later.sign(GROUP)
    assert later.publish() == [GROUP]
    Device(tmp_path / "other", publisher).takes(publisher.web, 2)


def test_a_publisher_that_died_between_any_two_files_goes_on(
    publisher: Publisher, tmp_path: Path
) -> None:
    """A group's new metadata lies there; snapshot and timestamp do not speak of it yet."""
    publisher.release(1)
    device = Device(tmp_path / "device", publisher)
    fleet = publisher.fleet
    fleet.build(GROUP, sample(tmp_path / "two", 2), 100)
    fleet.sign(GROUP)
    draft = fleet._waiting(GROUP)
    fleet.repository.put(GROUP, draft)
    device.takes(publisher.web, 1)
    assert Fleet(fleet.folder).publish() == [GROUP]
    device.takes(publisher.web, 2)


def _report(device: str, **changes: object) -> Report:
    return Report(
        **{"device": device, "group": GROUP, "state": State.IDLE, "time_ns": 0, **changes}  # type: ignore[arg-type] # fields by name
    )


RELEASE = Release(name="bench", revision=2, manifest="2" * 64, manifest_bytes=1, percent=100)
OLD, NEW = Deployed("bench", 1, "1" * 64), Deployed("bench", 2, "2" * 64)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Fate.WAITING),
        ({"active": OLD}, Fate.WAITING),
        ({"active": OLD, "candidate": NEW, "state": State.SHADOW}, Fate.UNDER_WAY),
        ({"active": NEW, "candidate": NEW, "state": State.PROBATION}, Fate.UNDER_WAY),
        ({"active": NEW}, Fate.ON),
        ({"active": NEW, "pinned": True}, Fate.ON),
        ({"active": OLD, "outcome": Outcome(Event.FAILED, NEW, 1)}, Fate.FAILED),
        ({"active": OLD, "outcome": Outcome(Event.HELD, OLD, 1)}, Fate.WAITING),
        ({"active": OLD, "barred": (2,)}, Fate.FAILED),
        ({"active": OLD, "pinned": True}, Fate.OUTSIDE),
        ({"active": Deployed("bench", 3, "3" * 64)}, Fate.OUTSIDE),
    ],
    ids=range(11),
)
def test_what_became_of_a_release_is_read_from_a_report(
    changes: dict[str, object], expected: Fate
) -> None:
    assert fate(_report(BOX, **changes), RELEASE) is expected


@given(
    st.lists(st.sampled_from(["on", "failed", "waiting", "way"]), max_size=60), st.floats(0, 100)
)
def test_a_tally_counts_each_device_once_and_halts_beyond_its_share(
    fates: list[str], most: float
) -> None:
    by_fate: dict[str, dict[str, object]] = {
        "on": {"active": NEW},
        "failed": {"active": OLD, "barred": (2,)},
        "waiting": {"active": OLD},
        "way": {"candidate": NEW, "state": State.TRIAL},
    }
    reports = [_report(f"box{n}", **by_fate[each]) for n, each in enumerate(fates)]
    found = tally([*reports, Report("x", "other", State.IDLE, 0)], GROUP, RELEASE)
    assert found.included == len(fates)
    assert found.failed == fates.count("failed")
    share = 100 * found.failed / len(fates) if fates else 0
    assert found.too_many_failed(most) == (share > most)
    assert found.done == (bool(fates) and not {"waiting", "way"} & set(fates))


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from(["on", "barred", "waiting", "elsewhere"])),
        max_size=40,
    )
)
def test_devices_counted_as_they_report_are_those_that_their_newest_reports_tell(
    said: list[tuple[int, str]],
) -> None:
    changes: dict[str, dict[str, object]] = {
        "on": {"active": NEW},
        "barred": {"active": OLD, "barred": (2,)},
        "waiting": {"active": OLD},
        "elsewhere": {"group": "other"},
    }
    reports = [msgspec.structs.replace(_report(f"box{n}"), **changes[each]) for n, each in said]
    counting = Counting(GROUP, RELEASE, reports[:3])
    for report in reports[3:]:
        counting.take(report)
    newest = dict(said)
    found = counting.tally
    assert found.on == sum(each == "on" for each in newest.values())
    assert found.failed == sum(each == "barred" for each in newest.values())
    assert found.included == sum(each != "elsewhere" for each in newest.values())


def test_a_device_beyond_the_share_is_outside() -> None:
    few = RELEASE.model_copy(update={"percent": position(GROUP, BOX)})
    assert fate(_report(BOX), few) is Fate.OUTSIDE
    more = RELEASE.model_copy(update={"percent": position(GROUP, BOX) + 0.01})
    assert fate(_report(BOX), more) is Fate.WAITING


def test_keys_are_looked_for_by_what_they_are(tmp_path: Path) -> None:
    public = keys.create(tmp_path, "any-name")
    ring = KeyRing([tmp_path, tmp_path / "nowhere"])
    assert ring.path(public.keyid) == tmp_path / "any-name.pem"
    assert ring.find([public.keyid, "f" * 64])[0].public_key == public
    assert ring.path("f" * 64) is None


def test_what_signs_looks_for_keys_elsewhere_and_what_does_not_takes_no_keys(
    publisher: Publisher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet = publisher.fleet.folder
    publisher.fleet.build(GROUP, sample(tmp_path / "one", 1), 100)
    away = tmp_path / "away"
    away.mkdir()
    shutil.move(fleet / "keys" / f"{GROUP}.pem", away)
    sign = ["fleet", "sign", str(fleet), "--group", GROUP]
    assert main(sign) == 1
    assert "--keys" in capsys.readouterr().err
    assert main([*sign, "--keys", str(away)]) == 0
    assert "bears 1 signature" in capsys.readouterr().out
    for words in (["init", str(tmp_path / "new"), "--group", "g"], ["releases", str(fleet)]):
        with pytest.raises(SystemExit, match="2"):
            main(["fleet", *words, "--keys", str(away)])
        assert "unrecognized arguments: --keys" in capsys.readouterr().err
        assert main(["fleet", *words]) == 0
