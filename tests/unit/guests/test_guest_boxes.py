"""The guest `boxes`: from a detector's outputs to findings in the frame."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_guests import ReferenceGuests

from edge.contracts.plan import TensorSpec
from edge.errors import GuestError, IncompatibleError
from edge.wasm.roles import Postprocessor, Transform

pytest_plugins = ("reference_guest_fixtures",)

Floats = npt.NDArray[np.float32]
IDENTITY: Transform = (1.0, 1.0, 0.0, 0.0)
CLASSES = ["open", "short", "mousebite", "spur", "copper", "pin-hole"]


@dataclass(frozen=True)
class Outputs:
    """A detector's outputs: corners [cells, 4] or centres and sizes, scores [cells, classes]."""

    boxes: Floats
    scores: Floats


def run(
    guests: ReferenceGuests,
    outputs: Outputs,
    parameters: dict[str, Any],
    *,
    classes: list[str] | None = None,
    transform: Transform = IDENTITY,
    frame: tuple[int, int] = (640, 640),
) -> list[tuple[float, ...]]:
    """The findings as (x0, y0, x1, y1, score, label), in the guest's order."""
    count = outputs.scores.shape[1]
    yolo = parameters.get("layout") == "yolov8"
    if yolo:
        tensors = [np.concatenate([outputs.boxes, outputs.scores], axis=1).T[None]]
    else:
        tensors = [outputs.boxes[None], outputs.scores[None]]
    specs = tuple(
        TensorSpec(f"output{i}", "float32", tensor.shape) for i, tensor in enumerate(tensors)
    )
    guest = guests.configured("boxes", parameters, classes=classes or [])
    role = Postprocessor(guest, specs, class_count=count)
    for view, tensor in zip(role.outputs, tensors, strict=True):
        view[...] = tensor
    found = role.run(transform, *frame)
    return [tuple(row) for row in role._defects[:found].tolist()]


def expected(
    outputs: Outputs,
    parameters: dict[str, Any],
    transform: Transform,
    frame: tuple[int, int],
) -> list[tuple[float, ...]]:
    """The rules of guests/boxes/README.md over whole arrays, in float32 as the guest has it."""
    corners = outputs.boxes
    if parameters["layout"] == "yolov8":
        half = corners[:, 2:] / np.float32(2)
        corners = np.concatenate([corners[:, :2] - half, corners[:, :2] + half], axis=1)
    labels, scores = outputs.scores.argmax(axis=1), outputs.scores.max(axis=1)
    eligible = np.flatnonzero(scores >= np.float32(parameters["score"]))
    order = eligible[np.argsort(-scores[eligible], kind="stable")][: parameters["candidates"]]
    area = (corners[:, 2:] - corners[:, :2]).clip(0).prod(axis=1)
    kept: list[int] = []
    findings: list[tuple[float, ...]] = []
    bounds = np.tile(np.asarray(frame, np.float32), 2)
    for cell in order:
        rivals = [k for k in kept if parameters["class_agnostic"] or labels[k] == labels[cell]]
        low = np.maximum(corners[rivals, :2], corners[cell, :2])
        high = np.minimum(corners[rivals, 2:], corners[cell, 2:])
        shared = (high - low).clip(0).prod(axis=1)
        union = area[rivals] + area[cell] - shared
        if ((shared > 0) & (shared >= np.float32(parameters["iou"]) * union)).any():
            continue
        kept.append(int(cell))
        scale, offset = np.asarray(transform, np.float32).reshape(2, 2)
        mapped = (corners[cell].reshape(2, 2) - offset) * scale
        box = mapped.reshape(4).clip(0, bounds)
        if box[0] < box[2] and box[1] < box[3]:
            findings.append((*map(float, box), float(scores[cell]), int(labels[cell])))
    return findings[: parameters["max"]]


