"""What guests cost: a call, a frame's host work, a cold start, the pixels; and what Extism costs.

Everything that is compared takes turns in one run. Extism is measured where its package is
installed (dependency group `compare`) and `ziglang` is there to build the same kernel for it.
"""

import hashlib
import importlib.util
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import cv2
import msgspec
import numpy as np
import numpy.typing as npt

from edge.bench import bare_script
from edge.bench.frame_path import scene
from edge.contracts.frame import PixelFormat
from edge.contracts.plan import ImagePlan, TensorSpec
from edge.shipped import path as shipped
from edge.wasm.engine import GuestEngine, GuestModule
from edge.wasm.guest import Guest
from edge.wasm.roles import DEFECT, Decider, Postprocessor, Preprocessor
from edge.wasm.text import assemble

SIZES: Final = ((640, 480), (1920, 1080))
SIDE: Final = 640
_CALLS: Final = 2_000
_CALL_MS: Final = 1_000
_COLD_STARTS: Final = 30
_DEFECTS: Final = 2
_FUEL: Final = 1 << 40

_IDLE: Final = f"""(module
  (memory (export "memory") 16 16)
  (global $top (mut i32) (i32.const 4096))
  (func (export "edge_abi") (result i32) (i32.const 0x10000))
  (func (export "edge_alloc") (param i32 i32) (result i32) (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $top) (i32.const 63)) (i32.const -64)))
    (global.set $top (i32.add (local.get $at) (local.get 0)))
    (local.get $at))
  (func (export "edge_configure") (param i32 i32) (result i32) (i32.const 0))
  (func (export "preprocess") (param i32) (result i32)
    (f32.store offset=56 (local.get 0) (f32.const 1))
    (f32.store offset=60 (local.get 0) (f32.const 1))
    (i64.store offset=64 (local.get 0) (i64.const 0))
    (i32.const 0))
  (func (export "postprocess") (param i32) (result i32) (i32.const {_DEFECTS}))
  (func (export "decide") (param i32) (result i32)
    (i32.store offset=40 (local.get 0) (i32.const 0))
    (f32.store offset=44 (local.get 0) (f32.const 0))
    (i32.store16 offset=48 (local.get 0) (i32.const 0x6b6f))
    (i32.const 0)))"""
"""A guest that answers and does nothing, so that what is measured is the host."""


class PixelFigures(msgspec.Struct, frozen=True):
    """One size of frame, letterboxed to 640 x 640; medians, milliseconds.

    Attributes:
        ratio: Of ours to cv2 and NumPy's, pair by pair, the median.
        extism_ms: The same kernel as an Extism plug-in; None where it is not installed.
        extism_ratio: Of Extism to ours, likewise.
    """

    case: str
    ours_ms: float
    cv2_ms: float
    ratio: float
    extism_ms: float | None = None
    extism_ratio: float | None = None


class GuestFigures(msgspec.Struct, frozen=True):
    """Medians.

    Attributes:
        call_us: A warm call of a function that does nothing, the alarm and all checks included.
        frame_us: Host work of a frame's three stages, with two findings.
        cold_ms: From the compiled code of the shipped policy to its first decision.
        cold_bytes: Size of that guest.
        fresh_us: A new instance of the letterbox guest, configured: what `fresh` adds to a frame.
        fuel_ratio: The letterbox guest with fuel counted, to without, pair by pair.
    """

    call_us: float
    frame_us: float
    cold_ms: float
    cold_bytes: int
    fresh_us: float
    fuel_ratio: float
    pixels: tuple[PixelFigures, ...]


