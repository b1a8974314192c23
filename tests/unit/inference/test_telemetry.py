"""A box tells nobody but its broker what it runs."""

import os
import subprocess
import sys
from pathlib import Path

import onnx
import onnx_samples as samples

_LOAD = """
import sys
import edge.inference.provider
import onnxruntime
onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
"""
_SILENCED_BY = ("CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "XDG_CACHE_HOME")
"""What keeps ONNX Runtime silent, or elsewhere, without our doing."""


def test_onnx_runtime_keeps_no_telemetry_and_makes_no_device_id(tmp_path: Path) -> None:
    model, home = tmp_path / "m.onnx", tmp_path / "home"
    onnx.save(samples.identity(), str(model))
    home.mkdir()
    clean = {name: value for name, value in os.environ.items() if name not in _SILENCED_BY}
    done = subprocess.run(
        [sys.executable, "-c", _LOAD, model],
        env={**clean, "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # Its store, and the id of this device, lie in ~/.cache/Microsoft from the first session on.
    assert [str(each) for each in home.rglob("*")] == []