def crowd(seed: int, cells: int, classes: int, *, centred: bool) -> Outputs:
    """Clustered boxes that overlap each other, some beyond the frame; scores with many ties."""
    rng = np.random.default_rng(seed)
    centres = rng.choice(rng.uniform(-20, 660, (max(cells // 6, 1), 2)), cells)
    centres = centres + rng.normal(0, 6, (cells, 2))
    sizes = rng.uniform(4, 60, (cells, 2))
    if centred:
        boxes = np.concatenate([centres, sizes], axis=1)
    else:
        boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)
    scores = np.round(rng.random((cells, classes)) ** 3 * 32) / 32
    return Outputs(boxes.astype(np.float32), scores.astype(np.float32))


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    cells=st.integers(1, 700),
    classes=st.integers(1, 9),
    layout=st.sampled_from(["xyxy+scores", "yolov8"]),
    score=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9]),
    iou=st.sampled_from([0.0, 0.1, 0.4, 0.5, 0.9, 1.0]),
    class_agnostic=st.booleans(),
    most=st.sampled_from([1, 5, 300]),
    candidates=st.sampled_from([1, 20, 300, 1024]),
    transform=st.sampled_from([IDENTITY, (2.0, 2.0, 0.0, 80.0), (0.5, 0.75, 12.5, 3.25)]),
)
def test_it_agrees_with_an_independent_suppression(
    guests: ReferenceGuests,
    seed: int,
    cells: int,
    classes: int,
    layout: str,
    score: float,
    iou: float,
    class_agnostic: bool,
    most: int,
    candidates: int,
    transform: Transform,
) -> None:
    outputs = crowd(seed, cells, classes, centred=layout == "yolov8")
    parameters = {
        "layout": layout,
        "score": score,
        "iou": iou,
        "class_agnostic": class_agnostic,
        "max": most,
        "candidates": candidates,
    }
    found = run(guests, outputs, parameters, transform=transform, frame=(640, 480))
    wanted = expected(outputs, parameters, transform, (640, 480))
    assert [row[4:] for row in found] == [row[4:] for row in wanted]
    np.testing.assert_array_equal(np.array(found), np.array(wanted))


def cell(box: list[float], **scores: float) -> Outputs:
    row = [scores.get(name.replace("-", "_"), 0.0) for name in CLASSES]
    return Outputs(np.array([box], np.float32), np.array([row], np.float32))


def together(*outputs: Outputs) -> Outputs:
    return Outputs(
        np.concatenate([o.boxes for o in outputs]), np.concatenate([o.scores for o in outputs])
    )


def test_each_class_has_its_own_threshold(guests: ReferenceGuests) -> None:
    outputs = together(
        cell([0, 0, 9, 9], open=0.5),
        cell([50, 0, 59, 9], short=0.5),
        cell([90, 0, 99, 9], spur=0.5),
    )
    parameters = {"score": {"default": 0.6, "short": 0.4, "open": 0.5}}
    found = run(guests, outputs, parameters, classes=CLASSES)
    assert [row[5] for row in found] == [0, 1]


def test_a_cell_speaks_for_its_strongest_class_that_reaches_its_threshold(
    guests: ReferenceGuests,
) -> None:
    outputs = cell([0, 0, 9, 9], open=0.8, short=0.5)
    found = run(guests, outputs, {"score": {"open": 0.9, "short": 0.3}}, classes=CLASSES)
    assert [(row[4], row[5]) for row in found] == [(0.5, 1)]


def test_equal_scores_come_in_the_order_of_their_cells(guests: ReferenceGuests) -> None:
    outputs = together(*(cell([40.0 * i, 0, 40.0 * i + 9, 9], open=0.5) for i in range(9)))
    found = run(guests, outputs, {"candidates": 4}, classes=CLASSES)
    assert [row[0] for row in found] == [0, 40, 80, 120]


def test_classes_suppress_each_other_only_when_told_to(guests: ReferenceGuests) -> None:
    outputs = together(cell([0, 0, 9, 9], open=0.9), cell([0, 0, 9, 9], short=0.8))
    assert len(run(guests, outputs, {}, classes=CLASSES)) == 2
    assert len(run(guests, outputs, {"class_agnostic": True}, classes=CLASSES)) == 1


@pytest.mark.parametrize(("iou", "findings"), [(0.5, 1), (0.51, 2)])
def test_an_overlap_of_exactly_the_bound_suppresses(
    guests: ReferenceGuests, iou: float, findings: int
) -> None:
    outputs = together(cell([0, 0, 10, 10], open=0.9), cell([0, 0, 10, 5], open=0.8))
    assert len(run(guests, outputs, {"iou": iou}, classes=CLASSES)) == findings


