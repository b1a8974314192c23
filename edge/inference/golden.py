"""Golden tensors: known inputs run through a model, and what its outputs held.

Runs in the process of a trial. The judgement against a card is its asker's: here are only facts.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from edge.contracts.plan import TensorSpec
from edge.errors import IncompatibleError, UntrustedError
from edge.inference.model import Bound, OnnxModel
from edge.inference.pattern import pattern
from edge.inference.trial import Distance, GoldenFile, GoldenInput, GoldenOutput, Request

Array = npt.NDArray[Any]

SAMPLE: Final = 64
"""Elements of an output that a card keeps: some hundred bytes, and a wrong scale shows in each."""
_HEADER_BYTES: Final = 4_096
"""More than the head of a NumPy file takes."""


@dataclass(frozen=True, slots=True)
class _Run:
    """A model bound to memory."""

    bound: Bound
    inputs: Sequence[Array]
    outputs: Sequence[Array]

    def answer(self, given: Sequence[Array]) -> list[Array]:
        for array, values in zip(self.inputs, given, strict=True):
            np.copyto(array, values)
        self.bound.run()
        return [array.copy() for array in self.outputs]


def golden_outputs(
    request: Request, bound: Bound, inputs: Sequence[Array], outputs: Sequence[Array]
) -> tuple[tuple[GoldenOutput, ...], ...]:
    """Run each golden input, on another provider than the CPU beside the CPU of this box.

    Args:
        request: What is asked.
        bound: The model on the provider that is tried, tied to the arrays.
        inputs: Overwritten.
        outputs: Overwritten.

    Raises:
        EdgeError: A file of a golden input is not as pinned, or the model fails.
    """
    if not request.golden:
        return ()
    tried = _Run(bound, inputs, outputs)
    processor = None if request.plan.provider == "cpu" else _on_processor(request)
    found = []
    for each in request.golden:
        given = _given(each, request.plan.inputs)
        answers = tried.answer(given)
        beside: list[Array] | list[None] = [None] * len(answers)
        if processor is not None:
            beside = processor.answer(given)
        found.append(
            tuple(
                _facts(spec.name, answer, other)
                for spec, answer, other in zip(request.plan.outputs, answers, beside, strict=True)
            )
        )
    return tuple(found)


def _on_processor(request: Request) -> _Run:
    plan = msgspec.structs.replace(
        request.plan, provider="cpu", plugin=None, options={}, engines="", require=True
    )
    inputs = [np.zeros(spec.shape, spec.dtype) for spec in plan.inputs]
    outputs = [np.zeros(spec.shape, spec.dtype) for spec in plan.outputs]
    return _Run(OnnxModel.load(plan).bind(inputs, outputs), inputs, outputs)


def _given(golden: GoldenInput, specs: Sequence[TensorSpec]) -> list[Array]:
    if not golden.files:
        return [pattern(spec, golden.seed) for spec in specs]
    files = {file.name: file for file in golden.files}
    missing = [spec.name for spec in specs if spec.name not in files]
    if missing:
        raise IncompatibleError(f"golden: has no file for input {missing[0]}")
    return [_read(files[spec.name], spec) for spec in specs]


def _read(file: GoldenFile, spec: TensorSpec) -> Array:
    try:
        most = np.dtype(spec.dtype).itemsize * int(np.prod(spec.shape)) + _HEADER_BYTES
        with Path(file.path).open("rb") as source:
            content = source.read(most + 1)
    except OSError as failed:
        raise IncompatibleError(f"{file.path}: cannot be read: {failed.strerror}") from failed
    if (found := hashlib.sha256(content).hexdigest()) != file.sha256:
        raise UntrustedError(
            f"{file.path}: is not the golden input of the card: expected sha256 {file.sha256}, "
            f"found {found} in its first {len(content)} bytes"
        )
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError) as broken:
        raise IncompatibleError(f"{file.path}: is no NumPy array: {broken}") from broken
    if array.dtype.name != spec.dtype or array.shape != spec.shape:
        raise IncompatibleError(
            f"{file.path}: is {array.dtype.name}{list(array.shape)}, the card has input "
            f"{spec.name}: {spec.dtype}{list(spec.shape)}"
        )
    return np.asarray(array)


def _facts(name: str, answer: Array, beside: Array | None) -> GoldenOutput:
    flat = answer.reshape(-1)
    count = min(SAMPLE, flat.size)
    positions = np.arange(count, dtype=np.int64) * (flat.size - 1) // max(1, count - 1)
    return GoldenOutput(
        name,
        hashlib.sha256(answer.tobytes()).hexdigest(),
        tuple(_number(value) for value in flat[positions]),
        _number(np.abs(flat.astype(np.float64)).max(initial=0)),
        None if beside is None else _distance(flat, beside.reshape(-1)),
    )


def _distance(one: Array, other: Array) -> Distance:
    apart = np.abs(one.astype(np.float64) - other.astype(np.float64))
    if not np.isfinite(apart).all():
        return Distance(-1.0, -1.0)
    return Distance(float(apart.max(initial=0)), float(apart.mean()))


def _number(value: Any) -> float:
    """A number that JSON and TOML have: seven digits of it, and 0 for what is no number.

    Outputs that hold such are a finding by themselves (`Report.not_finite`), and the digest tells
    them apart.
    """
    number = float(value)
    return float(f"{number:.7g}") if np.isfinite(number) else 0.0
