"""Guests with flipped bytes: whatever they do, it ends in an error of ours, and in time."""

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from guest_wat import assemble, guest
from wasmtime import Module, WasmtimeError

from edge.contracts import abi
from edge.contracts.frame import PixelFormat
from edge.contracts.plan import ImagePlan, TensorSpec
from edge.errors import EdgeError
from edge.wasm.engine import GuestEngine, GuestModule
from edge.wasm.guest import Guest
from edge.wasm.roles import DEFECT, Decider, Postprocessor, Preprocessor
from edge.wasm.shape import Shape

pytest_plugins = ["guest_fixtures"]

MUTANTS = 500
IMAGE = ImagePlan(PixelFormat.BGR, 16, 8)
Result = TypeVar("Result")


def attempt(seen: Counter[str], action: Callable[[], Result]) -> Result | None:
    """Do it; only our own errors may come of it."""
    try:
        return action()
    except EdgeError as error:
        seen[type(error).__name__] += 1
        return None


def mutate(good: bytes, noise: random.Random) -> bytes:
    bad = bytearray(good)
    for _ in range(noise.randrange(1, 4)):
        place = noise.randrange(8, len(bad))
        bad[place] = noise.choice((noise.randrange(256), bad[place] ^ 1, 0x7F, 0x80, 0xFF))
    return bytes(bad)


def exercise(seen: Counter[str], made: Guest) -> None:
    """Run every role of a guest twice, as the frame path does."""
    attempt(seen, partial(made.configure, {}))
    inputs, outputs = (TensorSpec("t", "float32", shape) for shape in ((1, 3, 4, 4), (10, 6)))
    before = attempt(seen, partial(Preprocessor, made, IMAGE, 1, 0, (inputs,)))
    after = attempt(seen, partial(Postprocessor, made, (outputs,), class_count=2))
    policy = attempt(seen, partial(Decider, made, 1, 1))
    for _ in range(2):
        if before:
            before.frame_slots[0].set_size(16, 8)
            attempt(seen, partial(before.run, before.frame_slots[0], None))
        found = None
        if after:
            after.outputs[0][:] = 1
            count = attempt(seen, partial(after.run, (1, 1, 0, 0), 16, 8))
            if count is not None:
                found = attempt(seen, partial(after.defects, count))
        if policy:
            found = np.empty(0, DEFECT) if found is None else found
            signals = [(1.0, 2, abi.SIGNAL_FRESH)]
            attempt(seen, partial(policy.run, found, len(found), signals, 0, 5, 16, 8))
            attempt(seen, policy.save_state)
            attempt(seen, partial(policy.restore_state, bytes(4)))


def test_mutants_do_no_more_than_fail(engine: GuestEngine) -> None:
    noise = random.Random(20261122)
    good = assemble(guest())
    seen: Counter[str] = Counter()
    for _ in range(MUTANTS):
        try:
            module = Module(engine._engine, mutate(good, noise))
        except WasmtimeError:
            seen["invalid"] += 1
            continue
        shape = attempt(seen, partial(Shape, module, "mutant", 8))
        if shape:
            loaded = GuestModule(engine, module, "mutant", "0" * 64, shape)
            made = attempt(seen, partial(loaded.instantiate, 20))
            if made:
                exercise(seen, made)
    # The corpus bites: some are no modules, others trap at set-up, others answer nonsense.
    assert seen["invalid"] > 0
    assert seen["IncompatibleError"] > 0
    assert seen["GuestError"] > 0


def test_unmutated_guest_passes_the_same_exercise(engine: GuestEngine, tmp_path: Path) -> None:
    seen: Counter[str] = Counter()
    module = Module(engine._engine, assemble(guest()))
    loaded = GuestModule(engine, module, "good", "0" * 64, Shape(module, "good", 8))
    exercise(seen, loaded.instantiate(2000))
    assert not seen
