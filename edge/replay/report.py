"""What a person sees of a replay: verdicts as they come, and the scored table at the end."""

from collections.abc import Mapping
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from edge.contracts.verdict import Kind
from edge.replay.parts import Truth
from edge.replay.player import Watcher
from edge.replay.score import Answer, Rate, Score, Shot

_COLOURS: Final = {Kind.PASS: "green", Kind.REJECT: "red", Kind.REVIEW: "yellow"}
_DEFECTS_SHOWN: Final = 4
_SLOW_WAY_MS: Final = 20.0
"""More than a broker beside the daemon takes; less than a delayed acknowledgement does."""


class TerminalWatcher(Watcher):
    """Verdict lines above a progress bar; where there is no terminal, verdict lines alone."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("", total=None)
        self._answered = 0
        if console.is_terminal:
            self._progress.start()

    def waits(self, for_what: str) -> None:
        """Show it beside the spinner."""
        self._progress.update(self._task, description=f"waiting for {escape(for_what)}")

    def starts(self, title: str, frames: int) -> None:
        """Turn the spinner into a bar."""
        self._progress.update(self._task, description=escape(title), total=frames)

    def receives(self, shot: Shot, answer: Answer) -> None:
        """Print the verdict and move the bar."""
        self._answered += 1
        self._progress.update(self._task, completed=self._answered)
        self._console.print(verdict_line(shot, answer), highlight=False, soft_wrap=True)

    def ends(self) -> None:
        """Take the bar away."""
        if self._console.is_terminal:
            self._progress.stop()


def verdict_line(shot: Shot, answer: Answer) -> str:
    """One verdict as a line of rich markup: part, verdict, latency, what was found, the truth."""
    verdict = answer.verdict
    latency_ms = (answer.arrived_ns - shot.published_ns) / 1e6
    colour = _COLOURS[verdict.verdict]
    found = ", ".join(f"{d.label} {d.score:.2f}" for d in verdict.defects[:_DEFECTS_SHOWN])
    if len(verdict.defects) > _DEFECTS_SHOWN:
        found += f" and {len(verdict.defects) - _DEFECTS_SHOWN} more"
    remark = _remark(shot.truth, verdict.verdict)
    return (
        f"{_shown(shot.part_id[:24]):<24} [{colour}]{verdict.verdict.value:<6}[/] "
        f"{latency_ms:6.1f} ms  {_shown(found or verdict.reason)}{remark}"
    )


def score_table(score: Score) -> Table:
    """The score as a table of two columns."""
    table = Table(title="Replay", show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column()
    table.add_row("frames", f"{score.frames}, answered {score.answered}")
    table.add_row("verdicts", _counts(score.verdicts))
    table.add_row("reasons", _counts(score.reasons))
    table.add_row("escape (bad parts passed)", _rate(score.escape))
    table.add_row("overkill (good parts rejected)", _rate(score.overkill))
    reviewed = score.good_reviewed.count + score.bad_reviewed.count
    if reviewed:
        table.add_row("sent to review", f"{reviewed}, of them good {score.good_reviewed.count}")
    if score.boxes is not None:
        boxes = score.boxes
        table.add_row(
            "defects found where they are",
            f"{boxes.matched} of {boxes.true}; found elsewhere: {boxes.found - boxes.matched}",
        )
    if score.parts is not None:
        parts = score.parts
        table.add_row(f"of {parts.count} parts, escape", _rate(parts.escape))
        table.add_row(f"of {parts.count} parts, overkill", _rate(parts.overkill))
    if score.labelled is not None:
        table.add_row("kind of defect as known", _rate(score.labelled))
    for name, correlation in score.drift.items():
        table.add_row(f"score along {_shown(name)}", f"Spearman {correlation:.3f}")
    if score.answered:
        table.add_row("latency seen by the camera", _latency(score.latency_ms))
        table.add_row("latency told by the daemon", _latency(score.daemon_latency_ms))
        if remark := _on_the_way(score):
            table.add_row("", remark)
        table.add_row("budget", f"{score.budget_ms:g} ms on {_shown(score.provider or 'none')}")
    table.add_row("findings", _findings(score))
    return table


def _on_the_way(score: Score) -> str:
    """Where a verdict loses its time between the daemon's word and the camera, in words."""
    lost_ms = score.latency_ms.get("p50", 0.0) - score.daemon_latency_ms.get("p50", 0.0)
    if lost_ms < _SLOW_WAY_MS or not score.daemon_latency_ms:
        return ""
    return f"[yellow]{lost_ms:.0f} ms are lost on the way: `edge doctor` times the broker[/]"


def _findings(score: Score) -> str:
    counts = {
        "missing": score.missing,
        "overruns": score.overruns,
        "second verdicts": score.duplicates,
        "contradictory verdicts": score.contradictions,
        "not sent": score.unsent,
        "heard by nobody": score.unheard,
        "undecodable": score.undecodable,
    }
    found = {name: count for name, count in counts.items() if count}
    if not found:
        return "[green]none: one verdict for each frame, in time[/]"
    remark = "; [yellow]is it the topic that the daemon has bound?[/]" if score.unheard else ""
    return f"[red]{_counts(found)}[/]{remark}"


def _remark(truth: Truth | None, kind: Kind) -> str:
    if truth is None or kind is Kind.REVIEW or truth.is_good == (kind is Kind.PASS):
        return ""
    return (
        "  [red]overkill: the part is good[/]" if truth.is_good else "  [red]escape: it is bad[/]"
    )


def _rate(rate: Rate) -> str:
    share, interval = rate.value, rate.interval
    if share is None or interval is None:
        return "no such part was played"
    low, high = interval
    return f"{share:.1%} ({rate.count} of {rate.of}; 95 %: {low:.1%} to {high:.1%})"


def _shown(text: str) -> str:
    """What a daemon or a table says, which steers neither rich nor the terminal."""
    return escape(text if text.isprintable() else ascii(text)[1:-1])


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{_shown(name)} {count}" for name, count in counts.items()) or "none"


def _latency(latency_ms: Mapping[str, float]) -> str:
    # p99_9 is p99.9
    told = (f"{name.replace('_', '.')} {value:.1f}" for name, value in latency_ms.items())
    return ", ".join(told) + " ms"
