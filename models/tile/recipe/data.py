"""Magnetic tiles as the device would see them, with their masks laid by the same geometry.

Split by tile, never by image: six exposures of one tile are nearly the same picture.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edge.contracts.frame import PixelFormat
from edge.contracts.plan import TensorSpec
from models.recipe.folder import dataset_folder, of_split, rows
from models.recipe.frames import FrameContract, FramePath

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SIDE = 192
PAD = 114
"""Level around a tile that does not fill the square: letterbox's default."""
CONTRACT = FrameContract(
    guest="letterbox",
    pixels=PixelFormat.GRAY8,
    max_side_px=1024,
    input=TensorSpec("input", "uint8", (1, 3, SIDE, SIDE)),
)
FOLDS = 4
"""Of the training tiles, by a hash of the tile's name."""
HELD_BACK = 1
"""The fold that training leaves out: threshold and votes are chosen on it. Of the four it has the
most even mix of kinds of defect."""


@dataclass(frozen=True)
class Tiles:
    """Frames of tiles.

    Attributes:
        part_ids: one name for each frame.
        groups: name of the physical tile that each shows.
        labels: kind of defect; empty of a good frame.
        planes: uint8 [N, 192, 192], one of the model's three equal planes.
        masks: uint8 [N, 192, 192], 1 where the defect is.
        inside: int64 [N, 4], x0, y0, x1, y1 of the tile in the square.
    """

    part_ids: tuple[str, ...]
    groups: tuple[str, ...]
    labels: tuple[str, ...]
    planes: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    inside: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.part_ids)

    @property
    def bad(self) -> NDArray[np.bool_]:
        """Whether each frame is annotated as defective; bool [N]."""
        return np.array([bool(label) for label in self.labels])

    @property
    def folds(self) -> NDArray[np.int64]:
        """The fold of each frame's tile; int64 [N]."""
        return np.array([zlib.crc32(group.encode()) % FOLDS for group in self.groups])

    def take(self, chosen: NDArray[np.bool_]) -> Tiles:
        """Those frames alone."""
        at = np.flatnonzero(chosen)
        return Tiles(
            tuple(self.part_ids[i] for i in at),
            tuple(self.groups[i] for i in at),
            tuple(self.labels[i] for i in at),
            self.planes[at],
            self.masks[at],
            self.inside[at],
        )


def load(split: str, data: str | Path | None = None) -> Tiles:
    """The frames of `train` or `test`, tile-disjoint.

    Args:
        split: `train` or `test`.
        data: folder that holds `mt/`.
    """
    folder = dataset_folder("mt", data)
    parts = of_split(rows(folder / "parts.csv"), folder, f"tile_disjoint_{split}")
    planes, masks, inside = [], [], []
    with FramePath(CONTRACT) as path:
        for part in parts:
            planes.append(path.tensor((folder / "images" / part["image"]).read_bytes())[0, 0])
            size = _size(folder / "images" / part["image"])
            masks.append(_mask(folder, part["mask"], path.transform, size))
            inside.append(_inside(path.transform, size))
    return Tiles(
        tuple(part["part_id"] for part in parts),
        tuple(part["group"] for part in parts),
        tuple(part["label"] for part in parts),
        np.stack(planes),
        np.stack(masks),
        np.array(inside, np.int64),
    )


def _size(file: Path) -> tuple[int, int]:
    image = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
    return image.shape[1], image.shape[0]


def _mask(
    folder: Path, name: str, transform: tuple[float, float, float, float], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """The mask in the model's square; empty where the frame is good."""
    if not name:
        return np.zeros((SIDE, SIDE), np.uint8)
    mask = cv2.imread(str(folder / "images" / name), cv2.IMREAD_GRAYSCALE)
    if mask is None or mask.shape[::-1] != size:
        raise ValueError(f"{folder / 'images' / name}: expected a mask of {size}")
    scale_x, scale_y, offset_x, offset_y = transform
    # Pixel middles at half integers: frame = (input - offset) * scale, with both in pixel edges.
    matrix = np.array(
        [
            [scale_x, 0, (0.5 - offset_x) * scale_x - 0.5],
            [0, scale_y, (0.5 - offset_y) * scale_y - 0.5],
        ]
    )
    grey = np.where(mask > 127, np.uint8(255), np.uint8(0))
    laid = cv2.warpAffine(grey, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return np.asarray(laid > 127, np.uint8)


def _inside(
    transform: tuple[float, float, float, float], size: tuple[int, int]
) -> tuple[int, int, int, int]:
    scale_x, scale_y, offset_x, offset_y = transform
    return (
        round(offset_x),
        round(offset_y),
        round(offset_x + size[0] / scale_x),
        round(offset_y + size[1] / scale_y),
    )
