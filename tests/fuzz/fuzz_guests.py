"""Targets that run guests: mutated modules, answers of any kind, parameters of any kind.

Everything goes through the host as the frame path uses it; what a guest does may end in an error of
ours, and in nothing else.
"""

import hashlib
import math
import random
import struct
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
from frame_line import IMAGE, INPUTS, OUTPUTS
from fuzz_noise import mutate
from fuzz_parsers import ROOT
from guest_wat import assemble, guest
from hostile_case import exported
from wasmtime import Module, WasmtimeError

from edge.contracts import abi
from edge.errors import EdgeError, GuestError, IncompatibleError
from edge.wasm import wasi
from edge.wasm.engine import GuestEngine, GuestModule
from edge.wasm.guest import Guest
from edge.wasm.roles import DEFECT, Decider, Postprocessor, Preprocessor

CALL_MS: Final = 20
Case = Callable[[random.Random], None]

_DEFECT_BYTES: Final = abi.MAX_DEFECTS * DEFECT.itemsize
_REASON: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")


class _Here(GuestEngine):
    """Compiles in this process instead of one of its own: a hundred times as fast."""

    def __init__(self) -> None:
        super().__init__(Path(tempfile.mkdtemp(prefix="edge-fuzz-")) / "guests")

    def _native_module(self, core: Any, wasm: bytes, sha256: str, name: str) -> Module:
        return Module(core.engine, wasi.link(wasm))

    def loaded(self, wasm: bytes) -> GuestModule:
        """Load as from a file.

        Raises:
            WasmtimeError: The bytes are no module.
            EdgeError: It is no guest.
        """
        digest = hashlib.sha256(wasm).hexdigest()
        return self._load_core(wasm, digest, "fuzz", 256, metered=False)


class _Stages:
    """The roles of one instance, each set up where the guest allows it."""

    def __init__(self, made: Guest) -> None:
        self.before: Preprocessor | None = None
        self.after: Postprocessor | None = None
        self.policy: Decider | None = None
        with suppress(EdgeError):
            self.before = Preprocessor(made, IMAGE, 1, 1, INPUTS)
            self.before.frame_slots[0].pixels[:384] = np.arange(384, dtype=np.uint8)
        with suppress(EdgeError):
            self.after = Postprocessor(made, OUTPUTS, class_count=2)
            self.after.outputs[0][:] = 0.5
        with suppress(EdgeError):
            self.policy = Decider(made, 1, 2)

    def frame(self, noise: random.Random) -> None:
        """One frame through every role that stands; answers that are taken must be in order."""
        found, count = np.empty(0, DEFECT), 0
        if self.before is not None:
            with suppress(GuestError):
                self.before.frame_slots[0].set_size(16, 8)
                found_transform = self.before.run(self.before.frame_slots[0], None)
                assert all(map(math.isfinite, found_transform)), found_transform
                assert min(found_transform[:2]) > 0
        if self.after is not None:
            with suppress(GuestError):
                count = self.after.run((1.0, 1.0, 0.0, 0.0), 16, 8)
                found = self.after.defects(count)
                _expect_sound(found, count)
        if self.policy is not None:
            signal = (noise.uniform(-9, 99), 2, abi.SIGNAL_FRESH)
            with suppress(GuestError):
                decided = self.policy.run(found, len(found), [signal], 0, 5, 16, 8)
                assert 0 <= decided.score <= 1
                assert decided.reason
                assert set(decided.reason) <= _REASON
                assert len(decided.actions) <= abi.MAX_ACTIONS
                for wish in decided.actions:
                    assert wish.index < 2
                    assert math.isfinite(wish.value)
            with suppress(GuestError):
                state = self.policy.save_state() or b""
                assert len(state) <= abi.MAX_STATE_BYTES
                self.policy.restore_state(state)


def _expect_sound(found: Any, count: int) -> None:
    assert len(found) == count <= abi.MAX_DEFECTS
    boxes = found.view("<f4").reshape(count, 6)[:, :4]
    assert np.isfinite(boxes).all()
    assert (boxes >= 0).all()
    assert (boxes <= (16, 8, 16, 8)).all()
    assert ((found["score"] >= 0) & (found["score"] <= 1)).all()
    assert (np.diff(found["score"]) <= 0).all()
    assert ((found["label"] >= 0) & (found["label"] < 2)).all()


def modules() -> Case:
    """Mutants of whole guests: most are no modules, some trap, some answer nonsense."""
    engine = _Here()
    seeds = [assemble(guest())] * 6 + [
        (ROOT / f"guests/{name}/{name}.wasm").read_bytes() for name in ("policy", "letterbox")
    ]

    def run(noise: random.Random) -> None:
        wasm = mutate(noise.choice(seeds), noise, start=8)
        with suppress(EdgeError, WasmtimeError):
            made = engine.loaded(wasm).instantiate(CALL_MS)
            with suppress(EdgeError):
                made.configure({"parameters": {}, "classes": ["a", "b"]})
            stages = _Stages(made)
            for _ in range(2):
                stages.frame(noise)

    return run


