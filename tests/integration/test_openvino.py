"""The OpenVINO provider as the plug-in that it is, on the processor: `make openvino` runs this.

Skipped where the plug-in is not installed (group `openvino` of pyproject.toml): CI has none.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.cli.main import main

ROOT = Path(__file__).parents[2]
PACKAGE = importlib.util.find_spec("onnxruntime_ep_openvino")
MODEL = ROOT / "models" / "pcb"

pytestmark = pytest.mark.skipif(PACKAGE is None, reason="onnxruntime-ep-openvino is not installed")


def library() -> str:
    assert PACKAGE is not None
    assert PACKAGE.origin is not None
    return str(Path(PACKAGE.origin).parent / "libonnxruntime_providers_openvino_plugin.so")


def tried(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[dict[str, Any]]]:
    flags = ("--provider", "openvino", "--plugin", library(), "--runs", "5", "--json")
    status = main(["model", "trial", *words, *flags])
    return status, json.loads(capsys.readouterr().out)["trials"]


def test_the_reference_model_runs_there_whole_and_near_its_golden_tensors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each golden output is of another input than the run before: stale pixels would show."""
    engines = ("--engines", str(tmp_path))
    outcomes = []
    for _ in range(2):
        status, trials = tried(capsys, str(MODEL), *engines)
        assert status == 0, [each["findings"] for each in trials]
        for each in trials:
            assert set(each["report"]["placement"]) == {"openvino"}
            assert {node["provider"] for node in each["report"]["nodes"]} == {"openvino"}
            assert not any(parity["distance"]["max_abs"] < 0 for parity in each["golden"])
        outcomes.append([each["report"]["engines"] for each in trials])
    assert outcomes == [["built"] * 2, ["reused"] * 2]


def test_hardware_that_is_not_there_is_refused_with_what_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    if any(Path("/dev").glob("accel/accel*")):
        pytest.skip("this machine has an NPU")
    status, trials = tried(capsys, str(MODEL), "--device", "npu", "--variant", "int8")
    assert status == 1
    (finding,) = trials[0]["findings"]
    assert "requires provider openvino on npu" in finding
    assert "openvino on cpu" in finding


def test_a_second_frame_is_judged_by_its_own_pixels(tmp_path: Path) -> None:
    """In a process of its own: a plug-in stays in the process that registered it."""
    code = f"""
import sys
sys.path.insert(0, {str(ROOT / "tests/unit/inference")!r})
from pathlib import Path
import numpy as np
import onnx_samples as samples
from edge.contracts.plan import PluginPlan
from edge.inference.model import OnnxModel
plan = samples.planned(
    Path({str(tmp_path / "m")!r}), samples.convolution(), samples.CONVOLUTION_INPUTS,
    samples.CONVOLUTION_OUTPUTS, provider="openvino", plugin=PluginPlan({library()!r}),
)
x = np.zeros((1, 2, 32, 32), np.float32)
y, z = np.zeros((1, 8, 32, 32), np.float32), np.zeros((1, 8, 1, 1), np.float32)
bound = OnnxModel.load(plan).bind([x], [y, z])
bound.run()
first = y.copy()
x[:] = np.random.default_rng(1).random(x.shape, np.float32)
bound.run()
print(float(np.abs(first).max()), float(np.abs(y).max()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, env=dict(os.environ)
    )
    first, second = map(float, done.stdout.split()[-2:])
    assert np.isclose(first, 0)
    assert second > 0
