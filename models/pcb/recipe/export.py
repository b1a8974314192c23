"""From a checkpoint to `model.onnx`: fp32, grey values in, boxes and scores out.

`python -m models.pcb.recipe.export --checkpoint models/pcb/.train/checkpoint.pt --out models/pcb`

The averaged weights of the checkpoint are exported, batch normalisation is folded into the
convolutions, and the file is compared with the network on random and on board-like input.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch

from models.pcb.recipe.data import SIDE
from models.pcb.recipe.network import Detector, ExportedDetector

OPSET = 17
BOX_TOLERANCE_PX = 0.05
SCORE_TOLERANCE = 1e-3


def export(checkpoint: Path, target: Path) -> None:
    """Writes the ONNX file.

    Raises:
        ValueError: the file does not compute what the network computes.
    """
    detector = Detector()
    detector.load_state_dict(torch.load(checkpoint, weights_only=True)["average"])
    network = ExportedDetector(detector.eval()).eval()
    example = torch.zeros((1, 2, SIDE, SIDE), dtype=torch.uint8)
    with warnings.catch_warnings():
        # The TorchScript exporter is deprecated; its successor wants a further dependency.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (example,),
            str(target),
            opset_version=OPSET,
            input_names=["input"],
            output_names=["boxes", "scores"],
            dynamo=False,
        )
    model = onnx.load(target)
    onnx.checker.check_model(model, full_check=True)
    _compare(network, target)


def _compare(network: ExportedDetector, target: Path) -> None:
    session = ort.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 2, (1, 2, SIDE // 16, SIDE // 16), np.uint8) * np.uint8(255)
    for pair in (
        rng.integers(0, 256, (1, 2, SIDE, SIDE), np.uint8),
        coarse.repeat(16, axis=2).repeat(16, axis=3),
    ):
        with torch.no_grad():
            boxes, scores = (tensor.numpy() for tensor in network(torch.from_numpy(pair)))
        exported_boxes, exported_scores = session.run(["boxes", "scores"], {"input": pair})
        off_px = float(np.abs(boxes - exported_boxes).max())
        off_score = float(np.abs(scores - exported_scores).max())
        print(f"network and file differ by {off_px:.1e} px and {off_score:.1e} in score at most")
        if off_px > BOX_TOLERANCE_PX or off_score > SCORE_TOLERANCE:
            raise ValueError(f"{target} does not compute what the network computes")


def main() -> None:
    """Exports one checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of model.onnx")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    export(arguments.checkpoint, arguments.out / "model.onnx")


if __name__ == "__main__":
    main()
