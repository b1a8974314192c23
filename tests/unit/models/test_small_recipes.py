"""The recipes of steel, tile and wear, as far as they need no torch and no data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from models.recipe.frames import FramePath
from models.steel.recipe import augment as steel_views
from models.steel.recipe.data import encoded
from models.tile.recipe import augment as tile_views
from models.tile.recipe import data as tile_data
from models.tile.recipe.evaluate import choose, fuse, judge
from models.wear.recipe.data import Sequence

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = tile_data.SIDE


def grey(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(60, 180, shape, np.uint8)


# Steel


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_every_crop_becomes_a_jpeg_of_one_quality_whatever_it_was(
    tmp_path: Path, kind: str
) -> None:
    file = tmp_path / f"crop.{kind}"
    cv2.imwrite(str(file), grey((128, 128)))
    payload = encoded(file, 90)
    assert payload.startswith(b"\xff\xd8\xff")
    shown = np.asarray(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE))
    assert payload == cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def test_one_seed_gives_one_view_of_a_crop_and_another_another() -> None:
    plane = grey((128, 128))
    views = [steel_views.augment(plane, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert np.array_equal(views[0], views[1])
    assert not np.array_equal(views[0], views[2])
    assert {(view.shape, view.dtype.name) for view in views} == {((128, 128), "uint8")}


# Tiles


def test_a_mask_is_laid_by_the_geometry_of_the_guest(tmp_path: Path) -> None:
    """A white square drawn in frame and mask must be one square in the model's input, too."""
    (tmp_path / "images").mkdir()
    frame, mask = np.full((250, 611), 40, np.uint8), np.zeros((250, 611), np.uint8)
    frame[100:160, 300:390] = mask[100:160, 300:390] = 255
    cv2.imwrite(str(tmp_path / "images" / "mask.png"), mask)
    with FramePath(tile_data.CONTRACT) as path:
        tensor = path.tensor(cv2.imencode(".png", frame)[1].tobytes())
        laid = tile_data._mask(tmp_path, "mask.png", path.transform, (611, 250))
        x0, y0, x1, y1 = tile_data._inside(path.transform, (611, 250))
    assert tensor.shape == (1, 3, SIDE, SIDE)
    assert np.array_equal(tensor[0, 0], tensor[0, 2])
    bright = tensor[0, 0] > 150
    assert 0 < (bright != (laid > 0)).sum() < 0.05 * bright.sum() or np.array_equal(
        bright, laid > 0
    )
    assert (x0, x1) == (0, SIDE)
    assert y1 - y0 == pytest.approx(250 * SIDE / 611, abs=1)
    assert (tensor[0, 0, : y0 - 1] == tile_data.PAD).all()


def tile(seed: int, *holes: tuple[int, int, int, int]) -> tile_views.Sample:
    plane, mask = grey((SIDE, SIDE), seed), np.zeros((SIDE, SIDE), np.uint8)
    for x0, y0, x1, y1 in holes:
        plane[y0:y1, x0:x1], mask[y0:y1, x0:x1] = 5, 1
    return plane, mask, np.array([10, 20, 180, 170])


def test_a_graft_lies_on_the_tile_and_changes_nothing_far_from_its_mask() -> None:
    target, donor = tile(1), tile(2, (90, 90, 110, 120))
    plane, mask = tile_views.graft(target, donor, np.random.default_rng(0))
    assert mask.sum() == 20 * 30
    ys, xs = np.nonzero(mask)
    assert xs.min() >= 10
    assert xs.max() < 180
    assert ys.min() >= 20
    assert ys.max() < 170
    assert plane[mask > 0].mean() < target[0][mask > 0].mean() - 30
    far = cv2.dilate(mask, np.ones((25, 25), np.uint8)) == 0
    assert np.array_equal(plane[far], target[0][far])
    assert not target[1].any()


def test_a_donor_without_a_defect_gives_none() -> None:
    target = tile(1)
    plane, mask = tile_views.graft(target, tile(2), np.random.default_rng(0))
    assert np.array_equal(plane, target[0])
    assert not mask.any()


