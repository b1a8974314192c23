"""What a person reads: escapes and overkill are called by their name, findings are not hidden."""

from dataclasses import replace

import pytest
from msgspec.structs import replace as replaced
from rich.console import Console

from edge.contracts.verdict import Defect, DeploymentRef, Kind, Verdict
from edge.replay.parts import Truth
from edge.replay.report import TerminalWatcher, score_table, verdict_line
from edge.replay.score import Answer, Score, Shot, score

GOOD, BAD = Truth(is_good=True), Truth(is_good=False)


def answer(kind: Kind, defects: tuple[Defect, ...] = (), reason: str = "ok") -> Answer:
    verdict = Verdict(
        device="box1",
        pipeline="pcb",
        deployment=DeploymentRef("pcb", 1, "ab"),
        frame_id="f",
        part_id="p",
        verdict=kind,
        reason=reason,
        score=0.0,
        defects=defects,
        captured_at_ns=0,
        latency_ms={"total": 9.0},
        budget_ms=200.0,
        provider="cpu",
    )
    return Answer(verdict, 23_400_000)


def shot(truth: Truth | None, part_id: str = "board-7") -> Shot:
    return Shot("f", part_id, truth, 0)


@pytest.mark.parametrize(
    ("truth", "kind", "remark"),
    [
        (GOOD, Kind.REJECT, "overkill: the part is good"),
        (BAD, Kind.PASS, "escape: it is bad"),
        (GOOD, Kind.PASS, ""),
        (BAD, Kind.REJECT, ""),
        (GOOD, Kind.REVIEW, ""),
        (None, Kind.REJECT, ""),
    ],
)
def test_a_wrong_verdict_is_called_by_its_name(
    truth: Truth | None, kind: Kind, remark: str
) -> None:
    line = verdict_line(shot(truth), answer(kind))
    assert ("overkill" in line, "escape" in line) == ("overkill" in remark, "escape" in remark)
    assert remark in line


def test_no_word_of_a_verdict_steers_the_terminal() -> None:
    evil = "\x1b[2J\x9b31m\r[bold]"
    seen = answer(Kind.REJECT, (Defect(evil, 0.5, (0.0, 0.0, 1.0, 1.0)),), reason=evil)
    bare = answer(Kind.PASS, reason=evil)
    told = score([shot(BAD, evil)], [replace(bare, verdict=replaced(bare.verdict, provider=evil))])
    console = Console(record=True, width=200)
    for each in (verdict_line(shot(BAD, evil), seen), verdict_line(shot(GOOD), bare)):
        console.print(each)
    console.print(score_table(told))
    printed = console.export_text()
    assert not {"\x1b", "\x9b", "\r"} & set(printed)
    assert printed.count("\\x1b[2J") == 5


def test_a_line_shows_latency_and_the_surest_defects() -> None:
    defects = tuple(Defect(f"kind{n}", 0.9 - n / 10, (0.0, 0.0, 1.0, 1.0)) for n in range(6))
    line = verdict_line(shot(BAD), answer(Kind.REJECT, defects))
    assert "23.4 ms" in line
    assert "kind0 0.90" in line
    assert "kind4" not in line
    assert "and 2 more" in line


def test_text_from_outside_is_no_markup() -> None:
    line = verdict_line(shot(None, "[red]x"), answer(Kind.PASS, reason="[bold]r"))
    assert r"\[red]x" in line
    assert r"\[bold]r" in line


def test_the_table_tells_rates_and_findings() -> None:
    result = replace(score([shot(BAD)], [answer(Kind.PASS)]), undecodable=2)
    text = printed(result)
    assert "100.0% (1 of 1; 95 %: 20.7% to 100.0%)" in text
    assert "no such part was played" in text
    assert "undecodable 2" in text


def test_a_clean_table_says_so() -> None:
    assert "one verdict for each frame, in time" in printed(
        score([shot(GOOD)], [answer(Kind.PASS)])
    )


@pytest.mark.parametrize(("told_ms", "said"), [(8.0, True), (40.0, False), (None, False)])
def test_time_that_is_lost_on_the_way_is_told(told_ms: float | None, said: bool) -> None:
    told = {} if told_ms is None else {"p50": told_ms}
    result = replace(
        score([shot(GOOD)], [answer(Kind.PASS)]), latency_ms={"p50": 42.0}, daemon_latency_ms=told
    )
    assert ("34 ms are lost on the way" in printed(result)) is said


def test_without_a_terminal_a_watcher_prints_verdicts_alone() -> None:
    console = Console(record=True, width=120, force_terminal=False)
    watcher = TerminalWatcher(console)
    watcher.waits("the broker")
    watcher.starts("parts", 1)
    watcher.receives(shot(GOOD), answer(Kind.PASS))
    watcher.ends()
    assert [line.split() for line in console.export_text().splitlines()] == [
        ["board-7", "pass", "23.4", "ms", "ok"]
    ]


def printed(result: Score) -> str:
    console = Console(record=True, width=140)
    console.print(score_table(result))
    return console.export_text()
