"""The board detector's recipe and committed files, as far as they need no torch and no data set."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from models.pcb.recipe.augment import (
    augment,
    erase,
    graft,
    jpeg,
    misregister,
    reorient,
    zoom,
)
from models.pcb.recipe.data import CLASSES, PairSet, deeppcb_folder
from models.pcb.recipe.detections import (
    match,
    official_average_precision,
    overlaps,
    suppress,
)
from models.pcb.recipe.parts import bad_parts, good_parts
from models.pcb.recipe.targets import assign, cell_centres

if TYPE_CHECKING:
    from numpy.typing import NDArray

MODELS = Path(__file__).resolve().parents[3] / "models" / "pcb"
CARD: dict[str, Any] = tomllib.loads((MODELS / "model.toml").read_text())
VARIANTS: list[dict[str, Any]] = CARD["model"]["variants"]
EVERY_VARIANT = pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant["name"])


def board(*corners: tuple[int, int, int, int]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A bright board, a dark trace on both images, and a dark defect in each box of the frame.

    Corners are middles of pixels, as in the data set's annotation: the first and the last row and
    column that belong to the box.
    """
    images = np.full((2, 640, 640), 255, np.uint8)
    images[:, 300:310] = 0
    for x0, y0, x1, y1 in corners:
        images[0, y0 + 2 : y1 - 1, x0 + 2 : x1 - 1] = 0
    rows = [(*box, index % len(CLASSES)) for index, box in enumerate(corners)]
    return images, np.array(rows, np.float32).reshape(-1, 5)


def pair_set(*corners: tuple[int, int, int, int], residual_px: int = 0) -> PairSet:
    images, boxes = board(*corners)
    return PairSet(("one",), images[None], (boxes,), np.array([residual_px]))


def detections_of(truth: NDArray[np.float32], score: float = 0.9) -> NDArray[np.float32]:
    scores = np.full((len(truth), 1), score, np.float32)
    return np.concatenate([truth[:, :4], scores, truth[:, 4:]], axis=1)


