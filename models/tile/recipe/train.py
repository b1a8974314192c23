r"""Trains the segmenter on the frames of the training tiles, from the features of steel.

`python -m models.tile.recipe.train --data ../shared/data --out models/tile/.train \
    --start models/steel/.train/checkpoint.pt`
`python -m models.tile.recipe.train --data ../shared/data --out models/tile/.refine --epochs 40 \
    --peak-rate 1.2e-3 --start models/tile/.train/checkpoint.pt --seed 1`

A fifth of the training tiles is left out and judged at the end: threshold and votes are chosen on
them, since no test tile may be asked.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from models.recipe.figures import auroc
from models.recipe.training import Run, Schedule, prefetched, train
from models.tile.recipe.augment import augment
from models.tile.recipe.data import FOLDS, HELD_BACK, Tiles, load
from models.tile.recipe.network import Segmenter, segmentation_loss

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    Batch = tuple[Tensor, Tensor]


def batches(tiles: Tiles, schedule: Schedule, epoch: int) -> Iterator[Batch]:
    """All frames once, in the epoch's own order."""
    order = np.random.default_rng([schedule.seed, epoch]).permutation(len(tiles))
    starts = range(0, len(order) - schedule.batch + 1, schedule.batch)
    makers = (
        partial(_batch, tiles, order[start : start + schedule.batch], (schedule.seed, epoch, start))
        for start in starts
    )
    return prefetched(makers, threads=1)


def _batch(tiles: Tiles, chosen: NDArray[np.int64], seed: tuple[int, int, int]) -> Batch:
    rng = np.random.default_rng(seed)
    # An uneven tile has no outline to cut out: grafted, it would be a defect that nobody can see.
    donors = np.flatnonzero([label not in ("", "uneven") for label in tiles.labels])

    def sample(index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64]]:
        return tiles.planes[index], tiles.masks[index], tiles.inside[index]

    drawn = [
        augment(sample(index), lambda: sample(int(rng.choice(donors))), rng) for index in chosen
    ]
    planes = np.stack([plane for plane, _ in drawn])
    masks = np.stack([mask for _, mask in drawn])
    return (
        torch.from_numpy(planes)[:, None].expand(-1, 3, -1, -1),
        torch.from_numpy(masks)[:, None],
    )


@torch.no_grad()
def peaks(network: Segmenter, tiles: Tiles) -> NDArray[np.float64]:
    """float64 [N, 3]: peak of the pixel head, the frame head, and their geometric mean."""
    network.eval()
    found = []
    for plane in tiles.planes:
        x = torch.from_numpy(plane)[None, None].expand(-1, 3, -1, -1).float() / 255
        pixels, frame = (torch.sigmoid(y) for y in network(x))
        found.append((pixels.max().item(), frame.item()))
    both = np.array(found)
    return np.column_stack([both, np.sqrt(both[:, 0] * both[:, 1])])


def _taken_over(network: Segmenter, finished: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a finished run shares with the segmenter: the features of steel, or all of its own."""
    own = network.state_dict()
    return {**own, **{name: value for name, value in finished.items() if name in own}}


def main() -> None:
    """Trains, or goes on with the run whose checkpoint lies in the output folder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--data", help="folder that holds mt/; default EDGE_DATA")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoint and log")
    parser.add_argument("--epochs", type=int, default=28)
    parser.add_argument("--peak-rate", type=float, default=2e-3, help="of learning")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="of torch; one more augments")
    parser.add_argument("--hold-back", type=int, choices=range(FOLDS), default=HELD_BACK)
    parser.add_argument(
        "--start",
        type=Path,
        required=True,
        help="checkpoint of steel, or of a finished stage",
    )
    parser.add_argument("--compile", action="store_true", help="needs a C++ compiler")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    schedule = Schedule(
        arguments.epochs, batch=12, peak_rate=arguments.peak_rate, warmup_steps=100,
        weight_decay=0.05, ema_decay=0.995, seed=arguments.seed,
    )  # fmt: skip
    run = Run(Segmenter, schedule)
    checkpoint = arguments.out / "checkpoint.pt"
    if checkpoint.exists():
        run.restore(checkpoint)
    else:
        run.start_from(arguments.start, partial(_taken_over, run.network))
    if arguments.compile:
        run.compile()
    tiles = load("train", arguments.data)
    held = tiles.folds == arguments.hold_back
    learnt = tiles.take(~held)
    print(f"{len(learnt)} frames, {schedule}, after epoch {run.epoch}", flush=True)

    def losses(batch: Batch) -> dict[str, Tensor]:
        planes, masks = (part.to(run.device) for part in batch)
        bad = masks.flatten(1).amax(1, keepdim=True).float()
        return segmentation_loss(run.forward(planes.float() / 255), masks.float(), bad)

    steps = len(learnt) // schedule.batch
    train(run, partial(batches, learnt, schedule), losses, steps, arguments.out)
    if held.any():
        back = tiles.take(held)
        for name, scores in zip(
            ("pixels", "frame", "both"), peaks(run.average, back).T, strict=True
        ):
            print(
                f"held back, {name}: frame AUROC {auroc(scores[back.bad], scores[~back.bad]):.4f}"
            )


if __name__ == "__main__":
    main()
