"""Entries for tests of the ledger, and a line from its thread to the test's."""

import queue
import time
from collections.abc import Callable
from typing import Any, TypeVar

from edge.contracts.signal import SignalState, SignalValue
from edge.contracts.verdict import Defect, DeploymentRef, Kind, Verdict
from edge.ledger.entry import Entry, Pinned

DEADLINE_S = 60.0
PINNED = Pinned("1" * 64, "2" * 64, "3" * 64, "4" * 64, "5" * 64)
_Found = TypeVar("_Found")


def entry(number: int, *, pipeline: str = "pcb", decided_at_ns: int = 0) -> Entry:
    """The verdict of frame `number`; its frame is `frame(number)`."""
    return Entry(
        verdict=Verdict(
            device="box1",
            pipeline=pipeline,
            deployment=DeploymentRef("boards", 7, "d" * 64),
            frame_id=f"frame-{number}",
            part_id=f"part-{number // 2}",
            verdict=Kind.REJECT if number % 3 else Kind.PASS,
            reason="defect" if number % 3 else "ok",
            score=number / 7,
            defects=(Defect("short", 0.875, (1.0, 2.5, 30.0, 40.0)),) if number % 3 else (),
            captured_at_ns=1_000_000_000 + number,
            latency_ms={"total": 15.25, "decode": 1.5, "infer": 9.0},
            budget_ms=200.0,
            provider="cpu",
        ),
        decided_at_ns=decided_at_ns or time.time_ns(),
        pinned=PINNED,
        reference_digest="6" * 64,
        signals={"signal.lamp": SignalValue(0.5, 1_000, SignalState.FRESH)},
        fingerprint=number,
    )


def frame(number: int) -> bytes:
    """The bytes of frame `number`."""
    return f"pixels of {number}".encode()


class Line:
    """Where a ledger delivers its answers; the test's thread runs them."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.places: list[int] = []
        self.troubles: list[str] = []

    def deliver(self, call: Callable[[], None]) -> None:
        self._calls.put(call)

    def until(self, reached: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
        """Run what is delivered until the condition holds."""
        deadline = time.monotonic() + deadline_s
        while not reached():
            remaining = deadline - time.monotonic()
            assert remaining > 0, "the condition was not reached in time"
            try:
                self._calls.get(timeout=min(remaining, 0.05))()
            except queue.Empty:
                continue

    def answer(self, ask: Callable[..., None], *arguments: object) -> Any:
        """Ask a ledger something and wait for what it answers: a value, or a tuple of values."""
        answers: list[tuple[Any, ...]] = []
        ask(*arguments, lambda *found: answers.append(found))
        self.until(lambda: bool(answers))
        return answers[0][0] if len(answers[0]) == 1 else answers[0]
