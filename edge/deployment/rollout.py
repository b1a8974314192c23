"""The rollout of a deployment on one device: what may follow what, and what is remembered of it.

A candidate is *fetched* (whole, signed, in the store), on *trial* (built aside, golden frames), in
*shadow* (judges the line's frames beside the active one, and publishes nothing), a *canary* where
its manifest asks for that (judges a share of the parts, and publishes), on *probation* (is active,
and watched), and then *committed*; or it is *failed*, and what ran before runs on, or runs again.
The rules are a table without I/O or clock; whoever acts on them writes the journal down before each
act, so that a kill or a power cut finds a device that knows what it was doing:

- The journal names what runs: the active deployment, and the one before it. It changes with the
  swap, in one durable write. A start runs what it names: the old one or the new, never neither.
- A start in trial, shadow or canary runs the active deployment, and begins the trial anew; a start
  on probation goes on with the candidate. Where the candidate judged parts, a start counts: a
  deployment that takes the daemon down with it has so many and no more.
- Until a deployment is committed, the one before its predecessor is kept, too: undoing a swap
  leaves the device as it was, with something to return to by hand.
- A deployment that failed `MAX_FAILURES` times is barred: it is not offered again on this device.

Source of the shape: h11 keeps its protocol in such a table; RAUC tells *installed* from *good*.
"""

from enum import StrEnum
from typing import Annotated, Any, Final

import msgspec

from edge.errors import StorageError

MAX_FAILURES: Final = 3
MAX_STARTS: Final = 3
"""Starts of the daemon while a candidate is canary, and again while it is on probation."""
MAX_HISTORY: Final = 50
MAX_DETAIL: Final = 600
"""Characters of a step's sentence: what a guest says in it has no bound of its own."""


FAILURES: Final = (
    *("configuration", "incompatible", "trial", "golden", "untrusted", "worker-lost"),
    *("disagreement", "actions", "latency"),
    *("guest-trap", "guest-budget", "inference-error"),
    *("overrun", "reject-rate", "score-shift", "restarts", "unreadable"),
)
"""Why deployments fail; stable codes, of a step's `reason`."""


class State(StrEnum):
    """Where a device stands."""

    IDLE = "idle"
    """Nothing is under way; what runs is committed, or there is nothing yet."""
    FETCHED = "fetched"
    TRIAL = "trial"
    SHADOW = "shadow"
    CANARY = "canary"
    PROBATION = "probation"


class Event(StrEnum):
    """What happens to a rollout."""

    OFFERED = "offered"
    """A deployment is in the store that is not the active one."""
    BEGAN = "began"
    """Its workers are being built."""
    PROVED = "proved"
    """It stands, and its golden frames came out as they must."""
    ADMITTED = "admitted"
    """In shadow it judged as its predecessor; it judges a share of the parts now."""
    AGREED = "agreed"
    """It did as well as its predecessor, or there was none; it is active now."""
    HELD = "held"
    """Probation is over, and nothing was wrong."""
    FAILED = "failed"
    WITHDRAWN = "withdrawn"
    """Something newer came, or an operator wanted something else."""
    STARTED = "started"
    """The daemon started."""


TRANSITIONS: Final[dict[State, dict[Event, State]]] = {
    State.IDLE: {Event.OFFERED: State.FETCHED, Event.STARTED: State.IDLE},
    State.FETCHED: {
        Event.BEGAN: State.TRIAL,
        Event.FAILED: State.IDLE,
        Event.WITHDRAWN: State.IDLE,
        Event.STARTED: State.FETCHED,
    },
    State.TRIAL: {
        Event.PROVED: State.SHADOW,
        Event.FAILED: State.IDLE,
        Event.WITHDRAWN: State.IDLE,
        Event.STARTED: State.FETCHED,
    },
    State.SHADOW: {
        Event.ADMITTED: State.CANARY,
        Event.AGREED: State.PROBATION,
        Event.FAILED: State.IDLE,
        Event.WITHDRAWN: State.IDLE,
        Event.STARTED: State.FETCHED,
    },
    State.CANARY: {
        Event.AGREED: State.PROBATION,
        Event.FAILED: State.IDLE,
        Event.WITHDRAWN: State.IDLE,
        Event.STARTED: State.FETCHED,
    },
    State.PROBATION: {
        Event.HELD: State.IDLE,
        Event.FAILED: State.IDLE,
        Event.WITHDRAWN: State.IDLE,
        Event.STARTED: State.PROBATION,
    },
}


