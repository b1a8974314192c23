"""A detector's first weights from a finished ONNX file of it, where only that is left of it.

Export folds batch normalisation into the convolutions. To train on, a normalisation must stand
behind each of them again that, on frames like those to come, does what the folded one did: it is
given the mean and the spread that it meets, and then gives both back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from models.pcb.recipe.network import Detector

_PREFIX = "/detector/"


def inherit(detector: Detector, file: Path, frames: Tensor) -> None:
    """Gives the detector the weights of a file of the same network, or of one with more planes.

    Planes that the detector has not are left out of the first convolution.

    Args:
        detector: untrained; left in training mode.
        file: what `export` wrote.
        frames: float [N, planes, 640, 640], 0..1, training frames to measure the spread on.

    Raises:
        ValueError: the file has no weights for one of the convolutions.
    """
    weights = _convolutions(file)
    pairs = _normalised(detector)
    for path, convolution in detector.named_modules():
        if not isinstance(convolution, nn.Conv2d):
            continue
        if path not in weights:
            raise ValueError(f"{file} has no convolution {path}: expected a file of this network")
        kernel, bias = weights[path]
        if path == "stem.0":  # which the exported file applies to greys 0..255
            kernel = kernel[:, : convolution.in_channels] * 255
        with torch.no_grad():
            convolution.weight.copy_(kernel)
            if convolution.bias is not None:
                convolution.bias.copy_(bias)
        if path in pairs:
            pairs[path].register_forward_pre_hook(_reproduce(bias))
    detector.eval()
    with torch.no_grad():
        detector(frames)
    for norm in pairs.values():
        norm._forward_pre_hooks.clear()
    detector.train()


def _reproduce(bias: Tensor) -> Callable[[nn.BatchNorm2d, tuple[Tensor]], None]:
    """Sets a normalisation so that what it meets comes out as it went in, plus the folded bias."""

    def hook(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        spread, mean = torch.var_mean(inputs[0], dim=(0, 2, 3))
        norm.running_mean, norm.running_var = mean, spread
        norm.weight.copy_((spread + norm.eps).sqrt())
        norm.bias.copy_(mean + bias)

    return hook


def _normalised(detector: nn.Module) -> dict[str, nn.BatchNorm2d]:
    """The normalisation behind each convolution that has one, by the convolution's path."""
    found: dict[str, nn.BatchNorm2d] = {}
    last = ""
    for path, module in detector.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            found[last] = module
        elif isinstance(module, nn.Conv2d):
            last = path
    return found


def _convolutions(file: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Kernel and bias of every convolution, by the path of its module in the detector.

    The exporter names a node after the nesting of modules, each with its whole path from the last
    attribute on: /detector/stage8/stage8.1/reduce/reduce.0/Conv is stage8.1.reduce.0.
    """
    graph = onnx.load(file).graph
    tensors = {
        item.name: torch.from_numpy(onnx.numpy_helper.to_array(item).copy())
        for item in graph.initializer
    }
    found = {}
    for node in graph.node:
        if node.op_type == "Conv" and node.name.startswith(_PREFIX):
            names: list[str] = []
            for part in node.name.removeprefix(_PREFIX).split("/")[:-1]:
                if names and part.startswith(names[-1] + "."):
                    names[-1] = part
                else:
                    names.append(part)
            found[".".join(names)] = (tensors[node.input[1]], tensors[node.input[2]])
    return found
