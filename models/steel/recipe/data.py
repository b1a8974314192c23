"""X-SDD as the device would see it: every image re-encoded alike, then decoded and letterboxed.

142 of the 203 files of one class are PNG and all others JPEG: a network could learn the codec. So
no file reaches the network as it is; each becomes a JPEG of one quality first, as from one camera.
"""

from __future__ import annotations

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

CLASSES = (
    "finishing_roll_printing",
    "iron_sheet_ash",
    "oxide_scale_of_plate_system",
    "oxide_scale_of_temperature_system",
    "red_iron",
    "slag_inclusion",
    "surface_scratch",
)
SIDE = 128
QUALITY = 90
"""Of the JPEG that every image becomes, whatever it was."""
CONTRACT = FrameContract(
    guest="letterbox",
    pixels=PixelFormat.GRAY8,
    max_side_px=256,
    input=TensorSpec("input", "uint8", (1, 3, SIDE, SIDE)),
)
"""What the deployment pins; three equal planes, since that is what letterbox makes of grey."""


@dataclass(frozen=True)
class Crops:
    """Crops with their class.

    Attributes:
        part_ids: one name for each crop.
        images: uint8 [N, 3, 128, 128], as the model gets them.
        labels: int64 [N], indices in `CLASSES`.
    """

    part_ids: tuple[str, ...]
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.part_ids)


def load(split: str, data: str | Path | None = None, quality: int = QUALITY) -> Crops:
    """The crops of `train` or `test`, of the content-hash split beside the data.

    Args:
        split: `train` or `test`.
        data: folder that holds `xsdd/`.
        quality: of the re-encoding, 1..100.
    """
    folder = dataset_folder("xsdd", data)
    parts = of_split(rows(folder / "parts.csv"), folder, f"hash7030_{split}")
    with FramePath(CONTRACT) as path:
        images = [path.tensor(encoded(folder / "images" / p["image"], quality))[0] for p in parts]
    return Crops(
        tuple(part["part_id"] for part in parts),
        np.stack(images),
        np.array([CLASSES.index(part["label"]) for part in parts], np.int64),
    )


def encoded(file: Path, quality: int = QUALITY) -> bytes:
    """The image as a grey JPEG, whatever its file was."""
    image = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise ValueError(f"{file}: expected an image")
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
