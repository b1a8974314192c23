"""What the page asks of a ledger: search, one record, scores under a threshold. Bounded.

Records are found by place, newest first. A search that has looked at `MAX_LOOKED_AT` records, or
for `PATIENCE_S`, says where it stopped, and the next one goes on there. Instants are when a verdict
was decided; a clock that was set back is allowed for, up to `SLACK` records.
"""

import math
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Final

import msgspec

from edge.console.snapshots import View
from edge.contracts.verdict import Defect, DeploymentRef, Kind
from edge.ledger.reading import Reading
from edge.ledger.record import Override
from edge.ledger.verify import Row

MAX_PAGE: Final = 100
MAX_LOOKED_AT: Final = 50_000
MAX_TRIED: Final = 200_000
"""Records whose scores are counted at once: a day of a line of two parts a second."""
PATIENCE_S: Final = 3.0
SLACK: Final = 500
MAX_GROUPS: Final = 20
MAX_OF_PART: Final = 50
BINS: Final = 1_000
"""Scores are counted in steps of a thousandth."""
BY_SCORE: Final = frozenset({"ok", "defect"})
"""Reasons that a threshold decides; all others are the host's, or a rule's beside the score."""
_LOOK_EVERY: Final = 256


class _Digests(msgspec.Struct, frozen=True):
    frame: str = ""
    reference: str = ""
    parameters: str = ""


class Brief(msgspec.Struct, frozen=True):
    """What a table shows of a record, of either type; decoded without the rest."""

    type: str
    seq: int
    pipeline: str
    frame_id: str
    part_id: str
    verdict: Kind
    reason: str
    decided_at_ns: int
    captured_at_ns: int = 0
    score: float | None = None
    defects: tuple[Defect, ...] = ()
    latency_ms: dict[str, float] = {}
    deployment: DeploymentRef | None = None
    digests: _Digests = _Digests()
    frame_index: int = -1
    of: int = 0
    by: str = ""


