"""Batches in guest memory, of which a guest of one frame sees one row at a time."""

from collections.abc import Callable

import numpy as np
import pytest
from guest_wat import guest

from edge.contracts.frame import PixelFormat
from edge.contracts.plan import ImagePlan, TensorSpec
from edge.wasm.guest import Guest
from edge.wasm.roles import ImageSlot, Postprocessor, Preprocessor

pytest_plugins = ["guest_fixtures"]

Instance = Callable[..., Guest]
IMAGE = ImagePlan(PixelFormat.GRAY8, 8, 8)
ALIGNED = TensorSpec("x", "float32", (3, 4, 4))
"""Rows of 64 bytes: handed out where they lie."""
ODD = TensorSpec("x", "float32", (3, 5))
"""Rows of 20 bytes: carried."""

TELLS_ITS_TENSOR = """
(func (export "preprocess") (param $call i32) (result i32)
  (f32.store offset=56 (local.get $call) (f32.const 1))
  (f32.store offset=60 (local.get $call) (f32.const 1))
  (f32.store offset=64 (local.get $call) (f32.convert_i32_u
    (i32.and (i32.load (i32.load offset=48 (local.get $call))) (i32.const 63))))
  (f32.store offset=68 (local.get $call) (f32.convert_i32_u
    (i32.load offset=16 (i32.load offset=48 (local.get $call)))))
  (i32.const 0))
"""
"""Answers with how far its input lies from an alignment of 64, and with its first dimension."""


def shown(slot: ImageSlot, grey: int) -> ImageSlot:
    slot.pixels[:64] = grey
    slot.set_size(8, 8)
    return slot


@pytest.mark.parametrize("spec", [ALIGNED, ODD], ids=["in place", "carried"])
def test_each_call_fills_its_row_and_no_other(instance: Instance, spec: TensorSpec) -> None:
    stage = Preprocessor(instance(guest()), IMAGE, 1, 0, (spec,), batched=True)
    assert stage.rows is not None
    assert stage.inputs[0].shape == spec.shape
    for row, grey in ((0, 255), (2, 51), (1, 102)):
        stage.rows.turn_to(row)
        stage.run(shown(stage.frame_slots[0], grey), None)
        stage.rows.fetch(row)
    means = stage.inputs[0].reshape(3, -1).mean(axis=1)
    np.testing.assert_allclose(means, [1.0, 0.4, 0.2], rtol=1e-6)


@pytest.mark.parametrize("spec", [ALIGNED, ODD], ids=["in place", "carried"])
def test_a_row_is_aligned_and_looks_like_a_batch_of_one(
    instance: Instance, spec: TensorSpec
) -> None:
    wat = guest(preprocess=TELLS_ITS_TENSOR)
    stage = Preprocessor(instance(wat), IMAGE, 1, 0, (spec,), batched=True)
    assert stage.rows is not None
    for row in range(3):
        stage.rows.turn_to(row)
        assert stage.run(shown(stage.frame_slots[0], 1), None)[2:] == (0.0, 1.0)


def test_rows_that_hold_no_crop_are_cleared(instance: Instance) -> None:
    stage = Preprocessor(instance(guest()), IMAGE, 1, 0, (ALIGNED,), batched=True)
    assert stage.rows is not None
    stage.inputs[0][:] = 7
    stage.rows.clear(1, 3)
    assert stage.inputs[0].reshape(3, -1).any(axis=1).tolist() == [True, False, False]
    stage.rows.clear(3, 3)
    assert stage.inputs[0][0].all()


def test_each_call_reads_its_row_and_no_other(instance: Instance) -> None:
    spec = TensorSpec("y", "float32", (3, 6))
    stage = Postprocessor(instance(guest()), (spec,), class_count=3, batched=True)
    assert stage.rows is not None
    stage.outputs[0][0] = [0, 0, 4, 4, 0.25, 1]
    stage.outputs[0][2] = [0, 0, 4, 4, 0.75, 2]
    found = []
    for row in range(3):
        stage.rows.turn_to(row)
        stage.rows.bring(row)
        count = stage.run((1.0, 1.0, 0.0, 0.0), 8, 8)
        found.append([(float(each["score"]), int(each["label"])) for each in stage.defects(count)])
    assert found == [[(0.25, 1)], [], [(0.75, 2)]]