@pytest.mark.parametrize("layout", ["xyxy+scores", "yolov8"])
@pytest.mark.parametrize("at", [0, 5, 258])
def test_a_score_that_is_no_number_fails_the_frame(
    guests: ReferenceGuests, layout: str, at: int
) -> None:
    outputs = crowd(1, 259, 3, centred=layout == "yolov8")
    outputs.scores[at, 1] = np.nan
    with pytest.raises(GuestError, match=f"scores are not finite numbers at cell {at}"):
        run(guests, outputs, {"layout": layout, "score": 0.9})


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_a_box_that_is_no_number_fails_the_frame(guests: ReferenceGuests, value: float) -> None:
    outputs = cell([0, -value, 9, value], open=0.9)
    with pytest.raises(GuestError, match="boxes are not finite numbers at cell 0"):
        run(guests, outputs, {}, classes=CLASSES)


def test_a_score_above_one_counts_as_one(guests: ReferenceGuests) -> None:
    outputs = cell([0, 0, 9, 9], open=np.inf)
    assert run(guests, outputs, {}, classes=CLASSES)[0][4] == 1


def test_outputs_are_found_by_name(guests: ReferenceGuests) -> None:
    specs = (TensorSpec("scores", "float32", (1, 1, 6)), TensorSpec("boxes", "float32", (1, 1, 4)))
    named = [{"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)} for spec in specs]
    guest = guests.configured("boxes", {}, classes=CLASSES, outputs=named)
    role = Postprocessor(guest, specs, class_count=6)
    role.outputs[0][...], role.outputs[1][...] = cell([1, 2, 3, 4], short=0.5).scores, [1, 2, 3, 4]
    assert role.run(IDENTITY, 640, 640) == 1
    assert role.defects(1)[0].item() == (1, 2, 3, 4, 0.5, 1)


def test_the_outputs_of_the_reference_model_and_of_a_yolov8_fit_into_its_memory(
    guests: ReferenceGuests,
) -> None:
    pcb = crowd(2, 6400, 6, centred=False)
    assert len(run(guests, pcb, {"iou": 0.4})) > 100
    coco = crowd(3, 8400, 80, centred=True)
    assert len(run(guests, coco, {"layout": "yolov8", "score": 0.9})) > 100


def test_the_host_decides_how_many_findings_there_is_room_for(guests: ReferenceGuests) -> None:
    outputs = together(*(cell([40.0 * i, 0, 40.0 * i + 9, 9], open=0.5) for i in range(9)))
    specs = (TensorSpec("boxes", "float32", (1, 9, 4)), TensorSpec("scores", "float32", (1, 9, 6)))
    role = Postprocessor(guests.configured("boxes", {}), specs, class_count=6, capacity=3)
    role.outputs[0][...], role.outputs[1][...] = outputs.boxes, outputs.scores
    assert role.run(IDENTITY, 640, 640) == 3


@pytest.mark.parametrize(
    ("specs", "layout", "problem"),
    [
        ([(1, 9, 4), (1, 8, 6)], "xyxy+scores", r"needs float32 outputs boxes \[1, cells, 4\]"),
        ([(1, 9, 4)], "xyxy+scores", r"needs float32 outputs boxes \[1, cells, 4\]"),
        ([(1, 4, 9)], "yolov8", r"needs one float32 output \[1, 4 \+ classes, cells\]"),
        ([(1, 9, 9)], "yolov8", "the model scores 5 classes, the configuration names 6"),
    ],
)
def test_other_outputs_are_refused(
    guests: ReferenceGuests, specs: list[tuple[int, ...]], layout: str, problem: str
) -> None:
    guest = guests.configured("boxes", {"layout": layout}, classes=CLASSES)
    tensors = tuple(TensorSpec(f"o{i}", "float32", shape) for i, shape in enumerate(specs))
    with pytest.raises(GuestError, match=problem):
        Postprocessor(guest, tensors, class_count=6).run(IDENTITY, 640, 640)


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"score": 1.5}, r"parameters\.score: expected a number 0\.\.1"),
        ({"score": {"open": 2}}, r"parameters\.score\.open: expected a number 0\.\.1"),
        ({"score": {"opne": 0.5}}, r"parameters\.score\.opne: no such class"),
        ({"layout": "v5"}, r'parameters\.layout: expected one of "xyxy\+scores", "yolov8"'),
        ({"class_agnostic": 1}, r"parameters\.class_agnostic: expected true or false"),
        ({"max": 301}, r"parameters\.max: expected a whole number 1\.\.300"),
        ({"max": 2.5}, r"parameters\.max: expected a whole number 1\.\.300"),
        ({"iuo": 0.5}, r"parameters\.iuo: no such parameter"),
    ],
)
def test_wrong_parameters_are_named(
    guests: ReferenceGuests, parameters: dict[str, Any], problem: str
) -> None:
    with pytest.raises(IncompatibleError, match=problem):
        guests.configured("boxes", parameters, classes=CLASSES)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    cells=st.integers(1, 300),
    classes=st.integers(1, 7),
    score=st.sampled_from([0.0, 0.1, 0.3, 0.7]),
)
def test_objectness_times_class_is_the_score_of_yolov5(
    guests: ReferenceGuests, seed: int, cells: int, classes: int, score: float
) -> None:
    outputs = crowd(seed, cells, classes, centred=True)
    objectness = np.random.default_rng(seed).random((cells, 1)).astype(np.float32)
    rows = np.concatenate([outputs.boxes, objectness, outputs.scores], axis=1)
    found = run_layout(guests, [rows[None]], {"layout": "yolov5", "score": score}, classes)
    product = Outputs(outputs.boxes, objectness * outputs.scores)
    assert found == run(guests, product, {"layout": "yolov8", "score": score})


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    cells=st.integers(1, 300),
    labels=st.sampled_from(["int32", "int64", "float32"]),
    iou=st.sampled_from([0.3, 0.5, 1.0]),
)
def test_labelled_layouts_are_the_others_with_their_class_chosen(
    guests: ReferenceGuests, seed: int, cells: int, labels: str, iou: float
) -> None:
    outputs = crowd(seed, cells, 5, centred=False)
    best = outputs.scores.argmax(axis=1)
    scores = outputs.scores.max(axis=1) + np.float32(0.01)  # a score of 0 is an empty row
    alone = np.zeros_like(outputs.scores)
    alone[np.arange(cells), best] = scores
    expected_ = run(guests, Outputs(outputs.boxes, alone), {"iou": iou, "score": 0.005})
    rows = np.concatenate([outputs.boxes, scores[:, None], best[:, None]], axis=1)
    parameters = {"iou": iou, "score": 0.005}
    nms = run_layout(guests, [rows.astype(np.float32)[None]], {"layout": "nms", **parameters}, 5)
    assert nms == expected_
    spare = np.full((7, 4), np.nan, np.float32)  # behind num_dets nothing is looked at
    tensors: list[npt.NDArray[Any]] = [
        np.array([[cells]], "int32"),
        np.concatenate([outputs.boxes, spare])[None],
        np.concatenate([scores, spare[:, 0]])[None],
        np.concatenate([best, np.full(7, 99)]).astype(labels)[None],
    ]
    assert run_layout(guests, tensors, {"layout": "end2end", **parameters}, 5) == expected_


def run_layout(
    guests: ReferenceGuests,
    tensors: list[npt.NDArray[Any]],
    parameters: dict[str, Any],
    classes: int,
) -> list[tuple[float, ...]]:
    specs = tuple(
        TensorSpec(f"output{i}", tensor.dtype.name, tensor.shape)
        for i, tensor in enumerate(tensors)
    )
    role = Postprocessor(guests.configured("boxes", parameters), specs, class_count=classes)
    for view, tensor in zip(role.outputs, tensors, strict=True):
        view[...] = tensor
    return [tuple(row) for row in role._defects[: role.run(IDENTITY, 640, 640)].tolist()]


@pytest.mark.parametrize("at", [0, 3, 8])
def test_a_class_score_that_is_no_number_fails_a_cell_of_low_objectness_too(
    guests: ReferenceGuests, at: int
) -> None:
    rows = np.full((9, 5 + 6), 0.01, np.float32)
    rows[at, 9] = np.nan
    with pytest.raises(GuestError, match=f"scores are not finite numbers at cell {at}"):
        run_layout(guests, [rows[None]], {"layout": "yolov5"}, 6)
