"""What every guest must stand, beside its vectors: broken documents, arguments and states.

Each is tried with a vector's configuration, on fresh instances. A guest may refuse by an error of
its own; it may not trap, run out of its time, or take what is broken for good.
"""

import ctypes
import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, overload

import msgspec
import numpy as np

from edge.contracts import abi
from edge.errors import EdgeError, GuestError, IncompatibleError
from edge.sdk.session import Session
from edge.sdk.vectors import (
    Call,
    DefectRule,
    Expectation,
    ImageRule,
    SignalRule,
    TensorRule,
    Vector,
)
from edge.wasm.engine import GuestModule, PolicyModule
from edge.wasm.guest import Guest
from edge.wasm.placement import STRUCT_ALIGNMENT, CallStruct
from edge.wasm.policy import PolicyGuest
from edge.wasm.script import ScriptModule

_CUTS: Final = 16
"""Places at which a document is cut short."""
_SHOWN: Final = 60
_DEEP: Final = b"[" * 2000
_LARGEST: Final = {"float32": 3.4028234663852886e38, "float16": 65504.0}
_CALLS: Final[dict[str, type[abi.Struct]]] = {
    "preprocess": abi.PreprocessCall,
    "postprocess": abi.PostprocessCall,
    "decide": abi.DecideCall,
}


def checks(
    module: PolicyModule, vector: Vector, call_ms: int
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Try a guest in the role of a vector; each check by name, with what was wrong."""
    tried: list[tuple[str, Callable[[], Iterator[str]]]] = [
        ("broken states are survived", partial(_broken_states, module, vector, call_ms)),
        ("extremes are survived", partial(_extremes, module, vector, call_ms)),
    ]
    if isinstance(module, GuestModule):
        core = (module, vector, call_ms)
        tried += [
            ("broken documents are refused", partial(_broken_documents, *core)),
            ("cut-short arguments are refused", partial(_cut_arguments, *core)),
        ]
        if vector.role == "postprocess":
            tried.append(("outputs that are not finite are refused", partial(_not_finite, *core)))
    else:
        tried += [
            ("broken documents are refused", partial(_broken_texts, module, vector, call_ms)),
            ("broken records are refused", partial(_broken_records, module, vector, call_ms)),
        ]
    for name, check in tried:
        try:
            problems = tuple(check())
        except EdgeError as wrong:
            problems = (str(wrong),)
        yield f"{vector.role}: {name}", problems


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


def _extremes(module: PolicyModule, vector: Vector, call_ms: int) -> Iterator[str]:
    """What the host may well send: the smallest image, the largest numbers, the most findings.

    An answer that breaks the ABI is the vectors' business; here it only must not trap.
    """
    for name, call in _extreme_calls(vector):
        session = Session(module, msgspec.structs.replace(vector, calls=(call,)), call_ms)
        try:
            session.run(call)
        except GuestError as failed:
            if session.guest.broken:
                yield f"{name}: {failed}"


def _extreme_calls(vector: Vector) -> Iterator[tuple[str, Call]]:
    call = msgspec.structs.replace(vector.calls[0], expect=Expectation())
    if vector.role == "preprocess":
        for width, height in ((1, 1), (1, 97), (97, 1)):
            image = ImageRule(width=width, height=height, pattern="noise", seed=1)
            reference = image if call.reference is not None else None
            smallest = msgspec.structs.replace(call, frame=image, reference=reference)
            yield f"a frame of {width}x{height}", smallest
    elif vector.role == "postprocess":
        for sign in (0, 1, -1):
            rules = [
                TensorRule(pattern="noise", low=number, high=number)
                for spec in vector.document.outputs
                for number in [sign * _LARGEST.get(spec.dtype, 0.0)]
            ]
            yield (
                f"outputs all {('0', 'largest', 'smallest')[sign]}",
                msgspec.structs.replace(call, outputs=rules),
            )
    else:
        defect = DefectRule(box=(0, 0, 1, 1), score=1.0, label=0)
        for value in (1.7e308, -1.7e308, 0.0):
            signal = SignalRule(value=value, age_ms=9e12)
            yield (
                f"{abi.MAX_DEFECTS} findings, signals of {value:g}",
                msgspec.structs.replace(
                    call,
                    defects=[defect] * abi.MAX_DEFECTS,
                    signals=[signal] * len(vector.document.signals),
                ),
            )


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
