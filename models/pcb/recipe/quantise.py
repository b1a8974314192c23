"""From `model.onnx` to `model.int8.onnx`: static, per channel, calibrated on training pairs.

`python -m models.pcb.recipe.quantise --data ../shared/data --models models/pcb`

The camera's bytes are taken for what they are, the quantised input (scale 1, zero point 0): the
graph begins with DequantizeLinear, which ONNX Runtime fuses with the first convolution, so that no
float image exists. Weights have seven bits (`reduce_range`): on x86 without VNNI the eighth
overflows the 16-bit sums of ONNX Runtime's kernels, and boxes of that age are common beside lines.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

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

from models.pcb.recipe.augment import augment
from models.pcb.recipe.data import SIDE, deeppcb_folder, load_training

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.pcb.recipe.data import PairSet

QUANTISED_OPERATORS = ["Conv", "Add", "Resize", "Relu"]
KEPT_FLOAT = ("/box_head/", "/class_head/class_head.1/")
"""Box sides need finer steps than 8 bits of a logarithm give; the last class layer is tiny."""
CALIBRATION_PAIRS = 96


class _Pairs(CalibrationDataReader):  # type: ignore[misc]
    """Training pairs, every second one augmented, as the float input of the unfused graph."""

    def __init__(self, pairs: PairSet, count: int) -> None:
        self._pairs = pairs
        self._order = iter(np.random.default_rng(0).permutation(len(pairs))[:count])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        index = next(self._order, None)
        if index is None:
            return None
        pair = self._pairs.images[index], self._pairs.boxes[index]
        if index % 2:
            pair = augment(pair, lambda: pair, np.random.default_rng(int(index)))
        return {"input": pair[0][None].astype(np.float32)}


def quantise(source: Path, target: Path, pairs: PairSet, *, seven_bits: bool = True) -> None:
    """Writes the quantised file.

    Args:
        source: the fp32 file of `export`.
        target: the file to write.
        pairs: training pairs.
        seven_bits: weights in -64..63, see the head of this module.
    """
    with tempfile.TemporaryDirectory() as folder:
        unfused, prepared = Path(folder) / "float.onnx", Path(folder) / "prepared.onnx"
        onnx.save(_with_float_input(onnx.load(source)), unfused)
        quant_pre_process(str(unfused), str(prepared), skip_symbolic_shape=True)
        nodes = onnx.load(prepared).graph.node
        quantize_static(
            str(prepared),
            str(target),
            _Pairs(pairs, CALIBRATION_PAIRS),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=seven_bits,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=QUANTISED_OPERATORS,
            nodes_to_exclude=[node.name for node in nodes if not _quantisable(node.name)],
            calibrate_method=CalibrationMethod.MinMax,
        )
    model = _with_byte_input(onnx.load(target))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, target)


def _quantisable(node: str) -> bool:
    """Names are paths of modules; what lies outside the network proper decodes its boxes."""
    return node.startswith("/detector/") and not any(part in node for part in KEPT_FLOAT)


def _with_float_input(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without the Cast in front: the quantiser must see the convolution fed by the input."""
    graph = model.graph
    cast = next(node for node in graph.node if node.input[0] == "input")
    if cast.op_type != "Cast":
        raise ValueError(f"expected Cast behind the input, found {cast.op_type}")
    _rewire(graph, cast.output[0], "input")
    graph.node.remove(cast)
    _declare_input(graph, onnx.TensorProto.FLOAT)
    return model


def _with_byte_input(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without the QuantizeLinear in front, which does nothing to bytes at scale 1, zero point 0."""
    graph = model.graph
    first = next(node for node in graph.node if node.input[0] == "input")
    constants = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    scale, zero_point = (float(constants[name]) for name in first.input[1:3])
    if first.op_type != "QuantizeLinear" or abs(scale - 1) > 1e-6 or zero_point:
        raise ValueError(f"expected bytes as they are, found {first.op_type} at scale {scale}")
    _rewire(graph, first.output[0], "input")
    graph.node.remove(first)
    _declare_input(graph, onnx.TensorProto.UINT8)
    for imported in [item for item in model.opset_import if item.domain]:
        model.opset_import.remove(imported)  # declared by the optimiser, used by no node
    return model


def _rewire(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]


def _declare_input(graph: onnx.GraphProto, dtype: int) -> None:
    del graph.input[:]
    graph.input.append(onnx.helper.make_tensor_value_info("input", dtype, [1, 2, SIDE, SIDE]))


def main() -> None:
    """Quantises models/pcb/model.onnx, or another folder's."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--data", help="folder that holds deeppcb/; default EDGE_DATA")
    parser.add_argument("--models", type=Path, required=True, help="folder of model.onnx")
    parser.add_argument("--eight-bits", action="store_true", help="for VNNI and ARM alone")
    arguments = parser.parse_args()
    quantise(
        arguments.models / "model.onnx",
        arguments.models / "model.int8.onnx",
        load_training(deeppcb_folder(arguments.data)),
        seven_bits=not arguments.eight_bits,
    )


if __name__ == "__main__":
    main()
