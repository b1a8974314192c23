"""Deployments that were sabotaged, one kind each, and where each must end.

Each is the reference deployment with one thing wrong, as a careless or malicious publisher would
sign it. `PUBLISHER` kinds never leave the publisher, the others reach the device.
"""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import onnx
from evil_guests import deciding, trapping_policy
from guest_wat import assemble, guest
from onnx import TensorProto, helper, numpy_helper
from updating import Change, edited, policy, without_golden


class Kind(NamedTuple):
    """One kind of sabotage.

    Attributes:
        changes: What is wrong.
        reasons: The device must give one of these; empty: the publisher refuses it.
        mixed: Every second part on the line is bad; otherwise none is.
        shadow: Frames of shadow.
        probation: Frames of probation.
        pinned: Whether the digests are made true after the change.
    """

    changes: tuple[Change, ...]
    reasons: frozenset[str] = frozenset()
    mixed: bool = False
    shadow: int = 6
    probation: int = 40
    pinned: bool = True


def _at(*reasons: str) -> frozenset[str]:
    return frozenset(reasons)


def _role(name: str, text: str) -> Change:
    """Another module in a role; the rest of its table stays."""

    def change(folder: Path) -> None:
        (folder / "guests" / f"{name}.wasm").write_bytes(assemble(text))

    return change


def _bytes(path: str, content: bytes) -> Change:
    def change(folder: Path) -> None:
        (folder / path).write_bytes(content)

    return change


def _truncated(path: str) -> Change:
    def change(folder: Path) -> None:
        (folder / path).write_bytes((folder / path).read_bytes()[:-100])

    return change


def _gone(path: str) -> Change:
    def change(folder: Path) -> None:
        (folder / path).unlink()

    return change


def _linked(path: str) -> Change:
    def change(folder: Path) -> None:
        target = folder.parent / f"{folder.name}-elsewhere"
        shutil.move(folder / path, target)
        (folder / path).symlink_to(target)

    return change


def _model(build: Callable[[onnx.GraphProto], onnx.ModelProto | bytes]) -> Change:
    """Another model under the same card."""

    def change(folder: Path) -> None:
        path = folder / "model/model.int8.onnx"
        before = hashlib.sha256(path.read_bytes()).hexdigest()
        graph = onnx.load(path).graph
        model = build(graph)
        content = model if isinstance(model, bytes) else model.SerializeToString()
        path.write_bytes(content)
        card = folder / "model/model.toml"
        card.write_text(card.read_text().replace(before, hashlib.sha256(content).hexdigest()))

    return change


def _constant(value: float) -> Change:
    """A model whose outputs are constant, whatever it sees."""

    def build(graph: onnx.GraphProto) -> onnx.ModelProto:
        nodes, values = [], []
        for output in graph.output:
            shape = [each.dim_value for each in output.type.tensor_type.shape.dim]
            kind = output.type.tensor_type.elem_type
            full = np.full(shape, value, helper.tensor_dtype_to_np_dtype(kind))
            values.append(numpy_helper.from_array(full, f"{output.name}_is"))
            nodes.append(helper.make_node("Identity", [f"{output.name}_is"], [output.name]))
        made = helper.make_graph(
            nodes, "constant", list(graph.input), list(graph.output), initializer=values
        )
        return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)

    return _model(build)


def _noisy(share: float) -> Change:
    """The same model, with noise in its weights."""

    def build(graph: onnx.GraphProto) -> onnx.ModelProto:
        rng = np.random.default_rng(1)
        for tensor in graph.initializer:
            values = numpy_helper.to_array(tensor)
            if values.ndim < 2:  # scales and biases stay
                continue
            if values.dtype == np.float32:
                made = values + rng.normal(0, share * (values.std() + 1e-6), values.shape)
                tensor.CopyFrom(numpy_helper.from_array(made.astype(np.float32), tensor.name))
            elif values.dtype == np.int8:
                made = values + rng.normal(0, share * values.std(), values.shape)
                noisy = np.clip(np.round(made), -128, 127).astype(np.int8)
                tensor.CopyFrom(numpy_helper.from_array(noisy, tensor.name))
        opsets = [
            helper.make_opsetid("", 17),
            helper.make_opsetid("com.microsoft", 1),
            helper.make_opsetid("ai.onnx.ml", 3),
        ]
        return helper.make_model(graph, opset_imports=opsets, ir_version=9)

    return _model(build)


