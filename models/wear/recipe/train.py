"""Trains the wear score on all sequences but one, from nothing; two minutes of one CPU core.

`python -m models.wear.recipe.train --data ../shared/data --out models/wear/.train`

`--hold-back SEQUENCE` says which is left out; default: the one that the published file never saw.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from models.recipe.figures import spearman
from models.recipe.training import Run, Schedule, prefetched, train
from models.wear.recipe.augment import augment
from models.wear.recipe.data import EARLY, HELD_BACK, SEQUENCES, Sequence, load
from models.wear.recipe.network import WearNetwork, wear_loss

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    Batch = tuple[Tensor, Tensor]


def batches(learnt: list[Sequence], schedule: Schedule, epoch: int, steps: int) -> Iterator[Batch]:
    """Batches of frames at random ages, each beside an early frame of its own sequence."""
    makers = (partial(_batch, learnt, schedule, (epoch, step)) for step in range(steps))
    return prefetched(makers, threads=1)


def _batch(learnt: list[Sequence], schedule: Schedule, place: tuple[int, int]) -> Batch:
    rng = np.random.default_rng((schedule.seed, *place))
    pairs, ages = [], []
    for _ in range(schedule.batch):
        sequence = learnt[int(rng.integers(len(learnt)))]
        index = int(rng.integers(len(sequence)))
        pairs.append(augment(sequence.pair(index, int(rng.integers(EARLY)))[0], rng))
        ages.append(sequence.age[index])
    return torch.from_numpy(np.stack(pairs)), torch.tensor(np.array(ages))[:, None]


def main() -> None:
    """Trains, or goes on with the run whose checkpoint lies in the output folder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--data", help="folder that holds bsdata/; default EDGE_DATA")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoint and log")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="of torch; one more augments")
    parser.add_argument("--hold-back", choices=SEQUENCES, default=HELD_BACK)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    schedule = Schedule(
        arguments.epochs, batch=16, peak_rate=2e-3, warmup_steps=30, weight_decay=0.1,
        ema_decay=0.99, seed=arguments.seed,
    )  # fmt: skip
    run = Run(WearNetwork, schedule)
    checkpoint = arguments.out / "checkpoint.pt"
    if checkpoint.exists():
        run.restore(checkpoint)
    sequences = load(arguments.data)
    learnt = [sequence for sequence in sequences if sequence.name != arguments.hold_back]
    steps = sum(map(len, learnt)) // 4
    print(f"{[s.name for s in learnt]}, {schedule}, after epoch {run.epoch}", flush=True)

    def losses(batch: Batch) -> dict[str, Tensor]:
        planes, ages = (part.to(run.device) for part in batch)
        return wear_loss(run.forward(planes.float() / 255), ages)

    def drawn(epoch: int) -> Iterator[Batch]:
        return batches(learnt, schedule, epoch, steps)

    train(run, drawn, losses, steps, arguments.out)
    run.average.eval()
    for sequence in sequences:
        with torch.no_grad():
            pairs = (torch.from_numpy(sequence.pair(i)).float() / 255 for i in range(len(sequence)))
            found = [run.average(pair)[1].item() for pair in pairs]
        role = "held back" if sequence.name == arguments.hold_back else "learnt"
        print(f"{sequence.name}, {role}: Spearman {spearman(found, sequence.age):.4f}")


if __name__ == "__main__":
    main()
