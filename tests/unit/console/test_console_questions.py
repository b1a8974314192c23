"""What the page shows of a ledger that is being written: search, parts, pictures, words, scores."""

import asyncio
import io
import shutil
import struct
import tempfile
import threading
import zipfile
import zlib
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import msgspec
import pytest
from consoles import BEGIN_NS, HOUR_NS, RECORDS, Serve, Stand, Visitor, judged
from ledgers import entry, frame

from edge.console import dataset, questions
from edge.console.pictures import picture
from edge.console.questions import Asked, Brief, brief
from edge.console.snapshots import MAX_WAITING, BusyError, Snapshots, View
from edge.contracts.verdict import Kind
from edge.errors import StorageError
from edge.ledger import kept, reading
from edge.ledger.entry import Correction
from edge.ledger.store import Prepared, Retention, Store
from edge.ledger.verify import Row
from edge.replay.dataset import read_dataset


def _ms(number: int) -> int:
    return (BEGIN_NS + number * HOUR_NS) // 1_000_000


def _expected(kind: Kind) -> list[int]:
    numbers = range(RECORDS, 0, -1)
    return [number for number in numbers if judged(number).verdict.verdict is kind]


def _seqs(page: Visitor, query: str) -> list[int]:
    return [line["seq"] for line in page.get(f"/api/records?{query}")["lines"]]


def _verdicts_of(page: Visitor, query: str) -> list[int]:
    """All pages of a search."""
    found: list[int] = []
    before = 0
    while True:
        answer = page.get(f"/api/records?{query}&before={before}")
        found += [line["seq"] for line in answer["lines"]]
        before = answer["next"]
        if not before:
            return found


def test_a_search_finds_all_of_a_kind_page_by_page_and_each_once(page: Visitor) -> None:
    for kind in Kind:
        assert _verdicts_of(page, f"kind={kind}&limit=7") == _expected(kind)
    assert len(_verdicts_of(page, "limit=7")) == RECORDS


def test_a_part_and_a_frame_are_found_by_id_and_by_how_it_begins(page: Visitor) -> None:
    assert _seqs(page, "part=part-013") == [13]
    assert _seqs(page, "frame=frame-13") == [13]
    assert _seqs(page, "part=part-01*") == list(range(19, 9, -1))
    assert _seqs(page, "part=part-01") == []
    assert _seqs(page, f"part={quote('part-013 OR 1=1')}") == []


