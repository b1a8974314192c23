"""Trains the detector on the official training pairs, from nothing, on a CPU.

`python -m models.pcb.recipe.train --data ../shared/data --out models/pcb/.train`

Rules: the schedule is fixed before the first step; no test image is opened; the weights are the
exponential moving average at the end of the last epoch, whatever the figures in between. Each
sample draws its chance from (seed, epoch, position), so that a run which is stopped and started
again sees the same samples. A checkpoint replaces the last one after every epoch.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch

from models.pcb.recipe.augment import augment
from models.pcb.recipe.data import deeppcb_folder, load_training
from models.pcb.recipe.network import Detector, detection_loss
from models.pcb.recipe.targets import GRID, assign, cell_centres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from models.pcb.recipe.data import PairSet

PREFETCHED_BATCHES = 4
BOX_LOSS_WEIGHT = 2.0


@dataclass(frozen=True)
class Schedule:
    """Everything that decides what the weights become; stored with each checkpoint."""

    epochs: int
    batch: int = 8
    peak_rate: float = 3e-3
    warmup_steps: int = 200
    weight_decay: float = 0.02
    ema_decay: float = 0.997
    seed: int = 0

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of step 0..steps-1: linear warm-up, then a cosine to 1 % of the peak."""
        cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
        return self.peak_rate * min(1.0, (step + 1) / self.warmup_steps) * (0.99 * cosine + 0.01)


@dataclass(frozen=True)
class Batch:
    """Augmented pairs and what each answering cell should say; see `detection_loss`."""

    images: torch.Tensor
    cells: torch.Tensor
    boxes: torch.Tensor
    group: torch.Tensor


class Run:
    """Network, its moving average and the optimiser: the state that a checkpoint holds."""

    def __init__(self, schedule: Schedule) -> None:
        torch.manual_seed(schedule.seed)
        self.schedule = schedule
        self.network = Detector().to(memory_format=torch.channels_last)
        self.average = Detector().to(memory_format=torch.channels_last)
        self.average.load_state_dict(self.network.state_dict())
        matrices = [p for p in self.network.parameters() if p.ndim > 1]
        vectors = [p for p in self.network.parameters() if p.ndim == 1]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": schedule.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=schedule.peak_rate,
            betas=(0.9, 0.98),
        )
        self.step = 0
        self.epoch = 0
        self.forward: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]] = self.network

    def compile(self) -> None:
        """Fuses the layers with torch.compile: 0.75 of the time here; needs a C++ compiler."""
        self.forward = torch.compile(self.network)

    def learn(self, batch: Batch, rate: float) -> tuple[float, float]:
        """One optimiser step; returns classification and box loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        x = batch.images.contiguous(memory_format=torch.channels_last).float().div_(255)
        class_loss, box_loss = detection_loss(
            self.forward(x), batch.cells, batch.boxes, batch.group
        )
        self.optimizer.zero_grad()
        (class_loss + BOX_LOSS_WEIGHT * box_loss).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self.step += 1
        self._follow()
        return class_loss.item(), box_loss.item()

    @torch.no_grad()
    def _follow(self) -> None:
        """Moves the average; its memory grows with the run, so that early weights fade."""
        decay = min(self.schedule.ema_decay, (1 + self.step) / (10 + self.step))
        slow, fast = self.average.state_dict(), self.network.state_dict()
        for name, value in fast.items():
            if value.dtype.is_floating_point:
                slow[name].lerp_(value, 1 - decay)
            else:
                slow[name].copy_(value)

    def save(self, path: Path) -> None:
        """Writes aside, flushes, then replaces: a reader never sees half a checkpoint."""
        aside = path.with_suffix(".part")
        with aside.open("wb") as file:
            torch.save(
                {
                    "schedule": asdict(self.schedule),
                    "network": self.network.state_dict(),
                    "average": self.average.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "step": self.step,
                    "epoch": self.epoch,
                },
                file,
            )
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)

    @classmethod
    def resume(cls, path: Path) -> Run:
        """The run as it stood at the end of its last whole epoch."""
        state: dict[str, Any] = torch.load(path, weights_only=True)
        run = cls(Schedule(**state["schedule"]))
        run.network.load_state_dict(state["network"])
        run.average.load_state_dict(state["average"])
        run.optimizer.load_state_dict(state["optimizer"])
        run.step, run.epoch = state["step"], state["epoch"]
        return run


def batches(pairs: PairSet, schedule: Schedule, epoch: int, workers: int) -> Iterator[Batch]:
    """All pairs once, in the epoch's own order; prepared a few batches ahead on threads."""
    order = np.random.default_rng([schedule.seed, epoch]).permutation(len(pairs))
    with ThreadPoolExecutor(workers, thread_name_prefix="augment") as threads:
        ahead: deque[Future[Batch]] = deque()
        for start in range(0, len(order) - schedule.batch + 1, schedule.batch):
            chosen = order[start : start + schedule.batch]
            ahead.append(threads.submit(_batch, pairs, chosen, (schedule.seed, epoch, start)))
            if len(ahead) > PREFETCHED_BATCHES:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _batch(pairs: PairSet, chosen: NDArray[np.int64], seed: tuple[int, int, int]) -> Batch:
    rng = np.random.default_rng(seed)
    centres = cell_centres()
    images, cells, boxes, group = [], [], [], []
    defects = 0
    for place, index in enumerate(chosen):

        def donor() -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
            other = int(rng.integers(len(pairs)))
            return pairs.images[other], pairs.boxes[other]

        image, truth = augment((pairs.images[index], pairs.boxes[index]), donor, rng)
        owner = assign(truth, centres)
        answering = np.flatnonzero(owner >= 0)
        images.append(image)
        cells.append(answering + place * GRID * GRID)
        boxes.append(truth[owner[answering]])
        group.append(owner[answering] + defects)
        defects += len(truth)
    # A group number may exceed the number of cells; numbered afresh it indexes an array of them.
    _, dense = np.unique(np.concatenate(group), return_inverse=True)
    return Batch(
        torch.from_numpy(np.stack(images)),
        torch.from_numpy(np.concatenate(cells)),
        torch.from_numpy(np.concatenate(boxes)),
        torch.from_numpy(dense),
    )


