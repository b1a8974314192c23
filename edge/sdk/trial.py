"""Holds a guest to its golden vectors, and to what the ABI asks of every guest: `edge guest test`.

For each vector: every call gives what is expected; a second instance gives the same bits; and
where the guest keeps a state, a third instance that is handed it half way goes on as the first
did. Beside the vectors, for each role: broken configuration documents and cut-short arguments are
refused by an error of the guest's own. A trap is a failure even where the daemon would survive
it: the frame would be lost.
"""

import ctypes
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final, overload

import msgspec
import numpy as np

from edge.contracts import abi
from edge.errors import EdgeError, GuestError, IncompatibleError
from edge.sdk import measure, vectors
from edge.sdk.session import Session, differences
from edge.sdk.vectors import Call, TensorRule, Vector
from edge.wasm.engine import GuestModule, PolicyModule
from edge.wasm.guest import Guest
from edge.wasm.placement import STRUCT_ALIGNMENT, CallStruct
from edge.wasm.policy import PolicyGuest
from edge.wasm.script import ScriptModule

_CUTS: Final = 16
"""Places at which a document is cut short."""
_SHOWN: Final = 60
_DEEP: Final = b"[" * 2000
_TIMED_SECONDS: Final = 0.02
_CALLS: Final[dict[str, type[abi.Struct]]] = {
    "preprocess": abi.PreprocessCall,
    "postprocess": abi.PostprocessCall,
    "decide": abi.DecideCall,
}


class Outcome(msgspec.Struct, frozen=True):
    """One vector, or one check beside the vectors.

    Attributes:
        problems: Why it failed; empty: it passed.
        call_us: Median of its calls in microseconds, the host's checks included; 0: none was timed.
    """

    name: str
    problems: tuple[str, ...]
    call_us: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether nothing was wrong."""
        return not self.problems


def outcomes(module: PolicyModule, folder: Path, call_ms: int) -> Iterator[Outcome]:
    """Try a guest; one outcome at a time, in the order of the vectors' names.

    Raises:
        VectorError: The folder holds no vectors.
    """
    first: dict[str, Vector] = {}
    for file in vectors.files(folder):
        try:
            vector = vectors.read(file)
            yield _try_vector(module, vector, call_ms)
        except EdgeError as wrong:
            yield Outcome(file.stem, (str(wrong),))
            continue
        if not vector.refused:
            first.setdefault(vector.role, vector)
    for role in sorted(module.roles - first.keys()):
        yield Outcome(f"{role}: vectors", (f"no vector calls the role {role}, which it serves",))
    for role, vector in first.items():
        if role in module.roles:
            yield from _checks(module, vector, call_ms)


def _try_vector(module: PolicyModule, vector: Vector, call_ms: int) -> Outcome:
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
    took = measure.call_times(Session(module, vector, call_ms), _TIMED_SECONDS)
    return Outcome(vector.name, (), median(took) / 1000 if took else 0.0)


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


def _checks(module: PolicyModule, vector: Vector, call_ms: int) -> Iterator[Outcome]:
    """What every guest must stand, tried with a vector's configuration."""
    checks: list[tuple[str, Callable[[], Iterator[str]]]] = [
        ("broken states are survived", partial(_broken_states, module, vector, call_ms)),
    ]
    if isinstance(module, GuestModule):
        core = (module, vector, call_ms)
        checks += [
            ("broken documents are refused", partial(_broken_documents, *core)),
            ("cut-short arguments are refused", partial(_cut_arguments, *core)),
        ]
        if vector.role == "postprocess":
            checks.append(("outputs that are not finite are refused", partial(_not_finite, *core)))
    else:
        checks += [
            ("broken documents are refused", partial(_broken_texts, module, vector, call_ms)),
            ("broken records are refused", partial(_broken_records, module, vector, call_ms)),
        ]
    for name, check in checks:
        try:
            problems = tuple(check())
        except EdgeError as wrong:
            problems = (str(wrong),)
        yield Outcome(f"{vector.role}: {name}", problems)


def _broken_texts(module: ScriptModule, vector: Vector, call_ms: int) -> Iterator[str]:
    """Documents that a script must refuse; the host sends valid UTF-8 alone, and nothing deep."""
    for text in _documents(vector):
        if text == _DEEP:
            continue
        shown = text.decode(errors="replace")
        script = module.instantiate(call_ms)
        try:
            script.configure_text(shown)
        except IncompatibleError as refused:
            if script.broken:
                yield f"{shown[:_SHOWN]!r}: {refused}"
        else:
            yield f"{shown[:_SHOWN]!r}: configure took it"


def _broken_records(module: ScriptModule, vector: Vector, call_ms: int) -> Iterator[str]:
    """Records that the host would never send: an error, and no trap."""
    for text in ("", "{", "[]", "{}", '"text"', "[" * 100):
        script = module.instantiate(call_ms)
        script.configure(msgspec.to_builtins(vector.document))
        try:
            script.call("decide", text)
        except GuestError as refused:
            if script.broken:
                yield f"{text[:_SHOWN]!r}: {refused}"
        else:
            yield f"{text[:_SHOWN]!r}: decide took it"


