"""The reference guests with models made for them, from a picture's bytes to a verdict."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge.contracts.frame import ContentType, Encoding, PixelFormat, part_number
from edge.contracts.messages import Judge, Judged, PolicyState
from edge.contracts.plan import GuestPlan, ImagePlan, ModelPlan, Overflow, PipelinePlan, TensorSpec
from edge.contracts.verdict import DeploymentRef, Kind
from edge.inference.model import OnnxModel
from edge.pipeline.path import FramePath
from edge.pipeline.stages import load_modules
from edge.wasm.engine import GuestEngine

GUESTS = Path(__file__).parents[3] / "guests"
FOR_EVER = (1 << 63) - 1
Constants = dict[str, npt.NDArray[Any]]
SIDE = 64
WIDTH, HEIGHT = 200, 100


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuestEngine]:
    with GuestEngine(tmp_path_factory.mktemp("cache") / "guests") as opened:
        yield opened


class Line:
    """A frame path of three reference guests around a model of a few ONNX nodes."""

    def __init__(
        self,
        engine: GuestEngine,
        folder: Path,
        model: onnx.ModelProto,
        *,
        preprocess: tuple[str, dict[str, Any]],
        postprocess: tuple[str, dict[str, Any]],
        policy: dict[str, Any],
        classes: tuple[str, ...],
    ) -> None:
        file = folder / "model.onnx"
        file.write_bytes(model.SerializeToString())
        plan = PipelinePlan(
            name="line",
            deployment=DeploymentRef("line", 1, "0" * 64),
            source="camera.top",
            reference="",
            reference_slots=0,
            budget_ms=60_000,
            fail_safe=Kind.REVIEW,
            overflow=Overflow.LATEST,
            queue_frames=1,
            image=ImagePlan(PixelFormat.BGR, WIDTH, HEIGHT),
            model=ModelPlan(
                path=str(file),
                sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
                classes=classes,
                inputs=specs(model.graph.input),
                outputs=specs(model.graph.output),
            ),
            preprocess=guest(preprocess[0], preprocess[1]),
            postprocess=guest(postprocess[0], postprocess[1]),
            decide=guest("policy", policy),
        )
        modules = load_modules(engine, plan)
        self._path = FramePath(plan, modules, OnnxModel.load(plan.model), PolicyState())

    def judge(self, *marks: tuple[int, int, int, int], part: str = "") -> Judged:
        """Judge a black picture with white rectangles x0, y0, x1, y1."""
        picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        for x0, y0, x1, y1 in marks:
            picture[y0:y1, x0:x1] = 255
        payload = cv2.imencode(".png", picture)[1].tobytes()
        request = Judge(1, ContentType(Encoding.PNG), FOR_EVER, 0, part=part_number(part))
        return self._path.judge(self._path.decode(request, payload))


def guest(name: str, parameters: dict[str, Any]) -> GuestPlan:
    path = GUESTS / name / f"{name}.wasm"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return GuestPlan(str(path), digest, 128, 5_000, parameters)


def specs(values: Any) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            value.name,
            np.dtype(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)).name,
            tuple(d.dim_value for d in value.type.tensor_type.shape.dim),
        )
        for value in values
    )


def model_of(
    nodes: list[Any],
    batch: int,
    output: tuple[str, list[int]],
    constants: Constants | None = None,
) -> onnx.ModelProto:
    """A model from uint8 `images` [batch, 3, SIDE, SIDE] to one float32 output."""
    graph = helper.make_graph(
        [helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT), *nodes],
        "line",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, [batch, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info(output[0], TensorProto.FLOAT, output[1])],
        initializer=[numpy_helper.from_array(v, k) for k, v in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_a_large_frame_is_looked_at_in_tiles_and_its_mark_found_in_one(
    engine: GuestEngine, tmp_path: Path
) -> None:
    """The model says of each tile how bright its brightest pixel is, and where its middle lies."""
    middle = np.array([[[SIDE / 4, SIDE / 4, SIDE * 3 / 4, SIDE * 3 / 4]]] * 6, np.float32)
    nodes = [
        helper.make_node("ReduceMax", ["pixels"], ["brightest"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Div", ["brightest", "white"], ["share"]),
        helper.make_node("Reshape", ["share", "cells"], ["score"]),
        helper.make_node("Concat", ["middle", "score", "label"], ["found"], axis=2),
    ]
    constants: Constants = {
        "white": np.array(255, np.float32),
        "cells": np.array([6, 1, 1], np.int64),
        "middle": middle,
        "label": np.zeros((6, 1, 1), np.float32),
    }
    grid = {"rows": 2, "columns": 3}
    line = Line(
        engine,
        tmp_path,
        model_of(nodes, 6, ("found", [6, 1, 6]), constants),
        preprocess=("tile", {**grid, "pad": 0}),
        postprocess=("boxes", {"layout": "nms", "score": 0.9, "tiles": grid}),
        policy={},
        classes=("mark",),
    )
    assert line.judge().verdict is Kind.PASS
    # 200 x 100 in tiles of 67 x 50: the second row's third begins at (133, 50).
    judged = line.judge((150, 70, 160, 80))
    assert judged.verdict is Kind.REJECT
    (defect,) = judged.defects
    x0, y0, x1, y1 = defect.box
    assert 133 < x0 < 155 < x1 < 200
    assert 50 < y0 < 75 < y1 < 100
    assert len(line.judge((10, 10, 20, 20), (150, 70, 160, 80)).defects) == 2


def test_a_classifier_rejects_what_its_card_calls_bad(engine: GuestEngine, tmp_path: Path) -> None:
    """The model's logits are darkness and brightness, on the average."""
    nodes = [
        helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Reshape", ["mean", "row"], ["level"]),
        helper.make_node("MatMul", ["level", "weights"], ["logits"]),
    ]
    constants: Constants = {
        "row": np.array([1, 1], np.int64),
        "weights": np.array([[-0.05, 0.05]], np.float32),
    }
    line = Line(
        engine,
        tmp_path,
        model_of(nodes, 1, ("logits", [1, 2]), constants),
        preprocess=("letterbox", {"resize": "stretch"}),
        postprocess=("topk", {"activation": "softmax", "score": {"good": "never"}}),
        policy={"reject": 0.9},
        classes=("good", "bright"),
    )
    assert (line.judge().verdict, line.judge().defects) == (Kind.PASS, ())
    judged = line.judge((0, 0, WIDTH, HEIGHT // 2))
    assert judged.verdict is Kind.REJECT
    assert [(d.label, d.box) for d in judged.defects] == [("bright", (0, 0, WIDTH, HEIGHT))]


def test_an_anomaly_map_gives_regions_of_the_frame(engine: GuestEngine, tmp_path: Path) -> None:
    """The model's map is the brightness of 4 x 4 pixels."""
    nodes = [
        helper.make_node("ReduceMax", ["pixels"], ["grey"], axes=[1], keepdims=1),
        helper.make_node("MaxPool", ["grey"], ["map"], kernel_shape=[4, 4], strides=[4, 4]),
    ]
    line = Line(
        engine,
        tmp_path,
        model_of(nodes, 1, ("map", [1, 1, SIDE // 4, SIDE // 4])),
        preprocess=("letterbox", {"pad": 0}),
        postprocess=("heat", {"threshold": 128, "high": 255, "min_area_px": 300}),
        policy={},
        classes=("anomaly",),
    )
    assert line.judge((100, 50, 103, 53)).defects == ()  # too small
    judged = line.judge((20, 20, 60, 45), (120, 60, 180, 90))
    assert judged.verdict is Kind.REJECT
    assert len(judged.defects) == 2
    for x, y in ((40, 32), (150, 75)):
        assert any(
            d.box[0] < x < d.box[2] and d.box[1] < y < d.box[3] and d.box[2] - d.box[0] < 90
            for d in judged.defects
        )


def test_two_of_three_frames_reject_a_part(engine: GuestEngine, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMax", ["pixels"], ["grey"], axes=[1], keepdims=1),
        helper.make_node("Identity", ["grey"], ["map"]),
    ]
    line = Line(
        engine,
        tmp_path,
        model_of(nodes, 1, ("map", [1, 1, SIDE, SIDE])),
        preprocess=("letterbox", {"pad": 0}),
        postprocess=("heat", {"threshold": 128, "high": 255}),
        policy={"burst": {"frames": 3, "reject": 2}},
        classes=("anomaly",),
    )
    mark = (20, 20, 60, 45)
    told = [line.judge(mark, part="a"), line.judge(part="a"), line.judge(mark, part="a")]
    told += [line.judge(mark, part="b"), line.judge(mark)]
    assert [(each.verdict, each.reason) for each in told] == [
        (Kind.REVIEW, "unconfirmed"),
        (Kind.PASS, "ok"),
        (Kind.REJECT, "defect"),
        (Kind.REVIEW, "unconfirmed"),
        (Kind.REJECT, "defect"),
    ]
