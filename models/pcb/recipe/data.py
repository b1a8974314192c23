"""DeepPCB as arrays: a frame and its reference, and the annotated defects.

Reads the folder described by the data set's own README (parts.csv, boxes.csv, images/) and writes
nothing. Training reads `trainval/` alone; the official test pairs are only ever evaluated.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edge.contracts.frame import PixelFormat
from edge.contracts.plan import TensorSpec
from models.recipe.folder import dataset_folder, rows
from models.recipe.frames import FrameContract

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

CLASSES = ("open", "short", "mousebite", "spur", "copper", "pin-hole")
SIDE = 640
"""Height and width of every image, in pixels."""
PAIR_CHANNELS = 2
CONTRACT = FrameContract(
    guest="pair",
    pixels=PixelFormat.GRAY8,
    max_side_px=1280,
    input=TensorSpec("input", "uint8", (1, PAIR_CHANNELS, SIDE, SIDE)),
    reference=True,
)
"""What the deployment pins. At this size the guest copies bytes: arrays of decoded images are what
the model gets, and no frame needs to pass through the guest to be trained on. A test holds it."""


@dataclass(frozen=True)
class PairSet:
    """Frame and reference pairs with their defects.

    Attributes:
        part_ids: one name for each pair.
        images: uint8 [N, 2, 640, 640], 0..255; channel 0 the frame, channel 1 its reference.
        boxes: for each pair float32 [n, 5]: x0, y0, x1, y1 in pixels, then the index in `CLASSES`.
        residual_px: int64 [N], unannotated differing pixels of the pair; -1 where not measured.
    """

    part_ids: tuple[str, ...]
    images: NDArray[np.uint8]
    boxes: tuple[NDArray[np.float32], ...]
    residual_px: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.part_ids)

    def first(self, count: int) -> PairSet:
        """The first pairs alone; the images are shared."""
        return PairSet(
            self.part_ids[:count],
            self.images[:count],
            self.boxes[:count],
            self.residual_px[:count],
        )


def model_input(images: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """What a detector's file is handed: uint8 [1, channels, 640, 640].

    Args:
        images: uint8 [1 or 2, 640, 640], the frame first.
        channels: `PAIR_CHANNELS`, frame and reference; 3, the frame alone, thrice, as the guest
            letterbox lays a grey frame into the planes of a colour input.
    """
    return images[None] if channels == PAIR_CHANNELS else images[:1].repeat(channels, axis=0)[None]


def planes_shown(channels: int) -> int:
    """How many different planes an input of so many channels shows."""
    return 2 if channels == PAIR_CHANNELS else 1


def deeppcb_folder(data: str | Path | None = None) -> Path:
    """The folder of the data set.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    return dataset_folder("deeppcb", data)


def load_training(folder: Path) -> PairSet:
    """All 1000 official training pairs (1-bit PNG); about 0.8 GB of memory."""
    return _load(folder / "trainval", official_split=None)


def load_test(folder: Path, most: int | None = None) -> PairSet:
    """The official test pairs that the folder holds (JPEG, as from the camera): 400 of 500.

    Args:
        folder: of the data set.
        most: take the first ones alone.
    """
    return _load(folder, official_split="test", most=most)


def _load(folder: Path, official_split: str | None, most: int | None = None) -> PairSet:
    boxes_of: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    for row in rows(folder / "boxes.csv"):
        corners = (float(row[key]) for key in ("x1", "y1", "x2", "y2"))
        boxes_of[row["image"]].append((*corners, float(CLASSES.index(row["class"]))))
    parts = [
        row
        for row in rows(folder / "parts.csv")
        if official_split is None or row["official_split"] == official_split
    ][:most]
    images = np.empty((len(parts), 2, SIDE, SIDE), np.uint8)
    for pair, row in zip(images, parts, strict=True):
        pair[0] = _grey(folder / "images" / row["image"])
        pair[1] = _grey(folder / "images" / row["template"])
    return PairSet(
        part_ids=tuple(row["part_id"] for row in parts),
        images=images,
        boxes=tuple(np.array(boxes_of[r["image"]], np.float32).reshape(-1, 5) for r in parts),
        residual_px=np.array([int(row.get("residual_px") or -1) for row in parts], np.int64),
    )


def _grey(path: Path) -> NDArray[np.uint8]:
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None or image.shape != (SIDE, SIDE):
        raise ValueError(f"{path}: expected a {SIDE}x{SIDE} image")
    return np.asarray(image, np.uint8)