def differing(images: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.asarray(images[0] != images[1])


BOXES = ((40, 60, 80, 90), (400, 100, 430, 140), (200, 500, 260, 530))


# Augmentation


def test_erasing_every_defect_leaves_the_reference() -> None:
    images, boxes = board(*BOXES)
    clean, left = erase(images, boxes, np.ones(3, np.bool_))
    assert not differing(clean).any()
    assert len(left) == 0


def test_erasing_one_defect_keeps_the_others_and_the_argument() -> None:
    images, boxes = board(*BOXES)
    before = images.copy()
    part, left = erase(images, boxes, np.array([False, True, False]))
    assert not differing(part)[100:140, 400:430].any()
    assert differing(part)[60:90, 40:80].any()
    assert np.array_equal(left, boxes[[0, 2]])
    assert np.array_equal(images, before)


def test_a_kept_defect_survives_the_margin_of_its_erased_neighbour() -> None:
    images, boxes = board((100, 100, 140, 140), (141, 100, 180, 140))
    part, _ = erase(images, boxes, np.array([True, False]))
    assert np.array_equal(part[0, 100:140, 141:180], images[0, 100:140, 141:180])


@pytest.mark.parametrize("symmetry", range(8))
def test_every_symmetry_moves_boxes_with_their_content(symmetry: int) -> None:
    images, boxes = board(*BOXES)
    turned, moved = reorient(images, boxes, symmetry)
    marked = np.zeros((640, 640), np.bool_)
    for x0, y0, x1, y1 in moved[:, :4].astype(int):
        marked[y0 + 2 : y1 - 1, x0 + 2 : x1 - 1] = True
    assert np.array_equal(differing(turned), marked)


def test_a_mirror_undoes_itself() -> None:
    images, boxes = board(*BOXES)
    again, back = reorient(*reorient(images, boxes, 3), 3)
    assert np.array_equal(again, images)
    assert np.array_equal(back, boxes)


def test_zoom_moves_boxes_with_their_content() -> None:
    images, boxes = board(BOXES[1])
    bigger, moved = zoom(images, boxes, 1.2, 10, -20)
    rows, columns = np.nonzero(bigger[0].astype(int) - bigger[1] < -127)
    x0, y0, x1, y1 = moved[0, :4]
    found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    inset = 2 * 1.2
    assert found == pytest.approx((x0 + inset, y0 + inset, x1 - inset, y1 - inset), abs=2)


def test_a_box_that_leaves_the_image_is_dropped() -> None:
    images, boxes = board((5, 5, 30, 30), (300, 400, 340, 440))
    _, moved = zoom(images, boxes, 1.0, -25, -25)
    assert moved[:, :4].tolist() == [[275, 375, 315, 415]]


def test_misregistration_moves_the_reference_alone() -> None:
    images, _ = board(*BOXES)
    moved = misregister(images, 0, 2)
    assert np.array_equal(moved[0], images[0])
    assert np.array_equal(moved[1, 302:312], images[1, 300:310])


def test_a_graft_brings_the_defect_and_no_other_difference() -> None:
    images, boxes = board()
    grafted, added = graft((images, boxes), board(BOXES[0]), 1, np.random.default_rng(0))
    assert added.shape == (1, 5)
    x0, y0, x1, y1 = added[0, :4].astype(int)
    assert (x1 - x0, y1 - y0) == (40, 30)
    inside = np.zeros((640, 640), np.bool_)
    inside[y0 + 2 : y1 - 1, x0 + 2 : x1 - 1] = True
    assert np.array_equal(differing(grafted), inside)


def test_a_graft_is_refused_where_a_defect_is() -> None:
    everywhere = board((0, 0, 640, 640))
    images, boxes = graft(everywhere, board(BOXES[0]), 1, np.random.default_rng(0))
    assert np.array_equal(images, everywhere[0])
    assert np.array_equal(boxes, everywhere[1])


def test_jpeg_leaves_artefacts_that_thresholding_removes() -> None:
    image = board(BOXES[0])[0][0]
    coded = jpeg(image, 60)
    assert (coded != image).any()
    assert np.array_equal(coded > 127, image > 127)


def test_one_seed_gives_one_sample() -> None:
    pair, donor = board(*BOXES), board(BOXES[2])
    for seed in range(20):
        first = augment(pair, lambda: donor, np.random.default_rng(seed))
        again = augment(pair, lambda: donor, np.random.default_rng(seed))
        assert np.array_equal(first[0], again[0])
        assert np.array_equal(first[1], again[1])


def test_augmented_samples_keep_shape_type_and_boxes_within_the_image() -> None:
    pair, donor = board(*BOXES), board(BOXES[2])
    for seed in range(40):
        images, boxes = augment(pair, lambda: donor, np.random.default_rng(seed))
        assert images.shape == (2, 640, 640)
        assert images.dtype == np.uint8
        assert boxes.dtype == np.float32
        assert boxes[:, :4].min(initial=0) >= 0
        assert boxes[:, :4].max(initial=0) <= 640
        assert (boxes[:, 2:4] > boxes[:, :2]).all()


# Targets


def test_a_box_is_answered_by_the_cells_near_its_centre_and_by_no_other() -> None:
    centres = cell_centres()
    owner = assign(np.array([[80, 180, 152, 252, 3]], np.float32), centres)
    near = (np.abs(centres - (116, 216)) <= 13).all(axis=1)
    assert near.sum() == 12
    assert np.array_equal(owner, np.where(near, 0, -1))


def test_a_thin_box_is_answered_from_within_alone() -> None:
    centres = cell_centres()
    owner = assign(np.array([[100, 210, 140, 214, 3]], np.float32), centres)
    assert set(centres[owner == 0, 1]) == {212}


def test_of_two_boxes_the_smaller_gets_the_cell() -> None:
    boxes = np.array([[100, 100, 140, 140, 0], [110, 110, 130, 130, 1]], np.float32)
    for order in ([0, 1], [1, 0]):
        owner = assign(boxes[order], cell_centres())
        shared = (np.abs(cell_centres() - 120) < 8).all(axis=1)
        assert (boxes[order][owner[shared], 4] == 1).all()


# Detections


def test_perfect_detections_have_an_average_precision_of_one() -> None:
    truth = np.array([(50 * c, 10, 50 * c + 30, 40, c) for c in range(6)], np.float32)
    matches = match([detections_of(truth)], [truth], 0.75)
    assert matches.average_precision() == dict.fromkeys(CLASSES, 1.0)
    assert matches.f_score(0.5) == 1.0
    assert official_average_precision([detections_of(truth)], [truth]) == 1.0


def test_a_detection_of_the_wrong_class_finds_nothing() -> None:
    truth = board(BOXES[0])[1]
    wrong = detections_of(truth)
    wrong[:, 5] = 4
    assert match([wrong], [truth], 0.33).f_score(0.5) == 0.0
    assert official_average_precision([wrong], [truth]) == 0.0


def test_a_second_detection_of_the_same_defect_is_false() -> None:
    truth = board(BOXES[0])[1]
    twice = np.concatenate([detections_of(truth, 0.9), detections_of(truth, 0.8)])
    matches = match([twice], [truth], 0.5)
    assert matches.hits.tolist() == [True, False]
    assert matches.f_score(0.85) == 1.0
    assert matches.f_score(0.5) == pytest.approx(2 / 3)


def test_average_precision_of_a_known_ranking() -> None:
    truth = np.array([[0, 0, 10, 10, 0], [50, 50, 60, 60, 0]], np.float32)
    found = np.array(
        [[0, 0, 10, 10, 0.9, 0], [100, 0, 110, 10, 0.8, 0], [50, 50, 60, 60, 0.7, 0]], np.float32
    )
    per_class = match([found], [truth], 0.5).average_precision()
    assert per_class["open"] == pytest.approx((1 + 2 / 3) / 2)


def test_the_chosen_threshold_is_the_middle_of_the_plateau() -> None:
    truth = np.array([(50 * i, 10, 50 * i + 30, 40, 0) for i in range(3)], np.float32)
    found = detections_of(truth)
    found[:, 4] = (0.9, 0.8, 0.6)
    noise = np.array([[0, 300, 30, 330, 0.1, 0]], np.float32)
    matches = match([np.concatenate([found, noise])], [truth], 0.5)
    assert matches.plateau() == pytest.approx(0.6)
    assert matches.f_score(matches.plateau()) == 1.0


def test_suppression_keeps_the_best_of_overlapping_boxes_of_any_class() -> None:
    boxes = np.array([[0, 0, 20, 20], [1, 0, 21, 20], [100, 0, 120, 20]], np.float32)
    scores = np.zeros((3, 6), np.float32)
    scores[0, 1], scores[1, 2], scores[2, 1] = 0.6, 0.9, 0.01
    kept = suppress(boxes, scores, floor=0.02, iou=0.4)
    assert kept == pytest.approx(np.array([[1, 0, 21, 20, 0.9, 2]]))


def test_overlap_of_half_shifted_boxes_is_a_third() -> None:
    a = np.array([[0, 0, 20, 10]], np.float32)
    b = np.array([[10, 0, 30, 10]], np.float32)
    assert overlaps(a, b) == pytest.approx(1 / 3)


# Parts


def test_a_good_part_differs_nowhere_and_comes_from_a_trustworthy_pair_only() -> None:
    assert [differing(part).any() for part in good_parts(pair_set(*BOXES))] == [False]
    assert list(good_parts(pair_set(*BOXES, residual_px=12))) == []


def test_a_bad_part_keeps_exactly_one_defect() -> None:
    ((part, box),) = bad_parts(pair_set(*BOXES), seed=1)
    rows, columns = np.nonzero(differing(part))
    found = [columns.min() - 2, rows.min() - 2, columns.max() + 2, rows.max() + 2]
    assert found == box[:4].tolist()


def test_a_missing_data_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="EDGE_DATA"):
        deeppcb_folder(tmp_path)


