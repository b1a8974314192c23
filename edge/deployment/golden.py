"""Golden tensors of a model card: known inputs, what the outputs held, and how far they may differ.

On the provider and the kind of processor that made them the outputs come again bit for bit; on
others rounding differs. The card says how far each provider may lie from them, and a trial measures
it. Verdicts of whole frames are the golden frames of a deployment (`edge.deployment.rules`).

`[[golden]]` is written by `edge model golden`, never by hand but for its tolerances.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Self

import msgspec
from pydantic import Field, model_validator

from edge.deployment.schema import FilePath, Sha256, Strict
from edge.inference.trial import Distance, GoldenFile, GoldenInput, GoldenOutput

Number = Annotated[float, Field(allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]

SHARES: Final[dict[str, tuple[float, float]]] = {
    "cpu": (1e-3, 1e-4),
    "cuda": (1e-2, 1e-3),
    "tensorrt": (1e-2, 1e-3),
    "openvino": (1e-2, 1e-3),
}
"""Largest and mean difference that a new card allows, as shares of an output's largest value.
float32 in another order stays within 1e-5; TF32 and bfloat16, which accelerators use unasked, carry
10 and 8 bits."""
SHARES_INT8: Final = (0.2, 0.01)
"""Of quantised models: a value between two steps falls to either side, and each such step travels
on. Kernels differ in when they round, so single elements go far while the mean stays."""


class Tolerance(Strict):
    """How far an output may lie from what the card has."""

    max_abs: NotNegative = Field(description="Of any element.")
    mean_abs: NotNegative = Field(description="Of all elements on average.")


class ExpectedOutput(Strict):
    """What one output held."""

    name: str = Field(min_length=1, max_length=200)
    sha256: Sha256 = Field(description="Of all its bytes, C order, little endian.")
    sample: tuple[Number, ...] = Field(
        strict=False,
        min_length=1,
        max_length=64,
        description="Elements evenly spread from the first to the last, seven digits each.",
    )
    tolerance: dict[str, Tolerance] = Field(max_length=16, description="By provider.")


class InputFile(Strict):
    """A golden input that is a file beside the card."""

    name: str = Field(min_length=1, max_length=200)
    path: FilePath = Field(description="NumPy file (.npy) beside the card.")
    sha256: Sha256


class GoldenTensors(Strict):
    """One run of one variant whose outcome is known."""

    variant: str
    seed: int | None = Field(None, ge=0, description="Of the pattern that every input is.")
    inputs: tuple[InputFile, ...] = Field((), strict=False, max_length=16)
    provider: str = Field(min_length=1, max_length=64, description="That made the outputs.")
    runtime: str = Field(min_length=1, max_length=64, description="ONNX Runtime that made them.")
    machine: str = Field(min_length=1, max_length=200)
    outputs: tuple[ExpectedOutput, ...] = Field(strict=False, min_length=1, max_length=16)

    @model_validator(mode="after")
    def _one_kind_of_input(self) -> Self:
        if (self.seed is None) == (not self.inputs):
            raise ValueError("golden needs either seed or inputs")
        return self

    def request(self, folder: Path) -> GoldenInput:
        """What a trial is asked to run; files lie in the folder of the card."""
        files = tuple(
            GoldenFile(each.name, str(folder.absolute() / each.path), each.sha256)
            for each in self.inputs
        )
        return GoldenInput(self.seed or 0, files)


class Parity(msgspec.Struct, frozen=True):
    """How near one output came.

    Attributes:
        identical: Bit for bit.
        distance: From the card's sample.
        from_cpu: Of all elements from this box's CPU; None where that is what was tried.
        allowed: By the card, for this provider; None: it says nothing of it.
    """

    output: str
    identical: bool
    distance: Distance
    from_cpu: Distance | None
    allowed: Distance | None


def compare(
    golden: GoldenTensors, found: Sequence[GoldenOutput], provider: str
) -> tuple[list[Parity], list[str]]:
    """Compare a run with the card.

    Returns:
        Every output's parity, and what speaks against this provider.
    """
    parities, findings = [], []
    for expected, got in zip(golden.outputs, found, strict=True):
        tolerance = expected.tolerance.get(provider)
        allowed = Distance(tolerance.max_abs, tolerance.mean_abs) if tolerance else None
        parity = Parity(
            expected.name,
            expected.sha256 == got.sha256,
            _apart(expected.sample, got.sample),
            got.from_cpu,
            allowed,
        )
        parities.append(parity)
        findings += _finding(parity, golden, provider)
    return parities, findings


def _apart(one: Sequence[float], other: Sequence[float]) -> Distance:
    apart = [abs(a - b) for a, b in zip(one, other, strict=False)]
    if len(one) != len(other):
        return Distance(-1.0, -1.0)
    return Distance(max(apart), sum(apart) / len(apart))


def _finding(parity: Parity, golden: GoldenTensors, provider: str) -> list[str]:
    if parity.identical:
        return []
    said = f"golden output {parity.output}: differs from the card by {_shown(parity.distance)}"
    if parity.from_cpu is not None:
        said += f", from this box's CPU by {_shown(parity.from_cpu)}"
    if parity.allowed is None:
        return [f"{said}; the card has no tolerance for {provider} (golden.outputs.tolerance)"]
    for distance in (parity.distance, *((parity.from_cpu,) if parity.from_cpu else ())):
        if not (
            0 <= distance.max_abs <= parity.allowed.max_abs
            and distance.mean_abs <= parity.allowed.mean_abs
        ):
            return [
                f"{said}; allowed on {provider} is {_shown(parity.allowed)} (made with "
                f"{golden.provider}, ONNX Runtime {golden.runtime}, {golden.machine})"
            ]
    return []


def _shown(distance: Distance) -> str:
    if distance.max_abs < 0:
        return "more than any number"
    return f"{distance.max_abs:.3g} at most, {distance.mean_abs:.3g} on average"


def tables(
    variant: str,
    seed: int,
    outputs: Sequence[GoldenOutput],
    made: tuple[str, str, str],
    *,
    quantised: bool,
) -> str:
    """The TOML of one `[[golden]]`.

    Args:
        variant: Which file of the model.
        seed: Of the pattern.
        outputs: What the run gave.
        made: Provider, version of ONNX Runtime, machine.
        quantised: Whether the file computes in integers.
    """
    provider, runtime, machine = made
    text = (
        f'\n[[golden]]\nvariant = "{variant}"\nseed = {seed}\nprovider = "{provider}"\n'
        f"runtime = {json.dumps(runtime)}\nmachine = {json.dumps(machine)}\n"
    )
    for each in outputs:
        shares = {name: SHARES_INT8 if quantised else own for name, own in SHARES.items()}
        tolerance = ", ".join(
            f"{name} = {{ max_abs = {_float(most * each.largest)}, "
            f"mean_abs = {_float(mean * each.largest)} }}"
            for name, (most, mean) in shares.items()
        )
        sample = ", ".join(_float(number) for number in each.sample)
        text += (
            f'\n[[golden.outputs]]\nname = {json.dumps(each.name)}\nsha256 = "{each.sha256}"\n'
            f"sample = [{sample}]\ntolerance = {{ {tolerance} }}\n"
        )
    return text


def _float(number: float) -> str:
    text = f"{number:.7g}"
    return text if {".", "e"} & set(text) else f"{text}.0"
