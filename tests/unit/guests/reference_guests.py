"""The reference guests, run through the real host."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.contracts.frame import PixelFormat
from edge.contracts.plan import ImagePlan, TensorSpec
from edge.wasm.engine import GuestEngine, GuestModule
from edge.wasm.guest import Guest
from edge.wasm.roles import ImageSlot, Preprocessor, Transform

GUESTS = Path(__file__).parents[3] / "guests"
MEMORY_MIB = {
    "boxes": 16,
    "heat": 16,
    "letterbox": 64,
    "pair": 64,
    "policy": 1,
    "tile": 128,
    "topk": 1,
}
NAMES = tuple(MEMORY_MIB)
CALL_MS = 5_000

Pixels = npt.NDArray[np.uint8]


class ReferenceGuests:
    """Makes fresh instances of the checked-in guests; each module is compiled once."""

    def __init__(self, engine: GuestEngine) -> None:
        self._engine = engine
        self._modules: dict[str, GuestModule] = {}

    def fresh(self, name: str) -> Guest:
        """An instance that was not configured yet."""
        if name not in self._modules:
            path = GUESTS / name / f"{name}.wasm"
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            self._modules[name] = self._engine.load(path, digest, MEMORY_MIB[name])
        return self._modules[name].instantiate(CALL_MS)

    def configured(self, name: str, parameters: dict[str, Any], **around: Any) -> Guest:
        """An instance with its parameters, and the names around them."""
        guest = self.fresh(name)
        guest.configure({"parameters": parameters, **around})
        return guest


def configure_raw(guest: Guest, document: bytes) -> tuple[int, str]:
    """Hand over bytes that need not be JSON; the result, and what the host would say of it."""
    address = guest.alloc(max(len(document), 1), 8)
    guest.view(address, (len(document),), np.uint8)[:] = np.frombuffer(document, np.uint8)
    result = guest.call("edge_configure", address, len(document))
    return result, guest.error_text(result)


def preprocess(
    guest: Guest,
    frame: Pixels,
    reference: Pixels | None,
    dtype: str,
    shape: tuple[int, int, int, int],
    pixel_format: PixelFormat,
) -> tuple[npt.NDArray[Any], Transform]:
    """Run one frame; a copy of the model input, and the transform."""
    images = [frame] if reference is None else [frame, reference]
    plan = ImagePlan(pixel_format, max(i.shape[1] for i in images), max(i.shape[0] for i in images))
    role = Preprocessor(guest, plan, 1, 1, (TensorSpec("input", dtype, shape),))
    role.inputs[0].view(np.uint8)[...] = 0xA5  # what an earlier frame left behind
    slots = [
        _filled(slot, image)
        for slot, image in zip((*role.frame_slots, *role.reference_slots), images, strict=False)
    ]
    transform = role.run(slots[0], slots[1] if reference is not None else None)
    return role.inputs[0].copy(), transform


def _filled(slot: ImageSlot, image: Pixels) -> ImageSlot:
    slot.pixels[: image.size] = image.reshape(-1)
    slot.set_size(image.shape[1], image.shape[0])
    return slot


def letterboxed(image: Pixels, width: int, height: int, pad: float) -> npt.NDArray[np.float64]:
    """The definition, in real arithmetic: centred, bilinear, pixel centres at half integers.

    Returns:
        float64 [height, width, channels], grey levels.
    """
    planes = image.reshape(*image.shape[:2], -1).astype(np.float64)
    rows, columns, channels = planes.shape
    scale = min(width / columns, height / rows)
    inner_width = min(width, max(1, int(np.floor(columns * scale + 0.5))))
    inner_height = min(height, max(1, int(np.floor(rows * scale + 0.5))))
    resized = _resampled(_resampled(planes, inner_height, 0), inner_width, 1)
    out = np.full((height, width, channels), pad, np.float64)
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    out[top : top + inner_height, left : left + inner_width] = resized
    return out


def _resampled(values: npt.NDArray[np.float64], length: int, axis: int) -> npt.NDArray[np.float64]:
    source = values.shape[axis]
    at = np.clip((np.arange(length) + 0.5) * source / length - 0.5, 0, source - 1)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, source - 1)
    weight = (at - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
    lower, upper = np.take(values, low, axis), np.take(values, high, axis)
    return np.asarray(lower * (1 - weight) + upper * weight, np.float64)
