"""A detector for the benchmark: of a small industrial network's cost, with random weights.

What it finds means nothing; what it costs, and the shapes that it exchanges, are those of a real
one: float32 [1,3,S,S] in, the YOLOv8 layout [1,4+C,A] out, stride 8.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np

from edge.errors import ConfigError
from edge.sdk.languages.language import beside_this_python

CLASSES: Final = 6
STRIDE: Final = 8
_WIDTHS: Final = (24, 40, 56)
_SEED: Final = 20_261


def anchors(side: int) -> int:
    """Number of candidate boxes for a square input of that side."""
    return (side // STRIDE) ** 2


def write(path: Path, side: int) -> None:
    """Write the detector for square inputs of `side` pixels, a multiple of 8.

    Raises:
        ConfigError: The package that makes models is missing: no part of the product needs it.
    """
    onnx = _onnx()
    onnx.save(_Builder(side, onnx).model(), str(path))


def _onnx() -> Any:
    try:
        import onnx  # noqa: PLC0415 - a developer's package, which an installed edge does without
    except ImportError as missing:
        raise ConfigError(
            "edge bench",
            "the model of the frame path is made by the package onnx, which is not installed",
            f"{beside_this_python('pip install onnx')}; or measure another part: --only line",
        ) from missing
    return onnx


class _Builder:
    """Collects nodes and weights of one graph."""

    def __init__(self, side: int, onnx: Any) -> None:
        self._side = side
        self._onnx = onnx
        self._random = np.random.default_rng(_SEED)
        self._nodes: list[Any] = []
        self._weights: list[Any] = []

    def model(self) -> Any:
        """Return the ModelProto."""
        cells = self._side // STRIDE
        count = anchors(self._side)
        a, b, c = _WIDTHS
        x = self._convolution("image", 3, a, 6, 4)
        x = self._convolution(x, a, b, 3, 2)
        x = self._convolution(x, b, b, 3, 1)
        x = self._convolution(x, b, c, 3, 1)
        x = self._convolution(x, c, c, 3, 1)
        scores = self._node("Sigmoid", self._convolution(x, c, CLASSES, 1, 1, relu=False))
        offsets = self._convolution(x, c, 2, 1, 1, relu=False)
        sizes = self._node("Add", self._convolution(x, c, 2, 1, 1), self._constant("least", 16.0))
        y, x_centres = np.mgrid[:cells, :cells].astype(np.float32) * STRIDE + STRIDE / 2
        grid = self._constant("grid", np.stack([x_centres, y])[None])
        centres = self._node("Add", offsets, grid)
        joined = self._node("Concat", centres, sizes, scores, axis=1)
        shape = self._constant("shape", np.array([1, 4 + CLASSES, count], np.int64))
        self._nodes.append(self._onnx.helper.make_node("Reshape", [joined, shape], ["output"]))
        helper, floats = self._onnx.helper, self._onnx.TensorProto.FLOAT
        square = [1, 3, self._side, self._side]
        graph = helper.make_graph(
            self._nodes,
            "benchmark-detector",
            [helper.make_tensor_value_info("image", floats, square)],
            [helper.make_tensor_value_info("output", floats, [1, 4 + CLASSES, count])],
            self._weights,
        )
        opset = [helper.make_opsetid("", 17)]
        return helper.make_model(graph, opset_imports=opset, ir_version=9)

    def _constant(self, name: str, value: Any) -> str:
        array = value if isinstance(value, np.ndarray) else np.float32(value)
        self._weights.append(self._onnx.numpy_helper.from_array(np.asarray(array), name))
        return name

    def _node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        output = f"v{len(self._nodes)}"
        self._nodes.append(self._onnx.helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def _convolution(
        self, x: str, inputs: int, outputs: int, kernel: int, stride: int, *, relu: bool = True
    ) -> str:
        number = len(self._nodes)
        shape = (outputs, inputs, kernel, kernel)
        spread = (2.0 / (inputs * kernel * kernel)) ** 0.5
        weight = (self._random.standard_normal(shape) * spread).astype(np.float32)
        convolved = self._node(
            "Conv",
            x,
            self._constant(f"w{number}", weight),
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[(kernel - stride + 1) // 2] * 2 + [(kernel - stride) // 2] * 2,
        )
        return self._node("Relu", convolved) if relu else convolved
