"""Guests that attack their host: each ends in one named error, and the next instance works."""

import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from guest_wat import ALLOC, GuestFiles, assemble, guest

from edge.contracts.frame import PixelFormat
from edge.contracts.plan import ImagePlan, TensorSpec
from edge.errors import GuestBudgetError, GuestError, IncompatibleError, UntrustedError
from edge.wasm.code_cache import CompileLimits
from edge.wasm.engine import GuestEngine, GuestModule
from edge.wasm.guest import Guest
from edge.wasm.roles import DEFECT, Decider, Decision, Postprocessor, Preprocessor

pytest_plugins = ["guest_fixtures"]

Load = Callable[[str | bytes], GuestModule]
Instance = Callable[..., Guest]

FOREVER = "(loop $forever (br $forever)) unreachable"
IMAGE = ImagePlan(PixelFormat.BGR, 16, 8)
INPUTS = (TensorSpec("x", "float32", (1, 3, 4, 4)),)
OUTPUTS = (TensorSpec("y", "float32", (10, 6)),)
NAN = "(f32.const nan)"
INFINITY = "(f32.const inf)"


def role(name: str, body: str) -> str:
    return f'(func $role (export "{name}") (param $call i32) (result i32) {body})'


def preprocess(instance: Instance, body: str) -> None:
    stage = Preprocessor(instance(guest(preprocess=role("preprocess", body))), IMAGE, 1, 1, INPUTS)
    stage.frame_slots[0].set_size(16, 8)
    stage.run(stage.frame_slots[0], None)


def postprocess(instance: Instance, body: str) -> None:
    text = guest(postprocess=role("postprocess", body))
    stage = Postprocessor(instance(text), OUTPUTS, class_count=2)
    stage.defects(stage.run((1.0, 1.0, 0.0, 0.0), 16, 8))


def decide(instance: Instance, body: str) -> Decision:
    stage = Decider(instance(guest(decide=role("decide", body))), 0, 2)
    return stage.run(np.empty(0, DEFECT), 0, (), 0, 0, 16, 8)


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


# Files that are no guests


def test_module_as_text_is_refused_by_its_magic(load: Load) -> None:
    with pytest.raises(IncompatibleError, match=r"starts with b'\(mod'.*assembled first"):
        load(guest().encode())


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated_module_is_refused(load: Load, share: float) -> None:
    whole = assemble(guest())
    with pytest.raises(IncompatibleError, match=r"guest guest1\.wasm"):
        load(whole[: int(len(whole) * share)])


def test_random_bytes_behind_the_magic_are_refused(load: Load) -> None:
    noise = random.Random(20261122)
    for _ in range(5):
        with pytest.raises(IncompatibleError):
            load(b"\0asm\1\0\0\0" + noise.randbytes(noise.randrange(1, 4000)))


def test_component_is_refused(load: Load) -> None:
    with pytest.raises(IncompatibleError):
        load(b"\0asm\x0d\0\1\0")


def test_empty_file_is_refused(load: Load) -> None:
    with pytest.raises(IncompatibleError, match="not a Wasm module"):
        load(b"")


def test_file_beyond_the_size_limit_is_refused_before_it_is_parsed(load: Load) -> None:
    with pytest.raises(IncompatibleError, match="larger than 16 MiB"):
        load(b"\0asm" + bytes(16 << 20))


def test_file_other_than_the_pinned_one_is_refused(engine: GuestEngine, files: GuestFiles) -> None:
    written = files.write(guest())
    wrong = "0" * 64
    with pytest.raises(UntrustedError) as refusal:
        engine.load(written.path, wrong, 8)
    assert str(written.path) in str(refusal.value)
    assert written.sha256 in str(refusal.value)
    assert wrong in str(refusal.value)