def _other_shape(graph: onnx.GraphProto) -> onnx.ModelProto:
    found = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 8, 8])
    made = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "other", [found], [out])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _foreign(graph: onnx.GraphProto) -> onnx.ModelProto:
    graph.node[0].domain = "evil.example"
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("evil.example", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


_TRAP: Final = "unreachable"
_ENDLESS: Final = "(loop $for_ever (br $for_ever))"
_DECIDE: Final = '(func (export "decide") (param $call i32) (result i32) {body})'
_ON_THE_LINE: Final = "(if (i64.ne (i64.load offset=8 (local.get $call)) (i64.const 0)) (then {}))"
"""The probe frame alone has the capture time 0."""
_COUNT: Final = "(global $calls (mut i32) (i32.const 0))"


def _after(calls: int, evil: str) -> bytes:
    """A policy that does this from so many calls on."""
    body = f"""
      (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
      (if (i32.gt_u (global.get $calls) (i32.const {calls})) (then {evil}))"""
    return deciding(body, extra=_COUNT)


def _spin(rounds: int) -> str:
    """Work for a while: some nanoseconds a round."""
    return f"""
      (global.set $rejects (i32.const {rounds}))
      (block $done (loop $next
        (br_if $done (i32.eqz (global.get $rejects)))
        (global.set $rejects (i32.sub (global.get $rejects) (i32.const 1)))
        (br $next)))"""


def _verdict(kind: int, score: str) -> str:
    return f"""
      (i32.store offset=40 (local.get $call) (i32.const {kind}))
      (f32.store offset=44 (local.get $call) (f32.const {score}))
      (i64.store offset=48 (local.get $call) (i64.const 0x6b6f))
      (return (i32.const 0))"""


_ACTION: Final = """
      (i32.store offset=80 (local.get $call) (i32.const 1))
      (i32.store offset=88 (local.get $call) (i32.const 0))
      (i32.store offset=92 (local.get $call) (i32.const 250))
      (f64.store offset=96 (local.get $call) (f64.const 1))"""
_HUGE_REASON: Final = (
    "(memory.fill (i32.add (local.get $call) (i32.const 48)) (i32.const 255) (i32.const 32))"
    "(i32.store offset=40 (local.get $call) (i32.const 0))"
    "(f32.store offset=44 (local.get $call) (f32.const 0)) (return (i32.const 0))"
)
_STATE_BOMB: Final = """
  (func (export "edge_state_save") (param i32 i32) (result i32) (i32.const 1000000))
  (func (export "edge_state_restore") (param i32 i32) (result i32) (i32.const 0))"""
_STATE_TRAP: Final = """
  (func (export "edge_state_save") (param i32 i32) (result i32) unreachable)
  (func (export "edge_state_restore") (param i32 i32) (result i32) (i32.const 0))"""
_ROOMY: Final = '(memory (export "memory") 1024 1024)'
_PRE: Final = '(func (export "preprocess") (param $call i32) (result i32) {})'
_POST: Final = '(func (export "postprocess") (param $call i32) (result i32) {})'
_FAULTY: Final = _at("trial", "guest-trap", "incompatible", "golden", "guest-budget")
_NO_PARAMETERS: Final = edited(
    r"\n\[pipelines\.pcb\.postprocess\.parameters\]\n(?:[^\[\n][^\n]*\n)*", "\n"
)

KINDS: Final[dict[str, Kind]] = {
    # What the publisher finds.
    "digest": Kind(
        (edited(r'(guests/pair\.wasm"\nsha256 = ")[0-9a-f]{8}', r"\g<1>00000000"),), pinned=False
    ),
    "abi-too-new": Kind((edited(r'^abi = ".*"', 'abi = "9.0"'),)),
    "abi-minor-too-new": Kind((edited(r'^abi = ".*"', 'abi = "1.99"'),)),
    "unknown-key": Kind((edited(r"^fail_safe", "fail_unsafe"),)),
    "parameter-error": Kind((edited(r"^reject = .*", 'reject = "high"'),)),
    "parameter-out-of-range": Kind((edited(r"^reject = .*", "reject = 7.5"),)),
    "unknown-parameter": Kind((edited(r"^reject = .*", "reject = 0.65\nrejekt = 1"),)),
    "budget-too-small": Kind((edited(r"^budget_ms = .*", "budget_ms = 30"),)),
    "guest-missing": Kind((_gone("guests/policy.wasm"),)),
    "golden-missing": Kind((_gone("golden/bad.jpg"),)),
    "card-missing": Kind((_gone("model/model.toml"),)),
    "link": Kind((_linked("guests/policy.wasm"),)),
    "path-traversal": Kind((edited(r"guests/policy\.wasm", "../policy.wasm"),)),
    "variant-unknown": Kind((edited(r'^variant = ".*"', 'variant = "int2"'),)),
    "action-not-granted": Kind((edited(r'name = "action\.reject"$', 'name = "action.stop"'),)),
    "reference-slots": Kind((edited(r"^reference_slots = .*", "reference_slots = 4000"),)),
    "not-wasm": Kind((_bytes("guests/policy.wasm", b"MZ" * 500),)),
    "truncated-wasm": Kind((_truncated("guests/pair.wasm"),)),
    # What the trial finds, before a frame of the line is judged.
    "binding-missing": Kind((edited(r"camera\.top", "camera.side"),), _at("configuration")),
    "imports": Kind((policy(assemble('(module (import "env" "f" (func)))')),), _FAULTY),
    "memory-beyond-grant": Kind((policy(deciding(""), memory_mib=1),), _FAULTY),
    "trap-preprocess": Kind(
        (without_golden, _role("pair", guest(memory=_ROOMY, preprocess=_PRE.format(_TRAP)))),
        _FAULTY,
    ),
    "trap-postprocess": Kind(
        (without_golden, _NO_PARAMETERS, _role("boxes", guest(postprocess=_POST.format(_TRAP)))),
        _FAULTY,
    ),
    "trap-decide": Kind((policy(deciding(_TRAP)),), _FAULTY),
    "endless-preprocess": Kind(
        (
            without_golden,
            _role("pair", guest(memory=_ROOMY, preprocess=_PRE.format(_ENDLESS + "(i32.const 0)"))),
        ),
        _FAULTY,
    ),
    "endless-decide": Kind((policy(deciding(_ENDLESS)),), _FAULTY),
    "endless-configure": Kind(
        (
            policy(
                assemble(
                    guest(
                        configure='(func (export "edge_configure") (param i32 i32) (result i32) '
                        f"{_ENDLESS} (i32.const 0))"
                    )
                )
            ),
        ),
        _FAULTY,
    ),
    "bad-verdict": Kind((policy(deciding(_verdict(9, "0"))),), _FAULTY),
    "nan-score": Kind((policy(deciding(_verdict(0, "nan"))),), _FAULTY),
    "huge-reason": Kind((policy(deciding(_HUGE_REASON)),), _FAULTY),
    "state-bomb": Kind((policy(deciding("", state=_STATE_BOMB)),), _FAULTY),
    "state-trap": Kind((policy(deciding("", state=_STATE_TRAP)),), _FAULTY),
    "model-garbage": Kind((_model(lambda _graph: b"no model" * 100),), _FAULTY),
    "model-other-shape": Kind((_model(_other_shape),), _FAULTY),
    "model-foreign-operator": Kind((_model(_foreign),), _FAULTY),
    "golden-verdict": Kind(
        (edited(r'good\.jpg(.*)\n(.*)\nverdict = "pass"', r'good.jpg\1\n\2\nverdict = "reject"'),),
        _at("golden"),
    ),
    "golden-count": Kind((edited(r"^defects = 2", "defects = 5"),), _at("golden")),
    "golden-score": Kind((edited(r"^defects = 2", "defects = 2\nscore = 0.01"),), _at("golden")),
    "golden-no-image": Kind((_bytes("golden/good.jpg", b"no image" * 50),), _at("golden")),
    "nan-model": Kind((_constant(float("nan")),), _at("golden", "trial")),
    "blind-model": Kind((_constant(0.0),), _at("golden")),
    "worse-model": Kind((_noisy(0.8),), _at("golden")),
    "rejects-none": Kind(
        (edited(r"^reject = .*", "reject = 1.0"), edited(r"^review = .*", "review = 1.0")),
        _at("golden"),
    ),
    # What shadow finds, in a deployment without golden frames.
    "blind-model-in-shadow": Kind(
        (without_golden, _constant(0.0)), _at("disagreement"), mixed=True, shadow=30
    ),
    "rejects-none-in-shadow": Kind(
        (
            without_golden,
            edited(r"^reject = .*", "reject = 1.0"),
            edited(r"^review = .*", "review = 1.0"),
        ),
        _at("disagreement"),
        mixed=True,
        shadow=30,
    ),
    "rejects-all-in-shadow": Kind(
        (policy(deciding(_verdict(1, "0.9"))),), _at("disagreement"), shadow=10
    ),
    "trap-in-shadow": Kind((policy(deciding(_ON_THE_LINE.format(_TRAP))),), _at("guest-trap")),
    "endless-in-shadow": Kind(
        (policy(deciding(_ON_THE_LINE.format(_ENDLESS))),), _at("guest-budget")
    ),
    "slow-in-shadow": Kind(
        (
            policy(deciding(_ON_THE_LINE.format(_spin(200_000_000))), call_ms=100),
            edited(r"^max_latency_ratio = .*", "max_latency_ratio = 2.0"),
        ),
        _at("latency", "guest-budget"),
    ),
    "action-flood": Kind((policy(deciding(_ACTION)),), _at("actions"), shadow=12),
    # What only probation can find.
    "trap-after-frames": Kind((policy(trapping_policy(25)),), _at("guest-trap")),
    "endless-after-frames": Kind((policy(_after(20, _ENDLESS)),), _at("guest-budget")),
    "slow-after-frames": Kind(
        (policy(_after(20, _spin(2_000_000_000)), call_ms=100),),
        _at("guest-budget", "overrun"),
    ),
    "nan-after-frames": Kind((policy(_after(20, _verdict(0, "nan"))),), _at("guest-trap")),
    "rejects-all-after-frames": Kind(
        (policy(_after(12, _verdict(1, "0"))),), _at("reject-rate"), probation=120
    ),
    "reviews-all-after-frames": Kind(
        (policy(_after(12, _verdict(2, "0"))),), _at("reject-rate"), probation=120
    ),
    "scores-shift-after-frames": Kind(
        (policy(_after(12, _verdict(0, "0.9"))),), _at("score-shift"), probation=120
    ),
    "rejects-none-after-shadow": Kind(
        (
            without_golden,
            edited(r"^reject = .*", "reject = 1.0"),
            edited(r"^review = .*", "review = 1.0"),
        ),
        _at("reject-rate"),
        mixed=True,
        shadow=0,
        probation=120,
    ),
}

SHORT: Final = (
    "digest",
    "abi-too-new",
    "parameter-error",
    "binding-missing",
    "trap-decide",
    "model-other-shape",
    "golden-verdict",
    "action-flood",
    "slow-in-shadow",
    "trap-after-frames",
    "endless-after-frames",
    "rejects-all-after-frames",
)
"""What CI plays; the rest is `make sabotage`."""
