"""The log: one line an event, bounded, without secrets, and never in the way."""

import io
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import structlog

from edge.config import LogSection
from edge.observability import log


def _configured(**section: Any) -> io.StringIO:
    stream = io.StringIO()
    log.configure(LogSection(**section), tty=False, stream=stream)
    return stream


def _lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_json_line_with_its_room_level_and_values() -> None:
    stream = _configured()
    log.get("mqtt").info("connected", host="plc", port=1883)
    (line,) = _lines(stream)
    assert line["event"] == "connected"
    assert line["room"] == "mqtt"
    assert line["level"] == "info"
    assert line["port"] == 1883
    assert line["timestamp"].endswith("Z")


def test_auto_means_text_on_a_terminal_and_json_elsewhere() -> None:
    terminal, pipe = io.StringIO(), io.StringIO()
    log.configure(LogSection(), tty=True, stream=terminal)
    log.get("daemon").info("ready")
    log.configure(LogSection(), tty=False, stream=pipe)
    log.get("daemon").info("ready")
    assert not terminal.getvalue().startswith("{")
    assert "ready" in terminal.getvalue()
    assert _lines(pipe)[0]["event"] == "ready"


def test_text_away_from_a_terminal_has_no_colours() -> None:
    stream = _configured(format="text")
    log.get("daemon").warning("late", pipeline="pcb")
    assert "\x1b" not in stream.getvalue()
    assert "pipeline=pcb" in stream.getvalue()


@pytest.mark.parametrize(
    ("level", "priority"), [("debug", 7), ("info", 6), ("warning", 4), ("error", 3)]
)
def test_under_the_journal_each_line_begins_with_its_priority(level: str, priority: int) -> None:
    stream = io.StringIO()
    log.configure(LogSection(level="debug"), tty=False, journal=True, stream=stream)
    getattr(log.get("daemon"), level)("something")
    assert stream.getvalue().startswith(f"<{priority}>{{")


def test_under_the_journal_each_line_of_a_traceback_has_the_priority() -> None:
    stream = io.StringIO()
    log.configure(LogSection(format="text"), tty=False, journal=True, stream=stream)
    _log_a_failure()
    lines = stream.getvalue().splitlines()
    assert len(lines) > 3
    assert all(line.startswith("<3>") for line in lines)


def test_lines_below_the_level_are_not_written() -> None:
    stream = _configured(level="warning")
    log.get("daemon").info("chatter")
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    "key", ["password", "broker_password", "api_token", "Secret", "private_key", "authorization"]
)
def test_a_secret_is_withheld(key: str) -> None:
    stream = _configured()
    log.get("mqtt").info("connecting", **{key: "hunter2"})
    assert "hunter2" not in stream.getvalue()
    assert _lines(stream)[0][key] == "(withheld)"


def test_the_path_of_a_secret_is_no_secret() -> None:
    stream = _configured()
    log.get("mqtt").info("connecting", password_file=Path("/run/credentials/edge/broker"))
    assert "/run/credentials/edge/broker" in stream.getvalue()


@pytest.mark.parametrize("format_", ["json", "text"])
def test_a_value_from_outside_can_neither_forge_a_line_nor_move_the_cursor(format_: str) -> None:
    stream = _configured(format=format_)
    log.get("mqtt").info("refused", topic="a\nFORGED\x1b[2J\u202e\ud800")
    text = stream.getvalue()
    assert len(text.splitlines()) == 1
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_a_long_value_is_cut() -> None:
    stream = _configured()
    log.get("mqtt").info("refused", payload="x" * 1_000_000, raw=b"y" * 1_000_000)
    assert len(stream.getvalue()) < 3 * log.MAX_VALUE_CHARS


def test_a_value_that_json_does_not_know_is_written_as_its_repr() -> None:
    stream = _configured()
    log.get("daemon").info("odd", value={1, 2}, nothing=None, ratio=0.5)
    (line,) = _lines(stream)
    assert line["value"] == "{1, 2}"
    assert line["nothing"] is None
    assert line["ratio"] == 0.5


