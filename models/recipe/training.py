"""A training run: schedule, moving average, checkpoints; the same for every model.

Rules: the schedule is fixed before the first step; the weights are the exponential moving average
at the end of the last epoch, whatever the figures in between. A checkpoint replaces the last one
after every epoch, and a run that is started again goes on from it, with the samples it would have
seen.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from torch import Tensor, nn

PREFETCHED_BATCHES = 4
PRINTED_STEPS = 25


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


N = TypeVar("N", bound="nn.Module")
B = TypeVar("B")


class Run(Generic[N]):
    """Network, its moving average and the optimiser: the state that a checkpoint holds.

    Args:
        make: makes the network, untrained.
        schedule: of the run.
        device: where it runs; `cuda` where there is one, else `cpu`.
    """

    def __init__(
        self, make: Callable[[], N], schedule: Schedule, device: str | None = None
    ) -> None:
        torch.manual_seed(schedule.seed)
        self.schedule = schedule
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        place = {"device": self.device, "memory_format": torch.channels_last}
        self.network = make().to(**place)  # type: ignore[call-overload]
        self.average = make().to(**place)  # type: ignore[call-overload]
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
        self.forward: Callable[[Tensor], Any] = self.network

    def compile(self) -> None:
        """Fuses the layers with torch.compile: 0.75 of the time here; needs a C++ compiler."""
        self.forward = torch.compile(self.network)

    def learn(self, loss: Tensor, rate: float) -> None:
        """One optimiser step down this loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self.step += 1
        self._follow()

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

    def restore(self, path: Path) -> None:
        """Goes on as the run stood at the end of its last whole epoch.

        Raises:
            ValueError: the checkpoint is of another schedule.
        """
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location=self.device)
        if state["schedule"] != asdict(self.schedule):
            raise ValueError(
                f"{path} is of {state['schedule']}, asked for is {asdict(self.schedule)}: "
                "give another --out, or the same options as then"
            )
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.epoch = state["step"], state["epoch"]

    def start_from(self, path: Path, renamed: Callable[[dict[str, Tensor]], Any] = dict) -> None:
        """Begins with the averaged weights of a finished run; `renamed` may adapt them first."""
        state = renamed(torch.load(path, weights_only=True, map_location=self.device)["average"])
        self.network.load_state_dict(state)
        self.average.load_state_dict(state)


def prefetched(makers: Iterable[Callable[[], B]], threads: int) -> Iterator[B]:
    """What the makers give, in order, made a few ahead on threads."""
    with ThreadPoolExecutor(threads, thread_name_prefix="augment") as pool:
        ahead: deque[Future[B]] = deque()
        for make in makers:
            ahead.append(pool.submit(make))
            if len(ahead) > PREFETCHED_BATCHES:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def train(
    run: Run[Any],
    batches: Callable[[int], Iterator[B]],
    losses: Callable[[B], dict[str, Tensor]],
    steps_per_epoch: int,
    out: Path,
) -> None:
    """Runs the rest of the schedule; `out` receives checkpoint.pt and log.jsonl.

    Args:
        run: new or restored.
        batches: the batches of an epoch, `steps_per_epoch` of them.
        losses: of a batch, by name; their sum is minimised.
        steps_per_epoch: of every epoch.
        out: an existing folder.
    """
    schedule = run.schedule
    steps = steps_per_epoch * schedule.epochs
    while run.epoch < schedule.epochs:
        started = time.monotonic()
        seen: list[dict[str, float]] = []
        run.network.train()
        for batch in batches(run.epoch):
            parts = losses(batch)
            run.learn(sum(parts.values()), schedule.rate(run.step, steps))  # type: ignore[arg-type]
            seen.append({name: value.item() for name, value in parts.items()})
            if run.step % PRINTED_STEPS == 0:
                said = " ".join(f"{k} {v:.3f}" for k, v in _means(seen[-PRINTED_STEPS:]).items())
                pace = (time.monotonic() - started) / len(seen)
                print(
                    f"epoch {run.epoch + 1}/{schedule.epochs} step {run.step}/{steps} {said} "
                    f"{pace:.2f} s/step",
                    flush=True,
                )
        run.epoch += 1
        run.save(out / "checkpoint.pt")
        line = {
            "epoch": run.epoch,
            **{f"{name}_loss": round(value, 4) for name, value in _means(seen).items()},
            "seconds": round(time.monotonic() - started, 1),
        }
        with (out / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        print(f"epoch {run.epoch} done: {line}", flush=True)


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
