"""From pixels to findings, in one of two ways: guests around the model, or a program that calls it.

Guests share memory with the model. A program is an existing command that knows wasi-nn and nothing
of us: it gets a picture on standard input, calls the model through wasi-nn, and writes findings.
"""

import math
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from edge.contracts.plan import ImagePlan, PipelinePlan
from edge.contracts.program import MAGIC, ProgramAnswer, header
from edge.errors import GuestError, IncompatibleError
from edge.inference.model import Bound, OnnxModel
from edge.wasm.neural import Network
from edge.wasm.program import ProgramModule
from edge.wasm.roles import DEFECT, ImageSlot, Postprocessor, Preprocessor

Defects = npt.NDArray[Any]
"""Shape (count,), dtype `DEFECT`; strongest first, checked, boxes inside the frame."""

_decoder = msgspec.json.Decoder(ProgramAnswer)


class PictureSlot:
    """Room for one decoded image in the host's own memory; see `ImageSlot`."""

    __slots__ = ("_image", "height", "pixels", "width")

    def __init__(self, image: ImagePlan) -> None:
        self._image = image
        self.pixels: npt.NDArray[np.uint8] = np.zeros(image.max_bytes, np.uint8)
        self.width = self.height = 0

    def set_size(self, width: int, height: int) -> None:
        """Say what image lies in `pixels`."""
        self.width, self.height = width, height

    def picture(self) -> bytes:
        """The image as a portable anymap; a copy."""
        image = self._image.pixel_format
        end = self.width * self.height * image.channels
        return header(image, self.width, self.height) + self.pixels[:end].tobytes()


Slot = ImageSlot | PictureSlot


class Finder(Protocol):
    """Turns pixels into findings.

    Attributes:
        frame_slots: Room for frames, to be decoded into.
        reference_slots: Room for reference images.
    """

    @property
    def frame_slots(self) -> tuple[Slot, ...]:
        """As above."""

    @property
    def reference_slots(self) -> tuple[Slot, ...]:
        """As above."""

    def find(self, frame: Slot, reference: Slot | None, lap: Callable[[str], None]) -> Defects:
        """Find what is in a frame that lies in one of the slots.

        Args:
            frame: One of `frame_slots`.
            reference: One of `reference_slots`.
            lap: Told the name of each stage when it is done.

        Raises:
            FrameError: A guest, the program or the model failed.
        """


class GuestFinder:
    """Guests around the model, in whose memory it reads and writes."""

    def __init__(self, preprocess: Preprocessor, infer: Bound, postprocess: Postprocessor) -> None:
        self._preprocess, self._infer, self._postprocess = preprocess, infer, postprocess
        self.frame_slots: tuple[Slot, ...] = preprocess.frame_slots
        self.reference_slots: tuple[Slot, ...] = preprocess.reference_slots

    def find(self, frame: Slot, reference: Slot | None, lap: Callable[[str], None]) -> Defects:
        """See `Finder.find`."""
        assert isinstance(frame, ImageSlot)
        assert reference is None or isinstance(reference, ImageSlot)
        transform = self._preprocess.run(frame, reference)
        lap("preprocess")
        self._infer.run()
        lap("infer")
        count = self._postprocess.run(transform, frame.width, frame.height)
        found = self._postprocess.defects(count)
        lap("postprocess")
        return found


class ProgramFinder:
    """A program that calls the model through wasi-nn; each frame meets a fresh instance.

    Raises:
        IncompatibleError: No program can be handed images of the plan's pixel format.
    """

    def __init__(
        self, plan: PipelinePlan, module: ProgramModule, model: OnnxModel, frame_slots: int
    ) -> None:
        if plan.image.pixel_format not in MAGIC:
            raise IncompatibleError(
                f"pipeline {plan.name}: a program takes images as {', '.join(MAGIC)}, "
                f"not as {plan.image.pixel_format}"
            )
        self._plan = plan
        self._module = module
        self.frame_slots: tuple[Slot, ...] = _slots(plan, frame_slots)
        self.reference_slots: tuple[Slot, ...] = _slots(
            plan, plan.reference_slots if plan.reference else 0
        )
        inputs, outputs = (
            tuple(np.zeros(spec.shape, spec.dtype) for spec in specs)
            for specs in (plan.model.inputs, plan.model.outputs)
        )
        self._network = Network(
            name=plan.graph,
            sha256=plan.model.sha256,
            model_bytes=model.file_bytes,
            on_host=model.provider == "cpu",
            input_specs=plan.model.inputs,
            output_specs=plan.model.outputs,
            inputs=inputs,
            outputs=outputs,
            run=model.bind(inputs, outputs).run,
        )

    def find(self, frame: Slot, reference: Slot | None, lap: Callable[[str], None]) -> Defects:
        """See `Finder.find`; the stage `program` holds the model's time, too."""
        pictures = [slot for slot in (frame, reference) if isinstance(slot, PictureSlot)]
        said = self._module.run(
            b"".join(slot.picture() for slot in pictures),
            self._network,
            self._plan.preprocess.call_ms,
        )
        found = self._defects(said, frame.width, frame.height)
        lap("program")
        return found

    def _defects(self, said: bytes, width: int, height: int) -> Defects:
        try:
            answer = _decoder.decode(said)
        except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
            raise self._wrong(f"wrote what is no answer: {error}") from None
        classes = len(self._plan.model.classes)
        found = np.zeros(len(answer.defects), DEFECT)
        for index, defect in enumerate(answer.defects):
            x0, y0, x1, y1 = defect.box
            if defect.label >= classes:
                raise self._wrong(f"defect {index} has label {defect.label}, none of {classes}")
            if not (all(map(math.isfinite, defect.box)) and x0 <= x1 and y0 <= y1):
                raise self._wrong(f"defect {index} has the box {defect.box}, inside out")
            sides = (min(max(x0, 0), width), min(max(y0, 0), height))
            far = (min(max(x1, 0), width), min(max(y1, 0), height))
            found[index] = (*sides, *far, defect.score, defect.label)
        return found[np.argsort(-found["score"], kind="stable")]

    def _wrong(self, what: str) -> GuestError:
        return GuestError(f"guest {self._module.name}: {what}")


def _slots(plan: PipelinePlan, count: int) -> tuple[PictureSlot, ...]:
    return tuple(PictureSlot(plan.image) for _ in range(count))
