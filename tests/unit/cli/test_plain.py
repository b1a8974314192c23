"""What devices and guests say is shown as what it is: it steers neither rich nor the terminal."""

import io

import msgspec
from rich.console import Console, RenderableType
from rich.table import Table

from edge.cli import deploy, publish
from edge.cli.plain import plain
from edge.deployment.report import Outcome, Report
from edge.deployment.rollout import Deployed, Event, Journal, State, Step

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
