r"""Trains the detector on the official training pairs, in two stages.

`python -m models.pcb.recipe.train --data ../shared/data --out models/pcb/.train`
`python -m models.pcb.recipe.train --data ../shared/data --out models/pcb/.refine --epochs 32 \
    --refine models/pcb/.train/checkpoint.pt`

The first stage learns from nothing, in all eight symmetries. The second goes on from it with half
of the samples upright, see `PairSchedule`. No test image is opened. Each sample draws its chance
from (seed, epoch, position), so that a run which is stopped and started again sees the same
samples.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from models.pcb.recipe.augment import augment
from models.pcb.recipe.data import deeppcb_folder, load_training
from models.pcb.recipe.inherit import inherit
from models.pcb.recipe.network import Detector, detection_loss
from models.pcb.recipe.targets import GRID, assign, cell_centres
from models.recipe.training import Run, Schedule, prefetched, train

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from models.pcb.recipe.data import PairSet


@dataclass(frozen=True)
class PairSchedule(Schedule):
    """A schedule that also says how often a sample keeps the orientation of its scan.

    Attributes:
        upright: share of samples that are kept as scanned beyond the eighth that chance gives.
            Where it is not 0 (the refining stage), they alone teach the boxes: the annotators'
            habits have a direction, more room to the left and above, which mirroring denies.
        planes: 2, the network sees frame and reference; 1, the frame alone.
    """

    upright: float = 0.0
    planes: int = 2


@dataclass(frozen=True)
class Batch:
    """Augmented pairs and what each answering cell should say; see `detection_loss`."""

    images: torch.Tensor
    cells: torch.Tensor
    boxes: torch.Tensor
    group: torch.Tensor
    trust: torch.Tensor


def batches(pairs: PairSet, schedule: PairSchedule, epoch: int) -> Iterator[Batch]:
    """All pairs once, in the epoch's own order."""
    order = np.random.default_rng([schedule.seed, epoch]).permutation(len(pairs))
    starts = range(0, len(order) - schedule.batch + 1, schedule.batch)
    makers = (
        partial(_batch, pairs, order[start : start + schedule.batch], schedule, (epoch, start))
        for start in starts
    )
    return prefetched(makers, threads=1)


def _batch(
    pairs: PairSet, chosen: NDArray[np.int64], schedule: PairSchedule, place_in_run: tuple[int, int]
) -> Batch:
    rng = np.random.default_rng((schedule.seed, *place_in_run))
    centres = cell_centres()
    images, cells, boxes, group, trust = [], [], [], [], []
    defects = 0
    for place, index in enumerate(chosen):

        def donor() -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
            other = int(rng.integers(len(pairs)))
            return pairs.images[other], pairs.boxes[other]

        symmetry = _symmetry(schedule, rng)
        pair = pairs.images[index], pairs.boxes[index]
        image, truth = augment(pair, donor, rng, symmetry, schedule.planes)
        owner = assign(truth, centres)
        answering = np.flatnonzero(owner >= 0)
        images.append(image)
        cells.append(answering + place * GRID * GRID)
        boxes.append(truth[owner[answering]])
        group.append(owner[answering] + defects)
        taught = not schedule.upright or symmetry == 0
        trust.append(np.full(len(answering), taught, np.float32))
        defects += len(truth)
    # A group number may exceed the number of cells; numbered afresh it indexes an array of them.
    _, dense = np.unique(np.concatenate(group), return_inverse=True)
    return Batch(
        torch.from_numpy(np.stack(images)),
        torch.from_numpy(np.concatenate(cells)),
        torch.from_numpy(np.concatenate(boxes)),
        torch.from_numpy(dense),
        torch.from_numpy(np.concatenate(trust)),
    )


def _symmetry(schedule: PairSchedule, rng: np.random.Generator) -> int:
    drawn = int(rng.integers(8))
    return 0 if schedule.upright and rng.random() < schedule.upright else drawn


def _schedule(arguments: argparse.Namespace) -> PairSchedule:
    if arguments.planes == 1:
        return PairSchedule(
            arguments.epochs, ema_decay=0.998, seed=arguments.seed, upright=0.5, planes=1
        )
    if arguments.refine is None:
        return PairSchedule(arguments.epochs, seed=arguments.seed)
    return PairSchedule(
        arguments.epochs, peak_rate=arguments.peak_rate or 1.2e-3, ema_decay=0.998,
        seed=arguments.seed + 1, upright=0.5,
    )  # fmt: skip


def _frames(pairs: PairSet, schedule: PairSchedule) -> torch.Tensor:
    """Sixteen training frames as they are, float [16, planes, 640, 640]."""
    chosen = np.random.default_rng(schedule.seed).permutation(len(pairs))[:16]
    return torch.from_numpy(pairs.images[chosen, : schedule.planes]).float().div_(255)


def main() -> None:
    """Trains, or goes on with the run whose checkpoint lies in the output folder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--data", help="folder that holds deeppcb/; default EDGE_DATA")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoint and log")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--peak-rate", type=float, help="of learning, where it is refined")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="of torch; one more augments")
    parser.add_argument("--bf16", action="store_true", help="half the time on AVX512-BF16 and AMX")
    parser.add_argument("--compile", action="store_true", help="needs a C++ compiler")
    parser.add_argument(
        "--refine", type=Path, metavar="CHECKPOINT", help="second stage, from a finished first one"
    )
    parser.add_argument("--planes", type=int, choices=(1, 2), default=2, help="1: no reference")
    parser.add_argument(
        "--inherit", type=Path, metavar="ONNX", help="first weights from a file of the detector"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    schedule = _schedule(arguments)
    run = Run(partial(Detector, schedule.planes), schedule)
    checkpoint = arguments.out / "checkpoint.pt"
    if checkpoint.exists():
        run.restore(checkpoint)
    elif arguments.refine is not None:
        run.start_from(arguments.refine)
    pairs = load_training(deeppcb_folder(arguments.data))
    if arguments.inherit is not None and run.step == 0:
        inherit(run.network, arguments.inherit, _frames(pairs, schedule).to(run.device))
        run.average.load_state_dict(run.network.state_dict())
    if arguments.compile:
        run.compile()
    weights = sum(p.numel() for p in run.network.parameters())
    print(
        f"{weights} parameters, {len(pairs)} pairs, {run.schedule}, epoch {run.epoch}", flush=True
    )

    def losses(batch: Batch) -> dict[str, torch.Tensor]:
        x = batch.images.to(run.device).contiguous(memory_format=torch.channels_last)
        truths = (batch.cells, batch.boxes, batch.group, batch.trust)
        with torch.autocast(run.device, torch.bfloat16, enabled=arguments.bf16):
            logits, reaches = run.forward(x.float().div_(255))
        outputs = logits.float(), reaches.float()
        return detection_loss(outputs, *(part.to(run.device) for part in truths))

    train(
        run, partial(batches, pairs, schedule), losses, len(pairs) // schedule.batch, arguments.out
    )


if __name__ == "__main__":
    main()
