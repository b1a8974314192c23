"""The deployed way from a camera's bytes to the model's input, run from Python.

The daemon's own decoder and the guest's own arithmetic (the same Wasm, through `edge.wasm`), so
that training and evaluation see what the device will see, bit for bit. What is pinned here by a
recipe must be what its deployment's manifest pins; a test of each model holds that.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from edge.contracts.frame import ContentType, Encoding, PixelFormat
from edge.contracts.plan import ImagePlan, TensorSpec
from edge.pipeline.decode import decode
from edge.wasm.engine import GuestEngine
from edge.wasm.roles import Preprocessor
from models.recipe.folder import PROJECT_ROOT

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from numpy.typing import NDArray

_CALL_MS = 2_000
_JPEG_MAGIC = b"\xff\xd8\xff"


@dataclass(frozen=True)
class FrameContract:
    """How a pipeline turns a frame into the model's input.

    Attributes:
        guest: name of the reference guest, `guests/<name>/<name>.wasm`.
        pixels: what frames are decoded to.
        max_side_px: largest width and height that is taken.
        input: the model's input.
        parameters: of the guest, as in the manifest.
        reference: whether each frame comes with a reference image.
    """

    guest: str
    pixels: PixelFormat
    max_side_px: int
    input: TensorSpec
    parameters: dict[str, Any] = field(default_factory=dict)
    reference: bool = False

    @property
    def guest_file(self) -> Path:
        """The built guest in this tree."""
        return PROJECT_ROOT / "guests" / self.guest / f"{self.guest}.wasm"


class FramePath:
    """Decoder and preprocess guest of one contract; a context manager, for one thread.

    Args:
        contract: what the deployment pins.
        cache: folder of compiled guests; default: one that is dropped at the end.
    """

    def __init__(self, contract: FrameContract, cache: Path | None = None) -> None:
        self._scratch = tempfile.TemporaryDirectory() if cache is None else None
        self._engine = GuestEngine(cache or Path(self._scratch.name if self._scratch else "."))
        file = contract.guest_file
        module = self._engine.load(file, hashlib.sha256(file.read_bytes()).hexdigest(), 256)
        guest = module.instantiate(_CALL_MS)
        document: dict[str, Any] = msgspec.to_builtins(
            {
                "parameters": contract.parameters,
                "classes": ("any",),
                "signals": [],
                "actions": [],
                "inputs": (contract.input,),
                "outputs": (),
            }
        )
        guest.configure(document)
        self._image = ImagePlan(contract.pixels, contract.max_side_px, contract.max_side_px)
        slots = 1 if contract.reference else 0
        self._role = Preprocessor(guest, self._image, 1, slots, (contract.input,))

    def tensor(self, payload: bytes, reference: bytes | None = None) -> NDArray[Any]:
        """The model's input for one frame, as the device makes it; a copy.

        Args:
            payload: JPEG or PNG file content, as a camera sends it.
            reference: likewise, where the contract has one.

        Raises:
            edge.errors.FrameError: the payload cannot be decoded, or the guest refuses it.
        """
        frame = self._role.frame_slots[0]
        frame.set_size(*decode(payload, _content(payload), self._image, frame.pixels))
        slot = None
        if reference is not None:
            slot = self._role.reference_slots[0]
            slot.set_size(*decode(reference, _content(reference), self._image, slot.pixels))
        self.transform = self._role.run(frame, slot)
        return np.array(self._role.inputs[0])

    def tensor_of(
        self, pixels: NDArray[np.uint8], reference: NDArray[np.uint8] | None = None
    ) -> NDArray[Any]:
        """The model's input for what is decoded already, such as a crop; a copy.

        Args:
            pixels: uint8 [height, width] or [height, width, channels].
            reference: likewise, where the contract has one.

        Raises:
            edge.errors.FrameError: the guest refuses it.
        """
        slots = (self._role.frame_slots[0], *self._role.reference_slots)
        images = (pixels,) if reference is None else (pixels, reference)
        for slot, image in zip(slots, images, strict=False):
            slot.pixels[: image.size] = image.ravel()
            slot.set_size(image.shape[1], image.shape[0])
        self.transform = self._role.run(slots[0], None if reference is None else slots[1])
        return np.array(self._role.inputs[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._engine.close()
        if self._scratch is not None:
            self._scratch.cleanup()


def _content(payload: bytes) -> ContentType:
    return ContentType(Encoding.JPEG if payload.startswith(_JPEG_MAGIC) else Encoding.PNG)
