"""Crops of boards, each with the kind of its defect, or none: what the classifier learns from.

`python -m models.pcb_kinds.recipe.data --data ../shared/data --out models/pcb_kinds/.train`

Boards are the official training pairs of DeepPCB, seen through the augmentation of `models/pcb`.
Crops lie where the committed detector finds something, right or wrong; where a defect truly is, so
that kinds which it misses are learned as well; and at random where there is none. They are cut by
the runtime's own arithmetic and laid out by the guest that its deployment pins.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edge.contracts.frame import PixelFormat
from edge.contracts.plan import CropPlan, TensorSpec
from edge.pipeline.crops import window
from models.pcb.recipe.augment import augment
from models.pcb.recipe.data import CLASSES as KINDS
from models.pcb.recipe.data import SIDE as BOARD_SIDE
from models.pcb.recipe.data import deeppcb_folder, load_training
from models.pcb.recipe.detections import overlaps, suppress
from models.recipe.folder import PROJECT_ROOT
from models.recipe.frames import FrameContract, FramePath
from models.recipe.session import open_session, outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import onnxruntime as ort
    from numpy.typing import NDArray

    from models.pcb.recipe.data import PairSet

NONE = "none"
CLASSES = (*KINDS, NONE)
SIDE = 64
"""Height and width of a crop as the model gets it, in pixels: a board's defects at their own scale,
few are larger."""
BATCH = 8
"""Crops of one run."""
CROP = CropPlan(margin=0.25, min_side_px=SIDE, square=True)
"""What the deployment's manifest says; a test holds the two together."""
CONTRACT = FrameContract(
    guest="pair",
    pixels=PixelFormat.GRAY8,
    max_side_px=BOARD_SIDE,
    input=TensorSpec("input", "uint8", (1, 2, SIDE, SIDE)),
    reference=True,
)
DETECTOR = PROJECT_ROOT / "models" / "pcb" / "model.int8.onnx"

FOUND_IOU = 0.33
"""From this overlap on a finding is the defect, as in the data set's own script."""
APART_IOU = 0.05
"""Up to this one it is none; what lies between is neither, and is not learned from."""
VIEWS = 4
"""Augmented views of each training pair."""
RANDOM_PLACES = 2
"""Of each view, where no defect is."""
VIEW_SEED = 4711


@dataclass(frozen=True)
class Crops:
    """Crops with their class.

    Attributes:
        images: uint8 [N, 2, 64, 64]; channel 0 the frame, channel 1 its reference.
        labels: int64 [N], indices in `CLASSES`.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


class Cutter:
    """Cuts crops as the device does; for one thread.

    Args:
        path: of `CONTRACT`.
    """

    def __init__(self, path: FramePath) -> None:
        self._path = path

    def __call__(self, pair: NDArray[np.uint8], boxes: NDArray[np.float32]) -> NDArray[np.uint8]:
        """uint8 [n, 2, 64, 64] around boxes float32 [n, 4+] of a pair uint8 [2, H, W]."""
        height, width = pair.shape[1:]
        crops = np.empty((len(boxes), 2, SIDE, SIDE), np.uint8)
        for crop, box in zip(crops, boxes, strict=True):
            left, top, across, down = window(tuple(box[:4].tolist()), CROP, width, height)
            rows, columns = slice(top, top + down), slice(left, left + across)
            crop[:] = self._path.tensor_of(pair[0, rows, columns], pair[1, rows, columns])[0]
        return crops


def findings(session: ort.InferenceSession, pair: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the detector says of a pair, float32 [n, 6]; also what it hardly believes."""
    boxes, scores = outputs(session, pair[None])
    return suppress(boxes[0], scores[0])


def harvest(pairs: PairSet, views: Iterable[int], say: Callable[[str], None]) -> Crops:
    """The crops of some augmented views of each pair."""
    images: list[NDArray[np.uint8]] = []
    labels: list[NDArray[np.int64]] = []
    session = open_session(DETECTOR)
    with FramePath(CONTRACT) as path:
        cut = Cutter(path)
        for view in views:
            for index in range(len(pairs)):
                rng = np.random.default_rng((VIEW_SEED, view, index))
                pair, truths = _view(pairs, index, rng)
                for boxes, kinds in _places(findings(session, pair), truths, rng):
                    images.append(cut(pair, boxes))
                    labels.append(kinds)
                if index % 100 == 99:
                    say(f"view {view + 1}: {index + 1} of {len(pairs)} pairs")
    return Crops(np.concatenate(images), np.concatenate(labels))


def load(folder: Path) -> Crops:
    """The crops that `harvest` left in a folder."""
    return Crops(np.load(folder / "images.npy", mmap_mode="r"), np.load(folder / "labels.npy"))


def _view(
    pairs: PairSet, index: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    donor = int(rng.integers(len(pairs)))
    return augment(
        (pairs.images[index], pairs.boxes[index]),
        lambda: (pairs.images[donor], pairs.boxes[donor]),
        rng,
    )


def _places(
    found: NDArray[np.float32], truths: NDArray[np.float32], rng: np.random.Generator
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Boxes with their classes: of the detector, of the annotation, and at random."""
    none = len(KINDS)
    near = overlaps(found, truths) if len(truths) else np.zeros((len(found), 1), np.float32)
    best = near.max(axis=1)
    kinds = truths[near.argmax(axis=1), 4].astype(np.int64) if len(truths) else None
    is_found, is_none = best >= FOUND_IOU, best <= APART_IOU
    if kinds is not None:
        yield found[is_found], kinds[is_found]
        yield _jittered(truths, rng), truths[:, 4].astype(np.int64)
    yield found[is_none], np.full(int(is_none.sum()), none)
    sides = rng.uniform(8, 56, (RANDOM_PLACES, 2))
    corners = rng.uniform(0, BOARD_SIDE - sides)
    drawn = np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
    if len(truths):
        drawn = drawn[overlaps(drawn, truths).max(axis=1) <= 0]
    yield drawn, np.full(len(drawn), none)


def _jittered(truths: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Annotated boxes as a detector might give them."""
    sides = np.tile(truths[:, 2:4] - truths[:, :2], 2)
    moved = truths[:, :4] + sides * rng.normal(0, 0.08, (len(truths), 4))
    return np.asarray(moved.clip(0, BOARD_SIDE), np.float32)


def main() -> None:
    """Harvests the crops, once: what lies in the folder already is kept."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--data", help="folder that holds deeppcb/; default EDGE_DATA")
    parser.add_argument("--out", type=Path, required=True, help="folder of images.npy, labels.npy")
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    if (out / "labels.npy").exists():
        print(f"{out} has its crops already")
        return
    pairs = load_training(deeppcb_folder(arguments.data))
    crops = harvest(pairs, range(VIEWS), lambda said: print(said, flush=True))
    np.save(out / "images.npy", crops.images)
    np.save(out / "labels.npy", crops.labels)
    counts = np.bincount(crops.labels, minlength=len(CLASSES))
    print(dict(zip(CLASSES, counts.tolist(), strict=True)))


if __name__ == "__main__":
    main()