# The committed files


def test_the_card_names_the_classes_of_the_data_set() -> None:
    assert tuple(CARD["model"]["classes"]) == CLASSES


@EVERY_VARIANT
def test_the_files_use_standard_operators_and_hold_their_own_weights(
    variant: dict[str, Any],
) -> None:
    model = onnx.load(MODELS / variant["file"], load_external_data=False)
    assert [imported.domain for imported in model.opset_import] == [""]
    assert model.opset_import[0].version >= 17
    assert not any(onnx.external_data_helper.uses_external_data(t) for t in model.graph.initializer)


def test_the_quantised_graph_takes_bytes_as_they_are() -> None:
    model = onnx.load(MODELS / "model.int8.onnx")
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    (first,) = [node for node in model.graph.node if "input" in node.input]
    assert first.op_type == "DequantizeLinear"
    assert [float(constants[name]) for name in first.input[1:]] == [1.0, 0.0]


@EVERY_VARIANT
def test_the_detector_passes_a_clean_board_and_finds_a_drawn_bridge(
    variant: dict[str, Any],
) -> None:
    session = ort.InferenceSession(MODELS / variant["file"], providers=["CPUExecutionProvider"])
    images = np.full((2, 640, 640), 255, np.uint8)
    images[:, 300:312], images[:, 336:348] = 0, 0
    threshold = CARD["thresholds"]["score"]

    def found() -> NDArray[np.float32]:
        boxes, scores = session.run(["boxes", "scores"], {"input": images[None]})
        return suppress(boxes[0], scores[0], threshold, CARD["thresholds"]["iou"])

    assert len(found()) == 0
    images[0, 312:336, 200:206] = 0
    (bridge,) = found()
    assert CLASSES[int(bridge[5])] == "short"
    assert bridge[0] < 203 < bridge[2]
    assert bridge[1] < 324 < bridge[3]


@pytest.mark.skipif(CARD["model"]["version"] < "1", reason="provisional weights")
@EVERY_VARIANT
def test_the_card_promises_what_a_release_must_reach(variant: dict[str, Any]) -> None:
    rows = [row for row in CARD["accuracy"] if row["variant"] == variant["name"]]
    (at_official_iou,) = [row for row in rows if row["iou"] == 0.33]
    assert at_official_iou["map"] >= 0.98
    assert all(low <= high for v in CARD["verdicts"] for low, high in [v["escape_interval"]])
