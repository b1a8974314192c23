"""What the host does with odd answers, stage by stage; and that it takes those that are in order.

The corpus (`test_hostile_guests`) holds the attacks themselves, through the whole frame path.
"""

from collections.abc import Callable

import numpy as np
import pytest
from frame_line import IMAGE, INPUTS, OUTPUTS
from guest_wat import ALLOC, GuestFiles, guest
from hostile_case import decision, defect, exported, transform

from edge.errors import GuestError, IncompatibleError, UntrustedError
from edge.wasm.engine import GuestEngine, GuestModule
from edge.wasm.guest import Guest
from edge.wasm.roles import DEFECT, Decider, Decision, Postprocessor, Preprocessor

pytest_plugins = ["guest_fixtures"]

Load = Callable[[str | bytes], GuestModule]
Instance = Callable[..., Guest]


def decide(instance: Instance, body: str) -> Decision:
    stage = Decider(instance(guest(decide=exported("decide", body, 1))), 0, 2)
    return stage.run(np.empty(0, DEFECT), 0, (), 0, 0, 16, 8)


def test_file_other_than_the_pinned_one_is_refused(engine: GuestEngine, files: GuestFiles) -> None:
    written = files.write(guest())
    wrong = "0" * 64
    with pytest.raises(UntrustedError) as refusal:
        engine.load(written.path, wrong, 8)
    assert str(written.path) in str(refusal.value)
    assert written.sha256 in str(refusal.value)
    assert wrong in str(refusal.value)


def test_answers_that_the_corpus_differs_from_are_taken(instance: Instance) -> None:
    """The control of the corpus: its makers of answers make good ones, too."""
    before = Preprocessor(
        instance(guest(preprocess=exported("preprocess", transform("1", "2", "0", "-3"), 1))),
        IMAGE,
        1,
        1,
        INPUTS,
    )
    before.frame_slots[0].set_size(16, 8)
    assert before.run(before.frame_slots[0], None) == (1.0, 2.0, 0.0, -3.0)
    text = guest(postprocess=exported("postprocess", defect(), 1))
    after = Postprocessor(instance(text), OUTPUTS, class_count=2)
    assert after.defects(after.run((1.0, 1.0, 0.0, 0.0), 16, 8)).tolist() == [(1, 1, 2, 2, 0.5, 1)]
    found = decide(instance, decision(actions="(i32.const 1)"))
    assert found.reason == "fine"
    assert len(found.actions) == 1


def test_the_longest_reason_leaves_room_for_its_terminator(instance: Instance) -> None:
    assert decide(instance, decision(reason=b"a" * 31)).reason == "a" * 31
    with pytest.raises(GuestError, match="at most 31"):
        decide(instance, decision(reason=b"a" * 32))


def test_decision_that_was_not_made_is_found(instance: Instance) -> None:
    with pytest.raises(GuestError, match="verdict 4294967295"):
        decide(instance, "(i32.const 0)")


def test_trap_breaks_its_instance_alone(load: Load) -> None:
    module = load(guest(decide=exported("decide", "unreachable", 1)))
    trapped = module.instantiate(2000)
    with pytest.raises(GuestError, match="decide trapped") as error:
        trapped.call("decide", 0)
    assert "guest1.wasm" in str(error.value)
    assert trapped.broken
    with pytest.raises(GuestError, match="preprocess refused: decide trapped before"):
        trapped.call("preprocess", 0)
    fresh = module.instantiate(2000)
    assert fresh.call("edge_abi") == 0x10000
    assert not fresh.broken


def test_bad_answer_does_not_break_the_guest(instance: Instance) -> None:
    wrong = instance(guest(decide=exported("decide", decision(verdict="(i32.const 9)"), 1)))
    stage = Decider(wrong, 0, 0)
    for _ in range(2):
        with pytest.raises(GuestError, match="verdict 9"):
            stage.run(np.empty(0, DEFECT), 0, (), 0, 0, 16, 8)
    assert not wrong.broken


def test_scribbled_call_struct_is_whole_again_at_the_next_call(instance: Instance) -> None:
    """The guest answers, then zeroes its argument and the tensors' descriptions."""
    body = """
      (local $was i32)
      (local.set $was (i32.load offset=52 (local.get 0)))
      (if (i32.ne (local.get $was) (i32.const 1)) (then (return (i32.const -3))))
      (if (i32.ne (i32.load (i32.load offset=48 (local.get 0))) (global.get $seen)) (then
        (if (global.get $seen) (then (return (i32.const -4))))
        (global.set $seen (i32.load (i32.load offset=48 (local.get 0))))))
      (memory.fill (i32.load offset=48 (local.get 0)) (i32.const 0) (i32.const 48))
      (memory.fill (local.get 0) (i32.const 0) (i32.const 56))""" + transform("1", "1", "0", "0")
    scribbling = instance(
        guest(
            preprocess=f'(func (export "preprocess") (param i32) (result i32) {body})',
            extra="(global $seen (mut i32) (i32.const 0))",
        )
    )
    stage = Preprocessor(scribbling, IMAGE, 1, 0, INPUTS)
    stage.frame_slots[0].set_size(16, 8)
    for _ in range(3):
        assert stage.run(stage.frame_slots[0], None) == (1.0, 1.0, 0.0, 0.0)


def test_memory_does_not_grow(instance: Instance) -> None:
    growing = instance(guest(decide=exported("decide", "(memory.grow (i32.const 1))", 1)))
    assert growing.call("decide", 0) == -1
    assert growing.memory_bytes == 64 * 65536


def test_allocation_may_touch_but_not_overlap(instance: Instance) -> None:
    honest = instance(guest())
    first, second = honest.alloc(64), honest.alloc(64)
    assert abs(first - second) >= 64


def test_alloc_that_worked_once_may_refuse_later(instance: Instance) -> None:
    small = instance(guest(alloc=ALLOC))
    for _ in range(3):
        small.alloc(1 << 20)
    with pytest.raises(IncompatibleError, match="found no room"):
        small.alloc(1 << 20)
    with pytest.raises(IncompatibleError, match="do not fit"):
        small.alloc(1 << 40)


def test_error_text_at_the_end_of_memory_is_cut_there(instance: Instance) -> None:
    text = exported("edge_error", "(i32.const 4194300)")
    edge = instance(guest(error=text, extra='(data (i32.const 4194300) "abcd")'))
    assert edge.error_text(-1).endswith(": abcd")
