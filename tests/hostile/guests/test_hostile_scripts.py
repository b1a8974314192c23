"""Hostile script policies: each ends in a named error within its limits, and others go on."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from guest_wat import GuestFiles
from script_wat import ANSWER, script, text
from wasmtime import wat2wasm

from edge.contracts.parameters import Names
from edge.errors import EdgeError, GuestBudgetError, GuestError, IncompatibleError
from edge.wasm.engine import GuestEngine, PolicyModule
from edge.wasm.policy import Policy, new_policy
from edge.wasm.roles import DEFECT, Decision
from edge.wasm.script import Script, ScriptModule

pytest_plugins = ["guest_fixtures"]

NAMES = Names(("open",), ("signal.lamp",), ("action.reject",))
NO_DEFECTS = np.zeros(0, DEFECT)
FOREVER = "(loop $on (br $on)) unreachable"
MARGIN_S = 0.05
"""Beside the budget; and what a busy machine adds."""


@pytest.fixture
def load(engine: GuestEngine, files: GuestFiles) -> Callable[..., PolicyModule]:
    """Load a script from its bytes, granted 8 MiB."""

    def from_bytes(component: bytes, memory_mib: int = 8) -> PolicyModule:
        written = files.write(component)
        return engine.load_policy(written.path, written.sha256, memory_mib)

    return from_bytes


@pytest.fixture
def policy(load: Callable[..., PolicyModule]) -> Callable[..., tuple[Script, Policy]]:
    """A configured script and its role."""

    def made(component: bytes, call_ms: int = 1000) -> tuple[Script, Policy]:
        instance = load(component).instantiate(call_ms)
        assert isinstance(instance, Script)
        instance.configure({"parameters": {}})
        return instance, new_policy(instance, NAMES)

    return made


def decide(policy: Policy) -> Decision:
    return policy.run(NO_DEFECTS, 0, [(1.0, 5, 1)], 0, 17, 64, 48)


def test_the_good_script_decides(policy: Callable[..., tuple[Script, Policy]]) -> None:
    script_guest, role = policy(script())
    assert decide(role) == decide(role)
    assert decide(role).reason == "ok"
    assert role.save_state() is None
    assert not role.restore_state(b"1")
    assert "takes over no state" in role.state_refusal
    assert not script_guest.broken


ANSWERS = {
    "nothing": ("", "no answer"),
    "no JSON": ("yes", "no answer"),
    "a list": ("[]", "no answer"),
    "deep JSON": ("[" * 16_000, "no answer"),
    "deep JSON behind a known key": ('{"verdict":' + "[" * 16_000, "no answer"),
    "two answers": (ANSWER + ANSWER, "no answer"),
    "a NUL": (ANSWER + "\0", "no answer"),
    "a key too many": (ANSWER[:-1] + ',"more":1}', "more"),
    "a verdict that is none": (ANSWER.replace("pass", "maybe"), "maybe"),
    "NaN": (ANSWER.replace("0.5", "NaN"), "no answer"),
    "infinity": (ANSWER.replace("0.5", "1e999"), "no answer"),
    "a score above 1": (ANSWER.replace("0.5", "1.5"), "<= 1"),
    "a score of text": (ANSWER.replace("0.5", '"0.5"'), "float"),
    "a reason of capitals": (ANSWER.replace('"ok"', '"OK"'), "regex"),
    "an empty reason": (ANSWER.replace('"ok"', '""'), "regex"),
    "a reason of 32": (ANSWER.replace('"ok"', f'"{"a" * 32}"'), "31"),
    "a reason that ends a line": (ANSWER.replace('"ok"', '"ok\\n"'), "line end"),
    "a reason of the host that ends a line": (ANSWER.replace('"ok"', '"overrun\\n"'), "line end"),
    "a reason of the host": (ANSWER.replace('"ok"', '"overrun"'), "only the host gives"),
    "too many actions": (
        ANSWER[:-1]
        + ',"actions":['
        + ",".join(['{"action":"action.reject","value":1,"ttl_ms":1}'] * 5)
        + "]}",
        "<= 4",
    ),
    "an action that is not granted": (
        ANSWER[:-1] + ',"actions":[{"action":"action.stop","value":1,"ttl_ms":1}]}',
        "granted are action.reject",
    ),
    "an action without end": (
        ANSWER[:-1] + ',"actions":[{"action":"action.reject","value":1,"ttl_ms":4294967296}]}',
        "ttl_ms",
    ),
    "an action of infinite value": (
        ANSWER[:-1] + ',"actions":[{"action":"action.reject","value":1e999,"ttl_ms":1}]}',
        "no answer|value inf|out of range",
    ),
    "17 KB": (ANSWER[:-1] + " " * 17_000 + "}", "at most 16384"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_of_the_wrong_shape_is_named_and_the_script_goes_on(
    name: str, policy: Callable[..., tuple[Script, Policy]]
) -> None:
    answer, sentence = ANSWERS[name]
    script_guest, role = policy(script(answer))
    for _ in range(2):
        with pytest.raises(GuestError, match=sentence):
            decide(role)
    assert not script_guest.broken


TRAPS = {
    "unreachable": (script(decide="unreachable"), "unreachable"),
    "a string outside its memory": (script(decide=text(1 << 30)), "decide trapped"),
    "an address outside its memory": (script(decide=text(8, at=-8)), "decide trapped"),
    "a result that is neither ok nor error": (
        script(decide="(i32.store8 (i32.const 256) (i32.const 7)) (i32.const 256)"),
        "decide trapped",
    ),
    "a misaligned result": (script(decide="(i32.const 257)"), "decide trapped"),
    "bytes that are no UTF-8": (script(b"\xff\xfe" * 20), "decide trapped"),
    "endless recursion": (
        script(
            core="(func $down (param i32) (result i32) (call $down (i32.add (local.get 0) "
            "(i32.const 1))))",
            decide="(call $down (i32.const 0))",
        ),
        "stack",
    ),
    "a division by zero": (
        script(decide="(i32.div_u (i32.const 1) (i32.const 0))"),
        "divide by zero",
    ),
}


@pytest.mark.parametrize("name", TRAPS)
def test_a_trap_is_named_and_a_fresh_instance_decides(
    name: str, policy: Callable[..., tuple[Script, Policy]]
) -> None:
    component, sentence = TRAPS[name]
    script_guest, role = policy(component)
    with pytest.raises(GuestError, match=sentence):
        decide(role)
    assert script_guest.broken
    with pytest.raises(GuestError, match="fresh instance"):
        decide(role)
    assert decide(policy(script())[1]).reason == "ok"


def test_an_error_of_the_scripts_own_is_told_cut_and_printable(
    policy: Callable[..., tuple[Script, Policy]],
) -> None:
    said = b"board \x1b[31m unknown " + b"x" * 3000
    script_guest, role = policy(script(said, decide=text(len(said), failed=True)))
    with pytest.raises(GuestError, match=r"decide failed: board \[31m unknown x+$") as failure:
        decide(role)
    assert len(str(failure.value)) < 400
    assert not script_guest.broken


@pytest.mark.parametrize("where", ["configure", "decide"])
def test_an_endless_loop_is_interrupted_in_time(
    where: str, load: Callable[..., PolicyModule]
) -> None:
    component = script(**{where: FOREVER})
    instance = load(component).instantiate(200)
    assert isinstance(instance, Script)
    begun = time.monotonic()
    if where == "configure":
        with pytest.raises(IncompatibleError, match="did not return within 200 ms"):
            instance.configure({})
    else:
        instance.configure({})
        with pytest.raises(GuestBudgetError, match="did not return within 200 ms"):
            decide(new_policy(instance, NAMES))
    assert time.monotonic() - begun > MARGIN_S - 0.001
    assert instance.broken


def test_a_start_function_without_end_is_interrupted(load: Callable[..., PolicyModule]) -> None:
    component = script(core=f"(func $on {FOREVER}) (start $on)")
    with pytest.raises(IncompatibleError, match="interrupt"):
        load(component).instantiate(50)


def test_memory_ends_where_the_grant_ends(policy: Callable[..., tuple[Script, Policy]]) -> None:
    grow = """(loop $more (br_if $more (i32.ge_s (memory.grow (i32.const 1)) (i32.const 0))))
      (if (i32.ne (memory.size) (i32.const 128)) (then unreachable)) """
    _, role = policy(script(decide=grow + text(len(ANSWER))))
    assert decide(role).reason == "ok"


def test_a_script_that_begins_with_too_much_memory_is_refused(
    load: Callable[..., PolicyModule],
) -> None:
    module = load(script(memory='(memory (export "mem") 200)'))
    with pytest.raises(IncompatibleError, match=r"grant of 8 MiB.*memory"):
        module.instantiate(1000)


def test_a_giant_string_costs_no_more_than_its_memory(
    load: Callable[..., PolicyModule],
) -> None:
    fill = """(memory.fill (i32.const 65536) (i32.const 32) (i32.const 66000000))"""
    component = script(
        memory='(memory (export "mem") 1024)', decide=fill + text(66_000_000, at=65536)
    )
    instance = load(component, 64).instantiate(5000)
    instance.configure({})
    with pytest.raises(GuestError, match="66000000 characters; at most 16384"):
        decide(new_policy(instance, NAMES))


WRONG_WORLDS = {
    "another world": (script(interface="edge:script/pudding@1.0.0"), "exports edge:script/pudding"),
    "a later minor version": (
        script(interface="edge:script/policy@1.9.0"),
        "script world 1.9",
    ),
    "a later major version": (
        script(interface="edge:script/policy@2.0.0"),
        "script world 2.0",
    ),
    "a function of another type": (
        script(decide_type='(param "record" string) (result (result string))'),
        r"decide is \(string\) -> result<string, _>",
    ),
    "a clock": (
        script(imports='(import "wasi:clocks/wall-clock@0.2.0" (instance (export "now" (func))))'),
        "imports wasi:clocks/wall-clock@0.2.0",
    ),
    "a module": (script(imports='(import "m" (core module))'), "imports m"),
    "an empty component": (bytes(wat2wasm("(component)")), "exports nothing"),
    "half a component": (script()[:200], r"guest .*: "),
    "noise behind the head": (b"\0asm\x0d\0\1\0" + bytes(range(256)), r"guest .*: "),
}


@pytest.mark.parametrize("name", WRONG_WORLDS)
def test_a_component_of_another_world_is_refused_by_name(
    name: str, load: Callable[..., PolicyModule]
) -> None:
    component, sentence = WRONG_WORLDS[name]
    with pytest.raises(IncompatibleError, match=sentence):
        load(component)


def test_a_script_serves_decide_alone_and_counts_no_fuel(
    engine: GuestEngine, files: GuestFiles
) -> None:
    written = files.write(script())
    with pytest.raises(IncompatibleError, match="serves decide, and no other role"):
        engine.load(written.path, written.sha256, 8)
    module = engine.load_policy(written.path, written.sha256, 8, metered=True)
    assert isinstance(module, ScriptModule)
    assert module.roles == {"decide"}
    with pytest.raises(IncompatibleError, match="take fuel out of the manifest"):
        module.instantiate(100, fuel=1000)


def test_parameters_beyond_the_limit_are_refused(load: Callable[..., PolicyModule]) -> None:
    instance = load(script()).instantiate(1000)
    with pytest.raises(IncompatibleError, match="more than 65536 bytes"):
        instance.configure({"parameters": {"a": "x" * 66_000}})


def flipped() -> list[bytes]:
    """Components with one byte changed, each in another place."""
    whole = script()
    random = np.random.default_rng(11)
    return [
        whole[:at] + bytes([whole[at] ^ int(random.integers(1, 256))]) + whole[at + 1 :]
        for at in map(int, random.integers(8, len(whole), 40))
    ]


def test_flipped_bytes_end_in_a_named_error_or_a_checked_answer(tmp_path: Path) -> None:
    ends = set()
    with GuestEngine(tmp_path / "cache") as engine:
        files = GuestFiles(tmp_path)
        for component in flipped():
            written = files.write(component)
            try:
                instance = engine.load_policy(written.path, written.sha256, 8).instantiate(200)
                instance.configure({"parameters": {}})
                decide(new_policy(instance, NAMES))
                ends.add("decided")
            except EdgeError as named:
                ends.add(str(named).partition(" ")[0])
    assert ends == {"decided", "guest"}