def measure(folder: Path, frames: int) -> GuestFigures:
    """Measure; `folder` takes the compiled guests."""
    with GuestEngine(folder / "guests") as engine:
        letterbox = _module(engine, "letterbox")
        idle = _idle(engine, folder).instantiate(_CALL_MS)
        idle.configure({})
        policy = shipped("guests/policy/policy.wasm")
        return GuestFigures(
            call_us=round(_each_us(lambda: idle.call("decide", 4096), 50), 2),
            frame_us=round(_each_us(_frame_of(idle), 1), 1),
            cold_ms=round(statistics.median(_cold_ms(engine, policy)), 2),
            cold_bytes=policy.stat().st_size,
            fresh_us=round(_each_us(lambda: _fresh(letterbox), 1)),
            fuel_ratio=_fuel_ratio(engine, frames),
            pixels=tuple(_pixels(letterbox, folder, *size, frames) for size in SIZES),
        )


def _idle(engine: GuestEngine, folder: Path) -> GuestModule:
    wasm = assemble(_IDLE)
    path = folder / "idle.wasm"
    path.write_bytes(wasm)
    return engine.load(path, hashlib.sha256(wasm).hexdigest(), 1)


def _frame_of(guest: Guest) -> Callable[[], object]:
    """All host work around the guest's part of a frame: three stages, their structs and checks."""
    image = ImagePlan(PixelFormat.BGR, 16, 16)
    before = Preprocessor(guest, image, 1, 0, (TensorSpec("x", "float32", (1, 3, 4, 4)),))
    after = Postprocessor(guest, (TensorSpec("y", "float32", (10, 6)),), class_count=1)
    policy = Decider(guest, 1, 1)
    after._defects[:_DEFECTS] = [(1, 1, 5, 5, 0.9, 0), (2, 2, 6, 6, 0.8, 0)]
    slot = before.frame_slots[0]
    signals = [(1.0, 5, 1)]

    def frame() -> None:
        slot.set_size(16, 16)
        count = after.run(before.run(slot, None), 16, 16)
        policy.run(after.defects(count), count, signals, 0, 5, 16, 16)

    return frame


def _each_us(act: Callable[[], object], batch: int) -> float:
    """Median of many batches, microseconds of one call."""
    for _ in range(100):
        act()
    taken = []
    for _ in range(_CALLS):
        began = time.perf_counter_ns()
        for _ in range(batch):
            act()
        taken.append((time.perf_counter_ns() - began) / batch / 1e3)
    return statistics.median(taken)


def _cold_ms(engine: GuestEngine, wasm: Path) -> list[float]:
    """From the pinned file and its compiled code to the first decision, digests included."""
    digest = hashlib.sha256(wasm.read_bytes()).hexdigest()
    engine.load(wasm, digest, 64)
    taken = []
    for _ in range(_COLD_STARTS):
        began = time.perf_counter_ns()
        made = engine.load(wasm, digest, 64).instantiate(_CALL_MS)
        made.configure({"parameters": {"reject": 0.5, "review": 0.4}, "classes": ["a"]})
        Decider(made, 0, 0).run(np.empty(0, DEFECT), 0, (), 0, 5, 16, 16)
        taken.append((time.perf_counter_ns() - began) / 1e6)
    return taken


def _module(engine: GuestEngine, name: str, *, metered: bool = False) -> GuestModule:
    wasm = shipped(f"guests/{name}/{name}.wasm")
    digest = hashlib.sha256(wasm.read_bytes()).hexdigest()
    return engine.load(wasm, digest, 256, metered=metered)


def _fresh(module: GuestModule) -> Guest:
    made = module.instantiate(_CALL_MS, fuel=_FUEL if module.metered else 0)
    made.configure({"parameters": {}})
    return made


def _stage(made: Guest, pixels: npt.NDArray[np.uint8]) -> tuple[Preprocessor, Callable[[], object]]:
    """Its role with a frame in the slot, and what runs it."""
    height, width = pixels.shape[:2]
    image = ImagePlan(PixelFormat.BGR, width, height)
    tensor = TensorSpec("image", "float32", (1, 3, SIDE, SIDE))
    stage = Preprocessor(made, image, 1, 0, (tensor,))
    slot = stage.frame_slots[0]
    slot.pixels[: pixels.size] = pixels.reshape(-1)
    slot.set_size(width, height)
    return stage, lambda: stage.run(slot, None)


