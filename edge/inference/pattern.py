"""Inputs for models that are tried without a frame: random ones, and the pattern of a seed."""

import hashlib
import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edge.contracts.plan import TensorSpec

Array = npt.NDArray[Any]

CELL: Final = 8
"""Side of a pattern's squares: edges and areas, as pictures have, and not noise alone."""
_PLANES: Final = 2


def random_inputs(specs: Sequence[TensorSpec], random: np.random.Generator) -> list[Array]:
    """Whole range for bytes, 0..1 for floats, 0 or 1 for wider integers, which may be indices."""
    found: list[Array] = []
    for spec in specs:
        kind = np.dtype(spec.dtype)
        if kind.kind == "f":
            found.append(random.random(spec.shape, np.float32).astype(kind))
        elif kind.itemsize == 1:
            least, most = (0, 256) if kind.kind == "u" else (-128, 128)
            found.append(random.integers(least, most, spec.shape, kind.type))
        else:
            found.append(random.integers(0, 2, spec.shape, kind.type))
    return found


def pattern(spec: TensorSpec, seed: int) -> Array:
    """Make the pattern of a seed for one input: the same on every machine and in every version.

    SHAKE-128 of seed and name gives the bytes. In the last two of three or more axes each byte
    fills a square of 8x8. Bytes are taken as they are, floats are byte / 255, and wider integers
    are 0 or 1, because they may be indices.
    """
    shape = spec.shape
    cells = shape
    if len(shape) > _PLANES:
        cells = (*shape[:-2], -(-shape[-2] // CELL), -(-shape[-1] // CELL))
    digest = hashlib.shake_128(f"{seed} {spec.name}".encode())
    made = np.frombuffer(digest.digest(math.prod(cells)), np.uint8).reshape(cells)
    if len(shape) > _PLANES:
        made = made.repeat(CELL, axis=-2).repeat(CELL, axis=-1)[..., : shape[-2], : shape[-1]]
    kind = np.dtype(spec.dtype)
    if kind.kind == "f":
        return np.ascontiguousarray((made.astype(np.float32) / np.float32(255)).astype(kind))
    if kind.itemsize == 1:
        return np.ascontiguousarray(made).view(kind)
    return np.ascontiguousarray((made & 1).astype(kind))
