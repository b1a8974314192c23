"""Trains the classifier on the harvested crops, from nothing; a quarter of an hour of one CPU core.

`python -m models.pcb_kinds.recipe.train --out models/pcb_kinds/.train`
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from models.pcb_kinds.recipe.data import CLASSES, NONE, Crops, load
from models.pcb_kinds.recipe.network import Classifier
from models.recipe.training import Run, Schedule, prefetched, train

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    Batch = tuple[Tensor, Tensor]

SMOOTHING = 0.03
STEPS_PER_EPOCH = 200
"""An epoch is this many batches, drawn anew without repetition: a share of the harvest."""
NONE_SHARE = 0.3
"""Of the crops of an epoch; the harvest has more of them than of all kinds together."""


def batches(crops: Crops, schedule: Schedule, epoch: int) -> Iterator[Batch]:
    """The batches of an epoch, in its own order."""
    rng = np.random.default_rng([schedule.seed, epoch])
    kinds, none = (
        np.flatnonzero((crops.labels == CLASSES.index(NONE)) == is_none)
        for is_none in (False, True)
    )
    some = round(len(kinds) * NONE_SHARE / (1 - NONE_SHARE))
    order = rng.permutation(np.concatenate([kinds, rng.permutation(none)[:some]]))
    chosen = order[: STEPS_PER_EPOCH * schedule.batch].reshape(STEPS_PER_EPOCH, -1)
    makers = (
        partial(_batch, crops, np.sort(rows), (schedule.seed, epoch, at))
        for at, rows in enumerate(chosen)
    )
    return prefetched(makers, threads=1)


def _batch(crops: Crops, chosen: NDArray[np.int64], seed: tuple[int, int, int]) -> Batch:
    """Crops, each in one of the eight symmetries of a square."""
    rng = np.random.default_rng(seed)
    images = np.stack([_turned(crops.images[row], int(rng.integers(8))) for row in chosen])
    return torch.from_numpy(images), torch.from_numpy(crops.labels[chosen])


def _turned(images: NDArray[np.uint8], symmetry: int) -> NDArray[np.uint8]:
    if symmetry & 1:
        images = images[:, :, ::-1]
    if symmetry & 2:
        images = images[:, ::-1]
    return images.transpose(0, 2, 1) if symmetry & 4 else images


def main() -> None:
    """Trains, or goes on with the run whose checkpoint lies in the output folder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="folder of crops, checkpoint, log")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of torch; one more turns crops")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    schedule = Schedule(
        arguments.epochs, batch=128, warmup_steps=100, weight_decay=0.05, ema_decay=0.995,
        seed=arguments.seed,
    )  # fmt: skip
    run = Run(Classifier, schedule)
    checkpoint = arguments.out / "checkpoint.pt"
    if checkpoint.exists():
        run.restore(checkpoint)
    crops = load(arguments.out)
    counts = np.bincount(crops.labels, minlength=len(CLASSES)).tolist()
    print(f"{dict(zip(CLASSES, counts, strict=True))}, {schedule}, after epoch {run.epoch}")

    def losses(batch: Batch) -> dict[str, Tensor]:
        logits = run.forward(batch[0].to(run.device).float() / 255)
        return {
            "class": F.cross_entropy(logits, batch[1].to(run.device), label_smoothing=SMOOTHING)
        }

    train(run, partial(batches, crops, schedule), losses, STEPS_PER_EPOCH, arguments.out)


if __name__ == "__main__":
    main()