def _fuel_ratio(engine: GuestEngine, frames: int) -> float:
    pixels = _picture(*SIZES[0])
    _, plain = _stage(_fresh(_module(engine, "letterbox")), pixels)
    _, metered = _stage(_fresh(_module(engine, "letterbox", metered=True)), pixels)
    times = _in_turn([plain, metered], frames)
    return _ratio(times[1], times[0])


def _picture(width: int, height: int) -> npt.NDArray[np.uint8]:
    image = cv2.imdecode(np.frombuffer(scene(width, height), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image.astype(np.uint8, copy=False)


def _pixels(
    letterbox: GuestModule, folder: Path, width: int, height: int, frames: int
) -> PixelFigures:
    pixels = _picture(width, height)
    stage, guest = _stage(_fresh(letterbox), pixels)
    variants: list[Callable[[], object]] = [
        guest,
        lambda: bare_script.letterbox(pixels, SIDE),
    ]
    plugin = _extism(folder)
    if plugin is not None:
        head = struct.pack("<4I", width, height, SIDE, 0)
        sent = head + pixels.tobytes() + bytes(-pixels.size % 8)
        guest()
        _expect_equal(plugin(sent), stage.inputs[0])
        variants.append(lambda: plugin(sent))
    times = _in_turn(variants, frames)
    ours, bare = times[0], times[1]
    return PixelFigures(
        case=f"{width}x{height} to {SIDE}x{SIDE}",
        ours_ms=round(statistics.median(ours), 3),
        cv2_ms=round(statistics.median(bare), 3),
        ratio=_ratio(ours, bare),
        extism_ms=round(statistics.median(times[2]), 2) if plugin else None,
        extism_ratio=_ratio(times[2], ours) if plugin else None,
    )


def _ratio(above: list[float], below: list[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(above, below, strict=True)), 3)


def _expect_equal(answer: bytes, tensor: npt.NDArray[Any]) -> None:
    """Both did the same work, or the comparison means nothing."""
    found = np.frombuffer(answer, np.float32).reshape(tensor.shape)
    if not np.array_equal(found, tensor):
        raise RuntimeError("the Extism plug-in computed another tensor than the guest")


def _in_turn(variants: list[Callable[[], object]], rounds: int) -> list[list[float]]:
    times: list[list[float]] = [[] for _ in variants]
    order = list(range(len(variants)))
    for variant in variants * 3:
        variant()
    for _ in range(rounds):
        for number in order:
            began = time.perf_counter_ns()
            variants[number]()
            times[number].append((time.perf_counter_ns() - began) / 1e6)
        order.append(order.pop(0))
    return times


def _extism(folder: Path) -> Callable[[bytes], bytes] | None:
    """The same kernel as a plug-in; None where Extism or the compiler is not installed."""
    if not all(importlib.util.find_spec(name) for name in ("extism", "ziglang")):
        return None
    import extism  # noqa: PLC0415 - optional, and slow to import

    built = folder / "extism_letterbox.wasm"
    if not built.exists():
        command = (
            *(sys.executable, "-m", "ziglang", "cc", "--target=wasm32-freestanding"),
            *("-mcpu=lime1+simd128+bulk_memory", "-O3", "-ffreestanding", "-nostdlib"),
            *("-Wl,--no-entry", "-Wl,--strip-all", "-Wl,-z,stack-size=65536"),
            *(f"-I{shipped('guests/sdk/c')}", f"-I{shipped('guests/letterbox')}"),
            *("-o", str(built), str(Path(__file__).with_name("extism_letterbox.c"))),
        )
        subprocess.run(command, check=True, capture_output=True)
    plugin = extism.Plugin(built.read_bytes(), wasi=False)

    def letterbox(sent: bytes) -> bytes:
        answer: bytes = plugin.call("letterbox", sent)
        return answer

    return letterbox