def _documents(vector: Vector) -> tuple[bytes, ...]:
    """A vector's document, cut short and broken in other ways."""
    document = msgspec.to_builtins(vector.document)
    whole = json.dumps(document, separators=(",", ":")).encode()
    document["parameters"]["no-such-parameter"] = 1
    return (
        *(whole[:end] for end in range(0, len(whole), max(1, len(whole) // _CUTS))),
        whole + b"}",
        b"[]",
        b'"text"',
        b"\xff\xfe{}",
        _DEEP,
        json.dumps(document).encode(),
    )


def _broken_documents(module: GuestModule, vector: Vector, call_ms: int) -> Iterator[str]:
    for text in _documents(vector):
        guest = module.instantiate(call_ms)
        address = guest.alloc(max(len(text), 1), 8)
        guest.view(address, (len(text),), np.uint8)[:] = np.frombuffer(text, np.uint8)
        shown = text if len(text) <= _SHOWN else text[:20] + b" ... " + text[-30:]
        try:
            result = guest.call("edge_configure", address, len(text))
        except GuestError as trapped:
            yield f"{shown!r}: {trapped}"
            continue
        if result >= 0:
            yield f"{shown!r}: edge_configure took it, and answered {result}"


def _cut_arguments(module: GuestModule, vector: Vector, call_ms: int) -> Iterator[str]:
    """A call struct of zeros: no image, no tensors, no findings, no signals."""
    guest = _configured(module, vector, call_ms)
    struct = CallStruct(guest, _CALLS[vector.role])
    struct.send()
    try:
        result = guest.call(vector.role, struct.address)
    except GuestError as trapped:
        yield f"no images, tensors or findings: {trapped}"
        return
    # A policy may well judge a frame without findings; the other roles have nothing to work on.
    if result >= 0 and vector.role != "decide":
        yield f"no images or tensors: {vector.role} answered {result}, expected an error"
    if vector.role == "decide":
        return
    guest = _configured(module, vector, call_ms)
    struct = CallStruct(guest, _CALLS[vector.role])
    tensor = abi.Tensor(data=guest.alloc(64), dtype=abi.DTYPES["float32"], rank=1, bytes=4)
    tensor.dims[0] = 1
    size = ctypes.sizeof(tensor)
    address = guest.alloc(size, STRUCT_ALIGNMENT)
    ctypes.memmove(guest.pointer(address, size), ctypes.addressof(tensor), size)
    if vector.role == "preprocess":
        struct.host.inputs, struct.host.input_count = address, 1
    else:
        struct.host.outputs, struct.host.output_count = address, 1
    struct.send()
    try:
        result = guest.call(vector.role, struct.address)
    except GuestError as trapped:
        yield f"one tensor of one element: {trapped}"
        return
    if result >= 0:
        yield f"one tensor of one element: {vector.role} answered {result}, expected an error"


def _broken_states(module: PolicyModule, vector: Vector, call_ms: int) -> Iterator[str]:
    """Whatever state it meets, it answers; that it takes one of the wrong length is wrong."""
    donor = _configured(module, vector, call_ms)
    if not donor.exports("edge_state_restore"):
        return
    own = donor.save_state() or b""
    for state in (own[:-1], own + b"\0", b"\xff" * abi.MAX_STATE_BYTES, b"\0" * 64, b""):
        guest = _configured(module, vector, call_ms)
        try:
            taken = guest.restore_state(state)
        except GuestError as trapped:
            yield f"{len(state)} bytes: {trapped}"
            continue
        if taken and own and len(state) != len(own):
            yield f"{len(state)} bytes were taken; it saves {len(own)}"


def _not_finite(module: GuestModule, vector: Vector, call_ms: int) -> Iterator[str]:
    call = vector.calls[0]
    floats = [spec.dtype.startswith("float") for spec in vector.document.outputs]
    nan = float("nan")
    rules = [
        TensorRule(pattern="ramp", low=nan, high=nan) if kind else rule
        for kind, rule in zip(floats, call.outputs, strict=False)
    ]
    if not any(floats):
        return
    session = Session(module, vector, call_ms)
    try:
        answer = session.run(msgspec.structs.replace(call, outputs=rules))
    except GuestError as error:
        if session.guest.broken:
            yield str(error)
        return
    found = 0 if answer.defects is None else len(answer.defects)
    yield f"NaN in all outputs gave {found} defects; expected an error, or the part would pass"


@overload
def _configured(module: GuestModule, vector: Vector, call_ms: int) -> Guest: ...


@overload
def _configured(module: PolicyModule, vector: Vector, call_ms: int) -> PolicyGuest: ...


def _configured(module: PolicyModule, vector: Vector, call_ms: int) -> PolicyGuest:
    guest = module.instantiate(call_ms)
    guest.configure(msgspec.to_builtins(vector.document))
    return guest
