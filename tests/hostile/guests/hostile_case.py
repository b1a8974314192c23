"""What one hostile guest is: how it is made, and the named end that it must come to."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

from guest_wat import DECIDE, POSTPROCESS, PREPROCESS, STATE, assemble, guest

from edge.wasm.code_cache import CompileLimits

CALL_MS: Final = 150
"""Budget of a call in the corpus. Each ends within it and 50 ms."""
MEMORY_MIB: Final = 8
"""What a guest of the corpus is granted; the good one declares half of it."""

End = Literal["refused", "guest-trap", "guest-budget", "harmless"]
"""`refused`: before any frame. The two reasons: of the frame on which it attacks, while the frames
before and after it are judged. `harmless`: it gains nothing, and every frame is judged."""


@dataclass(frozen=True)
class Case:
    """A guest of the corpus.

    Attributes:
        name: Unique; names the test.
        make: Gives its bytes.
        end: What it comes to.
        says: Regular expression that the error's sentence matches.
        calls: Guest calls that may each use up their budget before the end is there.
        memory_mib: Its grant.
        compile: Limits of its compilation; None: the shipped ones.
    """

    name: str
    make: Callable[[], bytes]
    end: End
    says: str = ""
    calls: int = 1
    memory_mib: int = MEMORY_MIB
    compile: CompileLimits | None = field(default=None)


def text(name: str, wat: str, end: End, says: str = "", calls: int = 1) -> Case:
    """A case given as WAT."""
    return Case(name, lambda: assemble(wat), end, says, calls)


# Attackers: good on the odd frames of an instance, evil on the even ones. So a frame is judged, the
# next meets the attack, and the one after it meets either the same instance or a fresh one.

SAVE: Final = STATE[: STATE.index('(func (export "edge_state_restore")')]
_RESTORE: Final = STATE[len(SAVE) :]
_GOOD: Final = {
    "preprocess": PREPROCESS,
    # A model output that is not finite is a failed inference (guests/ABI.md).
    "postprocess": POSTPROCESS.replace(
        "(block $done (loop $next",
        """(if (f32.ne (f32.load (local.get $row)) (f32.load (local.get $row)))
             (then (return (i32.const -2))))
           (block $done (loop $next""",
        1,
    ),
    "decide": DECIDE,
    "edge_state_save": SAVE,
}
_COUNT: Final = "(global.set $frames (i32.add (global.get $frames) (i32.const 1)))"
_PARAMETERS: Final = {"edge_state_save": "(param $call i32) (param $room i32)"}


def attack(body: str, role: str = "decide", extra: str = "", **pieces: str) -> str:
    """The text of a guest whose `role` does `body` on every second frame.

    Args:
        body: Instructions that leave an i32; `$call` is the role's argument.
        role: Which export; one of the roles, or `edge_state_save`.
        extra: More definitions.
        pieces: Other pieces to replace, as `guest_wat.guest` takes them.
    """
    parameters = _PARAMETERS.get(role, "(param $call i32)")
    forward = " ".join(f"(local.get {n})" for n in range(parameters.count("param")))
    evil = f"""
      {_GOOD[role].replace(f'(export "{role}")', "$good", 1)}
      (func $evil {parameters} (result i32) {body})
      (func $role (export "{role}") {parameters} (result i32)
        {_COUNT if role == "preprocess" else ""}
        (if (result i32) (i32.or (i32.and (global.get $frames) (i32.const 1))
                                 (i32.eqz (global.get $frames)))
          (then (call $good {forward})) (else (call $evil {forward}))))"""
    counted = _GOOD["preprocess"].replace("(local.set", f"{_COUNT} (local.set", 1)
    chosen = {"preprocess": counted, "postprocess": _GOOD["postprocess"], **pieces}
    if role == "edge_state_save":
        chosen["state"] = evil + _RESTORE
    else:
        chosen[role] = evil
    return guest(extra=f"(global $frames (mut i32) (i32.const 0)) {extra}", **chosen)


def decision(
    verdict: str = "(i32.const 0)",
    score: str = "(f32.const 0.5)",
    reason: bytes = b"fine",
    actions: str = "(i32.const 0)",
    index: str = "(i32.const 0)",
    value: str = "(f64.const 1)",
) -> str:
    """The body of a `decide` that answers with these."""
    letters = "".join(
        f"(i32.store8 offset={48 + place} (local.get 0) (i32.const {letter}))"
        for place, letter in enumerate(reason)
    )
    return f"""
      (i32.store offset=40 (local.get 0) {verdict}) (f32.store offset=44 (local.get 0) {score})
      {letters} (i32.store offset=80 (local.get 0) {actions})
      (i32.store offset=88 (local.get 0) {index}) (f64.store offset=96 (local.get 0) {value})
      (i32.const 0)"""


def defect(offset: int = 0, value: str = "(f32.const 1)") -> str:
    """The body of a `postprocess` with one defect, good but for one field."""
    at = "(i32.load offset=32 (local.get 0))"
    good = "".join(
        f"(f32.store offset={place} {at} (f32.const {number}))"
        for place, number in ((0, 1), (4, 1), (8, 2), (12, 2), (16, 0.5))
    )
    label = f"(i32.store offset=20 {at} (i32.const 1))"
    store = "i32" if offset == 20 else "f32"
    return f"{good} {label} ({store}.store offset={offset} {at} {value}) (i32.const 1)"


def transform(*values: str) -> str:
    """The body of a `preprocess` that sets the transform, and nothing else."""
    stores = "".join(
        f"(f32.store offset={56 + 4 * place} (local.get 0) (f32.const {value}))"
        for place, value in enumerate(values)
    )
    return f"{stores} (i32.const 0)"


def exported(name: str, body: str, parameters: int = 0) -> str:
    """A function of the ABI with another body."""
    taken = "(param i32)" * parameters
    return f'(func (export "{name}") {taken} (result i32) {body})'
