import argparse
import csv
import hashlib
import io
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ledgers import Line, entry, frame

from edge.cli import ledger as command
from edge.errors import StorageError
from edge.ledger.ledger import Ledger
from edge.ledger.record import GENESIS, next_head

RECORDS = 20
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run_one(*words: str | Path) -> tuple[int, str]:
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        status = command.run(parser.parse_args([str(word) for word in words]))
        return status, capsys.readouterr().out

    return run_one


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """The state directory of a device whose ledger is being written."""
    line = Line()
    ledger = Ledger(tmp_path / "state" / "ledger", "box1", line.deliver)
    for number in range(1, RECORDS + 1):
        ledger.append(entry(number), frame(number), line.places.append)
    line.until(lambda: len(line.places) == RECORDS)
    yield tmp_path / "state"
    ledger.close()


@pytest.fixture
def copy(state: Path, tmp_path: Path) -> Path:
    """A copy of its ledger, as a crash would leave it: with a WAL."""
    shutil.copytree(state / "ledger", tmp_path / "copy")
    assert (tmp_path / "copy" / "ledger.db-wal").stat().st_size > 0
    return tmp_path / "copy"


def _content(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def _spoil(copy: Path, statement: str) -> None:
    with sqlite3.connect(copy / "ledger.db") as database:
        database.execute(statement)
    database.close()


@pytest.mark.parametrize("which", ["state", "state/ledger", "copy"])
def test_verify_finds_a_sound_ledger_sound_and_touches_nothing(
    run: Run, state: Path, copy: Path, tmp_path: Path, which: str
) -> None:
    before = _content(state / "ledger"), _content(copy)
    status, shown = run("verify", tmp_path / which)
    assert status == 0
    assert f"{RECORDS} records, 1 to {RECORDS}" in shown
    assert (_content(state / "ledger"), _content(copy)) == before


def test_verify_needs_no_right_to_write(run: Run, copy: Path) -> None:
    copy.chmod(0o500)
    try:
        assert run("verify", copy)[0] == 0
    finally:
        copy.chmod(0o700)


def test_verify_names_the_finding_and_ends_with_1(run: Run, copy: Path) -> None:
    _spoil(copy, "DELETE FROM record WHERE seq = 7")
    status, shown = run("verify", copy)
    assert status == 1
    assert "removed: record 7 is missing" in shown
    status, shown = run("verify", "--json", copy)
    assert status == 1
    found = json.loads(shown)
    assert (found["records"], found["finding"]["seq"], found["finding"]["kind"]) == (
        6,
        7,
        "removed",
    )


def test_verify_calls_a_damaged_file_a_finding(run: Run, copy: Path) -> None:
    (copy / "ledger.db-wal").unlink()
    (copy / "ledger.db").write_bytes(b"\xff" * 40_960)
    status, shown = run("verify", copy)
    assert status == 1
    assert "damaged" in shown


def test_verify_refuses_a_table_that_is_a_view_in_disguise(run: Run, copy: Path) -> None:
    _spoil(copy, "ALTER TABLE record RENAME TO hidden")
    _spoil(copy, "CREATE VIEW record AS SELECT * FROM hidden")
    status, shown = run("verify", copy)
    assert status == 1
    assert "tables" in shown


def test_verify_compares_with_a_head_from_elsewhere(run: Run, copy: Path) -> None:
    good = json.loads(run("verify", "--json", copy)[1])["head"]
    assert run("verify", "--head", f"{RECORDS}:{good}", copy)[0] == 0
    status, shown = run("verify", "--head", f"{RECORDS}:{'0' * 64}", copy)
    assert status == 1
    assert "rewritten" in shown
    status, shown = run("verify", "--head", f"{RECORDS + 1}:{good}", copy)
    assert status == 1
    assert f"record {RECORDS + 1} is missing" in shown


def test_a_head_that_was_pruned_cannot_be_compared(run: Run, tmp_path: Path) -> None:
    line = Line()
    ledger = Ledger(tmp_path, "box1", line.deliver)
    ledger.append(entry(1), frame(1), line.places.append)
    assert ledger.close() == 0
    _spoil(tmp_path, "UPDATE mark SET seq = 5 WHERE name = 'anchor'")
    assert run("verify", "--head", f"3:{'0' * 64}", tmp_path)[0] == 2


def test_a_folder_without_a_ledger_is_a_usage_error(run: Run, tmp_path: Path) -> None:
    assert run("verify", tmp_path)[0] == 2


@pytest.mark.parametrize("head", ["", "5", "0:" + "0" * 64, "5:" + "0" * 63, "-1:" + "0" * 64])
def test_a_head_that_is_none_is_a_usage_error(run: Run, copy: Path, head: str) -> None:
    with pytest.raises(SystemExit) as ended:
        run("verify", f"--head={head}", copy)
    assert ended.value.code == 2


def test_show_prints_a_part_a_frame_or_the_last(run: Run, copy: Path) -> None:
    status, shown = run("show", "--part", "part-4", "--json", copy)
    assert status == 0
    assert [found["frame_id"] for found in json.loads(shown)["records"]] == ["frame-8", "frame-9"]
    status, shown = run("show", "--frame", "frame-8", copy)
    assert status == 0
    assert "short 0.875" in shown
    assert "part part-4" in shown
    status, shown = run("show", "--last", "3", copy)
    assert [line.split()[0] for line in shown.splitlines()] == ["18", "19", "20"]
    assert run("show", "--part", "unheard-of", copy)[0] == 1


def test_an_export_as_json_lines_is_the_chain_itself(run: Run, copy: Path) -> None:
    status, shown = run("export", "--format", "jsonl", copy)
    assert status == 0
    head = GENESIS
    for line in shown.encode().splitlines():
        assert json.loads(line)["prev"] == head.hex()
        head = next_head(head, line)
    assert json.loads(run("verify", "--json", copy)[1])["head"] == head.hex()


def test_an_export_as_csv_has_a_line_for_each_record(run: Run, copy: Path) -> None:
    status, shown = run("export", "--format", "csv", copy)
    rows = list(csv.DictReader(io.StringIO(shown)))
    assert status == 0
    assert [int(row["seq"]) for row in rows] == list(range(1, RECORDS + 1))
    assert rows[7]["frame_id"] == "frame-8"
    assert rows[7]["frame_digest"] == hashlib.sha256(frame(8)).hexdigest()
    assert rows[7]["captured_at"].startswith("1970-01-01T00:00:01")


def test_showing_a_spoiled_record_is_an_error_that_names_it(run: Run, copy: Path) -> None:
    _spoil(copy, "UPDATE record SET body = x'00' WHERE seq = 20")
    with pytest.raises(StorageError, match="record 20"):
        run("show", copy)
