"""Reference deployments with one thing gone wrong: a guest, a model, a queue."""

import hashlib
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge.deployment.pin import pin


def copy_of(source: Path, folder: Path, *edits: tuple[str, str]) -> Path:
    """Copy a deployment, edit its manifest by regular expressions that must match, pin it anew."""
    shutil.copytree(source, folder)
    manifest = folder / "manifest.toml"
    text = manifest.read_text()
    for pattern, replacement in edits:
        text, count = re.subn(pattern, replacement, text, flags=re.MULTILINE)
        assert count, f"{pattern!r} matches nothing in {manifest}"
    manifest.write_text(text)
    pin(folder)
    return folder


def with_policy(
    source: Path, folder: Path, wasm: bytes, *, call_ms: int = 10, memory_mib: int = 4
) -> Path:
    """The deployment with another `decide` guest, which needs no parameters."""
    shutil.copytree(source, folder)
    (folder / "guests" / "policy.wasm").write_bytes(wasm)
    manifest = folder / "manifest.toml"
    head, _, rest = manifest.read_text().partition("[pipelines.pcb.decide]")
    rest = rest[rest.index("[[pipelines.pcb.signals]]") :]
    manifest.write_text(
        f"{head}[pipelines.pcb.decide]\n"
        f'path = "guests/policy.wasm"\nsha256 = ""\n'
        f"memory_mib = {memory_mib}\ncall_ms = {call_ms}\n\n{rest}"
    )
    pin(folder)
    return folder


def with_stuck_model(source: Path, folder: Path) -> Path:
    """The deployment with `stuck_model` in the place of its model."""
    graph = onnx.load(source / "model" / "model.int8.onnx").graph
    content = stuck_model(list(graph.input), list(graph.output)).SerializeToString()
    return with_model(source, folder, "model", content)


def with_model(source: Path, folder: Path, card_folder: str, content: bytes) -> Path:
    """The deployment with another file in the place of one of its int8 models."""
    shutil.copytree(source, folder)
    (folder / card_folder / "model.int8.onnx").write_bytes(content)
    card = folder / card_folder / "model.toml"
    text = card.read_text()
    old = re.search(r'file = "model\.int8\.onnx"\s+sha256 = "([0-9a-f]{64})"', text)
    assert old is not None, "the card has its digest below its file"
    card.write_text(text.replace(old[1], hashlib.sha256(content).hexdigest()))
    pin(folder)
    return folder


def stuck_model(inputs: Any, outputs: Any) -> onnx.ModelProto:
    """A model with the given inputs and outputs that never ends on a black frame, and finds nothing
    on any other; the grey probe frame passes.
    """
    side = 128
    nodes = [
        helper.make_node("Gather", [inputs[0].name, "nil"], ["frame"], axis=1),
        helper.make_node("Cast", ["frame"], ["frame_f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["frame_f"], ["brightest"], keepdims=0),
        helper.make_node("Less", ["brightest", "dark"], ["black"]),
        helper.make_node("Cast", ["black"], ["black_i"], to=TensorProto.INT64),
        helper.make_node("Mul", ["black_i", "rounds"], ["bound"]),
    ]
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("MatMul", ["state", "matrix"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [side, side]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [side, side]),
        ],
    )
    nodes.append(helper.make_node("Loop", ["bound", "yes", "matrix"], ["worked"], body=body))
    nodes.append(helper.make_node("ReduceSum", ["worked"], ["sum"], keepdims=0))
    nodes.append(helper.make_node("Mul", ["sum", "zero"], ["nought"]))
    constants = {
        "matrix": np.eye(side, dtype=np.float32),
        "yes": np.asarray(True),
        "zero": np.asarray(0, np.float32),
        "dark": np.asarray(40, np.float32),
        "nil": np.asarray(0, np.int64),
        "rounds": np.asarray(2**40, np.int64),
    }
    for output in outputs:
        shape = [d.dim_value for d in output.type.tensor_type.shape.dim]
        constants[f"{output.name}_zeros"] = np.zeros(shape, np.float32)
        nodes.append(helper.make_node("Add", [f"{output.name}_zeros", "nought"], [output.name]))
    graph = helper.make_graph(
        nodes,
        "stuck",
        inputs,
        outputs,
        initializer=[numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def twice(source: Path, folder: Path, other: str) -> Path:
    """The deployment with its pipeline a second time, under another name, on the same camera."""
    shutil.copytree(source, folder)
    manifest = folder / "manifest.toml"
    text = manifest.read_text()
    pipeline = text[text.index("[pipelines.pcb]") :]
    manifest.write_text(text + "\n" + pipeline.replace("pipelines.pcb", f"pipelines.{other}"))
    pin(folder)
    return folder
