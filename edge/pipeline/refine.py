"""The second model of a cascade: it looks at crops of what the first one found, batch by batch.

Each finding is cut out of the frame, and out of its reference, into the memory of a guest that
makes one row of a batch of it; ONNX Runtime reads and writes whole batches in guest memory; a
second guest reads each row's answer. Every size is bound when the pipeline is built, and the time
left is looked at before each crop: a frame is refined whole, or it fails.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from edge.contracts.plan import PipelinePlan, RefinePlan, ScoreOf
from edge.errors import DecodeError, FrameError, IncompatibleError
from edge.inference.model import OnnxModel
from edge.pipeline.crops import Window, window
from edge.pipeline.finders import Defects, Slot
from edge.wasm.roles import Postprocessor, Preprocessor, Transform

_DROPPED: Final = -1
"""In the place of a label: the classes of the second model that remove a finding."""

Answer = tuple[int, float] | None
"""Label and score, as the second model has them; None: it named nothing."""


class Refined(NamedTuple):
    """What became of a frame's findings.

    Attributes:
        found: As `Finder.find` gives them, with labels of `PipelinePlan.classes`.
        crops: How many the second model looked at.
        beyond: How many were more than `max_crops`, and keep the first model's word.
    """

    found: Defects
    crops: int
    beyond: int


class Merge:
    """How the two models' words on a finding become one."""

    def __init__(self, classes: tuple[str, ...], refine: RefinePlan) -> None:
        self._score = refine.score
        self._min_score = np.float32(refine.min_score)
        self._keeps_unnamed = not refine.drop_unnamed
        self._labels = tuple(
            _DROPPED if name in refine.drop else classes.index(name)
            for name in refine.model.classes
        )

    def __call__(self, found: Defects, answers: Sequence[Answer]) -> Defects:
        """Return findings as the policy sees them, strongest first; equal ones in their old order.

        Args:
            found: Of the first model, strongest first.
            answers: On the first so many of them.
        """
        merged = found.copy()
        kept = np.ones(len(found), np.bool_)
        for index, answer in enumerate(answers):
            if answer is None:
                kept[index] = self._keeps_unnamed
                continue
            label, score = self._labels[answer[0]], answer[1]
            kept[index] = label != _DROPPED
            merged["label"][index] = label
            if self._score is ScoreOf.CLASSIFIER:
                merged["score"][index] = score
            elif self._score is ScoreOf.PRODUCT:
                merged["score"][index] *= np.float32(score)
        merged = merged[kept & (merged["score"] >= self._min_score)]
        return merged[np.argsort(-merged["score"], kind="stable")]


