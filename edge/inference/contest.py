"""Models measured in turn, in one process with limits: variants, threads, providers.

This module is the side that asks, and imports no engine. Machines drift while one measures: each
round runs every entry, so that the ratios hold when the milliseconds do not.
"""

from typing import Final

import msgspec

from edge.contracts.plan import ModelPlan
from edge.inference.trial import MEMORY_MIB, Request, ask

ROUNDS: Final = 60
WALL_S: Final = 300.0
MAX_ENTRIES: Final = 32


class Entry(msgspec.Struct, frozen=True):
    """One of those that are measured; `name` stands in the table."""

    name: str
    plan: ModelPlan


class Contest(msgspec.Struct, frozen=True):
    """What is measured; the first entry is what the others are compared with."""

    entries: tuple[Entry, ...]
    rounds: int = ROUNDS
    wall_s: float = WALL_S
    memory_mib: int = MEMORY_MIB
    seed: int = 7

    def widest(self) -> Request:
        """The request whose limits bound the whole contest."""
        most = max(each.plan.threads for each in self.entries)
        accelerated = next((e.plan for e in self.entries if e.plan.provider != "cpu"), None)
        plan = msgspec.structs.replace(accelerated or self.entries[0].plan, threads=most)
        return Request(plan, self.rounds, self.wall_s, self.memory_mib)


class Standing(msgspec.Struct, frozen=True):
    """What one entry took.

    Attributes:
        ratio: Median over the rounds of its time divided by the first entry's in the same round.
        load_ms: Screening, parsing, optimising; compiling where the provider does.
    """

    name: str
    provider: str
    placement: dict[str, int]
    threads: int
    load_ms: float
    p50_ms: float
    p99_ms: float
    ratio: float


class Standings(msgspec.Struct, frozen=True):
    """All of them, in the order of the entries."""

    rounds: int
    runtime: str
    entries: tuple[Standing, ...]


def contest(request: Contest) -> Standings:
    """Measure entries in turn in a process of its own.

    Raises:
        TrialError: One of them is refused, fails, or takes more than allowed.
    """
    where = request.entries[0].plan.path
    return ask("contest", msgspec.json.encode(request), request.widest(), where, Standings)
