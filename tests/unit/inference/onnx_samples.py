"""Small real models for the tests of the ONNX host."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge.contracts.plan import ModelPlan, TensorSpec

DTYPES = {
    "float32": TensorProto.FLOAT,
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "float16": TensorProto.FLOAT16,
}
OPSETS = [helper.make_opsetid("", 17)]


def value(name: str, dtype: str, shape: tuple[int | str | None, ...]) -> Any:
    return helper.make_tensor_value_info(name, DTYPES[dtype], shape)


def model(nodes: list[Any], inputs: list[Any], outputs: list[Any], **graph: Any) -> Any:
    made = helper.make_graph(nodes, "g", inputs, outputs, **graph)
    return helper.make_model(made, opset_imports=OPSETS, ir_version=9)


def identity(dtype: str = "float32", shape: tuple[int | str | None, ...] = (1, 4)) -> Any:
    return model(
        [helper.make_node("Identity", ["x"], ["y"])],
        [value("x", dtype, shape)],
        [value("y", dtype, shape)],
    )


def convolution() -> Any:
    """Float [1, 2, 32, 32] to [1, 8, 32, 32] and to its mean [1, 8, 1, 1]."""
    weights = np.random.default_rng(1).standard_normal((8, 2, 3, 3)).astype(np.float32)
    return model(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["y"]),
            helper.make_node("GlobalAveragePool", ["y"], ["z"]),
        ],
        [value("x", "float32", (1, 2, 32, 32))],
        [value("y", "float32", (1, 8, 32, 32)), value("z", "float32", (1, 8, 1, 1))],
        initializer=[numpy_helper.from_array(weights, "w")],
    )


CONVOLUTION_INPUTS = (TensorSpec("x", "float32", (1, 2, 32, 32)),)
CONVOLUTION_OUTPUTS = (
    TensorSpec("y", "float32", (1, 8, 32, 32)),
    TensorSpec("z", "float32", (1, 8, 1, 1)),
)


def quantised() -> Any:
    """QDQ form of a convolution over bytes: uint8 [1, 2, 16, 16] to float32 [1, 4, 16, 16]."""
    weights = np.random.default_rng(2).integers(-100, 100, (4, 2, 3, 3)).astype(np.int8)
    constants = {
        "w": weights,
        "w_scale": np.full(4, 0.01, np.float32),
        "w_zero": np.zeros(4, np.int8),
        "x_scale": np.float32(1 / 255),
        "x_zero": np.uint8(0),
    }
    return model(
        [
            helper.make_node("DequantizeLinear", ["x", "x_scale", "x_zero"], ["xf"]),
            helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["wf"], axis=0),
            helper.make_node("Conv", ["xf", "wf"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("QuantizeLinear", ["c", "x_scale", "x_zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "x_scale", "x_zero"], ["y"]),
        ],
        [value("x", "uint8", (1, 2, 16, 16))],
        [value("y", "float32", (1, 4, 16, 16))],
        initializer=[numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )


def endless() -> Any:
    """A loop whose condition stays true: y = x after 2**62 rounds."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Relu", ["state"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            value("state", "float32", (1, 4)),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            value("next", "float32", (1, 4)),
        ],
    )
    rounds = numpy_helper.from_array(np.asarray(2**62, np.int64), "rounds")
    go = numpy_helper.from_array(np.asarray(True), "yes")
    return model(
        [helper.make_node("Loop", ["rounds", "yes", "x"], ["y"], body=body)],
        [value("x", "float32", (1, 4))],
        [value("y", "float32", (1, 4))],
        initializer=[rounds, go],
    )


def inside_if(then: list[Any], **graph: Any) -> Any:
    """A model whose `then` branch holds the given nodes, from `x` to `t`."""
    branch = helper.make_graph(then, "then", [], [value("t", "float32", (1, 4))], **graph)
    other = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["e"])], "else", [], [value("e", "float32", (1, 4))]
    )
    return model(
        [helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=other)],
        [
            helper.make_tensor_value_info("flag", TensorProto.BOOL, [1]),
            value("x", "float32", (1, 4)),
        ],
        [value("y", "float32", (1, 4))],
    )


def planned(
    path: Path,
    content: "bytes | onnx.ModelProto",
    inputs: tuple[TensorSpec, ...] = (TensorSpec("x", "float32", (1, 4)),),
    outputs: tuple[TensorSpec, ...] = (TensorSpec("y", "float32", (1, 4)),),
    **how: Any,
) -> ModelPlan:
    """Write a model to a file and plan to run it."""
    raw = content if isinstance(content, bytes) else content.SerializeToString()
    path.write_bytes(raw)
    digest = hashlib.sha256(raw).hexdigest()
    return ModelPlan(str(path), digest, ("a", "b"), inputs, outputs, **how)
