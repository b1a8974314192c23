"""What judges here: versions of the engines and decoders, and the processor that they chose by.

A record names them, since they are what may make another verdict of the same bytes.
"""

import importlib.metadata
import platform
from pathlib import Path
from typing import Final

_DISTRIBUTIONS: Final = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"),
    "wasmtime": ("wasmtime",),
    "opencv": ("opencv-python-headless", "opencv-python"),
    "simplejpeg": ("simplejpeg",),
}
"""An engine by the names under which its wheel is installed; accelerators have wheels of theirs."""
_CPUINFO: Final = Path("/proc/cpuinfo")
_MAX_CHARS: Final = 80


def versions() -> dict[str, str]:
    """Return each engine's version, `machine` (architecture) and `cpu` (model, where it says so).

    ONNX Runtime picks its kernels by the processor, so two of them may differ in the last bits.
    """
    found = {name: _version(names) for name, names in _DISTRIBUTIONS.items()}
    return {**found, "machine": platform.machine(), "cpu": _cpu()}


def _version(names: tuple[str, ...]) -> str:
    for name in names:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        return version if name == names[0] else f"{version} ({name})"
    return "unknown"


def _cpu() -> str:
    try:
        lines = _CPUINFO.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in {"model name", "Model"}:
            return value.strip()[:_MAX_CHARS]
    return ""