def train(run: Run, pairs: PairSet, out: Path, workers: int) -> None:
    """Runs the rest of the schedule; `out` receives checkpoint.pt and log.jsonl."""
    schedule = run.schedule
    steps_per_epoch = len(pairs) // schedule.batch
    steps = steps_per_epoch * schedule.epochs
    while run.epoch < schedule.epochs:
        started = time.monotonic()
        losses = []
        for batch in batches(pairs, schedule, run.epoch, workers):
            losses.append(run.learn(batch, schedule.rate(run.step, steps)))
            if run.step % 25 == 0:
                class_loss, box_loss = np.mean(losses[-25:], axis=0)
                print(
                    f"epoch {run.epoch + 1}/{schedule.epochs} step {run.step}/{steps} "
                    f"class {class_loss:.3f} box {box_loss:.3f} "
                    f"{(time.monotonic() - started) / len(losses):.2f} s/step",
                    flush=True,
                )
        run.epoch += 1
        run.save(out / "checkpoint.pt")
        class_loss, box_loss = np.mean(losses, axis=0)
        line = {
            "epoch": run.epoch,
            "class_loss": round(float(class_loss), 4),
            "box_loss": round(float(box_loss), 4),
            "seconds": round(time.monotonic() - started, 1),
        }
        with (out / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        print(f"epoch {run.epoch} done: {line}", flush=True)


def main() -> None:
    """Trains, or goes on with the run whose checkpoint lies in the output folder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--data", help="folder that holds deeppcb/; default EDGE_DATA")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoint and log")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="of torch; one more augments")
    parser.add_argument("--compile", action="store_true", help="needs a C++ compiler")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    checkpoint = arguments.out / "checkpoint.pt"
    if checkpoint.exists():
        run = Run.resume(checkpoint)
        print(f"going on after epoch {run.epoch} of {run.schedule}", flush=True)
    else:
        run = Run(Schedule(epochs=arguments.epochs, seed=arguments.seed))
        weights = sum(p.numel() for p in run.network.parameters())
        print(f"{weights} parameters, {run.schedule}", flush=True)
    if arguments.compile:
        run.compile()
    pairs = load_training(deeppcb_folder(arguments.data))
    print(f"{len(pairs)} training pairs", flush=True)
    train(run, pairs, arguments.out, workers=1)


if __name__ == "__main__":
    main()
