"""A model's trial: real models in a real process, and models that must not get through."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper
from onnx_samples import (
    CONVOLUTION_INPUTS,
    CONVOLUTION_OUTPUTS,
    convolution,
    endless,
    identity,
    model,
    planned,
    value,
)

from edge.contracts.plan import ModelPlan, TensorSpec
from edge.errors import TrialError
from edge.inference.trial import Report, Request, offered, trial

RUNS = 5


def test_a_sound_model_is_measured_on_the_provider_that_ran_it(tmp_path: Path) -> None:
    plan = planned(tmp_path / "m", convolution(), CONVOLUTION_INPUTS, CONVOLUTION_OUTPUTS)
    report = trial(Request(plan, RUNS))
    assert report.findings() == []
    assert report.provider == "cpu"
    assert set(report.placement) == {"cpu"}
    assert sum(report.placement.values()) >= 2  # Conv with Relu fused, and the pooling
    assert report.runs == RUNS
    assert 0 < report.p50_ms <= report.p99_ms <= report.max_ms
    assert 0 < report.bare_mib < report.resident_mib


def random_model() -> Any:
    return model(
        [
            helper.make_node("RandomUniformLike", ["x"], ["r"]),
            helper.make_node("Add", ["x", "r"], ["y"]),
        ],
        [value("x", "float32", (1, 4))],
        [value("y", "float32", (1, 4))],
    )


def test_a_model_that_answers_differently_the_second_time_is_a_finding(tmp_path: Path) -> None:
    report = trial(Request(planned(tmp_path / "m", random_model()), RUNS))
    assert not report.repeatable
    (finding,) = report.findings()
    assert "second time" in finding


def test_outputs_that_are_no_numbers_are_a_finding(tmp_path: Path) -> None:
    zero = numpy_helper.from_array(np.zeros((1, 4), np.float32), "zero")
    divides = model(
        [helper.make_node("Div", ["x", "zero"], ["y"])],
        [value("x", "float32", (1, 4))],
        [value("y", "float32", (1, 4))],
        initializer=[zero],
    )
    report = trial(Request(planned(tmp_path / "m", divides), RUNS))
    assert report.repeatable  # infinity is at least the same infinity
    assert report.not_finite == ("y",)
    assert "NaN or infinity" in report.findings()[0]


def test_random_bytes_are_refused_with_the_screens_reason(tmp_path: Path) -> None:
    noise = np.random.default_rng(3).bytes(20_000)
    with pytest.raises(TrialError, match="no ONNX model"):
        trial(Request(planned(tmp_path / "noise.onnx", noise), RUNS))


def test_a_model_that_is_not_what_its_card_says_is_refused(tmp_path: Path) -> None:
    plan = planned(tmp_path / "m", identity(), (TensorSpec("x", "float32", (1, 5)),))
    with pytest.raises(TrialError, match=r"its card says inputs x: float32\[1, 5\]"):
        trial(Request(plan, RUNS))


def test_a_file_that_was_changed_since_is_refused(tmp_path: Path) -> None:
    plan = planned(tmp_path / "m", identity())
    Path(plan.path).write_bytes(convolution().SerializeToString())
    with pytest.raises(TrialError, match="changed since it was verified"):
        trial(Request(plan, RUNS))


def test_a_model_that_never_ends_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(TrialError, match="did not finish within 3 s"):
        trial(Request(planned(tmp_path / "m", endless()), RUNS, wall_s=3.0))


def test_a_model_that_takes_too_much_memory_is_stopped(tmp_path: Path) -> None:
    """0.8 GiB of output, in a process that may have 0.9 GiB of address space in all."""
    rows = 200 << 20
    shape = numpy_helper.from_array(np.asarray([rows // 4, 4], np.int64), "shape")
    expands = model(
        [
            helper.make_node("Expand", ["x", "shape"], ["big"]),
            helper.make_node("ReduceSum", ["big"], ["y"], keepdims=1),
        ],
        [value("x", "float32", (1, 4))],
        [value("y", "float32", (1, 1))],
        initializer=[shape],
    )
    plan = planned(tmp_path / "m", expands, outputs=(TensorSpec("y", "float32", (1, 1)),))
    with pytest.raises(TrialError, match=r"/m: ONNX Runtime: .*(alloc|memory)"):
        trial(Request(plan, RUNS, memory_mib=900))


def test_a_required_provider_that_is_not_there_is_refused(tmp_path: Path) -> None:
    if "tensorrt" in offered():
        pytest.skip("this ONNX Runtime has TensorRT")
    plan = planned(tmp_path / "m", identity(), provider="tensorrt", require=True)
    with pytest.raises(TrialError, match="requires provider tensorrt"):
        trial(Request(plan, RUNS))


def test_the_processor_is_always_offered() -> None:
    assert "cpu" in offered()


def test_the_side_that_asks_carries_no_engine() -> None:
    code = (
        "import sys, edge.inference.trial, edge.inference.inspect; "
        "print(sorted({'onnxruntime', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"


def test_the_reference_model_passes_its_trial(reference_plan: ModelPlan) -> None:
    report: Report = trial(Request(reference_plan, RUNS))
    assert report.findings() == []
    assert report.provider == "cpu"


@pytest.fixture
def reference_plan() -> ModelPlan:
    from edge import config
    from edge.deployment.folder import load_folder, plans

    root = Path(__file__).parents[3]
    settings = config.load(root / "device_configs" / "x86-cpu.toml")
    (plan,) = plans(load_folder(root / "models" / "pcb" / "deployment"), settings)
    return plan.model
