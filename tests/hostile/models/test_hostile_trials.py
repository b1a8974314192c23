"""Models that mean harm, handed to the process of a trial: each ends with its reason, in bounds.

Beside them a line runs: `test_a_line_does_not_notice_trials_of_hostile_models`.
"""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge.contracts.plan import TensorSpec
from edge.errors import TrialError
from edge.inference.trial import Request, trial

sys.path.insert(0, str(Path(__file__).parents[2] / "unit/inference"))
import onnx_samples as samples
from brokers import require_mosquitto, running_broker
from daemons import Daemon, line_to

X, Y = samples.value("x", "float32", (1, 4)), samples.value("y", "float32", (1, 4))
SHAPED = numpy_helper.from_array(np.asarray([1 << 33], np.int64), "shape")


def weight(location: str) -> Any:
    tensor = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1, 4])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return adding(tensor)


def adding(tensor: Any) -> Any:
    return samples.model(
        [helper.make_node("Add", ["x", "w"], ["y"])], [X], [Y], initializer=[tensor]
    )


def typed(kind: Any) -> Any:
    """A model whose input is of that type."""
    given = helper.make_value_info("x", kind)
    return samples.model(
        [helper.make_node("Identity", ["x"], ["y"])], [given], [helper.make_value_info("y", kind)]
    )


def field(number: int, content: bytes) -> bytes:
    """A protobuf field of bytes, of whatever length."""
    size, length = len(content), bytearray()
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + content


def many_nodes() -> bytes:
    """A million nodes; their bytes are repeated, not built one by one."""
    node = field(1, helper.make_node("Identity", ["x"], ["x"]).SerializeToString())
    return b"\x08\x09" + field(7, node * 1_000_000)


def deep() -> bytes:
    """Subgraphs in subgraphs, deeper than protobuf's own library would write them."""
    content = b""
    for level in range(399):
        content = field((6, 5, 1)[level % 3], content)  # from within: subgraph, attribute, node
    return field(7, content)


def huge_constant() -> Any:
    """ONNX Runtime would fold it while it loads: 32 GiB from a file of a few bytes."""
    return samples.model(
        [
            helper.make_node("ConstantOfShape", ["shape"], ["big"]),
            helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0),
            helper.make_node("Add", ["x", "sum"], ["y"]),
        ],
        [X],
        [Y],
        initializer=[SHAPED],
    )


def tensor_type(element: int) -> Any:
    return helper.make_tensor_type_proto(element, (1, 4))


CORPUS: dict[str, tuple[Callable[[], Any], str]] = {
    "external data": (lambda: weight("w.bin"), "keeps weights in another file"),
    "absolute path": (lambda: weight("/etc/passwd"), "keeps weights in another file"),
    "escaping path": (lambda: weight("../../w.bin"), "keeps weights in another file"),
    "custom operator": (
        lambda: samples.model([helper.make_node("Shell", ["x"], ["y"], domain="evil")], [X], [Y]),
        "has an operator of domain 'evil'",
    ),
    "endless loop": (samples.endless, "did not finish within 4 s|s of CPU and was stopped"),
    "other shape": (lambda: samples.identity(shape=(1, 5)), "its card says inputs x"),
    "other type": (lambda: samples.identity(dtype="uint8"), "its card says inputs x"),
    "other rank": (lambda: samples.identity(shape=(1, None, 4)), "its card says inputs x"),
    "string tensor": (lambda: typed(tensor_type(TensorProto.STRING)), r"tensor\(string\)"),
    "sequence": (lambda: typed(helper.make_sequence_type_proto(tensor_type(1))), r"seq\(tensor"),
    "optional": (lambda: typed(helper.make_optional_type_proto(tensor_type(1))), "optional"),
    "a million nodes": (many_nodes, "more than 100000 nodes"),
    "random bytes": (lambda: np.random.default_rng(3).bytes(20_000), "is no ONNX model"),
    "truncated": (lambda: samples.convolution().SerializeToString()[:-40], "is cut off|no ONNX"),
    "huge initialiser": (
        lambda: adding(onnx.TensorProto(name="w", data_type=1, dims=[1 << 40], raw_data=b"12")),
        "does not load it",
    ),
    "huge constant": (huge_constant, "alloc|memory|MiB and was stopped"),
    "deep subgraphs": (deep, "is nested deeper than 100"),
}


def request_for(plan: Any, harm: str) -> Request:
    """Time is short for what has no end alone: a busy machine takes its own to start a trial."""
    return Request(plan, 1, wall_s=4.0 if harm == "endless loop" else 60.0, memory_mib=2_048)


@pytest.mark.parametrize("harm", CORPUS)
def test_a_trial_ends_with_the_reason(tmp_path: Path, harm: str) -> None:
    make, reason = CORPUS[harm]
    plan = samples.planned(tmp_path / "m.onnx", make())
    with pytest.raises(TrialError, match=reason) as raised:
        trial(request_for(plan, harm))
    assert "m.onnx" in str(raised.value)
    assert len(str(raised.value)) < 3_000


def test_dynamic_dimensions_are_held_to_the_cards_sizes(tmp_path: Path) -> None:
    """An output that grows beyond what the card says fails; it is not written behind its memory."""
    grows = samples.model(
        [helper.make_node("Concat", ["x", "x"], ["y"], axis=0)],
        [samples.value("x", "float32", ("n", 4))],
        [samples.value("y", "float32", ("m", 4))],
    )
    with pytest.raises(TrialError, match="ONNX Runtime"):
        trial(Request(samples.planned(tmp_path / "m.onnx", grows), 1))
    fits = samples.planned(
        tmp_path / "n.onnx", grows, outputs=(TensorSpec("y", "float32", (2, 4)),)
    )
    assert trial(Request(fits, 1)).findings() == []


def test_outputs_that_are_no_numbers_are_a_finding(tmp_path: Path) -> None:
    nan = numpy_helper.from_array(np.full((1, 4), np.nan, np.float32), "w")
    report = trial(Request(samples.planned(tmp_path / "m.onnx", adding(nan)), 1))
    assert "output y held NaN or infinity" in report.findings()[0]


def test_a_line_does_not_notice_trials_of_hostile_models(tmp_path: Path) -> None:
    """Each frame gets the model's verdict while three models are tried beside the daemon."""
    require_mosquitto()

    async def scenario(line: Any) -> None:
        for harm in ("endless loop", "huge constant", "a million nodes"):
            make, reason = CORPUS[harm]
            plan = samples.planned(tmp_path / "m.onnx", make())
            trying = asyncio.create_task(asyncio.to_thread(tried, plan, harm))
            parts: list[str] = []
            while not trying.done():
                part = line.inspect(len(parts) % 8)
                parts.append(part)
                await line.kept([part])
                verdicts = await line.all_verdicts([part])
                assert verdicts[0]["provider"] == "cpu"
            assert await trying
            assert parts, reason

    def tried(plan: Any, harm: str) -> str:
        with pytest.raises(TrialError) as raised:
            trial(request_for(plan, harm))
        return str(raised.value)

    with running_broker(kind="mosquitto") as broker, Daemon(broker, tmp_path) as daemon:
        daemon.ready()
        worker = daemon.worker()

        async def run() -> None:
            async with line_to(broker) as line:
                await scenario(line)

        asyncio.run(run())
        assert daemon.worker() == worker