# Modules of the wrong shape


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        (
            f'(module (import "wasi_snapshot_preview1" "fd_write" (func)) {guest()[8:]}',
            "imports wasi_snapshot_preview1.fd_write",
        ),
        (
            f'(module (import "env" "memory" (memory 1 1)) {guest(memory="")[8:]}',
            "imports env.memory",
        ),
        (f'(module (import "a" "g" (global i32)) {guest()[8:]}', "imports a.g"),
        (f'(module (import "a" "t" (table 1 funcref)) {guest()[8:]}', "imports a.t"),
        (guest(memory="(memory 64 64)"), 'no memory named "memory"'),
        (
            guest(
                memory='(memory $m 64 64) (export "memory" (memory $m)) (export "m" (memory $m))'
            ),
            "more than one memory",
        ),
        (guest(memory='(memory (export "memory") 64 65)'), "64 pages, maximum 65"),
        (guest(memory='(memory (export "memory") 64)'), "64 pages, maximum None"),
        (guest(memory='(memory (export "memory") 129 129)'), "8 MiB are granted"),
        (
            guest(memory='(memory $m 64 64) (func (export "memory") (result i32) (i32.const 1))'),
            'no memory named "memory"',
        ),
        (guest(abi=""), "does not export edge_abi"),
        (guest(alloc=""), "does not export edge_alloc"),
        (guest(configure="", error=""), "does not export edge_configure"),
        (guest(preprocess="", postprocess="", decide=""), "serves no role"),
        (
            guest(decide='(func (export "decide") (param i64) (result i32) (i32.const 0))'),
            r"decide has type \(i64\) -> i32; the ABI says \(i32\) -> i32",
        ),
        (guest(decide='(func (export "decide") (param i32))'), r"decide has type \(i32\) -> ;"),
        (
            guest(decide='(global (export "decide") i32 (i32.const 1))'),
            "decide is not a function",
        ),
        (
            guest(abi='(func (export "edge_abi") (result i32 i32) (i32.const 1) (i32.const 1))'),
            "edge_abi has type",
        ),
    ],
)
def test_module_of_the_wrong_shape_is_refused(load: Load, module: str, sentence: str) -> None:
    with pytest.raises(IncompatibleError, match=sentence):
        load(module)


@pytest.mark.parametrize(
    "module",
    [
        guest(memory='(memory (export "memory") i64 64 64)', extra=""),
        guest(memory='(memory (export "memory") 64 64) (memory 1 1)'),
        guest(memory='(memory (export "memory") 64 64 shared)'),
        guest(extra='(func (param v128 v128) (result v128) local.get 0 local.get 1 '
              "i8x16.relaxed_swizzle)"),
        guest(extra="(func $f return_call $f)"),
        guest(extra="(tag $t) (func (throw $t))"),
        guest(extra="(type $s (struct)) (func (drop (struct.new $s)))"),
    ],
    ids=["memory64", "two memories", "shared", "relaxed simd", "tail call", "exceptions", "gc"],
)  # fmt: skip
def test_module_with_a_feature_that_is_off_is_refused(load: Load, module: str) -> None:
    with pytest.raises(IncompatibleError, match=r"guest guest1\.wasm"):
        load(module)


def test_module_with_too_many_exports_is_refused(load: Load) -> None:
    many = "".join(f'(export "e{n}" (func $alloc))' for n in range(300))
    with pytest.raises(IncompatibleError, match="exports; at most 256"):
        load(guest(extra=many))


def test_huge_table_is_refused(load: Load) -> None:
    with pytest.raises(IncompatibleError, match="within its grant"):
        load(guest(extra="(table 1000000 funcref)")).instantiate(2000)


@pytest.mark.parametrize(
    ("version", "said"), [(0x20000, "2.0"), (0, "0.0"), (0x10001, "1.1"), (-1, "65535.65535")]
)
def test_guest_of_another_abi_is_refused(load: Load, version: int, said: str) -> None:
    text = guest(abi=f'(func (export "edge_abi") (result i32) (i32.const {version}))')
    with pytest.raises(IncompatibleError, match=f"wants guest ABI {said}; this host has 1.0"):
        load(text).instantiate(2000)


# Set-up


def test_start_function_runs_under_the_budget(load: Load) -> None:
    module = load(guest(extra=f"(func $start {FOREVER}) (start $start)"))
    began = time.monotonic()
    with pytest.raises(IncompatibleError, match="start function did not return within 50 ms"):
        module.instantiate(50)
    assert time.monotonic() - began < 10


def test_start_function_that_traps_is_refused(load: Load) -> None:
    with pytest.raises(IncompatibleError, match="start function trapped: unreachable"):
        load(guest(extra="(func $start unreachable) (start $start)")).instantiate(50)


def test_configure_runs_under_the_budget(instance: Instance) -> None:
    text = f'(func (export "edge_configure") (param i32 i32) (result i32) {FOREVER})'
    looping = instance(guest(configure=text), call_ms=50)
    with pytest.raises(IncompatibleError, match="edge_configure did not return within 50 ms"):
        looping.configure({})
    assert looping.broken


