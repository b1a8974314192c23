"""BSData as time-lapse sequences: each frame beside the picture of the same place when it was new.

A sequence is one place of one spindle, photographed 57 times. Held back is always a whole sequence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edge.contracts.frame import PixelFormat
from edge.contracts.plan import TensorSpec
from models.recipe.folder import dataset_folder, rows
from models.recipe.frames import FrameContract, FramePath

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

HEIGHT, WIDTH = 224, 560
CONTRACT = FrameContract(
    guest="pair",
    pixels=PixelFormat.GRAY8,
    max_side_px=1280,
    input=TensorSpec("input", "uint8", (1, 2, HEIGHT, WIDTH)),
    reference=True,
)
SEQUENCES = ("332500_225_crop_2", "437500_315_crop_2", "477500_315_crop_2")
HELD_BACK = "437500_315_crop_2"
"""The sequence that the published file has never seen. Chosen before any training: of the two with
annotated pits, so that good and bad parts can be told, the one in the middle of the list."""
EARLY = 4
"""Frames of a sequence that count as new: any of them may be the reference in training."""


@dataclass(frozen=True)
class Sequence:
    """One place of a spindle over time.

    Attributes:
        name: of the sequence.
        part_ids: in order of time.
        planes: uint8 [57, 224, 560], as plane 0 of the model's input.
        pitted: bool [57], annotated with at least one pit.
    """

    name: str
    part_ids: tuple[str, ...]
    planes: NDArray[np.uint8]
    pitted: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.part_ids)

    @property
    def age(self) -> NDArray[np.float32]:
        """float32 [57]: place in time, 0 new to 1 last."""
        return np.linspace(0, 1, len(self), dtype=np.float32)

    def pair(self, index: int, reference: int = 0) -> NDArray[np.uint8]:
        """The model's input for one frame: uint8 [1, 2, 224, 560]."""
        return np.stack([self.planes[index], self.planes[reference]])[None]


def load(data: str | Path | None = None) -> tuple[Sequence, ...]:
    """All sequences, each in order of its time stamps, which are part of the file names."""
    folder = dataset_folder("bsdata", data)
    parts = sorted(rows(folder / "parts.csv"), key=lambda part: part["part_id"])
    sequences = []
    with FramePath(CONTRACT) as path:
        for name in SEQUENCES:
            own = [part for part in parts if part["split"] == name]
            files = [(folder / "images" / part["image"]).read_bytes() for part in own]
            planes = [path.tensor(file, file)[0, 0] for file in files]
            pitted = np.array([part["verdict"] == "NG" for part in own])
            ids = tuple(part["part_id"] for part in own)
            sequences.append(Sequence(name, ids, np.stack(planes), pitted))
    return tuple(sequences)
