"""Differences are found, named and measured; truth and tally are what people said."""

import json
from typing import Any

import msgspec
import pytest
from cascades import CASCADE
from daemons import DEPLOYMENT
from ledgers import entry
from path_bench import plan_of

from edge.contracts.frame import PixelFormat
from edge.contracts.messages import Judged, PolicyState
from edge.contracts.plan import GuestPlan, ImagePlan, ModelPlan, Overflow, PipelinePlan
from edge.contracts.verdict import Defect, DeploymentRef, Kind
from edge.errors import ConfigError
from edge.ledger import record as records
from edge.ledger.entry import Runtime, digest, parameters_document, pinned
from edge.ledger.record import GENESIS, Record
from edge.rerun import compare
from edge.rerun.judge import DIFFERS, IDENTICAL, MISSING, UNJUDGED, Outcome, Told
from edge.rerun.planning import Changes
from edge.rerun.tally import Tally

GUEST = GuestPlan("guest.wasm", "9" * 64, 1, 10)
DEFECT = Defect("short", 0.875, (1.0, 2.5, 30.0, 40.0))
RUNTIME = Runtime({"onnxruntime": "1.32.0", "cpu": "one"}, 2, {})


def _record(**changes: Any) -> Record:
    given = msgspec.structs.replace(
        entry(1), policy=PolicyState(4), findings="7" * 64, runtime=RUNTIME, **changes
    )
    return records.decode_verdict(records.encode(given, "f" * 64, "ab" * 8, 1, GENESIS))


def _plan(**guests: GuestPlan) -> PipelinePlan:
    plan = PipelinePlan(
        name="pcb",
        deployment=DeploymentRef("boards", 7, "d" * 64),
        source="camera.top",
        reference="",
        reference_slots=0,
        budget_ms=200,
        fail_safe=Kind.REVIEW,
        overflow=Overflow.QUEUE,
        queue_frames=1,
        image=ImagePlan(PixelFormat.GRAY8, 8, 8),
        model=ModelPlan("m.onnx", "1" * 64, ("short",), (), (), threads=2),
        preprocess=GUEST,
        postprocess=GUEST,
        decide=GUEST,
    )
    return msgspec.structs.replace(plan, **guests)


def _judged(record: Record, **changes: Any) -> Judged:
    judged = Judged(
        ticket=1,
        verdict=record.verdict,
        reason=record.reason,
        score=record.score or 0.0,
        defects=record.defects,
        stage_ms={},
        findings=record.digests.findings,
    )
    return msgspec.structs.replace(judged, **changes)


def test_the_same_answer_has_no_difference() -> None:
    record = _record()
    assert list(compare.of_verdict(record, _judged(record))) == []


@pytest.mark.parametrize(
    ("change", "what", "by"),
    [
        ({"verdict": Kind.PASS}, "verdict", None),
        ({"reason": "other"}, "reason", None),
        ({"score": 1 / 7 + 0.25}, "score", 0.25),
        ({"defects": (msgspec.structs.replace(DEFECT, score=0.5),)}, "defect 1 score", -0.375),
        (
            {"defects": (msgspec.structs.replace(DEFECT, box=(1.0, 2.5, 30.0, 38.5)),)},
            "defect 1 box",
            -1.5,
        ),
        ({"defects": ()}, "defect 1", None),
        ({"defects": (DEFECT, DEFECT)}, "defect 2", None),
        ({"findings": "8" * 64}, "findings", None),
    ],
)
def test_another_answer_is_named_with_its_distance(
    change: dict[str, Any], what: str, by: float | None
) -> None:
    record = _record()
    (found,) = compare.of_verdict(record, _judged(record, **change))
    assert (found.kind, found.what) == (compare.VERDICT, what)
    assert found.by == (None if by is None else pytest.approx(by))


def test_parameters_are_named_one_by_one_where_the_recorded_ones_were_kept() -> None:
    before: list[dict[str, Any]] = [
        {},
        {"score": 0.5, "layout": "xyxy"},
        {"rules": [{"min": 1}, {"min": 2}]},
    ]
    now: list[dict[str, Any]] = [{"new": True}, {"score": 0.5}, {"rules": [{"min": 1}, {"min": 4}]}]
    document = parameters_document(before)
    base = entry(1).pinned
    pinned = msgspec.structs.replace(base, parameters=digest(document), document=document)
    record = _record(pinned=pinned)
    here_document = parameters_document(now)
    here = msgspec.structs.replace(
        pinned, parameters=digest(here_document), document=here_document, model="8" * 64
    )
    deployment = record.deployment.digest
    found = {each.what: each for each in compare.of_deployment(record, deployment, here, document)}
    assert set(found) == {
        "model",
        "preprocess.new",
        "postprocess.layout",
        "decide.rules[1].min",
    }
    assert found["decide.rules[1].min"].by == 2
    assert str(found["postprocess.layout"]) == "postprocess.layout: xyxy recorded, none here"
    unkept = list(compare.of_deployment(record, deployment, here, None))
    assert [each.what for each in unkept] == ["model", "parameters"]


def test_engines_and_processor_are_told() -> None:
    record = _record()
    here = {"onnxruntime": "1.33.0", "cpu": "one"}
    found = list(compare.of_runtime(record, "cuda", _plan(), here))
    assert {each.what for each in found} == {"provider", "onnxruntime"}
    assert {each.kind for each in found} == {compare.RUNTIME}


