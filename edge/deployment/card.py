"""The model card `model.toml`: what a model takes and gives, how good it is, and its files.

The deployment engine relies on `[model]`, `[[inputs]]`, `[[outputs]]` and the variants' digests;
the rest is for people and for the page.
"""

import math
from pathlib import PurePosixPath
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from edge.contracts.abi import MAX_RANK
from edge.deployment.golden import GoldenTensors
from edge.deployment.schema import FilePath, Name, Sha256, Strict

ITEM_BYTES: Final = {"float32": 4, "uint8": 1, "int8": 1, "int32": 4, "int64": 8, "float16": 2}
MAX_TENSOR_BYTES: Final = 256 << 20
"""A float32 batch of one at 4096x4096 with four channels: beyond it nothing fits the budget."""

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Millis = Annotated[float, Field(gt=0, le=60_000, allow_inf_nan=False)]
Interval = Annotated[tuple[Share, Share], Field(strict=False, description="Low and high end.")]
Text = Annotated[str, Field(min_length=1, max_length=2_000)]
Dimension = Annotated[int, Field(ge=1, le=1 << 31)]


class Variant(Strict):
    """One file of the model: the same inputs and outputs, another arithmetic."""

    name: Name = Field(description="Such as fp32 or int8.")
    file: FilePath = Field(description="ONNX file in the folder of the card.")
    sha256: Sha256
    parameters: int = Field(ge=0, description="Number of weights.")

    @model_validator(mode="after")
    def _beside_the_card(self) -> Self:
        if len(PurePosixPath(self.file).parts) != 1:
            raise ValueError(f"file {self.file!r} must lie in the folder of the card")
        return self


class ModelSection(Strict):
    """Who the model is."""

    name: Name
    version: str = Field(min_length=1, max_length=64)
    task: Literal["detection", "classification", "anomaly"]
    summary: Text
    licence: Text
    data: Text = Field(description="What it was trained on, and under which licence.")
    classes: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = Field(
        strict=False, min_length=1, max_length=1_000, description="Labels, in the model's order."
    )
    variants: tuple[Variant, ...] = Field(strict=False, min_length=1, max_length=16)


class Tensor(Strict):
    """A model input or output; shapes are static."""

    name: str = Field(min_length=1, max_length=200)
    dtype: Literal["float32", "uint8", "int8", "int32", "int64", "float16"]
    shape: tuple[Dimension, ...] = Field(strict=False, min_length=1, max_length=MAX_RANK)
    meaning: Text

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if math.prod(self.shape) * ITEM_BYTES[self.dtype] > MAX_TENSOR_BYTES:
            raise ValueError(f"shape {list(self.shape)} is larger than {MAX_TENSOR_BYTES} bytes")
        return self


class Input(Tensor):
    """A model input."""

    layout: str = Field(min_length=1, max_length=32, description="Axes by letter, such as NCHW.")


class Preprocessing(Strict):
    """What a frame becomes before the model sees it."""

    guest: Text = Field(description="The reference guest that does it.")
    description: Text


class Thresholds(Strict):
    """Where the model's scores were cut."""

    score: Share
    iou: Share | None = Field(None, description="Of suppression; detectors alone have one.")
    chosen_on: Text = Field(description="The data that they were chosen on; never the test data.")


class Accuracy(Strict):
    """Average precision of a variant on a dataset."""

    variant: Name
    dataset: Text
    iou: Share = Field(description="Overlap from which a finding counts.")
    map: Share = Field(description="Mean average precision.")
    f: Share = Field(description="F score at the thresholds.")
    per_class: dict[str, Share] = Field(description="Average precision of each class.")


class Figure(Strict):
    """One measured number that is no average precision."""

    variant: Name
    dataset: Text
    name: str = Field(min_length=1, max_length=64, description="Such as accuracy or frame-auroc.")
    value: float = Field(ge=-1, le=1, allow_inf_nan=False)
    interval: Interval | None = Field(None, description="95 %, where it is a share of counts.")


class Verdicts(Strict):
    """How often whole parts are judged wrongly."""

    variant: Name
    parts: Text = Field(description="How many parts were judged, and of what kind.")
    escape: Share = Field(description="Defective parts passed, of all defective ones.")
    escape_interval: Interval
    overkill: Share = Field(description="Good parts rejected, of all good ones.")
    overkill_interval: Interval
    threshold: Share = Field(description="Score from which a finding rejects the part.")


class Latency(Strict):
    """How long one inference took, and where."""

    variant: Name
    provider: str = Field(min_length=1, max_length=64)
    threads: int = Field(ge=1, le=1_024)
    p50_ms: Millis
    machine: Text


class Card(Strict):
    """A whole model card."""

    model: ModelSection
    inputs: tuple[Input, ...] = Field(strict=False, min_length=1, max_length=16)
    outputs: tuple[Tensor, ...] = Field(strict=False, min_length=1, max_length=16)
    preprocessing: Preprocessing
    thresholds: Thresholds
    accuracy: tuple[Accuracy, ...] = Field((), strict=False)
    figures: tuple[Figure, ...] = Field((), strict=False)
    verdicts: tuple[Verdicts, ...] = Field((), strict=False)
    latency: tuple[Latency, ...] = Field((), strict=False)
    golden: tuple[GoldenTensors, ...] = Field((), strict=False, max_length=64)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        variants = [variant.name for variant in self.model.variants]
        _unique("model.variants", variants)
        _unique("model.classes", self.model.classes)
        _unique("inputs", [tensor.name for tensor in self.inputs])
        _unique("outputs", [tensor.name for tensor in self.outputs])
        for table in ("accuracy", "figures", "verdicts", "latency", "golden"):
            rows: tuple[Accuracy | Figure | Verdicts | Latency | GoldenTensors, ...] = getattr(
                self, table
            )
            for row in rows:
                if row.variant not in variants:
                    raise ValueError(
                        f"{table} speaks of variant {row.variant!r}; "
                        f"model.variants has {', '.join(variants)}"
                    )
        for row in self.accuracy:
            if unknown := sorted(set(row.per_class) - set(self.model.classes)):
                raise ValueError(f"accuracy.per_class: {unknown[0]!r} is not in model.classes")
        outputs = [tensor.name for tensor in self.outputs]
        for golden in self.golden:
            if [each.name for each in golden.outputs] != outputs:
                raise ValueError(f"golden.outputs must be those of the card: {', '.join(outputs)}")
        return self

    def variant(self, name: str) -> Variant | None:
        """Return the variant of that name, or None."""
        return next((each for each in self.model.variants if each.name == name), None)


def _unique(where: str, names: list[str] | tuple[str, ...]) -> None:
    for position, name in enumerate(names):
        if name in names[:position]:
            raise ValueError(f"{where}: {name!r} appears twice")