def test_a_table_or_a_list_stays_one_in_json() -> None:
    stream = _configured()
    log.get("daemon").info("ready", stage_ms={"decode": 2.5}, pipelines=("pcb",))
    (line,) = _lines(stream)
    assert line["stage_ms"] == {"decode": 2.5}
    assert line["pipelines"] == ["pcb"]


def test_what_is_deep_or_long_becomes_cut_text() -> None:
    stream = _configured()
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    log.get("daemon").info("odd", deep=deep, long=list(range(10_000)), keys={"k" * 9_999: 1})
    (line,) = _lines(stream)
    assert isinstance(line["deep"][0][0], str)
    assert isinstance(line["long"], str)
    assert len(stream.getvalue()) < 4 * log.MAX_VALUE_CHARS


def test_a_secret_inside_a_table_is_withheld() -> None:
    stream = _configured()
    log.get("mqtt").info("connecting", broker={"host": "plc", "password": "hunter2"})
    assert "hunter2" not in stream.getvalue()
    assert _lines(stream)[0]["broker"]["host"] == "plc"


def test_an_exception_names_its_type_and_message() -> None:
    stream = _configured()
    _log_a_failure()
    (line,) = _lines(stream)
    assert "ZeroDivisionError" in line["exception"]


def test_what_a_library_logs_comes_out_as_our_lines() -> None:
    stream = _configured()
    logging.getLogger("asyncio").error("Task %s was destroyed", "t1")
    (line,) = _lines(stream)
    assert line["room"] == "asyncio"
    assert line["level"] == "error"
    assert line["event"] == "Task t1 was destroyed"


def test_a_broken_log_call_of_a_library_does_not_raise() -> None:
    stream = _configured()
    logging.getLogger("library").error("%d", "not a number")
    assert _lines(stream)[0]["event"] == "unreadable log record"


def test_a_number_that_json_lacks_is_written_as_text() -> None:
    stream = _configured()
    log.get("daemon").info("odd", score=float("nan"))
    assert _lines(stream)[0]["score"] == "nan"


def test_a_flood_of_warnings_is_thinned_and_says_so_afterwards() -> None:
    now = 0.0
    flood = log.Flood(clock=lambda: now)

    def passed() -> dict[str, Any] | None:
        try:
            return dict(flood(None, "warning", {"event": "frame refused"}))
        except structlog.DropEvent:
            return None

    first = [passed() for _ in range(100)]
    now = log.FLOOD_SECONDS
    after = passed()
    assert sum(line is not None for line in first) == log.FLOOD_LINES
    assert after == {"event": "frame refused", "swallowed": 100 - log.FLOOD_LINES}


def test_a_flood_of_one_event_does_not_silence_another_nor_lower_severities() -> None:
    flood = log.Flood(clock=lambda: 0.0)
    for _ in range(log.FLOOD_LINES):
        flood(None, "warning", {"event": "frame refused"})
    assert flood(None, "warning", {"event": "worker lost"}) == {"event": "worker lost"}
    for _ in range(10 * log.FLOOD_LINES):
        assert flood(None, "info", {"event": "verdict"})


def test_a_closed_stream_costs_the_line_and_nothing_else() -> None:
    stream = io.StringIO()
    sink = log.configure(LogSection(), tty=False, stream=stream)
    stream.close()
    log.get("daemon").error("nobody reads this")
    assert sink.lost == 1


def test_the_journal_is_recognised_by_device_and_inode() -> None:
    reading, writing = os.pipe()
    try:
        status = os.fstat(writing)
        assert log.goes_to_journal(f"{status.st_dev}:{status.st_ino}", writing)
        assert not log.goes_to_journal(f"{status.st_dev}:{status.st_ino + 1}", writing)
        assert not log.goes_to_journal("", writing)
    finally:
        os.close(reading)
        os.close(writing)
    assert not log.goes_to_journal("1:1", writing)


def _log_a_failure() -> None:
    try:
        _ = 1 // 0
    except ZeroDivisionError:
        log.get("daemon").exception("failed")
