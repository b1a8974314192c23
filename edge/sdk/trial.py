"""Holds a guest to its golden vectors, and to what the ABI asks of every guest: `edge guest test`.

For each vector: every call gives what is expected; a second instance gives the same bits; and
where the guest keeps a state, a third instance that is handed it half way goes on as the first
did. Beside the vectors, for each role: broken configuration documents and cut-short arguments are
refused by an error of the guest's own. A trap is a failure even where the daemon would survive
it: the frame would be lost.
"""

from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

from edge.errors import EdgeError, GuestError, IncompatibleError
from edge.sdk import hostile, measure, vectors
from edge.sdk.session import Session, differences
from edge.sdk.vectors import Call, Vector
from edge.wasm.engine import PolicyModule

_TIMED_SECONDS: Final = 0.02


class Outcome(msgspec.Struct, frozen=True):
    """One vector, or one check beside the vectors.

    Attributes:
        problems: Why it failed; empty: it passed.
        call_us: Median of its calls in microseconds, the host's checks included; 0: none was timed.
        fuel: What its dearest call took, about one a Wasm instruction, the same on every machine;
            0: it was not counted.
    """

    name: str
    problems: tuple[str, ...]
    call_us: float = 0.0
    fuel: int = 0

    @property
    def passed(self) -> bool:
        """Whether nothing was wrong."""
        return not self.problems


def outcomes(
    module: PolicyModule, folder: Path, call_ms: int, metered: PolicyModule | None = None
) -> Iterator[Outcome]:
    """Try a guest; one outcome at a time, in the order of the vectors' names.

    Args:
        module: The guest.
        folder: Its vectors.
        call_ms: The longest that a call may take.
        metered: The same guest, loaded to count fuel.

    Raises:
        VectorError: The folder holds no vectors.
    """
    first: dict[str, Vector] = {}
    for file in vectors.files(folder):
        try:
            vector = vectors.read(file)
            yield _try_vector(module, vector, call_ms, metered)
        except EdgeError as wrong:
            yield Outcome(file.stem, (str(wrong),))
            continue
        if not vector.refused:
            first.setdefault(vector.role, vector)
    for role in sorted(module.roles - first.keys()):
        yield Outcome(f"{role}: vectors", (f"no vector calls the role {role}, which it serves",))
    for role, vector in first.items():
        if role in module.roles:
            for name, problems in hostile.checks(module, vector, call_ms):
                yield Outcome(name, problems)


def _try_vector(
    module: PolicyModule, vector: Vector, call_ms: int, metered: PolicyModule | None
) -> Outcome:
    if vector.refused:
        return Outcome(vector.name, tuple(_refusal(module, vector, call_ms)))
    session, again = (Session(module, vector, call_ms) for _ in range(2))
    heir: Session | None = None
    half = len(vector.calls) // 2
    problems: list[str] = []
    for index, call in enumerate(vector.calls):
        if index == half:
            heir, unfit = _heir(module, session, call_ms)
            problems += unfit
        where = f"call {index}: "
        session.prepare(call)
        said, bits = _run(session, call)
        problems += [where + text for text in said]
        if session.guest.broken:
            break
        again.prepare(call)
        if _run(again, call)[1] != bits:
            problems.append(
                f"{where}a second instance gave another answer: it is not deterministic"
            )
        if heir is not None:
            heir.prepare(call)
            if _run(heir, call)[1] != bits:
                problems.append(
                    f"{where}an instance that took over the state gave another answer: "
                    "edge_state_save does not hold all that it remembers"
                )
                heir = None
    if problems:
        return Outcome(vector.name, tuple(problems))
    fuel: list[int] = []
    if metered is not None and metered.metered:
        fuel, fuel_again = (measure.call_fuel(metered, vector, call_ms) for _ in range(2))
        if fuel != fuel_again:
            problem = f"a second instance took {fuel_again} fuel, the first {fuel}"
            return Outcome(vector.name, (f"{problem}: its work is not deterministic",))
    took = measure.call_times(Session(module, vector, call_ms), _TIMED_SECONDS) or [0]
    return Outcome(vector.name, (), median(took) / 1e3, max(fuel, default=0))


def _run(session: Session, call: Call) -> tuple[list[str], bytes]:
    """Make a prepared call; what was wrong, and the answer (or the error) as bytes."""
    try:
        answer = session.answer(call)
    except GuestError as error:
        sentence = str(error)
        if not call.expect.error or session.guest.broken:
            return [sentence], sentence.encode()
        if call.expect.error in sentence:
            return [], sentence.encode()
        return [f"{sentence}; expected {call.expect.error!r} in it"], sentence.encode()
    if call.expect.error:
        return [f"it succeeded; expected an error with {call.expect.error!r}"], answer.bits()
    return differences(session.vector, call, answer), answer.bits()


def _heir(
    module: PolicyModule, session: Session, call_ms: int
) -> tuple[Session | None, tuple[str, ...]]:
    """An instance that goes on from the session's state; `None` where there is none."""
    guest = session.guest
    saves, restores = guest.exports("edge_state_save"), guest.exports("edge_state_restore")
    if saves != restores:
        return None, ("edge_state_save and edge_state_restore belong together: one is missing",)
    state = guest.save_state()
    if state is None:
        return None, ()
    heir = Session(module, session.vector, call_ms)
    heir.frame_index = session.frame_index
    if not heir.guest.restore_state(state):
        return None, (f"edge_state_restore refused the {len(state)} bytes that it saved itself",)
    if heir.guest.save_state() != state:
        return None, ("edge_state_save after edge_state_restore gives another state",)
    return heir, ()


def _refusal(module: PolicyModule, vector: Vector, call_ms: int) -> Iterator[str]:
    guest = module.instantiate(call_ms)
    try:
        guest.configure(msgspec.to_builtins(vector.document))
    except IncompatibleError as refused:
        if guest.broken or vector.refused not in str(refused):
            yield f"{refused}; expected {vector.refused!r} in it, and no trap"
        return
    yield f"edge_configure took its parameters; expected it to refuse with {vector.refused!r}"