def test_of_a_part_that_is_named_again_and_again_no_more_is_read_than_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A camera that names all its parts alike: its part has every record that there is."""
    store, replace = Store(tmp_path / "ledger", "box1", Retention()), msgspec.structs.replace
    alike = [replace(entry(n), verdict=replace(entry(n).verdict, part_id="0")) for n in range(600)]
    store.append([Prepared(each, n.to_bytes(32)) for n, each in enumerate(alike)])
    store.close()
    read: list[int] = []

    def reads(row: Row) -> Brief | None:
        read.append(row.seq)
        return brief(row)

    monkeypatch.setattr(questions, "brief", reads)
    path = reading.find(tmp_path)
    assert path is not None
    with reading.opened(path) as ledger:
        view = View(ledger, {}, 0)
        shown = questions.of_part(view, "0")
        assert [line.seq for line in shown] == list(range(600, 550, -1)) == read
        read.clear()
        found = questions.search(view, Asked(part="0", limit=7))
        assert [line.seq for line in found.lines] == read == list(range(600, 593, -1))
        assert found.next == 594
        on = questions.search(view, Asked(frame="frame-3", part="0", limit=7, before=594))
        assert ([line.seq for line in on.lines], on.next) == ([4], 0)


def test_a_time_a_reason_and_a_pipeline_narrow_it(page: Visitor) -> None:
    assert _seqs(page, f"since_ms={_ms(10)}&until_ms={_ms(12)}") == [12, 11, 10]
    assert _seqs(page, f"until_ms={_ms(2)}") == [2, 1]
    assert _seqs(page, f"since_ms={_ms(RECORDS - 1)}") == [RECORDS, RECORDS - 1]
    assert _verdicts_of(page, "reason=ok") == _expected(Kind.PASS)
    assert _seqs(page, "pipeline=other") == []


def test_a_search_says_where_it_stopped_and_goes_on_there(
    page: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "MAX_LOOKED_AT", 10)
    first = page.get("/api/records?part=part-00*")
    assert (first["lines"], first["looked_at"]) == ([], 10)
    assert first["next"] == RECORDS - 9
    assert _verdicts_of(page, "part=part-00*") == list(range(9, 0, -1))


def test_times_are_found_though_the_clock_was_set_back(
    page: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So many records beyond both ends are looked at, and no more.
    for slack in (0, 5):
        monkeypatch.setattr(questions, "SLACK", slack)
        found = page.get(f"/api/records?since_ms={_ms(10)}&until_ms={_ms(12)}")
        assert [line["seq"] for line in found["lines"]] == [12, 11, 10]
        assert found["looked_at"] == 3 + 2 * slack + 1


def test_a_part_has_its_record_its_pictures_and_the_command_that_proves_it(page: Visitor) -> None:
    seq = _expected(Kind.REJECT)[0]
    about = page.get(f"/api/records/{seq}")
    assert about["record"]["seq"] == seq
    assert about["record"]["frame_id"] == f"frame-{seq}"
    assert about["images"] == {"frame": "", "reference": ""}
    assert f"prove --seq {seq} " in about["commands"]["prove"]
    assert len(about["head"]) == 64
    picture = page.ask(f"/api/records/{seq}/frame")
    assert (picture.status, picture.body) == (200, frame(seq))
    assert picture.headers["content-type"] == "image/jpeg"
    assert page.ask(f"/api/records/{seq}/reference").body == b"a golden board"
    body = page.ask(f"/api/records/{seq}/body").body
    assert body.startswith(b'{"budget_ms"')


def test_a_frame_that_is_not_there_says_why(page: Visitor, stand: Stand) -> None:
    passed, rejected = _expected(Kind.PASS)[0], _expected(Kind.REJECT)[1]
    assert "not kept" in page.get(f"/api/records/{passed}")["images"]["frame"]
    assert page.ask(f"/api/records/{passed}/frame").status == 404
    digest = page.get(f"/api/records/{rejected}")["record"]["digests"]["frame"]
    kept.place(stand.folder / "ledger" / "frames", digest).unlink()
    assert "gone" in page.get(f"/api/records/{rejected}")["images"]["frame"]
    assert page.ask(f"/api/records/{rejected}/frame").status == 404


def test_pictures_come_with_what_is_drawn_over_them(page: Visitor) -> None:
    lines = page.get("/api/records?pictures=1&limit=20")["lines"]
    for line in lines:
        assert line.get("kept", False) == (
            page.ask(f"/api/records/{line['seq']}/frame").status == 200
        )
        assert len(line.get("findings", [])) == line["defects"]
    assert {line.get("kept", False) for line in lines} == {True, False}
    assert "findings" not in page.get("/api/records?limit=1")["lines"][0]


def test_the_newest_kept_frame_is_found(page: Visitor) -> None:
    kinds = {*_expected(Kind.REJECT), *_expected(Kind.REVIEW)}
    assert page.get("/api/newest")["seq"] == max(kinds)
    assert page.get("/api/newest?pipeline=other")["seq"] == 0


def test_a_word_is_recorded_and_shown_at_once(served: Serve, page: Visitor, stand: Stand) -> None:
    good, bad = _expected(Kind.REJECT)[2], _expected(Kind.PASS)[1]
    for seq, verdict in ((good, "pass"), (bad, "reject")):
        document = {"seq": seq, "verdict": verdict, "by": "quality", "reason": "looked at it"}
        answer = page.post("/api/override", document)
        assert answer.status == 200, answer
        said = page.get(f"/api/records/{seq}")["words"][-1]
        assert (said["verdict"], said["by"], said["seq"]) == (
            verdict,
            "quality",
            answer.json["seq"],
        )
    assert _seqs(page, "worded=1") == sorted([good, bad], reverse=True)
    word = page.get(f"/api/records/{answer.json['seq']}")
    assert (word["record"]["type"], word["record"]["of"]) == ("override", bad)
    assert page.ask(f"/api/records/{answer.json['seq']}/frame").status == 404

    tried = page.get("/api/tried")["groups"][0]
    truths = {(cell[2], cell[1]): cell[3] for cell in tried["cells"] if cell[2]}
    assert truths == {("good", "reject"): 1, ("bad", "pass"): 1}


def test_so_many_words_are_kept_and_no_more_be_they_of_one_verdict_or_of_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.console.snapshots.MAX_WORDS", 4)
    store = Store(tmp_path / "ledger", "box1", Retention())
    store.append([Prepared(entry(n), n.to_bytes(32)) for n in (1, 2)])
    for n, seq in enumerate((1, 2, 2, 2, 2, 2, 1)):
        store.override(Correction(Kind.PASS, "lead", f"word {n}", seq=seq), n)
    store.close()

    def said(view: View) -> dict[int, list[str]]:
        return {seq: [word.reason for word in words] for seq, words in view.words.items()}

    async def ask() -> dict[int, list[str]]:
        snapshots = Snapshots(tmp_path)
        try:
            return await snapshots.ask(said)
        finally:
            await snapshots.close()

    assert asyncio.run(ask()) == {2: ["word 3", "word 4", "word 5"], 1: ["word 6"]}


def test_what_people_said_is_a_data_set_that_replay_reads(
    page: Visitor, stand: Stand, tmp_path: Path
) -> None:
    assert page.ask("/api/dataset?until_ms=1").status == 404
    kept_ones = _expected(Kind.REJECT)[4:7]
    for seq, verdict in zip(kept_ones, ("pass", "reject", "review"), strict=True):
        word = {"seq": seq, "verdict": verdict, "by": "=1+1", "reason": 'a "reflex", or dust'}
        assert page.post("/api/override", word).status == 200
    passed = {"seq": _expected(Kind.PASS)[5], "verdict": "reject", "by": "q", "reason": "a crack"}
    assert page.post("/api/override", passed).status == 200
    answer = page.ask("/api/dataset")
    assert answer.status == 200
    with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
        archive.extractall(tmp_path)
    rows = {row.part_id.rsplit("-", 1)[1]: row for row in read_dataset(tmp_path)}
    assert rows[str(kept_ones[0])].is_good
    assert not rows[str(kept_ones[1])].is_good
    # Who cannot tell has said no truth; and of a part whose frame is not kept there is no picture.
    assert not {str(kept_ones[2]), str(passed["seq"])} & rows.keys()
    assert int(answer.headers["x-without-frame"]) >= 1
    assert "'=1+1" in (tmp_path / "parts.csv").read_text()
    first = rows[str(kept_ones[0])]
    assert first.image.read_bytes() == frame(kept_ones[0])
    assert first.template is not None
    assert first.template.read_bytes() == b"a golden board"
    assert first.group == f"part-{kept_ones[0]:03d}"


def test_a_data_set_has_a_bound_and_says_so(page: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "MAX_PARTS", 1)
    headers = page.ask("/api/dataset").headers
    assert (headers["x-parts"], headers["x-cut"]) == ("1", "1")


def test_a_word_that_is_refused_says_why(page: Visitor) -> None:
    document = {"seq": 9_999, "verdict": "pass", "by": "quality", "reason": "looked at it"}
    answer = page.post("/api/override", document)
    assert (answer.status, "not there" in answer.json["error"]) == (409, True)
    for changed in ({"by": ""}, {"reason": "x\ny"}, {"seq": 0}, {"by": "x" * 65}):
        assert page.post("/api/override", document | changed).status == 400
    assert page.post("/api/override", document | {"verdict": "maybe"}).status == 400


def test_a_page_that_only_shows_takes_no_word(served: Serve) -> None:
    page = served(say=None)
    assert page.get("/api/live")["may_say"] is False
    document = {"seq": 1, "verdict": "pass", "by": "quality", "reason": "looked at it"}
    assert page.post("/api/override", document).status == 403


def test_scores_are_counted_by_deployment_with_the_parameters_that_judged(page: Visitor) -> None:
    answer = page.get("/api/tried")
    assert answer["cut"] is False
    (group,) = answer["groups"]
    assert group["settings"]["decide"] == {"reject": 0.6, "review": 0.4}
    assert group["settings"]["postprocess"] == {"score": 0.25}
    assert sum(cell[3] for cell in group["cells"]) == RECORDS
    # At the parameters' thresholds each verdict is as it was recorded.
    for place, kind, _, _ in group["cells"]:
        assert kind == ("reject" if place >= 600 else "review" if place >= 400 else "pass"), place
    narrow = page.get(f"/api/tried?since_ms={_ms(3)}&until_ms={_ms(7)}")["groups"][0]
    assert sum(cell[3] for cell in narrow["cells"]) == 5
    assert page.get("/api/tried?pipeline=other")["groups"] == []


def test_too_many_scores_are_cut_and_it_is_said(
    page: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "MAX_TRIED", 10)
    answer = page.get("/api/tried")
    assert (answer["cut"], answer["looked_at"]) == (True, 10)


def test_without_a_broker_it_says_so_and_shows_the_records(page: Visitor) -> None:
    now = page.get("/api/live")
    assert now["broker"]
    assert (now["status"], now["verdicts"], now["device"]) == (None, [], "box1")


def test_looking_takes_no_lock_that_a_starting_daemon_could_meet(
    stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As after a kill: the lock's file lies there, and nobody holds it.
    shutil.copytree(stand.folder / "ledger", tmp_path / "ledger")
    locked: list[object] = []
    watched = SimpleNamespace(flock=lambda *call: locked.append(call), LOCK_SH=1, LOCK_NB=4)
    monkeypatch.setattr("edge.ledger.reading.fcntl", watched)

    async def ask() -> int:
        snapshots = Snapshots(tmp_path)
        try:
            return await snapshots.ask(lambda view: view.ledger.size())
        finally:
            await snapshots.close()

    assert asyncio.run(ask()) >= RECORDS
    assert not locked


def test_a_copy_is_renewed_when_it_is_old_enough_and_the_ledger_grew(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def sizes() -> list[int]:
        snapshots = Snapshots(stand.folder)
        try:
            found = [await snapshots.ask(lambda view: view.ledger.size())]
            stand.record(judged(1_000 + found[0]), b"more pixels")
            found.append(await snapshots.ask(lambda view: view.ledger.size()))
            snapshots.renew()
            found.append(await snapshots.ask(lambda view: view.ledger.size()))
            return found
        finally:
            await snapshots.close()

    monkeypatch.setattr("edge.console.snapshots.MIN_REST_S", 3_600.0)
    first, rested, renewed = asyncio.run(sizes())
    assert (rested, renewed) == (first, first + 1)


def test_a_copy_goes_with_its_process_or_with_the_next_one(
    stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    killed = tmp_path / "edge-console-killed"
    (killed / "edge-ledger-x").mkdir(parents=True)
    (killed / "lock").touch()
    being_made = tmp_path / "edge-console-new"
    being_made.mkdir()

    def copies() -> list[Path]:
        return [*tmp_path.glob("edge-console-*/edge-ledger-*/ledger.db")]

    async def ask() -> None:
        first, second = Snapshots(stand.folder), Snapshots(stand.folder)
        for each in (first, second, first):
            assert await each.ask(lambda view: view.ledger.size()) >= RECORDS
        assert len(copies()) == 2  # the second one left the first one's alone
        await first.close()
        await second.close()

    asyncio.run(ask())
    assert [*tmp_path.iterdir()] == [being_made]


def test_few_questions_wait(stand: Stand) -> None:
    async def ask() -> None:
        snapshots = Snapshots(stand.folder)
        held = threading.Event()
        waiting = [
            asyncio.create_task(snapshots.ask(lambda _: held.wait(60))) for _ in range(MAX_WAITING)
        ]
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await snapshots.ask(lambda view: view.ledger.size())
        held.set()
        assert all(await asyncio.gather(*waiting))
        await snapshots.close()

    asyncio.run(ask())


def test_where_there_is_no_ledger_it_says_so(tmp_path: Path) -> None:
    async def ask() -> None:
        snapshots = Snapshots(tmp_path)
        with pytest.raises(StorageError, match="no ledger"):
            await snapshots.ask(lambda view: view.ledger.size())
        await snapshots.close()

    asyncio.run(ask())


# Pictures


def _pixels(png: bytes) -> bytes:
    at, data = 8, b""
    while at < len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        name, chunk = png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        assert struct.unpack(">I", png[at + 8 + size : at + 12 + size])[0] == zlib.crc32(
            name + chunk
        )
        data += chunk if name == b"IDAT" else b""
        at += size + 12
    return zlib.decompress(data)


def test_raw_pixels_become_a_png_that_holds_them() -> None:
    grey = picture(bytes(range(6)), "image/x-raw;format=GRAY8;width=3;height=2")
    assert grey is not None
    assert grey.media_type == "image/png"
    assert _pixels(grey.content) == b"\0\0\1\2\0\3\4\5"
    turned = picture(b"BGRbgr", "image/x-raw;format=BGR;width=2;height=1")
    assert turned is not None
    assert _pixels(turned.content) == b"\0RGBrgb"
    straight = picture(b"RGBrgb", "image/x-raw;format=RGB;width=2;height=1")
    assert straight is not None
    assert _pixels(straight.content) == b"\0RGBrgb"


@pytest.mark.parametrize(
    "content_type",
    ["image/x-raw;format=GRAY8;width=3;height=3", "text/html", "image/svg+xml", "image/x-raw"],
)
def test_what_is_no_picture_is_not_served(content_type: str) -> None:
    assert picture(b"<script>", content_type) is None


def test_a_content_type_from_the_line_is_never_handed_on() -> None:
    shown = picture(b"x", "image/png;charset=<script>")
    assert shown is not None
    assert shown.media_type == "image/png"
