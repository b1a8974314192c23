"""What a role keeps in guest memory, laid out once: image slots, tensors, call structs."""

import ctypes
import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edge.contracts import abi
from edge.contracts.frame import PixelFormat
from edge.contracts.plan import ImagePlan, TensorSpec
from edge.errors import IncompatibleError
from edge.wasm.guest import Guest

STRUCT_ALIGNMENT: Final = 8

_FORMATS: Final[dict[PixelFormat, int]] = {
    PixelFormat.GRAY8: abi.FORMAT_GRAY8,
    PixelFormat.BGR: abi.FORMAT_BGR8,
    PixelFormat.RGB: abi.FORMAT_RGB8,
}
"""Bayer frames are converted before a guest sees them."""


class ImageSlot:
    """Room for one decoded image in guest memory, of the plan's pixel format.

    One thread at a time: the decoder fills it, then the engine thread hands it to the guest.

    Attributes:
        address: In guest memory, aligned to 64 bytes.
        pixels: Writable flat uint8 view of the largest image and the slack behind it. The image
            lies at its start, rows without gaps.
        width: Pixels of the image that it holds; 0 before the first.
        height: Pixels.

    Raises:
        IncompatibleError: Guests take no such pixel format, or the guest's memory is too small.
    """

    __slots__ = ("_channels", "_format", "_most", "address", "height", "pixels", "width")

    def __init__(self, guest: Guest, image: ImagePlan) -> None:
        known = _FORMATS.get(image.pixel_format)
        if known is None:
            raise IncompatibleError(
                f"guests take images as {', '.join(_FORMATS)}, not as {image.pixel_format}"
            )
        self._format = known
        self._channels = image.pixel_format.channels
        self._most = image.max_bytes
        nbytes = image.max_bytes + abi.IMAGE_SLACK_BYTES
        self.address = guest.alloc(nbytes)
        self.pixels: npt.NDArray[np.uint8] = guest.view(self.address, (nbytes,), np.uint8)
        self.width = self.height = 0

    def set_size(self, width: int, height: int) -> None:
        """Say what image lies in `pixels`, and clear the slack behind it.

        What lay there came from an earlier frame, and a verdict must not depend on it.

        Args:
            width: Pixels, at least 1.
            height: Pixels, at least 1.

        Raises:
            ValueError: It is larger than the plan's largest image.
        """
        end = width * height * self._channels
        if width < 1 or height < 1 or end > self._most:
            raise ValueError(f"image of {width}x{height} pixels in a slot of {self._most} bytes")
        self.width, self.height = width, height
        self.pixels[end : end + abi.IMAGE_SLACK_BYTES] = 0

    def describe(self, image: abi.Image) -> None:
        """Fill the ABI's description of the image."""
        image.data = self.address
        image.width = self.width
        image.height = self.height
        image.stride = self.width * self._channels
        image.format = self._format


class CallStruct:
    """A role's argument: the host's own copy, and its place in guest memory.

    It is written afresh for each frame, so whatever a guest scribbled over it last time is gone.

    Attributes:
        address: In guest memory.
        host: The host's copy; a guest cannot reach it.
        guest: The guest's copy, to read results from.
    """

    def __init__(self, guest: Guest, kind: type[abi.Struct]) -> None:
        nbytes = ctypes.sizeof(kind)
        self.address = guest.alloc(nbytes, STRUCT_ALIGNMENT)
        self.host: Any = kind()
        self.guest: Any = guest.map(kind, self.address)
        self._copy = (guest.pointer(self.address, nbytes), ctypes.addressof(self.host), nbytes)

    def send(self) -> None:
        """Overwrite the guest's copy with the host's."""
        ctypes.memmove(*self._copy)