def test_a_view_of_a_tile_keeps_mask_and_defect_together() -> None:
    sample = tile(3, (76, 76, 116, 116))
    for seed in range(8):
        rng = np.random.default_rng(seed)
        plane, mask = tile_views.augment(sample, lambda: sample, rng, grafted=0.0)
        around = cv2.dilate(mask, np.ones((15, 15), np.uint8)) > mask
        assert plane[mask > 0].mean() < plane[around].mean()


def tiles(*frames: tuple[str, str]) -> tile_data.Tiles:
    """Frames as (tile, label); a bad one's mask is its upper left quarter."""
    masks = np.zeros((len(frames), SIDE, SIDE), np.uint8)
    for mask, (_, label) in zip(masks, frames, strict=True):
        mask[: SIDE // 2, : SIDE // 2] = bool(label)
    return tile_data.Tiles(
        tuple(str(at) for at in range(len(frames))),
        tuple(name for name, _ in frames),
        tuple(label for _, label in frames),
        np.zeros_like(masks),
        masks,
        np.zeros((len(frames), 4), np.int64),
    )


def test_votes_look_at_the_kth_strongest_exposure() -> None:
    shown = tiles(("a", "crack"), ("a", "crack"), ("b", ""), ("b", ""), ("c", ""))
    parts = fuse(shown, np.array([0.9, 0.7, 0.8, 0.1, 0.2]))
    assert parts.bad.tolist() == [True, False, False]
    assert parts.scores(1).tolist() == [0.9, 0.8, 0.2]
    assert parts.scores(2).tolist() == [0.7, 0.1, 0.0]  # of c there is one exposure alone


def test_votes_and_threshold_are_those_that_part_good_from_bad() -> None:
    shown = tiles(("a", "crack"), ("a", "crack"), ("b", ""), ("b", ""))
    chosen = choose(shown, np.array([0.8, 0.7, 0.9, 0.1]))
    assert chosen["votes"] == 2
    assert 0.1 < chosen["score"] <= 0.7


def test_a_perfect_heat_map_is_judged_perfect() -> None:
    shown = tiles(("a", "crack"), ("b", ""))
    heat = shown.masks[:, ::4, ::4].astype(np.float32)
    found = judge(shown, heat, {"score": 0.5, "votes": 1, "review": 0.3})
    assert (found["frame_auroc"], found["part_auroc"]) == (1.0, 1.0)
    assert found["pixel_iou_of_bad_frames"] > 0.97
    assert found["frame_verdicts"]["escape"]["events"] == 0


def test_folds_part_tiles_and_never_frames_of_one_tile() -> None:
    shown = tiles(*((f"tile{at % 40}", "") for at in range(240)))
    by_tile = {group: set() for group in shown.groups}  # type: dict[str, set[int]]
    for group, fold in zip(shown.groups, shown.folds, strict=True):
        by_tile[group].add(int(fold))
    assert all(len(folds) == 1 for folds in by_tile.values())
    assert set(shown.folds.tolist()) == set(range(tile_data.FOLDS))


# Wear


def test_a_frame_lies_beside_the_first_of_its_sequence() -> None:
    planes = grey((5, 224, 560))
    sequence = Sequence("s", tuple("abcde"), planes, np.zeros(5, np.bool_))
    pair = sequence.pair(3)
    assert pair.shape == (1, 2, 224, 560)
    assert np.array_equal(pair[0, 0], planes[3])
    assert np.array_equal(pair[0, 1], planes[0])
    assert sequence.age.tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_the_committed_losses_fall() -> None:
    for name in ("steel", "tile"):
        log = Path(__file__).parents[3] / "models" / name / "reports" / "training.jsonl"
        if not log.exists():
            continue
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))
        losses = [sum(v for k, v in row.items() if k.endswith("_loss")) for row in rows]
        assert losses[-1] < losses[0]
