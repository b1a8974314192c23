"""What devices and guests say is shown as what it is: it steers neither rich nor the terminal."""

import copy
import io
import json
from typing import Any

import msgspec
import pytest
from rich.console import Console, RenderableType
from rich.table import Table

from edge.cli import deploy, publish
from edge.cli.plain import plain
from edge.cli.status import picture, understood
from edge.deployment.report import Outcome, Report
from edge.deployment.rollout import Deployed, Event, Journal, State, Step
from edge.errors import TransportError

EVIL = "[/red] \x1b[2J[link=http://x]y[/link]\nbox2 idle 0 \\"
BOARDS = Deployed("boards", 3, "0" * 64)


def _drawn(table: RenderableType) -> str:
    drawn = io.StringIO()
    Console(file=drawn, width=400, force_terminal=False).print(table)
    return drawn.getvalue()


def test_text_from_outside_is_bounded_and_has_neither_controls_nor_markup() -> None:
    assert _drawn(plain(EVIL)).startswith("[/red] \\x1b[2J[link=http://x]y[/link]\\nbox2 idle 0")
    assert _drawn(plain("x" * 1_000)).strip() == "x" * 300
    assert _drawn(plain("pin 7: Größe [mm]")).strip() == "pin 7: Größe [mm]"


def test_a_device_cannot_spoil_or_forge_the_table_of_its_fleet() -> None:
    evil = Report("box1", "line-a", State.IDLE, 0, trouble=EVIL)
    failed = Outcome(Event.FAILED, BOARDS, 0, reason="golden", detail=EVIL)
    for said in (evil, msgspec.structs.replace(evil, trouble="", outcome=failed, state=EVIL)):
        table = Table()
        table.add_row(*publish._row(said, None))
        drawn = _drawn(table)
        assert "[link=http://x]y[/link]" in drawn
        assert "\x1b" not in drawn
        assert len(drawn.splitlines()) == len(_drawn(_one_row()).splitlines())


def _one_row() -> Table:
    table = Table()
    table.add_row("a")
    return table


def test_what_a_guest_said_when_it_failed_is_shown_as_it_is() -> None:
    step = Step(0, Event.FAILED, BOARDS, "guest-trap", EVIL, {"shadow": {EVIL: EVIL}})
    for table in (deploy._why(step), deploy._history(Journal(history=(step,)))):
        drawn = _drawn(table)
        assert "[link=http://x]y[/link]" in drawn
        assert "\x1b" not in drawn
        assert "\nbox2" not in drawn


STATUS: dict[str, Any] = {
    "state": "online",
    "ready": True,
    "device": "box1",
    "time_ns": 1,
    "mqtt": {"protocol": "5", "disconnects": 2},
    "mqtt_signals": {"protocol": "", "trouble": "gone", "too_large": 1},
    "ledger": {"committed": 7, "owed": 2, "max_bytes": 1 << 20, "frames": {"files": 3}},
}


def test_a_status_is_shown_with_its_figures() -> None:
    drawn = " ".join(_drawn(picture(understood(json.dumps(STATUS).encode(), 5.0))).split())
    for words in (
        "7 records, 2 owed to the cloud",
        "kept frames 3 files",
        "counter mqtt.disconnects 2",
        "counter mqtt_signals.too_large 1",
        "no signals gone",
    ):
        assert words in drawn


@pytest.mark.parametrize("value", [EVIL, [EVIL], {EVIL: EVIL}, -1, 1 << 63, None, 1.5])
@pytest.mark.parametrize(
    "path",
    ["ledger.committed", "ledger.frames.files", "mqtt.disconnects", "mqtt_signals", "time_ns"],
)
def test_a_figure_of_a_status_that_is_none_steers_nothing_and_ends_no_command(
    path: str, value: object
) -> None:
    said = copy.deepcopy(STATUS)
    *above, last = path.split(".")
    place = said
    for name in above:
        place = place[name]
    place[last] = value
    payload = json.dumps(said).encode()
    if path == "mqtt_signals" and (value is None or isinstance(value, dict)):  # it may say so
        assert "\x1b" not in _drawn(picture(understood(payload, 5.0)))
        return
    with pytest.raises(TransportError, match="the status message cannot be read"):
        understood(payload, 5.0)


@pytest.mark.parametrize("at_ns", [10**30, -(10**30), 1 << 63, -(10**18)])
def test_a_step_is_shown_whenever_it_was(at_ns: int) -> None:
    step = Step(at_ns, Event.HELD, BOARDS)
    assert "boards" in _drawn(deploy._history(Journal(history=(step,))))
    assert "boards" in _drawn(deploy._why(step))
