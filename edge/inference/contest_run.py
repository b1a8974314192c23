"""The measuring side of a contest; runs in the process of a trial."""

import time
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from edge.inference.contest import Contest, Standing, Standings
from edge.inference.model import Bound, OnnxModel
from edge.inference.pattern import random_inputs

WARM_RUNS = 3
_TIMED = 2
"""Runs of one entry in a row, of which the last counts: the first brings its weights back."""


def run_contest(request: Contest) -> Standings:
    """Load all entries, then run them in turn.

    Raises:
        EdgeError: One of them is refused or fails.
    """
    loaded: list[tuple[OnnxModel, Bound, float]] = []
    for entry in request.entries:
        began = time.perf_counter()
        model = OnnxModel.load(entry.plan)
        load_ms = (time.perf_counter() - began) * 1e3
        inputs = random_inputs(entry.plan.inputs, np.random.default_rng(request.seed))
        outputs = [np.zeros(spec.shape, spec.dtype) for spec in entry.plan.outputs]
        bound = model.bind(inputs, outputs)
        for _ in range(WARM_RUNS):
            bound.run()
        loaded.append((model, bound, load_ms))
    times = np.empty((request.rounds, len(loaded)))
    for row in range(request.rounds):
        for column, (_, bound, _) in enumerate(loaded):
            times[row, column] = _one(bound)
    ratios = np.median(times / times[:, :1], axis=0)
    return Standings(
        request.rounds,
        ort.__version__,
        tuple(
            _standing(
                entry.name, entry.plan.threads, model, load_ms, times[:, column], ratios[column]
            )
            for column, (entry, (model, _, load_ms)) in enumerate(
                zip(request.entries, loaded, strict=True)
            )
        ),
    )


def _one(bound: Bound) -> float:
    elapsed = 0.0
    for _ in range(_TIMED):
        began = time.perf_counter()
        bound.run()
        elapsed = time.perf_counter() - began
    return elapsed * 1e3


def _standing(
    name: str,
    threads: int,
    model: OnnxModel,
    load_ms: float,
    times: npt.NDArray[np.float64],
    ratio: Any,
) -> Standing:
    p50, p99 = np.quantile(times, (0.5, 0.99))
    return Standing(
        name,
        model.provider,
        model.placement,
        threads,
        round(load_ms, 1),
        round(float(p50), 3),
        round(float(p99), 3),
        round(float(ratio), 3),
    )
