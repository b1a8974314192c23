"""What one look at the box found."""

from enum import StrEnum

import msgspec


class Outcome(StrEnum):
    """How a check ended."""

    OK = "ok"
    FINDING = "finding"
    UNKNOWN = "could-not-check"


class Check(msgspec.Struct, frozen=True):
    """One check.

    Attributes:
        name: Stable, for machines: `broker.round-trip`.
        said: What was found, with figures.
        remedy: What to do; empty where all is well.
    """

    name: str
    outcome: Outcome
    said: str
    remedy: str = ""


def ok(name: str, said: str) -> Check:
    """All is well."""
    return Check(name, Outcome.OK, said)


def finding(name: str, said: str, remedy: str) -> Check:
    """Something is wrong, and this mends it."""
    return Check(name, Outcome.FINDING, said, remedy)


def unknown(name: str, said: str, remedy: str = "") -> Check:
    """It could not be looked at, and this is why."""
    return Check(name, Outcome.UNKNOWN, said, remedy)