def test_wishes_reach_the_plan_and_leave_the_rest_alone() -> None:
    decide = msgspec.structs.replace(GUEST, parameters={"reject": {"short": 0.5}, "review": 0.2})
    plan = _plan(decide=decide)
    changes = Changes(
        (
            "pipelines.pcb.decide.parameters.reject.short=0.75",
            "pipelines.other.decide.parameters.review=0.9",
            "signals.signal.lamp=0.25",
        )
    )
    applied = changes.applied(plan)
    assert applied.decide.parameters == {"reject": {"short": 0.75}, "review": 0.2}
    assert decide.parameters["reject"] == {"short": 0.5}
    assert changes.signals == {"signal.lamp": 0.25}
    assert (applied.preprocess, applied.model) == (plan.preprocess, plan.model)


@pytest.mark.parametrize(
    "wish",
    [
        "",
        "reject=1",
        "pipelines.pcb.model.threads=4",
        "pipelines.pcb.decide.call_ms=4",
        "pipelines.pcb.decide.parameters=1",
        "signals.signal.lamp=bright",
    ],
)
def test_other_wishes_are_refused(wish: str) -> None:
    with pytest.raises(ConfigError):
        Changes((wish,))


def _outcome(before: Kind, after: Kind | None, truth: Kind | None, status: str) -> Outcome:
    told = None if after is None else Told(after, "r", 0.5, 0)
    recorded = Told(before, "r", 0.5, 0)
    return Outcome(1, "pcb", "f", "p", status, recorded, told, (), truth)


def test_a_tally_tells_what_moved_and_for_the_better_or_not() -> None:
    tally = Tally()
    for outcome in (
        _outcome(Kind.REJECT, Kind.PASS, Kind.PASS, DIFFERS),  # overkill mended
        _outcome(Kind.REJECT, Kind.REVIEW, Kind.REJECT, DIFFERS),
        _outcome(Kind.REJECT, Kind.PASS, Kind.REJECT, DIFFERS),  # an escape made
        _outcome(Kind.PASS, Kind.PASS, None, IDENTICAL),
        _outcome(Kind.REVIEW, None, Kind.REJECT, MISSING),
        _outcome(Kind.REVIEW, Kind.PASS, Kind.REJECT, UNJUDGED),
    ):
        tally.add(outcome)
    told = tally.to_json()
    assert told["records"] == 6
    assert told["moved"] == {"reject to pass": 2, "reject to review": 1}
    assert told["escape"] == {"recorded": 0.0, "here": 0.5}
    assert told["overkill"] == {"recorded": 1.0, "here": 0.0}
    assert (told["known_bad"], told["known_good"]) == (2, 1)
    assert not tally.clean
    assert json.dumps(told)


def test_nothing_computed_is_not_clean_and_identical_is() -> None:
    nothing, same = Tally(), Tally()
    assert not nothing.clean
    nothing.add(_outcome(Kind.REJECT, None, None, MISSING))
    assert not nothing.clean
    same.add(_outcome(Kind.REJECT, Kind.REJECT, None, IDENTICAL))
    same.add(_outcome(Kind.REJECT, None, None, MISSING))
    assert same.clean


def _differences_of_pinned(recorded: PipelinePlan, here: PipelinePlan) -> set[str]:
    before = pinned(recorded)
    found = compare.of_deployment(_record(pinned=before), "d" * 64, pinned(here), before.document)
    return {each.what for each in found}


def test_a_cascade_is_compared_with_itself_and_nothing_differs() -> None:
    assert _differences_of_pinned(plan_of(CASCADE), plan_of(CASCADE)) == set()


def test_what_differs_in_a_second_model_is_named() -> None:
    plan = plan_of(CASCADE)
    assert plan.refine is not None
    other = msgspec.structs.replace(
        plan.refine,
        max_crops=4,
        model=msgspec.structs.replace(plan.refine.model, sha256="0" * 64),
        postprocess=msgspec.structs.replace(plan.refine.postprocess, parameters={"k": 1}),
    )
    changed = msgspec.structs.replace(plan, refine=other)
    assert _differences_of_pinned(plan, changed) == {
        "refine.model",
        "refine.max_crops",
        "refine.postprocess.k",
        "refine.postprocess.score",
    }


def test_a_second_model_that_came_or_went_is_named() -> None:
    cascade = plan_of(CASCADE)
    alone = msgspec.structs.replace(cascade, refine=None)
    for one, other in ((cascade, alone), (alone, cascade)):
        assert {
            "refine.model",
            "refine.preprocess",
            "refine.postprocess",
            "refine.max_crops",
        } <= _differences_of_pinned(one, other)


def test_parameters_of_the_second_models_guests_may_be_wished_for() -> None:
    plan = plan_of(CASCADE)
    wish = "pipelines.pcb.refine.postprocess.parameters.score.none=0.5"
    changed = Changes((wish,)).applied(plan)
    assert changed.refine is not None
    assert changed.refine.postprocess.parameters["score"] == {"default": 0.0, "none": 0.5}
    assert changed.refine.preprocess == plan.refine.preprocess if plan.refine else False
    assert Changes((wish,)).applied(plan_of(DEPLOYMENT)).refine is None
