"""The cascade's recipe and its deployment: the same crops, the same answers, the same settings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from daemons import part_jpeg, reference_jpeg
from path_bench import Bench, plan_of

from edge.contracts.frame import ContentType
from edge.contracts.plan import PipelinePlan, RefinePlan, ScoreOf
from edge.deployment.folder import LoadedDeployment, load_folder
from edge.pipeline.decode import decode
from edge.wasm.engine import GuestEngine
from models.pcb_kinds.recipe.cascade import MAX_CROPS, Cascade, Setting
from models.pcb_kinds.recipe.data import BATCH, CLASSES, CONTRACT, CROP, DETECTOR, SIDE
from models.recipe.frames import FramePath
from models.recipe.session import open_session

ROOT = Path(__file__).parents[3] / "models" / "pcb_kinds"
BOARDS = ((0, ()), (1, ("short", "open")), (2, ("spur", "mousebite", "copper", "pin-hole")))
SEED = 3


@pytest.fixture(scope="module")
def deployment() -> LoadedDeployment:
    return load_folder(ROOT / "deployment")


@pytest.fixture(scope="module")
def plan() -> PipelinePlan:
    return plan_of(ROOT / "deployment")


@pytest.fixture(scope="module")
def bench(plan: PipelinePlan, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with GuestEngine(tmp_path_factory.mktemp("code") / "guests") as engine:
        made = Bench(plan, engine)
        made.teach(SEED)
        yield made


def refine_of(plan: PipelinePlan) -> RefinePlan:
    assert plan.refine is not None
    return plan.refine


def setting_of(plan: PipelinePlan, deployment: LoadedDeployment) -> Setting:
    """What the deployment does, in the words of the recipe."""
    refine = deployment.manifest.pipelines["pcb"].refine
    assert refine is not None
    floor = plan.postprocess.parameters["score"]
    return Setting(floor, ScoreOf(refine.score), refine.postprocess.parameters["score"]["none"])


def test_the_deployment_is_set_as_the_recipe_evaluated_it(
    plan: PipelinePlan, deployment: LoadedDeployment
) -> None:
    refine = refine_of(plan)
    assert refine.model.classes == CLASSES
    assert (refine.crop, refine.max_crops, refine.batch) == (CROP, MAX_CROPS, BATCH)
    assert (refine.drop, refine.drop_unnamed) == (("none",), False)
    assert refine.model.inputs == (CONTRACT.input.rows(BATCH),)
    assert refine.preprocess.parameters == CONTRACT.parameters
    card = deployment.cards["kinds/model.toml"]
    assert plan.decide.parameters["reject"] == card.thresholds.score


def test_the_policy_sees_the_kinds_and_never_none(plan: PipelinePlan) -> None:
    assert plan.classes == CLASSES[:-1]


def test_the_deployed_cascade_says_what_the_recipe_evaluates(
    bench: Bench, plan: PipelinePlan, deployment: LoadedDeployment
) -> None:
    """Crops, batches, the guest `topk` and the merge, whole: the same findings on the same board.

    Scores may differ in their last digits, since the recipe computes batches of other sizes.
    """
    setting = setting_of(plan, deployment)
    sessions = open_session(DETECTOR), open_session(ROOT / "model.int8.onnx")
    with FramePath(CONTRACT) as path:
        cascade = Cascade(*sessions, path)
        for part, kinds in BOARDS:
            judged = bench.judge(part, *kinds, seed=SEED)
            payloads = part_jpeg(SEED, part, kinds), reference_jpeg(SEED)
            pair = np.stack([_pixels(payload, plan) for payload in payloads])
            expected = cascade(pair).merged(setting)
            expected = expected[expected[:, 4] >= refine_of(plan).min_score]
            assert judged.crops == len(kinds)
            assert [defect.label for defect in judged.defects] == [
                CLASSES[int(label)] for label in expected[:, 5]
            ]
            for defect, row in zip(judged.defects, expected, strict=True):
                assert defect.box == pytest.approx(row[:4].tolist(), abs=0.01)
                assert defect.score == pytest.approx(float(row[4]), abs=1e-3)


def test_every_kind_of_defect_is_named_by_the_cascade(bench: Bench) -> None:
    for kind in CLASSES[:-1]:
        judged = bench.judge(4, kind, seed=SEED)
        assert {defect.label for defect in judged.defects} == {kind}


def test_crops_are_large_enough_to_be_copied() -> None:
    assert CROP.min_side_px == SIDE


def _pixels(payload: bytes, plan: PipelinePlan) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    room = np.zeros(plan.image.max_bytes, np.uint8)
    width, height = decode(payload, ContentType(), plan.image, room)
    return room[: width * height].reshape(height, width)
