"""The three roles on a guest that does its work, sharing one instance and apart."""

from collections.abc import Callable

import numpy as np
import pytest
from guest_wat import guest

from edge.contracts import abi
from edge.contracts.frame import PixelFormat
from edge.contracts.messages import ActionWish
from edge.contracts.plan import ImagePlan, TensorSpec
from edge.contracts.verdict import Kind
from edge.errors import IncompatibleError
from edge.wasm.guest import Guest
from edge.wasm.roles import DEFECT, Decider, Decision, ImageSlot, Postprocessor, Preprocessor

pytest_plugins = ["guest_fixtures"]

Instance = Callable[..., Guest]
IMAGE = ImagePlan(PixelFormat.BGR, 16, 8)
INPUTS = (TensorSpec("x", "float32", (1, 3, 4, 4)),)
OUTPUTS = (TensorSpec("y", "float32", (10, 6)),)
NO_DEFECTS = np.empty(0, DEFECT)


def fill(slot: ImageSlot, width: int, height: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    pixels = np.arange(width * height * 3).astype(np.uint8)
    slot.pixels[: pixels.size] = pixels
    slot.set_size(width, height)
    return pixels


def test_preprocess_reads_pixels_and_fills_tensors_in_place(instance: Instance) -> None:
    stage = Preprocessor(instance(guest()), IMAGE, 2, 1, INPUTS)
    assert (len(stage.frame_slots), len(stage.reference_slots)) == (2, 1)
    for slot in stage.frame_slots:
        pixels = fill(slot, 8, 4)
        assert stage.run(slot, None) == (2.0, 1.0, 0.0, 0.0)
        expected = pixels[:48].astype(np.float32) / np.float32(255)
        np.testing.assert_array_equal(stage.inputs[0].ravel(), expected)


def test_reference_arrives_beside_the_frame(instance: Instance) -> None:
    body = """(func (export "preprocess") (param i32) (result i32)
      (f32.store offset=56 (local.get 0) (f32.const 1))
      (f32.store offset=60 (local.get 0) (f32.const 1))
      (f32.store offset=64 (local.get 0) (f32.convert_i32_u (i32.load offset=28 (local.get 0))))
      (f32.store offset=68 (local.get 0) (f32.convert_i32_u (i32.load8_u offset=2
        (i32.load offset=24 (local.get 0)))))
      (i32.const 0))"""
    stage = Preprocessor(instance(guest(preprocess=body)), IMAGE, 1, 1, INPUTS)
    frame, reference = stage.frame_slots[0], stage.reference_slots[0]
    fill(frame, 8, 4)
    reference.pixels[2] = 77
    reference.set_size(6, 2)
    assert stage.run(frame, reference)[2:] == (6.0, 77.0)
    assert stage.run(frame, None)[2] == 0.0


@pytest.mark.parametrize(("width", "height"), [(17, 8), (0, 8), (4, 0), (-1, -1)])
def test_image_that_does_not_fit_its_slot_is_a_mistake(
    instance: Instance, width: int, height: int
) -> None:
    slot = ImageSlot(instance(guest()), IMAGE)
    with pytest.raises(ValueError, match=f"image of {width}x{height}"):
        slot.set_size(width, height)


def test_slack_behind_an_image_holds_nothing_of_the_one_before(instance: Instance) -> None:
    slot = ImageSlot(instance(guest()), IMAGE)
    slot.pixels[:] = 9
    slot.set_size(8, 4)
    end = 8 * 4 * 3
    assert not slot.pixels[end : end + abi.IMAGE_SLACK_BYTES].any()
    assert slot.pixels[:end].all()
    assert slot.pixels.size == IMAGE.max_bytes + abi.IMAGE_SLACK_BYTES


def test_postprocess_reads_what_the_model_wrote(instance: Instance) -> None:
    stage = Postprocessor(instance(guest()), OUTPUTS, class_count=3)
    assert not stage.outputs[0].any()
    stage.outputs[0][2] = [1, 2, 3, 4, 0.25, 1]
    stage.outputs[0][5] = [0, 1, 50, 60, 0.75, 2]
    count = stage.run((2.0, 2.0, 0.0, 0.0), 16, 8)
    assert count == 2
    strongest, weaker = stage.defects(count)
    assert tuple(strongest) == (0.0, 2.0, 16.0, 8.0, 0.75, 2)
    assert tuple(weaker) == (2.0, 4.0, 6.0, 8.0, 0.25, 1)


def test_defects_are_a_copy(instance: Instance) -> None:
    stage = Postprocessor(instance(guest()), OUTPUTS, class_count=3)
    stage.outputs[0][0] = [1, 1, 2, 2, 0.5, 0]
    found = stage.defects(stage.run((1.0, 1.0, 0.0, 0.0), 16, 8))
    stage.outputs[0][:] = 0
    assert stage.run((1.0, 1.0, 0.0, 0.0), 16, 8) == 0
    assert found[0]["score"] == 0.5


def test_as_many_defects_as_there_is_room_for_are_fine(instance: Instance) -> None:
    stage = Postprocessor(instance(guest()), OUTPUTS, class_count=3, capacity=4)
    stage.outputs[0][:] = [1, 1, 2, 2, 0.5, 0]
    count = stage.run((1.0, 1.0, 0.0, 0.0), 16, 8)
    assert count == len(stage.defects(count)) == 4


def test_half_precision_tensors_are_placed(instance: Instance) -> None:
    stage = Postprocessor(instance(guest()), (TensorSpec("y", "float16", (3, 5)),), class_count=1)
    stage.outputs[0][:] = 1.5
    assert stage.outputs[0].dtype == np.float16
    assert stage.outputs[0].ctypes.data % abi.TENSOR_ALIGNMENT == 0


@pytest.mark.parametrize(
    "spec",
    [
        TensorSpec("y", "float64", (1,)),
        TensorSpec("y", "float32", ()),
        TensorSpec("y", "float32", (1,) * 9),
        TensorSpec("y", "float32", (0, 4)),
        TensorSpec("y", "float32", (1 << 40,)),
    ],
)
def test_tensor_that_cannot_be_handed_over_is_named(instance: Instance, spec: TensorSpec) -> None:
    with pytest.raises(IncompatibleError):
        Postprocessor(instance(guest()), (spec,), class_count=1)


def test_bayer_frames_are_not_for_guests(instance: Instance) -> None:
    with pytest.raises(IncompatibleError, match="GRAY8, BGR, RGB, not as BayerRG8"):
        ImageSlot(instance(guest()), ImagePlan(PixelFormat.BAYER_RG8, 4, 4))


def decide(stage: Decider, score: float | None, signal: float = 0.0) -> Decision:
    defects = NO_DEFECTS
    if score is not None:
        defects = np.array([(0, 0, 1, 1, score, 0)], DEFECT)
    signals = [(signal, 5, abi.SIGNAL_FRESH)]
    return stage.run(defects, len(defects), signals, 0, 1, 16, 8)


def test_policy_reads_defects_and_signals_and_keeps_its_state(instance: Instance) -> None:
    stage = Decider(instance(guest()), 1, 1)
    assert decide(stage, None) == Decision(Kind.PASS, "ok", 0.0)
    assert decide(stage, 0.5) == Decision(Kind.REJECT, "defect", 0.5)
    assert decide(stage, 0.75).actions == (ActionWish(0, 2.0, 250),)
    assert decide(stage, None) == Decision(Kind.PASS, "ok", 0.0)
    assert decide(stage, None, signal=9.5).actions == (ActionWish(0, 0.0, 250),)


def test_policy_takes_over_where_its_forerunner_stopped(instance: Instance) -> None:
    first, second = Decider(instance(guest()), 1, 1), Decider(instance(guest()), 1, 1)
    decide(first, 0.5)
    state = first.save_state()
    assert state is not None
    assert second.restore_state(state)
    assert decide(second, 0.5).actions == decide(first, 0.5).actions


def test_policy_is_told_the_frame(instance: Instance) -> None:
    body = """(func (export "decide") (param i32) (result i32)
      (if (i64.ne (i64.load (local.get 0)) (i64.const 7)) (then (return (i32.const -2))))
      (if (i64.ne (i64.load offset=8 (local.get 0)) (i64.const 1700000000123456789))
        (then (return (i32.const -2))))
      (if (i32.ne (i32.load offset=16 (local.get 0)) (i32.const 640)) (then
        (return (i32.const -2))))
      (if (i32.ne (i32.load offset=36 (local.get 0)) (i32.const 2)) (then (return (i32.const -2))))
      (if (f64.ne (f64.load offset=24 (i32.load offset=32 (local.get 0))) (f64.const -1.5))
        (then (return (i32.const -2))))
      (if (i64.ne (i64.load offset=32 (i32.load offset=32 (local.get 0))) (i64.const 44))
        (then (return (i32.const -2))))
      (if (i32.ne (i32.load offset=40 (i32.load offset=32 (local.get 0))) (i32.const 2))
        (then (return (i32.const -2))))
      (i32.store offset=40 (local.get 0) (i32.const 2))
      (f32.store offset=44 (local.get 0) (f32.const 1))
      (i32.store offset=48 (local.get 0) (i32.const 0x6b6f))
      (i32.const 0))"""
    stage = Decider(instance(guest(decide=body)), 2, 0)
    signals = [(1.0, 3, abi.SIGNAL_FRESH), (-1.5, 44, abi.SIGNAL_STALE)]
    found = stage.run(NO_DEFECTS, 0, signals, 7, 1_700_000_000_123_456_789, 640, 480)
    assert found == Decision(Kind.REVIEW, "ok", 1.0)


def test_wrong_number_of_signals_is_a_mistake(instance: Instance) -> None:
    stage = Decider(instance(guest()), 1, 0)
    with pytest.raises(ValueError, match="2 signals, 1 are granted"):
        stage.run(NO_DEFECTS, 0, [(0.0, 0, 0)] * 2, 0, 0, 16, 8)


def test_roles_share_one_instance_without_overlap(instance: Instance) -> None:
    shared = instance(guest())
    shared.configure({})
    before = Preprocessor(shared, IMAGE, 1, 1, INPUTS)
    after = Postprocessor(shared, OUTPUTS, class_count=3)
    policy = Decider(shared, 1, 1)
    fill(before.frame_slots[0], 16, 8)
    after.outputs[0][0] = [1, 1, 2, 2, 0.5, 0]
    transform = before.run(before.frame_slots[0], None)
    count = after.run(transform, 16, 8)
    found = policy.run(after.defects(count), count, [(0.0, 0, 0)], 0, 0, 16, 8)
    assert found.kind is Kind.REJECT
    assert before.inputs[0][0, 0, 0, 1] == np.float32(1 / 255)


@pytest.mark.parametrize("missing", ["preprocess", "postprocess", "decide"])
def test_guest_that_lacks_a_role_is_refused(instance: Instance, missing: str) -> None:
    lacking = instance(guest(**{missing: ""}))
    makers: dict[str, Callable[[], object]] = {
        "preprocess": lambda: Preprocessor(lacking, IMAGE, 1, 0, INPUTS),
        "postprocess": lambda: Postprocessor(lacking, OUTPUTS, class_count=1),
        "decide": lambda: Decider(lacking, 0, 0),
    }
    with pytest.raises(IncompatibleError, match=f"does not serve the role {missing}"):
        makers.pop(missing)()
    for make in makers.values():
        make()
