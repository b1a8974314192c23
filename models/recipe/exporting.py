"""From a network to `model.onnx`, compared with the network before anybody relies on it."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch

from models.recipe.session import open_session, outputs

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

OPSET = 17


def command(documentation: str | None) -> tuple[dict[str, Tensor], Path]:
    """The command of a recipe's export; runs on one thread from then on.

    Args:
        documentation: of the recipe's module.

    Returns:
        The averaged weights of the checkpoint that was named, and the file to write.
    """
    parser = argparse.ArgumentParser(description=(documentation or "").split("\n", 1)[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of model.onnx")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    weights: dict[str, Tensor] = torch.load(arguments.checkpoint, weights_only=True)["average"]
    return weights, arguments.out / "model.onnx"


def export(
    network: nn.Module,
    target: Path,
    shape: tuple[int, ...],
    names: list[str],
    tolerances: list[float],
    *,
    any_batch: bool = False,
) -> None:
    """Writes the fp32 file: one input called `input`, uint8.

    Args:
        network: in evaluation mode; takes uint8 of `shape`, gives a tuple of outputs.
        target: the file to write.
        shape: of the input, whole.
        names: of the outputs.
        tolerances: largest difference of each output between network and file.
        any_batch: whether the file leaves the first dimension of every tensor open.

    Raises:
        ValueError: the file does not compute what the network computes.
    """
    with warnings.catch_warnings():
        # The TorchScript exporter is deprecated; its successor wants a further dependency.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(shape, dtype=torch.uint8),),
            str(target),
            opset_version=OPSET,
            input_names=["input"],
            output_names=names,
            dynamic_axes={name: {0: "batch"} for name in ("input", *names)} if any_batch else None,
            dynamo=False,
        )
    onnx.checker.check_model(onnx.load(target), full_check=True)
    session = open_session(target)
    for frame in probes(shape):
        with torch.no_grad():
            expected = [tensor.numpy() for tensor in network(torch.from_numpy(frame))]
        for name, one, other, most in zip(
            names, expected, outputs(session, frame), tolerances, strict=True
        ):
            off = float(np.abs(one - other).max())
            print(f"{name}: network and file differ by {off:.1e} at most")
            if off > most:
                raise ValueError(f"{target} does not compute {name} as the network does")


def probes(shape: tuple[int, ...]) -> list[NDArray[np.uint8]]:
    """Two inputs that exercise a network: noise, and blocks of 16 pixels of black and white."""
    rng = np.random.default_rng(0)
    height, width = shape[-2:]
    coarse = rng.integers(0, 2, (*shape[:-2], -(-height // 16), -(-width // 16)), np.uint8)
    blocks = (coarse * np.uint8(255)).repeat(16, axis=-2).repeat(16, axis=-1)
    return [
        rng.integers(0, 256, shape, np.uint8),
        np.ascontiguousarray(blocks[..., :height, :width]),
    ]