# The puppet: a guest whose every answer is what the host wrote into its memory beforehand.

_AT: Final = {
    "edge_state_save": 0,
    "edge_state_restore": 4,
    "edge_error": 8,
    "preprocess": 12,
    "postprocess": 16,
    "decide": 20,
    "edge_alloc": 24,
    "transform": 32,
    "decision": 64,
    "defects": 256,
    "text": 8192,
}
_PUPPET_BYTES: Final = 16_384


def _puppet() -> bytes:
    def answer(name: str) -> str:
        return f"(i32.load (i32.const {_AT[name]}))"

    def copy(to: str, name: str, size: int) -> str:
        return f"(memory.copy {to} (i32.const {_AT[name]}) (i32.const {size}))"

    role = '(func (export "{}") (param $c i32) (result i32) {} {})'.format
    call = "(i32.add (local.get $c) (i32.const {}))".format
    alloc = f"""
      (global $top (mut i32) (i32.const {_PUPPET_BYTES}))
      (func (export "edge_alloc") (param $n i32) (param $a i32) (result i32)
        (local $at i32)
        (if (i32.load (i32.const {_AT["edge_alloc"]}))
          (then (return (i32.load (i32.const {_AT["edge_alloc"]})))))
        (local.set $at (i32.and
          (i32.add (global.get $top) (i32.sub (local.get $a) (i32.const 1)))
          (i32.sub (i32.const 0) (local.get $a))))
        (global.set $top (i32.add (local.get $at) (local.get $n)))
        (local.get $at))"""
    saved = ("edge_state_save", "edge_state_restore")
    state = "".join(exported(name, answer(name), 2) for name in saved)
    return assemble(
        guest(
            alloc=alloc,
            configure=exported("edge_configure", "(i32.const 0)", 2),
            preprocess=role("preprocess", copy(call(56), "transform", 16), answer("preprocess")),
            postprocess=role(
                "postprocess",
                copy("(i32.load offset=32 (local.get $c))", "defects", _DEFECT_BYTES),
                answer("postprocess"),
            ),
            decide=role("decide", copy(call(40), "decision", 112), answer("decide")),
            state=state,
            error=exported("edge_error", answer("edge_error")),
        )
    )


_FLOATS: Final = (0.0, -0.0, 1.0, 0.5, 2.0, 1e-40, 3e38, math.inf, -math.inf, math.nan, -1.0, 16.0)
_INTS: Final = (
    0,
    1,
    2,
    3,
    4,
    5,
    -1,
    -2,
    -4,
    300,
    301,
    4096,
    4097,
    1 << 22,
    (1 << 31) - 1,
    -1 << 31,
)