class Deployed(msgspec.Struct, frozen=True):
    """A deployment, by what names it; reports have it too, and a newer device may say more.

    Attributes:
        digest: SHA-256 of its manifest, hex.
        signed: Whether a repository vouches for it.
    """

    name: str
    revision: Annotated[int, msgspec.Meta(ge=1)]
    digest: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    signed: bool = True


class Step(msgspec.Struct, frozen=True):
    """Something that happened, for `edge deploy history` and `why`.

    Attributes:
        at_ns: UTC.
        reason: One of `FAILURES` where it failed.
        evidence: Figures behind it.
    """

    at_ns: int
    event: Event
    deployment: Deployed
    reason: str = ""
    detail: str = ""
    evidence: dict[str, Any] = {}


class Journal(msgspec.Struct, frozen=True):
    """Everything that a device remembers of its deployments.

    What a later release of edge has added is passed over: a device may go back to an earlier one.

    Attributes:
        active: What runs, and what a start runs.
        previous: What ran before it, and still lies in the store.
        former: What `previous` was before the swap, until the swap is committed or undone.
        candidate: What is under way; on probation it is the active one too.
        starts: Of the daemon while the candidate is canary, and then while it is on probation.
        failures: How often a deployment failed, by digest.
        pinned: No deployment is taken but by hand.
        history: The newest last, at most `MAX_HISTORY`.
    """

    state: State = State.IDLE
    active: Deployed | None = None
    previous: Deployed | None = None
    former: Deployed | None = None
    candidate: Deployed | None = None
    starts: int = 0
    failures: dict[str, int] = {}
    pinned: bool = False
    history: tuple[Step, ...] = ()
    v: Annotated[int, msgspec.Meta(ge=1, le=1)] = 1

    @property
    def goes_back(self) -> bool:
        """Whether the candidate is the deployment before the active one, wanted by hand.

        A repository cannot offer it: what it offers has a higher revision than what runs.
        """
        return self.state is not State.PROBATION and (
            self.candidate is not None and self.candidate == self.previous
        )

    @property
    def is_first(self) -> bool:
        """Whether there is nothing that a person could leave, or nothing to return to."""
        return self.leaves is None or (self.state is State.IDLE and self.previous is None)

    @property
    def on_the_way(self) -> Deployed | None:
        """The candidate, where it is neither active already nor what a person goes back to."""
        return None if self.state is State.PROBATION or self.goes_back else self.candidate

    @property
    def leaves(self) -> Deployed | None:
        """What a person who rolls back leaves: what is on the way, else what runs."""
        return self.on_the_way or self.active

    @property
    def returns_to(self) -> Deployed | None:
        """What runs once a person has rolled back; None: nothing."""
        return self.active if self.on_the_way else self.previous

    @property
    def barred(self) -> frozenset[str]:
        """Digests of deployments that are not tried again."""
        return frozenset(digest for digest, count in self.failures.items() if count >= MAX_FAILURES)

    @property
    def needed(self) -> frozenset[str]:
        """Digests of deployments that must stay in the store."""
        return frozenset(
            each.digest
            for each in (self.active, self.previous, self.former, self.candidate)
            if each
        )

    def last_of(self, event: Event) -> Step | None:
        """Return the newest step of a kind."""
        return next((step for step in reversed(self.history) if step.event is event), None)


class RolloutError(Exception):
    """An event came that the table does not have: a bug of the caller."""


