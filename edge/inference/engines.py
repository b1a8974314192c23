"""Engines that providers compile from a model, kept between starts.

TensorRT takes minutes for an engine, OpenVINO a part of a second. It happens while the model is
loaded and its probe frame runs (a trial, a candidate, a start), never on the frame path. What was
compiled lies below `storage.path`, in one folder for each model, provider, versions and options:
whatever of these changes, another folder is used, and the old one is the first to go.

A kept engine is native code that the provider runs. The folder is the daemon's own, mode 0700; its
content is as trusted as the rest of `storage.path`.
"""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnxruntime as ort

from edge.contracts.plan import ModelPlan
from edge.errors import IncompatibleError

MAX_KEPT: Final = 16
"""Folders; a box runs a few models, each in two revisions while an update is tried."""

_OPTIONS: Final[dict[str, dict[str, str]]] = {
    "tensorrt": {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": "{folder}",
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": "{folder}",
    },
    "openvino": {"cache_dir": "{folder}"},
}
"""Provider options that make a provider keep its engines; CUDA compiles none ahead."""
_LOAD_CONFIG: Final = "load_config"
"""OpenVINO's plug-in takes its properties as JSON by device, the folder among them."""


@dataclass(frozen=True, slots=True)
class Engines:
    """Where one model's engines lie.

    Attributes:
        options: Of the provider, with the folder in them.
        folder: None where the provider keeps none, or nothing may be kept.
        found: Whether engines lay there before this load.
        problem: Why none can be kept; the model runs all the same, and each start builds anew.
    """

    options: dict[str, str]
    folder: Path | None = None
    found: bool = False
    problem: str = ""

    @property
    def outcome(self) -> str:
        """`reused`, `built`, the problem, or empty where the provider keeps none."""
        if self.found or self.folder is None:
            return "reused" if self.found else self.problem
        return "built" if any(self.folder.iterdir()) else ""


def prepare(plan: ModelPlan, where: str) -> Engines:
    """Make or find the folder of a model's engines, and clear out the longest unused.

    Raises:
        IncompatibleError: The options place engines themselves.
    """
    keys = {**_OPTIONS.get(plan.provider, {})}
    if not plan.engines or not keys:
        return Engines(plan.options)
    for key in keys:
        if key in plan.options:
            raise IncompatibleError(
                f"{where}: inference.options.{key} is set by the daemon, which keeps engines below "
                "storage.path (remove it)"
            )
    root = Path(plan.engines)
    folder = root / _key(plan)
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.is_dir() and any(folder.iterdir())
        folder.mkdir(mode=0o700, exist_ok=True)
        os.utime(folder)
        _clear(root)
    except OSError as failed:
        return Engines(plan.options, problem=f"not kept: {folder}: {failed.strerror}")
    if plan.plugin is not None and plan.provider == "openvino":
        return Engines(_in_load_config(plan, folder, where), folder, found)
    made = {key: value.format(folder=folder) for key, value in keys.items()}
    return Engines({**plan.options, **made}, folder, found)


def _key(plan: ModelPlan) -> str:
    """Everything that an engine depends on, but the hardware, which the providers check."""
    parts = (plan.sha256, plan.provider, ort.__version__, ort.get_build_info())
    library = ""
    if plan.plugin is not None:
        status = Path(plan.plugin.library).stat()
        library = f"{plan.plugin.library} {status.st_size} {status.st_mtime_ns}"
    text = json.dumps([*parts, library, plan.threads, sorted(plan.options.items())])
    return f"{plan.provider}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def _clear(root: Path) -> None:
    folders = sorted(
        (each for each in root.iterdir() if each.is_dir() and not each.is_symlink()),
        key=lambda each: each.stat().st_mtime_ns,
    )
    for old in folders[:-MAX_KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def _in_load_config(plan: ModelPlan, folder: Path, where: str) -> dict[str, str]:
    device = (plan.plugin.device if plan.plugin else "").upper() or "CPU"
    try:
        config = json.loads(plan.options.get(_LOAD_CONFIG, "{}"))
        properties = {**config.get(device, {}), "CACHE_DIR": str(folder)}
    except (ValueError, AttributeError, TypeError) as broken:
        raise IncompatibleError(
            f"{where}: inference.options.{_LOAD_CONFIG} is no JSON object of objects: {broken}"
        ) from broken
    return {**plan.options, _LOAD_CONFIG: json.dumps({**config, device: properties})}