def test_segment_outside_memory_is_refused(load: Load) -> None:
    with pytest.raises(IncompatibleError, match="out-of-bounds"):
        load(guest(extra='(data (i32.const 4194303) "ab")')).instantiate(50)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("(i32.const 0)", "found no room"),
        ("(i32.const 4160)", "inside what it gave before"),
        ("(i32.const 4097)", "not aligned"),
        ("(i32.const -64)", "ends outside"),
        ("(i32.const 4194240)", "ends outside"),
        ("(i32.const 0x7fffffc0)", "ends outside"),
        ("unreachable", "edge_alloc trapped: unreachable"),
    ],
)
def test_bad_allocation_is_refused(instance: Instance, body: str, sentence: str) -> None:
    text = f'(func (export "edge_alloc") (param i32 i32) (result i32) {body})'
    lying = instance(guest(alloc=text, state=""))

    def allocate_twice() -> None:
        """The first allocation at 4160 is fine; the second one overlaps it."""
        lying.alloc(128)
        lying.alloc(128)

    with pytest.raises(IncompatibleError, match=sentence):
        allocate_twice()


def test_allocation_may_touch_but_not_overlap(instance: Instance) -> None:
    honest = instance(guest())
    first, second = honest.alloc(64), honest.alloc(64)
    assert abs(first - second) >= 64


@pytest.mark.parametrize("address", [-1, -4096, 4194304, 0x7FFF_FFFF])
def test_error_text_outside_memory_is_not_read(instance: Instance, address: int) -> None:
    lying = instance(
        guest(error=f'(func (export "edge_error") (result i32) (i32.const {address}))')
    )
    assert "outside the guest's memory" in lying.error_text(-1)


def test_error_text_at_the_end_of_memory_is_cut_there(instance: Instance) -> None:
    text = '(func (export "edge_error") (result i32) (i32.const 4194300))'
    edge = instance(guest(error=text, extra='(data (i32.const 4194300) "abcd")'))
    assert edge.error_text(-1).endswith(": abcd")


def test_error_text_that_traps_breaks_the_guest_and_says_so(instance: Instance) -> None:
    trapping = instance(guest(error='(func (export "edge_error") (result i32) unreachable)'))
    assert "edge_error trapped" in trapping.error_text(-2)
    assert trapping.broken


def test_error_text_cannot_steer_a_terminal(instance: Instance) -> None:
    refused = instance(
        guest(
            configure='(func (export "edge_configure") (param i32 i32) (result i32) (i32.const -1))'
        )
    )
    with pytest.raises(IncompatibleError, match=r"threshold \[31m must lie in 0\.\.1") as refusal:
        refused.configure({"threshold": 2})
    assert str(refusal.value).isprintable()


# Roles


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("unreachable", "decide trapped: unreachable executed"),
        ("(i32.add (i32.const 1) (call $role (local.get 0)))", "stack overflow"),
        ("(i32.load (i32.const -4))", "out-of-bounds memory access"),
        ("(i32.store (i32.const 4194304) (i32.const 1)) (i32.const 0)", "out-of-bounds"),
        ("(memory.fill (i32.const 1) (i32.const 0) (i32.const -1)) (i32.const 0)", "out-of-bounds"),
        ("(i32.div_u (i32.const 1) (i32.eqz (local.get 0)))", "integer division by zero"),
        ("(i32.trunc_f32_s (f32.const nan))", "bad conversion to integer"),
        ("(call_indirect (result i32) (i32.const 0))", "indirect call to null"),
    ],
)
def test_trap_is_named_and_breaks_only_its_instance(load: Load, body: str, sentence: str) -> None:
    module = load(guest(decide=role("decide", body), extra="(table 1 funcref)"))
    trapped = module.instantiate(2000)
    with pytest.raises(GuestError, match=sentence) as error:
        Decider(trapped, 0, 0).run(np.empty(0, DEFECT), 0, (), 0, 0, 16, 8)
    assert "guest1.wasm" in str(error.value)
    assert error.value.reason == "guest-trap"
    assert trapped.broken
    with pytest.raises(GuestError, match=r"preprocess refused: decide trapped before"):
        trapped.call("preprocess", 0)
    fresh = module.instantiate(2000)
    assert fresh.call("edge_abi") == 0x10000
    assert not fresh.broken


@pytest.mark.parametrize("name", ["preprocess", "postprocess", "decide"])
def test_endless_role_is_interrupted(load: Load, name: str) -> None:
    endless = load(guest(**{name: role(name, FOREVER)}))
    looping = endless.instantiate(30)
    began = time.monotonic()
    with pytest.raises(GuestBudgetError, match=f"{name} did not return within 30 ms") as error:
        looping.call(name, 4096)
    assert 0.03 <= time.monotonic() - began < 10
    assert error.value.reason == "guest-budget"
    assert looping.broken
    assert endless.instantiate(2000).call("edge_abi") == 0x10000


