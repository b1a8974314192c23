"""The reference cascade with one thing changed: a setting, a guest, a second model."""

import re
import shutil
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from daemons import ROOT
from deployments import with_model
from onnx import TensorProto, helper, numpy_helper

from edge.deployment.pin import pin

CASCADE: Final = ROOT / "models" / "pcb_kinds" / "deployment"
CLASSES: Final = 7

ROOMY: Final = '(memory (export "memory") 256 256)'
"""Of a guest of WAT that is shown crops."""

TRAPS_IN_THE_LIGHT: Final = """
(func (export "preprocess") (param $call i32) (result i32)
  (if (i32.load8_u (i32.load (local.get $call))) (then unreachable))
  (f32.store offset=56 (local.get $call) (f32.const 1))
  (f32.store offset=60 (local.get $call) (f32.const 1))
  (f32.store offset=64 (local.get $call) (f32.const 0))
  (f32.store offset=68 (local.get $call) (f32.const 0))
  (i32.const 0))
"""
"""Stops at a crop whose first pixel is not black, as every board's is; the empty crop passes."""


def with_guest(folder: Path, role: str, wasm: bytes, memory_mib: int = 64) -> Path:
    """The cascade with another guest in a role of its second model, without parameters."""
    shutil.copytree(CASCADE, folder)
    (folder / "guests" / "other.wasm").write_bytes(wasm)
    manifest = folder / "manifest.toml"
    text, count = re.subn(
        rf"(\[pipelines\.pcb\.refine\.{role}\]\npath = ).*?(sha256.*?)memory_mib = \d+",
        rf'\1"guests/other.wasm"\n\2memory_mib = {memory_mib}',
        manifest.read_text(),
        flags=re.DOTALL,
    )
    assert count == 1
    parameters = re.compile(rf"\[pipelines\.pcb\.refine\.{role}\.parameters\]\n.*?\n\n", re.DOTALL)
    manifest.write_text(parameters.sub("", text))
    pin(folder)
    return folder


def with_second_model(folder: Path, content: bytes) -> Path:
    """The cascade with another file in the place of its classifier."""
    return with_model(CASCADE, folder, "kinds", content)


def fixed_batch() -> bytes:
    """The classifier with its batch of 8 written into the file."""
    model = onnx.load(CASCADE / "kinds" / "model.int8.onnx")
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_value = 8
    return bytes(model.SerializeToString())


def nan_where_there_is_light(*, always: bool = False) -> bytes:
    """A classifier that answers NaN on any crop that is not black; or on every one."""
    nodes: list[Any] = [
        helper.make_node("Cast", ["input"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["levels", "axes"], ["light"], keepdims=0),
        helper.make_node("Add", ["light", "offset"], ["positive"]),
        helper.make_node("Neg", ["positive"], ["negative"]),
        helper.make_node("Sqrt", ["negative"], ["root"]),
        helper.make_node("Unsqueeze", ["root", "last"], ["column"]),
        helper.make_node("MatMul", ["column", "ones"], ["probabilities"]),
    ]
    graph = helper.make_graph(
        nodes,
        "nan",
        [helper.make_tensor_value_info("input", TensorProto.UINT8, ["n", 2, 64, 64])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", CLASSES])],
        [
            numpy_helper.from_array(np.array([1, 2, 3]), "axes"),
            numpy_helper.from_array(np.array([1]), "last"),
            numpy_helper.from_array(np.float32(1 if always else 0).reshape(1), "offset"),
            numpy_helper.from_array(np.ones((1, CLASSES), np.float32), "ones"),
        ],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    return bytes(model.SerializeToString())