class Word(msgspec.Struct, frozen=True):
    """What a person said of a verdict."""

    seq: int
    verdict: Kind
    by: str
    via: str
    reason: str
    decided_at_ns: int


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One row of a table.

    Attributes:
        frame: Digest of its frame.
        findings: Where pictures are asked for, what is drawn over its frame.
        kept: Likewise, whether that frame is there.
    """

    seq: int
    pipeline: str
    frame_id: str
    part_id: str
    verdict: Kind
    reason: str
    decided_at_ns: int
    score: float | None
    defects: int
    latency_ms: float | None
    frame: str
    word: Word | None = None
    findings: tuple[Defect, ...] = ()
    kept: bool = False


class Asked(msgspec.Struct, frozen=True):
    """What is searched for; empty: all.

    Attributes:
        part: A part id; ends in `*`: all that begin so.
        frame: A frame id, likewise.
        since_ns: UTC; 0: from the beginning.
        until_ns: UTC; 0: to the end.
        before: Only places below this one; 0: from the newest.
        worded: Only verdicts of which a person said something.
        pictures: With what is drawn over their frames.
    """

    part: str = ""
    frame: str = ""
    pipeline: str = ""
    kind: str = ""
    reason: str = ""
    since_ns: int = 0
    until_ns: int = 0
    before: int = 0
    limit: int = 50
    worded: bool = False
    pictures: bool = False


class Found(msgspec.Struct, frozen=True):
    """A page of a search.

    Attributes:
        lines: Newest first.
        next: Where to go on; 0: nothing is left.
        looked_at: Records that this page took.
    """

    lines: list[Line]
    next: int
    looked_at: int


class Cell(msgspec.Struct, frozen=True, array_like=True):
    """Verdicts of one score, of one kind, of one truth: `count` of them.

    Attributes:
        bin: The score in thousandths.
        kind: As recorded.
        truth: What people said: `good`, `bad`, or empty.
    """

    bin: int
    kind: Kind
    truth: str
    count: int


class Group(msgspec.Struct, frozen=True):
    """The scores of one deployment of one pipeline.

    Attributes:
        others: Judged by something else than the score, by reason.
        parameters: Digest of the parameters' document.
    """

    pipeline: str
    deployment: DeploymentRef
    cells: list[Cell]
    others: dict[str, int]
    parameters: str


class Tried(msgspec.Struct, frozen=True):
    """Scores of a range.

    Attributes:
        cut: There were more records; these are the newest.
    """

    groups: list[Group]
    looked_at: int
    cut: bool


_decoder: Final = msgspec.json.Decoder(Brief)


def brief(row: Row) -> Brief | None:
    """Read what a table shows; None of a record that this version cannot read."""
    try:
        return _decoder.decode(row.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def search(view: View, asked: Asked) -> Found:
    """Return a page of the verdicts that are asked for."""
    rows = _rows(view.ledger, asked)
    lines: list[Line] = []
    looked_at, older, last = 0, 0, 0
    give_up_at = time.monotonic() + PATIENCE_S
    for row in rows:
        looked_at += 1
        last = row.seq
        older = older + 1 if row.at_ns < asked.since_ns else 0
        if older > SLACK:
            return Found(lines, 0, looked_at)
        found = None if older or (asked.until_ns and row.at_ns > asked.until_ns) else brief(row)
        if found is not None and found.type == "verdict" and _matches(found, asked, view):
            lines.append(line(found, view, pictures=asked.pictures))
            if len(lines) == asked.limit:
                break
        if looked_at >= MAX_LOOKED_AT or (
            looked_at % _LOOK_EVERY == 0 and time.monotonic() > give_up_at
        ):
            break
    else:
        return Found(lines, 0, looked_at)
    more = last > view.ledger.marks["anchor"].seq + 1
    return Found(lines, last if more else 0, looked_at)


def of_part(view: View, part_id: str) -> list[Line]:
    """Return the last verdicts of a part, newest first."""
    rows = view.ledger.newest_of_part(part_id, view.ledger.size() + 1, MAX_LOOKED_AT)
    verdicts = (line(found, view) for row in rows if row.frame and (found := brief(row)))
    return list(islice(verdicts, MAX_OF_PART))


def line(found: Brief, view: View, *, pictures: bool = False) -> Line:
    """Return the row of a verdict."""
    words = view.words.get(found.seq)
    return Line(
        seq=found.seq,
        pipeline=found.pipeline,
        frame_id=found.frame_id,
        part_id=found.part_id,
        verdict=found.verdict,
        reason=found.reason,
        decided_at_ns=found.decided_at_ns,
        score=found.score,
        defects=len(found.defects),
        latency_ms=found.latency_ms.get("total"),
        frame=found.digests.frame,
        word=_word(words[-1]) if words else None,
        findings=found.defects if pictures else (),
    )


def words_of(view: View, seq: int) -> list[Word]:
    """Return what people said of a verdict, oldest first."""
    return [_word(word) for word in view.words.get(seq, ())]


def tried(view: View, pipeline: str, since_ns: int, until_ns: int) -> Tried:
    """Count the scores of a range, by deployment; the newest ones where there are too many."""
    cells: dict[tuple[str, DeploymentRef], Counter[tuple[int, Kind, str]]] = {}
    others: dict[tuple[str, DeploymentRef], Counter[str]] = {}
    parameters: dict[tuple[str, DeploymentRef], str] = {}
    looked_at, older = 0, 0
    give_up_at = time.monotonic() + PATIENCE_S
    cut = False
    for row in view.ledger.newest(_behind(view.ledger, until_ns), MAX_TRIED + 1):
        if looked_at >= MAX_TRIED or (
            looked_at % _LOOK_EVERY == 0 and time.monotonic() > give_up_at
        ):
            cut = True
            break
        looked_at += 1
        older = older + 1 if row.at_ns < since_ns else 0
        if older > SLACK:
            break
        if older or (until_ns and row.at_ns > until_ns) or pipeline not in ("", row.pipeline):
            continue
        found = brief(row)
        if found is None or found.type != "verdict" or found.deployment is None:
            continue
        key = (found.pipeline, found.deployment)
        if key not in cells and len(cells) >= MAX_GROUPS:
            cut = True
            continue
        counted, beside = cells.setdefault(key, Counter()), others.setdefault(key, Counter())
        parameters.setdefault(key, found.digests.parameters)
        if found.frame_index < 0 or found.reason not in BY_SCORE or found.score is None:
            beside[found.reason] += 1
            continue
        place = min(max(math.floor(found.score * BINS + 1e-6), 0), BINS)
        counted[place, found.verdict, truth(view, found.seq)] += 1
    groups = [
        Group(
            pipeline=key[0],
            deployment=key[1],
            cells=[Cell(*cell, count) for cell, count in sorted(counted.items())],
            others=dict(others[key]),
            parameters=parameters[key],
        )
        for key, counted in cells.items()
    ]
    return Tried(groups, looked_at, cut)


def truth(view: View, seq: int) -> str:
    """Say what people said of a part last: `good`, `bad`, or "" where they did not decide."""
    words = view.words.get(seq)
    if not words:
        return ""
    return {Kind.PASS: "good", Kind.REJECT: "bad"}.get(words[-1].verdict, "")


def newest(view: View, pipeline: str, count: int) -> Iterator[Brief]:
    """Yield the newest verdicts of a pipeline, or of all, newest first."""
    for row in view.ledger.newest(view.ledger.size() + 1, count):
        if pipeline in ("", row.pipeline) and row.frame and (found := brief(row)) is not None:
            yield found


def _rows(ledger: Reading, asked: Asked) -> Iterator[Row]:
    before = _behind(ledger, asked.until_ns)
    if asked.before:
        before = min(before, asked.before)
    for text, newest_of in (
        (asked.part, ledger.newest_of_part),
        (asked.frame, ledger.newest_of_frame),
    ):
        if text and not text.endswith("*"):
            return newest_of(text, before, MAX_LOOKED_AT)
    return ledger.newest(before, MAX_LOOKED_AT)


def _behind(ledger: Reading, until_ns: int) -> int:
    """Return a place behind all that was decided until an instant; found by halving."""
    low, high = ledger.marks["anchor"].seq + 1, ledger.size() + 1
    if not until_ns:
        return high
    end = high
    while low < high:
        middle = (low + high) // 2
        row = ledger.record(middle)
        if row is None or row.at_ns <= until_ns:
            low = middle + 1
        else:
            high = middle
    return min(low + SLACK, end)


def _matches(found: Brief, asked: Asked, view: View) -> bool:
    return (
        _fits(found.part_id, asked.part)
        and _fits(found.frame_id, asked.frame)
        and asked.pipeline in ("", found.pipeline)
        and asked.kind in ("", found.verdict)
        and asked.reason in ("", found.reason)
        and (not asked.worded or found.seq in view.words)
    )


def _fits(text: str, wanted: str) -> bool:
    if wanted.endswith("*"):
        return text.startswith(wanted[:-1])
    return wanted in ("", text)


def _word(word: Override) -> Word:
    return Word(word.seq, word.verdict, word.by, word.via, word.reason, word.decided_at_ns)
