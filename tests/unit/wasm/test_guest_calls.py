"""Calls under a budget: the unchecked call equals the checked one, and each is interrupted."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from guest_wat import GuestFiles, guest
from wasmtime import _bindings

from edge.errors import GuestBudgetError, GuestError, IncompatibleError
from edge.wasm import interruption
from edge.wasm.calls import unchecked_is_known
from edge.wasm.engine import GuestEngine
from edge.wasm.guest import Guest

pytest_plugins = ["guest_fixtures"]

Instance = Callable[..., Guest]

MIX = """
(func (export "edge_state_save") (param i32 i32) (result i32)
  (i32.xor (i32.rotl (local.get 0) (i32.const 7)) (local.get 1)))
(func (export "edge_state_restore") (param i32 i32) (result i32) (i32.const 0))
"""


def mixed(first: int, second: int) -> int:
    """What MIX computes."""
    first &= 0xFFFF_FFFF
    word = ((first << 7 | first >> 25) ^ second) & 0xFFFF_FFFF
    return word - (1 << 32) if word >> 31 else word


FOREVER = """
(func (export "decide") (param i32) (result i32) (loop $forever (br $forever)) unreachable)
"""


@pytest.fixture(params=[False, True], ids=["unchecked", "checked"])
def either(request: pytest.FixtureRequest, cache_dir: Path) -> Iterator[GuestEngine]:
    """An engine of each kind of call."""
    with GuestEngine(cache_dir, checked=request.param) as opened:
        assert opened.checked is request.param
        yield opened


def start(engine: GuestEngine, files: GuestFiles, text: str, call_ms: int = 2000) -> Guest:
    written = files.write(text)
    return engine.load(written.path, written.sha256, 8).instantiate(call_ms)


def test_installed_wasmtime_is_the_one_that_unchecked_calls_were_written_for() -> None:
    assert unchecked_is_known()


def test_other_bindings_fall_back_to_checked_calls(
    monkeypatch: pytest.MonkeyPatch, cache_dir: Path, files: GuestFiles
) -> None:
    monkeypatch.delattr(_bindings, "_wasmtime_func_call_unchecked")
    with GuestEngine(cache_dir) as engine:
        assert engine.checked
        assert start(engine, files, guest()).call("edge_abi") == 0x10000


def test_unchecked_and_checked_calls_give_the_same(cache_dir: Path, files: GuestFiles) -> None:
    written = files.write(guest(state=MIX))
    words = np.random.default_rng(7).integers(0, 1 << 32, (200, 2), dtype=np.uint64).tolist()
    words += [[0, 0], [0x7FFF_FFFF, 0x8000_0000], [0xFFFF_FFFF, 1], [-1, -2_147_483_648]]
    results = []
    for checked in (False, True):
        with GuestEngine(cache_dir, checked=checked) as engine:
            made = engine.load(written.path, written.sha256, 8).instantiate(2000)
            results.append([made.call("edge_state_save", *pair) for pair in words])
    assert results[0] == results[1] == [mixed(*pair) for pair in words]


def test_trap_is_told_the_same_by_both(either: GuestEngine, files: GuestFiles) -> None:
    text = '(func $crash (export "decide") (param i32) (result i32) unreachable)'
    crashing = start(either, files, guest(decide=text))
    with pytest.raises(GuestError, match="decide trapped: unreachable executed, in function crash"):
        crashing.call("decide", 0)
    assert crashing.broken


@pytest.mark.parametrize("call_ms", [1, 20])
def test_endless_call_is_interrupted_after_its_budget_and_not_before(
    either: GuestEngine, files: GuestFiles, call_ms: int
) -> None:
    looping = start(either, files, guest(decide=FOREVER), call_ms)
    began = time.monotonic()
    with pytest.raises(GuestBudgetError, match=f"within {call_ms} ms"):
        looping.call("decide", 0)
    assert time.monotonic() - began >= call_ms / 1000


def test_interruption_does_not_reach_the_next_call(either: GuestEngine, files: GuestFiles) -> None:
    """Ticks of an interrupted call may still be on their way when the next one starts."""
    written = files.write(guest(decide=FOREVER))
    module = either.load(written.path, written.sha256, 8)
    for _ in range(20):
        looping, calm = module.instantiate(2), module.instantiate(2000)
        with pytest.raises(GuestBudgetError):
            looping.call("decide", 0)
        for _ in range(20):
            assert calm.call("edge_abi") == 0x10000


def test_idle_time_does_not_count(either: GuestEngine, files: GuestFiles) -> None:
    calm = start(either, files, guest(), call_ms=200)
    never = threading.Event()
    for _ in range(2):
        never.wait(0.3)  # longer than the budget: time passing is what the test is about
        assert calm.call("edge_abi") == 0x10000


def test_budgets_of_guests_of_one_engine_are_their_own(
    either: GuestEngine, files: GuestFiles
) -> None:
    written = files.write(guest(decide=FOREVER))
    module = either.load(written.path, written.sha256, 8)
    for call_ms in (40, 5):
        began = time.monotonic()
        with pytest.raises(GuestBudgetError, match=f"within {call_ms} ms"):
            module.instantiate(call_ms).call("decide", 0)
        assert time.monotonic() - began >= call_ms / 1000


def test_alarm_is_native_where_the_system_has_timers(engine: GuestEngine) -> None:
    assert engine.interruption == "native"


def test_native_alarm_is_not_held_up_by_busy_threads(
    engine: GuestEngine, files: GuestFiles
) -> None:
    looping = start(engine, files, guest(decide=FOREVER), 20)
    done = threading.Event()

    def hold_the_lock() -> None:
        while not done.is_set():
            sum(range(10_000))

    busy = [threading.Thread(target=hold_the_lock) for _ in range(3)]
    for thread in busy:
        thread.start()
    try:
        with pytest.raises(GuestBudgetError):
            looping.call("decide", 0)
    finally:
        done.set()
        for thread in busy:
            thread.join(60)


def test_thread_takes_over_where_the_system_has_no_timers(
    monkeypatch: pytest.MonkeyPatch, cache_dir: Path, files: GuestFiles
) -> None:
    def without_timers() -> None:
        raise OSError("this C library has no timer_create")

    monkeypatch.setattr(interruption, "_timer_library", without_timers)
    with GuestEngine(cache_dir) as engine:
        assert engine.interruption == "thread"
        looping = start(engine, files, guest(decide=FOREVER), 20)
        with pytest.raises(GuestBudgetError, match="within 20 ms"):
            looping.call("decide", 0)
        calm = start(engine, files, guest())
        assert calm.call("edge_abi") == 0x10000


def test_closed_engine_runs_no_guest(either: GuestEngine, files: GuestFiles) -> None:
    calm = start(either, files, guest())
    either.close()
    with pytest.raises(RuntimeError, match="the guest engine is closed"):
        calm.call("edge_abi")
    either.close()


def test_other_thread_is_refused(engine: GuestEngine, files: GuestFiles) -> None:
    calm = start(engine, files, guest())
    written = files.write(guest())
    module = engine.load(written.path, written.sha256, 8)
    seen: list[str] = []

    def trespass() -> None:
        for attempt in (lambda: calm.call("edge_abi"), lambda: module.instantiate(2000)):
            try:
                attempt()
            except RuntimeError as error:
                seen.append(str(error))

    other = threading.Thread(target=trespass)
    other.start()
    other.join(60)
    assert len(seen) == 2
    assert all("belongs to another thread" in line for line in seen)


def test_function_that_the_guest_lacks_is_named(instance: Instance) -> None:
    bare = instance(guest(state=""))
    with pytest.raises(GuestError, match="does not export edge_state_save"):
        bare.call("edge_state_save")


def test_parameters_arrive_as_json(instance: Instance) -> None:
    reading = instance(
        guest(
            decide="""(func (export "decide") (param i32) (result i32)
              (i32.load (i32.add (global.get $parameters) (local.get 0))))"""
        )
    )
    reading.configure({"limit": 0.5})
    letters = [reading.call("decide", place) & 0xFF for place in range(13)]
    assert bytes(letters) == b'{"limit":0.5}'


def test_parameters_beyond_the_limit_are_refused(instance: Instance) -> None:
    with pytest.raises(IncompatibleError, match="at most 65536"):
        instance(guest()).configure({"text": "x" * 70_000})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"bytes"])
def test_parameters_that_are_no_json_are_refused(instance: Instance, value: object) -> None:
    with pytest.raises(IncompatibleError, match="are no JSON"):
        instance(guest()).configure({"limit": value})


def test_state_goes_from_one_instance_to_the_next(instance: Instance) -> None:
    first, second = instance(guest()), instance(guest())
    assert first.save_state() == bytes(4)
    assert second.restore_state(b"\x05\0\0\0")
    assert second.save_state() == b"\x05\0\0\0"
    assert not second.restore_state(b"wrong size")
    assert not second.restore_state(bytes(5000))


def test_guest_without_state_has_none(instance: Instance) -> None:
    stateless = instance(guest(state=""))
    assert stateless.save_state() is None
    assert not stateless.restore_state(b"1234")


def test_budget_must_be_positive(engine: GuestEngine, files: GuestFiles) -> None:
    written = files.write(guest())
    module = engine.load(written.path, written.sha256, 8)
    with pytest.raises(ValueError, match="call_ms is 0"):
        module.instantiate(0)