def advance(
    journal: Journal,
    event: Event,
    at_ns: int,
    *,
    offered: Deployed | None = None,
    reason: str = "",
    detail: str = "",
    evidence: dict[str, Any] | None = None,
) -> Journal:
    """Return the journal after an event.

    Args:
        journal: Before it.
        event: What happened.
        at_ns: UTC.
        offered: The deployment, with `Event.OFFERED` alone.
        reason: Stable code, with `Event.FAILED`.
        detail: One sentence for people.
        evidence: Figures.

    Raises:
        RolloutError: The event cannot happen in this state.
    """
    after = TRANSITIONS[journal.state].get(event)
    subject = offered or journal.candidate or journal.active
    if after is None or (event is Event.OFFERED) != (offered is not None):
        raise RolloutError(f"{event} in state {journal.state}")
    if event is Event.STARTED:
        return _started(journal, after, at_ns)
    assert subject is not None, "every other event is about a candidate"
    step = Step(at_ns, event, subject, reason, detail[:MAX_DETAIL], evidence or {})
    changes = {
        "state": after,
        "history": (*journal.history, step)[-MAX_HISTORY:],
        **_consequences(journal, event, subject),
    }
    return msgspec.structs.replace(journal, **changes)


def _consequences(journal: Journal, event: Event, subject: Deployed) -> dict[str, Any]:
    """What an event changes beside the state: the heart of the promise, in one place."""
    match event:
        case Event.OFFERED:
            return {"candidate": subject, "starts": 0}
        case Event.AGREED:
            # One that was fetched anew, because its files were lost, is no predecessor of itself.
            previous = journal.previous if journal.active == subject else journal.active
            former = journal.previous
            return {"active": subject, "previous": previous, "former": former, "starts": 0}
        case Event.HELD:
            return {"candidate": None, "former": None}
        case Event.FAILED | Event.WITHDRAWN:
            changes: dict[str, Any] = {"candidate": None}
            if journal.state is State.PROBATION:
                former = None if journal.former == journal.previous else journal.former
                changes |= {"active": journal.previous, "previous": former, "former": None}
            if event is Event.FAILED:
                count = journal.failures.get(subject.digest, 0) + 1
                changes["failures"] = {**journal.failures, subject.digest: count}
            return changes
        case _:
            return {}


def _started(journal: Journal, after: State, at_ns: int) -> Journal:
    if journal.state not in (State.CANARY, State.PROBATION):
        return msgspec.structs.replace(journal, state=after)
    starts = journal.starts + 1
    if starts <= MAX_STARTS:
        return msgspec.structs.replace(journal, state=after, starts=starts)
    return advance(
        journal,
        Event.FAILED,
        at_ns,
        reason="restarts",
        detail=f"the daemon started {starts} times while it judged parts ({journal.state})",
    )


def pinned(journal: Journal, wanted: bool) -> Journal:
    """Return the journal of a device that takes no deployment but by hand, or takes them again."""
    return msgspec.structs.replace(journal, pinned=wanted)


def fallen_back(journal: Journal, at_ns: int, detail: str) -> Journal:
    """Return the journal after a committed deployment could not be loaded any more.

    What ran before it is active again; where there is nothing left, nothing is.
    """
    assert journal.active is not None
    step = Step(at_ns, Event.FAILED, journal.active, "unreadable", detail[:MAX_DETAIL])
    return msgspec.structs.replace(
        journal,
        active=journal.previous,
        previous=None,
        history=(*journal.history, step)[-MAX_HISTORY:],
    )


def decode(content: bytes, where: str) -> Journal:
    """Read a journal.

    Raises:
        StorageError: It is not one; `where` names it.
    """
    try:
        return msgspec.json.decode(content, type=Journal)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as broken:
        raise StorageError(
            f"{where}: is no journal of deployments: {broken} (remove the file: the device then "
            "fetches anew what its repository offers it)"
        ) from broken


def encode(journal: Journal) -> bytes:
    """Write a journal."""
    return msgspec.json.encode(journal)