def answers() -> Case:
    """Answers of every kind from a sound guest: what the host checks, and whether it holds."""
    engine = _Here()
    puppet = engine.loaded(_puppet())

    def whole(noise: random.Random) -> tuple[Guest, _Stages]:
        made = puppet.instantiate(2_000)
        return made, _Stages(made)

    standing: list[tuple[Guest, _Stages]] = []

    def run(noise: random.Random) -> None:
        if not standing or standing[0][0].broken:
            standing[:] = [whole(noise)]
        made, stages = standing[0]
        memory = made.view(0, (_PUPPET_BYTES,), np.uint8)
        memory[:] = 0
        memory[_AT["defects"] : _AT["defects"] + _DEFECT_BYTES] = _defects(noise)
        memory[_AT["decision"] : _AT["decision"] + 112] = _decision(noise)
        memory[_AT["transform"] : _AT["transform"] + 16] = np.frombuffer(
            struct.pack("<4f", *(_float(noise) for _ in range(4))), np.uint8
        )
        text = noise.randbytes(noise.randrange(300))
        memory[_AT["text"] : _AT["text"] + len(text)] = np.frombuffer(text, np.uint8)
        words = memory[:28].view("<i4")
        for name, at in list(_AT.items())[:6]:
            words[at // 4] = noise.choice(_INTS) if noise.random() < 0.3 else 0
            if name == "edge_error":
                words[at // 4] = noise.choice((0, _AT["text"], *_INTS))
            if name == "postprocess" and noise.random() < 0.8:
                words[at // 4] = noise.randrange(302)
        stages.frame(noise)
        assert made.error_text(noise.choice(_INTS)).isprintable()
        words[_AT["edge_alloc"] // 4] = noise.choice((*_INTS, noise.getrandbits(31)))
        with suppress(IncompatibleError):
            size = noise.randint(1, 1 << 16)
            address = made.alloc(size, 1 << noise.randrange(7))
            assert address > 0
            assert address + size <= made.memory_bytes
            standing.clear()  # what was handed out is gone

    return run


def _float(noise: random.Random) -> float:
    return noise.choice(_FLOATS) if noise.random() < 0.5 else noise.uniform(-20, 20)


def _defects(noise: random.Random) -> Any:
    """A list of findings, good for the most part."""
    if noise.random() < 0.1:
        return np.frombuffer(noise.randbytes(_DEFECT_BYTES), np.uint8)
    rows = np.zeros(abi.MAX_DEFECTS, DEFECT)
    score = 1.0
    for row in rows[: noise.choice((1, 3, 70, abi.MAX_DEFECTS))]:
        score *= noise.uniform(0.9, 1.0)
        x0, y0 = noise.uniform(-4, 18), noise.uniform(-4, 9)
        row["x0"], row["x1"] = x0, x0 + noise.uniform(0, 5)
        row["y0"], row["y1"] = y0, y0 + noise.uniform(0, 5)
        row["score"], row["label"] = score, noise.randrange(2)
    for _ in range(noise.choice((0, 0, 1, 5))):
        field = noise.choice(DEFECT.names or ())
        at = noise.randrange(len(rows))
        rows[field][at] = noise.choice(_INTS) if field == "label" else np.float32(_float(noise))
    return rows.view(np.uint8)


def _decision(noise: random.Random) -> Any:
    if noise.random() < 0.1:
        return np.frombuffer(noise.randbytes(112), np.uint8)
    letters = noise.choice((b"ok", b"defect", b"overrun", b"a" * 32, b"", noise.randbytes(32)))
    actions = b"".join(
        struct.pack("<IId", noise.choice((0, 1, 2, 0xFFFF_FFFF)), noise.getrandbits(32),
                    _float(noise))
        for _ in range(4)
    )  # fmt: skip
    head = struct.pack(
        "<If32sII",
        noise.choice((0, 1, 2, 2, 1, 3, 0xFFFF_FFFF)),
        noise.choice((0.0, 1.0, 0.5, _float(noise))),
        letters,
        noise.choice((0, 1, 4, 5, 0xFFFF_FFFF)),
        0,
    )
    return np.frombuffer(head + actions, np.uint8)


def parameters() -> Case:
    """Configuration documents of any kind for the guests that we ship: refused, never a trap."""
    engine = _Here()
    paths = sorted((ROOT / "guests").glob("*/*.wasm"))
    loaded = [engine.loaded(path.read_bytes()) for path in paths]
    documents: list[dict[str, Any]] = [
        {"score": 0.5, "iou": 0.4, "layout": "yolov8", "class_agnostic": True},
        {"reject": 0.65, "review": 0.5, "reject_action": {"name": "action.reject", "value": 1.0,
                                                          "ttl_ms": 2000}},
        {"signals": [{"signal": "signal.lamp", "min": 0.5, "verdict": "review", "reason": "lamp",
                      "on_absent": "ignore", "on_stale": "ignore"}]},
        {},
    ]  # fmt: skip

    def run(noise: random.Random) -> None:
        chosen = noise.choice(loaded)
        document = {
            "parameters": _twisted(noise.choice(documents), noise, 0),
            "classes": ["open", "short"],
            "signals": ["signal.lamp"],
            "actions": ["action.reject"],
            "inputs": [{"name": "x", "dtype": "float32", "shape": [1, 3, 4, 4]}],
            "outputs": [{"name": "y", "dtype": "float32", "shape": [10, 6]}],
        }
        if noise.random() < 0.2:
            document = _twisted(document, noise, 0)
        said = ""
        try:
            made = chosen.instantiate(1_000)
            made.configure(document if isinstance(document, dict) else {"parameters": document})
        except IncompatibleError as refused:
            said = str(refused)
        assert "trapped" not in said, said
        assert "did not return" not in said, said

    return run


_ODD: Final[tuple[Any, ...]] = (
    *(None, True, -1, 0, 1e308, 1e-320, -0.0, 2**63, 10**30),
    *("", "\0", "\ud7ff\u202e", "x" * 3000),
    *([], {}, [[]] * 40, [1] * 2000, {"": {"": ""}}),
)


def _twisted(value: Any, noise: random.Random, depth: int) -> Any:
    """The document with some of its values replaced, renamed, nested or repeated."""
    if noise.random() < 0.12:
        return noise.choice((*_ODD, _nested(noise.randrange(400)), noise.random()))
    if isinstance(value, dict):
        found = {
            (key if noise.random() > 0.05 else key[:-1] + noise.choice('_"\\\0é')): _twisted(
                each, noise, depth + 1
            )
            for key, each in value.items()
        }
        if noise.random() < 0.1:
            found[noise.choice(("score", "unknown", "", "parameters"))] = noise.choice((1, "a", {}))
        return found
    if isinstance(value, list):
        return [_twisted(each, noise, depth + 1) for each in value] * noise.choice((1, 1, 1, 2))
    return value


def _nested(depth: int) -> Any:
    found: Any = 1
    for _ in range(depth):
        found = [found]
    return found


RUNNERS: Final[dict[str, Callable[[], Case]]] = {
    "modules": modules,
    "answers": answers,
    "parameters": parameters,
}
