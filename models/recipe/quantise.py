"""From `model.onnx` to `model.int8.onnx`: static, per channel, QDQ, calibrated on training frames.

The camera's bytes are taken for what they are, the quantised input (scale 1, zero point 0): the
graph begins with DequantizeLinear, which ONNX Runtime fuses with the first convolution, so that no
float image exists. Weights have seven bits (`reduce_range`): on x86 without VNNI the eighth
overflows the 16-bit sums of ONNX Runtime's kernels, and boxes of that age are common beside lines.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

QUANTISED_OPERATORS = ["Conv", "Add", "Resize", "Relu", "Concat", "MaxPool", "AveragePool"]
_ALREADY_BYTES = 1e-6


class _Frames(CalibrationDataReader):  # type: ignore[misc]
    """Frames as the float input of the unfused graph."""

    def __init__(self, name: str, frames: Iterable[NDArray[Any]]) -> None:
        self._name = name
        self._frames = iter(frames)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        frame = next(self._frames, None)
        return None if frame is None else {self._name: frame.astype(np.float32)}


def quantise(
    source: Path,
    target: Path,
    frames: Iterable[NDArray[Any]],
    quantisable: Callable[[str], bool],
    *,
    seven_bits: bool = True,
) -> None:
    """Writes the quantised file.

    Args:
        source: the fp32 file; its one input is uint8 and goes into a Cast.
        target: the file to write.
        frames: calibration inputs of the model's whole shape, from training frames alone.
        quantisable: of a node's name (the path of its module), whether it may compute in int8.
        seven_bits: weights in -64..63, see the head of this module.
    """
    with tempfile.TemporaryDirectory() as folder:
        unfused, prepared = Path(folder) / "float.onnx", Path(folder) / "prepared.onnx"
        model = _with_float_input(onnx.load(source))
        onnx.save(model, unfused)
        quant_pre_process(str(unfused), str(prepared), skip_symbolic_shape=True)
        nodes = onnx.load(prepared).graph.node
        quantize_static(
            str(prepared),
            str(target),
            _Frames(model.graph.input[0].name, frames),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=seven_bits,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=QUANTISED_OPERATORS,
            nodes_to_exclude=[node.name for node in nodes if not quantisable(node.name)],
            calibrate_method=CalibrationMethod.MinMax,
        )
    quantised = _with_byte_input(onnx.load(target))
    onnx.checker.check_model(quantised, full_check=True)
    onnx.save(quantised, target)


def _with_float_input(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without the Cast in front: the quantiser must see the convolution fed by the input."""
    graph = model.graph
    name = graph.input[0].name
    cast = next(node for node in graph.node if node.input[0] == name)
    if cast.op_type != "Cast":
        raise ValueError(f"expected Cast behind the input, found {cast.op_type}")
    _rewire(graph, cast.output[0], name)
    graph.node.remove(cast)
    graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    return model


def _with_byte_input(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without the QuantizeLinear in front, which does nothing to bytes at scale 1, zero point 0."""
    graph = model.graph
    name = graph.input[0].name
    first = next(node for node in graph.node if node.input[0] == name)
    constants = {item.name: item for item in graph.initializer}
    scale, zero_point = (
        float(onnx.numpy_helper.to_array(constants[each])) for each in first.input[1:3]
    )
    if first.op_type != "QuantizeLinear" or abs(scale - 1) > _ALREADY_BYTES or zero_point:
        raise ValueError(
            f"expected bytes as they are, found {first.op_type} at scale {scale}, zero point "
            f"{zero_point}: calibration frames must reach 0 and 255"
        )
    _rewire(graph, first.output[0], name)
    graph.node.remove(first)
    graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    for imported in [item for item in model.opset_import if item.domain]:
        model.opset_import.remove(imported)  # declared by the optimiser, used by no node
    return model


def _rewire(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
