"""Trains the classifier on the training crops, from nothing; ten minutes of one CPU core.

`python -m models.steel.recipe.train --data ../shared/data --out models/steel/.train`
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from models.recipe.training import Run, Schedule, prefetched, train
from models.steel.recipe.augment import augment
from models.steel.recipe.data import CLASSES, Crops, load
from models.steel.recipe.network import Classifier

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    Batch = tuple[Tensor, Tensor]

SMOOTHING = 0.05
RARITY = 0.35
"""Classes weigh as their count to the power of minus this: between none and equal weight."""


def batches(crops: Crops, schedule: Schedule, epoch: int) -> Iterator[Batch]:
    """All crops once, in the epoch's own order."""
    order = np.random.default_rng([schedule.seed, epoch]).permutation(len(crops))
    starts = range(0, len(order) - schedule.batch + 1, schedule.batch)
    chosen = (order[start : start + schedule.batch] for start in starts)
    makers = (
        partial(_batch, crops, rows, (schedule.seed, epoch, at)) for at, rows in enumerate(chosen)
    )
    return prefetched(makers, threads=1)


def _batch(crops: Crops, chosen: NDArray[np.int64], seed: tuple[int, int, int]) -> Batch:
    rng = np.random.default_rng(seed)
    planes = np.stack([augment(crops.images[index, 0], rng) for index in chosen])
    return (
        torch.from_numpy(planes)[:, None].expand(-1, 3, -1, -1),
        torch.from_numpy(crops.labels[chosen]),
    )


def main() -> None:
    """Trains, or goes on with the run whose checkpoint lies in the output folder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--data", help="folder that holds xsdd/; default EDGE_DATA")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoint and log")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="of torch; one more augments")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    schedule = Schedule(
        arguments.epochs, batch=32, warmup_steps=60, weight_decay=0.05, ema_decay=0.995,
        seed=arguments.seed,
    )  # fmt: skip
    run = Run(Classifier, schedule)
    checkpoint = arguments.out / "checkpoint.pt"
    if checkpoint.exists():
        run.restore(checkpoint)
    crops = load("train", arguments.data)
    counts = np.bincount(crops.labels, minlength=len(CLASSES))
    weights = torch.tensor(counts**-RARITY / (counts**-RARITY).mean(), dtype=torch.float32)
    print(f"{len(crops)} crops, {schedule}, after epoch {run.epoch}", flush=True)

    def losses(batch: Batch) -> dict[str, Tensor]:
        logits = run.forward(batch[0].to(run.device).float() / 255)
        return {
            "class": F.cross_entropy(
                logits, batch[1].to(run.device), weights.to(run.device), label_smoothing=SMOOTHING
            )
        }

    train(
        run, partial(batches, crops, schedule), losses, len(crops) // schedule.batch, arguments.out
    )


if __name__ == "__main__":
    main()