def test_endless_bulk_memory_operations_are_interrupted(instance: Instance) -> None:
    filling = "(memory.fill (i32.const 0) (i32.const 1) (i32.const 4194304))"
    body = f"(loop $forever {filling} (br $forever)) unreachable"
    with pytest.raises(GuestBudgetError):
        instance(guest(decide=role("decide", body)), call_ms=20).call("decide", 0)


def test_memory_does_not_grow(instance: Instance) -> None:
    growing = instance(guest(decide=role("decide", "(memory.grow (i32.const 1))")))
    assert growing.call("decide", 0) == -1
    assert growing.memory_bytes == 64 * 65536


@pytest.mark.parametrize("values", [f"{NAN}", f"{INFINITY}", "(f32.const 0)", "(f32.const -1)"])
def test_transform_that_is_none_is_refused(instance: Instance, values: str) -> None:
    good = "(f32.store offset=60 (local.get 0) (f32.const 1))"
    with pytest.raises(GuestError, match="preprocess set the transform"):
        preprocess(instance, f"(f32.store offset=56 (local.get 0) {values}) {good} (i32.const 0)")


def test_transform_that_was_not_set_is_refused(instance: Instance) -> None:
    with pytest.raises(GuestError, match=r"preprocess set the transform \(nan, nan, nan, nan\)"):
        preprocess(instance, "(i32.const 0)")


def test_preprocess_error_is_told_in_the_guests_words(instance: Instance) -> None:
    with pytest.raises(GuestError, match=r"preprocess failed: the input is.*threshold"):
        preprocess(instance, "(i32.const -2)")


@pytest.mark.parametrize("result", [1, 7, -99])
def test_result_that_the_abi_does_not_know_is_an_error(instance: Instance, result: int) -> None:
    with pytest.raises(GuestError, match=f"result {result}, which the ABI does not know"):
        preprocess(instance, f"(i32.const {result})")


@pytest.mark.parametrize("count", [301, 0x7FFF_FFFF])
def test_more_defects_than_there_is_room_for_are_refused(instance: Instance, count: int) -> None:
    with pytest.raises(GuestError, match=f"claims {count} defects; it was given room for 300"):
        postprocess(instance, f"(i32.const {count})")


def test_negative_count_is_an_error(instance: Instance) -> None:
    with pytest.raises(GuestError, match="postprocess failed: the guest failed"):
        postprocess(instance, "(i32.const -4)")


def defect_with(offset: int, value: str) -> str:
    """A `postprocess` of one defect, good but for one field."""
    at = "(i32.load offset=32 (local.get 0))"
    good = "".join(
        f"(f32.store offset={place} {at} (f32.const {number}))"
        for place, number in ((0, 1), (4, 1), (8, 2), (12, 2), (16, 0.5))
    )
    store = "i32" if offset == 20 else "f32"
    return f"{good} ({store}.store offset={offset} {at} {value}) (i32.const 1)"


@pytest.mark.parametrize(
    ("offset", "value", "sentence"),
    [
        (0, NAN, "defect 0 has a box that is not finite"),
        (12, INFINITY, "defect 0 has a box that is not finite"),
        (0, "(f32.const 3)", "defect 0 has a box inside out"),
        (12, "(f32.const 0)", "defect 0 has a box inside out"),
        (16, NAN, "has a score outside"),
        (16, "(f32.const 1.5)", "has a score outside"),
        (16, "(f32.const -0.5)", "has a score outside"),
        (20, "(i32.const 2)", r"has a label outside 0\.\.1"),
        (20, "(i32.const -1)", r"has a label outside 0\.\.1"),
    ],
)
def test_bad_defect_is_refused_by_name(
    instance: Instance, offset: int, value: str, sentence: str
) -> None:
    with pytest.raises(GuestError, match=sentence):
        postprocess(instance, defect_with(offset, value))