class Refiner:
    """The second model, standing: two guests, and every batch size bound to their memory.

    Args:
        plan: Of the pipeline.
        refine: Its second model.
        preprocess: With one frame slot, one reference slot where the pipeline has references, and
            the model's inputs as rows.
        postprocess: With the model's outputs as rows.
        model: The second model.
    """

    def __init__(
        self,
        plan: PipelinePlan,
        refine: RefinePlan,
        preprocess: Preprocessor,
        postprocess: Postprocessor,
        model: OnnxModel,
    ) -> None:
        assert preprocess.rows is not None
        assert postprocess.rows is not None
        self._image, self._refine = plan.image, refine
        self._preprocess, self._postprocess = preprocess, postprocess
        self._inputs, self._outputs = preprocess.rows, postprocess.rows
        self._slots = (*preprocess.frame_slots, *preprocess.reference_slots)
        self._merge = Merge(plan.classes, refine)
        self._runs = {
            size: model.bind(
                [batch[:size] for batch in preprocess.inputs],
                [batch[:size] for batch in postprocess.outputs],
                rows=size if model.any_batch else None,
            ).run
            for size in batch_sizes(refine.batch, any_batch=model.any_batch)
        }

    def warm(self) -> None:
        """Take an empty crop through every batch size: a probe frame may have no findings.

        Raises:
            IncompatibleError: A guest or the model fails on it.
        """
        side = self._refine.crop.min_side_px
        width, height = min(side, self._image.max_width), min(side, self._image.max_height)
        for slot in self._slots:
            slot.pixels[:] = 0
            slot.set_size(width, height)
        try:
            transform = self._fill(0)
            for run in self._runs.values():
                run()
            self._answer(0, transform, width, height)
        except FrameError as failed:
            raise IncompatibleError(f"refine, on an empty crop: {failed}") from failed

    def run(
        self,
        found: Defects,
        frame: Slot,
        reference: Slot | None,
        lap: Callable[[str], None],
        in_time: Callable[[str], None],
    ) -> Refined:
        """Look at the strongest findings of a frame.

        Args:
            found: Strongest first, boxes inside the frame.
            frame: The slot that they were found in.
            reference: That of its reference.
            lap: Told the name of each stage when it is done, once for each batch.
            in_time: Told before each crop how far it has come; raises what ends the frame.

        Raises:
            FrameError: A guest or the model failed, the reference is not of the frame's size, or
                the time is over.
        """
        crops = [
            window((x0, y0, x1, y1), self._refine.crop, frame.width, frame.height)
            for x0, y0, x1, y1, *_ in found[: self._refine.max_crops].tolist()
        ]
        images = self._images(frame, reference) if crops else []
        answers: list[Answer] = []
        for rows, size in batches(len(crops), tuple(self._runs)):
            batch = crops[len(answers) : len(answers) + rows]
            transforms: list[Transform] = []
            for row, crop in enumerate(batch):
                in_time(f"after {len(answers) + row} of {len(crops)} crops")
                self._cut(images, crop)
                transforms.append(self._fill(row))
            self._inputs.clear(rows, size)
            lap("refine_preprocess")
            self._runs[size]()
            lap("refine_infer")
            answers += [
                self._answer(row, transform, crop.width, crop.height)
                for row, (transform, crop) in enumerate(zip(transforms, batch, strict=True))
            ]
            lap("refine_postprocess")
        return Refined(self._merge(found, answers), len(crops), len(found) - len(crops))

    def _images(self, frame: Slot, reference: Slot | None) -> list[npt.NDArray[np.uint8]]:
        """The pixels that crops are cut from, as rows of bytes, one array for each slot."""
        slots = [frame] if reference is None else [frame, reference]
        if reference is not None and (frame.width, frame.height) != (
            reference.width,
            reference.height,
        ):
            raise DecodeError(
                f"the reference is {reference.width}x{reference.height}, the frame "
                f"{frame.width}x{frame.height}: crops of both need one size"
            )
        channels = self._image.pixel_format.channels
        return [
            slot.pixels[: slot.height * slot.width * channels].reshape(slot.height, -1)
            for slot in slots
        ]

    def _cut(self, images: list[npt.NDArray[np.uint8]], crop: Window) -> None:
        """Copy a window of each image into the guest's slots."""
        channels = self._image.pixel_format.channels
        rows = slice(crop.top, crop.top + crop.height)
        columns = slice(crop.left * channels, (crop.left + crop.width) * channels)
        size = crop.height * crop.width * channels
        for image, slot in zip(images, self._slots, strict=True):
            slot.pixels[:size].reshape(crop.height, -1)[...] = image[rows, columns]
            slot.set_size(crop.width, crop.height)

    def _fill(self, row: int) -> Transform:
        """Make a row of the batch from what lies in the slots."""
        self._inputs.turn_to(row)
        transform = self._preprocess.run(self._slots[0], next(iter(self._slots[1:]), None))
        self._inputs.fetch(row)
        return transform

    def _answer(self, row: int, transform: Transform, width: int, height: int) -> Answer:
        """What the second model says of one crop: the strongest finding in it."""
        self._outputs.turn_to(row)
        self._outputs.bring(row)
        count = self._postprocess.run(transform, width, height)
        for *_, score, label in self._postprocess.defects(count)[:1].tolist():
            return label, score
        return None


def batch_sizes(most: int, *, any_batch: bool) -> tuple[int, ...]:
    """Return the batch sizes that are bound, the largest first.

    A model that takes any number is bound to the powers of two below its batch, too, so that no row
    is computed for nothing.
    """
    if not any_batch:
        return (most,)
    powers = (1 << exponent for exponent in reversed(range(most.bit_length())))
    return (most, *(power for power in powers if power < most))


def batches(count: int, sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield (crops, batch size) until all crops are in a batch; only the last may have room left.

    Args:
        count: Crops.
        sizes: As `batch_sizes` gives them.
    """
    while count > 0:
        size = next((size for size in sizes if size <= count), sizes[-1])
        yield min(count, size), size
        count -= size