class Tensors:
    """The tensors of one side of the model, and the ABI structs that describe them.

    Attributes:
        views: One writable array a tensor, aligned to 64 bytes, zero at first.
        address: Of the `abi.Tensor` structs in guest memory.

    Raises:
        IncompatibleError: A tensor is of a type or shape that the ABI has no word for, or the
            guest's memory is too small.
    """

    def __init__(self, guest: Guest, specs: tuple[TensorSpec, ...]) -> None:
        host = (abi.Tensor * len(specs))()
        self.views: tuple[npt.NDArray[Any], ...] = tuple(
            _place(guest, tensor, spec) for tensor, spec in zip(host, specs, strict=True)
        )
        nbytes = ctypes.sizeof(host)
        self.address = guest.alloc(nbytes, STRUCT_ALIGNMENT)
        self._host = host
        self._copy = (guest.pointer(self.address, nbytes), ctypes.addressof(host), nbytes)

    def send(self) -> None:
        """Overwrite the guest's descriptions with the host's."""
        ctypes.memmove(*self._copy)


class Rows(Tensors):
    """Tensors whose first dimension is a batch, of which the guest sees one row at a time.

    To the guest a row is a tensor whose first dimension is 1, aligned to 64 bytes as the ABI says.
    Where the rows of a batch are not so aligned, the guest gets one that is, and it is carried to
    its place or from there.

    Attributes:
        views: The batches, for IO binding; see `Tensors.views`.

    Raises:
        IncompatibleError: As `Tensors`.
    """

    def __init__(self, guest: Guest, specs: tuple[TensorSpec, ...]) -> None:
        super().__init__(guest, tuple(spec.rows(1) for spec in specs))
        single = self.views
        self._carried: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]] = []
        self._in_place: list[tuple[abi.Tensor, int, int]] = []
        batches = []
        for tensor, row, spec in zip(self._host, single, specs, strict=True):
            if row.nbytes % abi.TENSOR_ALIGNMENT:
                batch = np.zeros(spec.shape, spec.dtype)
                self._carried.append((row[0], batch))
            else:
                whole = abi.Tensor()
                batch = _place(guest, whole, spec)
                self._in_place.append((tensor, whole.data, row.nbytes))
            batches.append(batch)
        self.views = tuple(batches)

    def turn_to(self, row: int) -> None:
        """Make that row the one that the guest sees with the next `send`."""
        for tensor, start, nbytes in self._in_place:
            tensor.data = start + row * nbytes

    def fetch(self, row: int) -> None:
        """Carry what the guest wrote to the row's place."""
        for single, batch in self._carried:
            batch[row] = single

    def bring(self, row: int) -> None:
        """Carry what the guest is to read from the row's place."""
        for single, batch in self._carried:
            single[...] = batch[row]

    def clear(self, start: int, stop: int) -> None:
        """Zero those rows: what an earlier frame left there must have no say."""
        if start < stop:
            for batch in self.views:
                batch[start:stop] = 0


def _place(guest: Guest, tensor: abi.Tensor, spec: TensorSpec) -> npt.NDArray[Any]:
    """Find a place for a tensor and describe it."""
    code = abi.DTYPES.get(spec.dtype)
    rank = len(spec.shape)
    if code is None or not 1 <= rank <= abi.MAX_RANK or min(spec.shape) < 1:
        raise IncompatibleError(
            f"tensor {spec.name}: {spec.dtype} {spec.shape} cannot be handed to a guest: "
            f"1 to {abi.MAX_RANK} static dimensions of {', '.join(abi.DTYPES)}"
        )
    dtype = np.dtype(spec.dtype)
    nbytes = math.prod(spec.shape) * dtype.itemsize
    address = guest.alloc(nbytes, abi.TENSOR_ALIGNMENT)
    tensor.data = address
    tensor.dtype = code
    tensor.rank = rank
    tensor.bytes = nbytes
    for axis, length in enumerate(spec.shape):
        tensor.dims[axis] = length
    view = guest.view(address, spec.shape, dtype)
    view[...] = 0
    return view