def test_good_answer_of_the_same_makers_passes(instance: Instance) -> None:
    """The control: what the bad answers differ from is accepted."""
    postprocess(instance, defect_with(20, "(i32.const 1)"))
    found = decide(instance, decision(actions="(i32.const 1)"))
    assert found.reason == "fine"
    assert len(found.actions) == 1


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (decision(verdict="(i32.const 3)"), "verdict 3, none of the ABI's"),
        (decision(verdict="(i32.const -1)"), "none of the ABI's"),
        (decision(score=NAN), "score nan"),
        (decision(score="(f32.const 1.01)"), "outside"),
        (decision(score="(f32.const -0.01)"), "outside"),
        (decision(reason=b""), "at least one"),
        (decision(reason=b"No"), "codes are of"),
        (decision(reason=b"a b"), "codes are of"),
        (decision(reason=b"a\n"), "codes are of"),
        (decision(reason=b"\xc3\xa9"), "codes are of"),
        (decision(reason=b"overrun"), "which only the host gives"),
        (decision(reason=b"worker-lost"), "which only the host gives"),
        (decision(actions="(i32.const 5)"), "5 actions; at most 4"),
        (decision(actions="(i32.const -1)"), "at most 4"),
        (decision(actions="(i32.const 1)", index="(i32.const 2)"), "action 2; 2 are granted"),
        (decision(actions="(i32.const 1)", index="(i32.const -1)"), "2 are granted"),
        (decision(actions="(i32.const 1)", value="(f64.const inf)"), "the value inf"),
        (decision(actions="(i32.const 1)", value="(f64.const nan)"), "the value nan"),
        ("(i32.const 0)", "verdict 4294967295"),
    ],
)
def test_bad_decision_is_refused_by_name(instance: Instance, answer: str, sentence: str) -> None:
    with pytest.raises(GuestError, match=sentence):
        decide(instance, answer)


def test_longest_reason_needs_no_terminator(instance: Instance) -> None:
    assert decide(instance, decision(reason=b"a" * 32)).reason == "a" * 32


def test_bad_answer_does_not_break_the_guest(instance: Instance) -> None:
    wrong = instance(guest(decide=role("decide", decision(verdict="(i32.const 9)"))))
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
      (memory.fill (local.get 0) (i32.const 0) (i32.const 56))
      (f32.store offset=56 (local.get 0) (f32.const 1))
      (f32.store offset=60 (local.get 0) (f32.const 1))
      (f32.store offset=64 (local.get 0) (f32.const 0))
      (f32.store offset=68 (local.get 0) (f32.const 0))
      (i32.const 0)"""
    scribbling = instance(
        guest(
            preprocess=role("preprocess", body),
            extra="(global $seen (mut i32) (i32.const 0))",
        )
    )
    stage = Preprocessor(scribbling, IMAGE, 1, 0, INPUTS)
    stage.frame_slots[0].set_size(16, 8)
    for _ in range(3):
        assert stage.run(stage.frame_slots[0], None) == (1.0, 1.0, 0.0, 0.0)


# State


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("(i32.const 4097)", "claims 4097 bytes"),
        ("(i32.const -4)", "edge_state_save failed"),
        ("unreachable", "edge_state_save trapped"),
    ],
)
def test_bad_state_is_refused(instance: Instance, body: str, sentence: str) -> None:
    text = f'(func (export "edge_state_save") (param i32 i32) (result i32) {body})'
    with pytest.raises(GuestError, match=sentence):
        instance(guest(state=text)).save_state()


def test_alloc_that_worked_once_may_refuse_later(instance: Instance) -> None:
    small = instance(guest(alloc=ALLOC))
    for _ in range(3):
        small.alloc(1 << 20)
    with pytest.raises(IncompatibleError, match="found no room"):
        small.alloc(1 << 20)
    with pytest.raises(IncompatibleError, match="do not fit"):
        small.alloc(1 << 40)


# Compilation


def bomb(functions: int) -> bytes:
    """Many functions, each of which takes a while to optimise."""
    step = "(local.set 0 (i32.mul (i32.add (local.get 0) (i32.const 7)) (local.get 0)))"
    body = f"(func (param i32) (result i32) {step * 60} (local.get 0))"
    return assemble(guest(extra=body * functions))


def test_compile_bomb_ends_within_its_limits(tmp_path: Path, files: GuestFiles) -> None:
    written = files.write(bomb(20_000))
    with GuestEngine(tmp_path / "cache", limits=CompileLimits(cpu_s=1)) as engine:
        began = time.monotonic()
        with pytest.raises(IncompatibleError, match="more than 1 s of CPU"):
            engine.load(written.path, written.sha256, 8)
        assert time.monotonic() - began < 60
        good = files.write(guest())
        assert engine.load(good.path, good.sha256, 8).roles
    assert len(list((tmp_path / "cache").iterdir())) == 1
