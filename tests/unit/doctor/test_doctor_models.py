"""What the doctor finds of a pipeline's models, tried as its worker runs them."""

import msgspec
from cascades import CASCADE
from path_bench import plan_of

from edge.doctor import engines
from edge.doctor.check import Outcome


def test_both_models_of_a_cascade_are_tried_and_the_second_as_often_as_a_frame_may_take_it() -> (
    None
):
    first, second = engines.models((plan_of(CASCADE),))
    assert [first.name, second.name] == ["model.pcb", "model.pcb.refine"]
    assert "up to 4 a frame" in second.said
    assert "a frame" not in first.said


def test_more_crops_than_the_budget_holds_is_a_finding() -> None:
    plan = msgspec.structs.replace(plan_of(CASCADE), budget_ms=0)
    second = engines.models((plan,))[1]
    assert second.outcome is Outcome.FINDING
    assert "the budget of the whole frame is 0 ms" in second.said
    assert "lower refine.max_crops" in second.remedy
