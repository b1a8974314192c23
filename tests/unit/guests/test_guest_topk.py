"""The guest `topk`: from a classifier's outputs to findings that are the whole frame."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_guests import ReferenceGuests

from edge.contracts.plan import TensorSpec
from edge.errors import GuestError
from edge.wasm.roles import Postprocessor

pytest_plugins = ("reference_guest_fixtures",)

FRAME = (640, 480)


def run(
    guests: ReferenceGuests, outputs: list[float], parameters: dict[str, Any], **around: Any
) -> list[tuple[float, int]]:
    """Score and label of each finding; its box is always the frame."""
    guest = guests.configured("topk", parameters, **around)
    spec = TensorSpec("logits", "float32", (1, len(outputs)))
    role = Postprocessor(guest, (spec,), class_count=len(outputs))
    role.outputs[0][0] = outputs
    found = role.defects(role.run((1.0, 1.0, 0.0, 0.0), *FRAME)).tolist()
    assert all(row[:4] == (0, 0, *FRAME) for row in found)
    return [row[4:] for row in found]


@settings(max_examples=150, deadline=None)
@given(
    outputs=st.lists(st.floats(-80, 80, width=32), min_size=1, max_size=40),
    k=st.integers(1, 5),
    activation=st.sampled_from(["softmax", "sigmoid", "none"]),
)
def test_it_agrees_with_numpy(
    guests: ReferenceGuests, outputs: list[float], k: int, activation: str
) -> None:
    given_ = np.array(outputs, np.float64)
    if activation == "softmax":
        scores = np.exp(given_ - given_.max()) / np.exp(given_ - given_.max()).sum()
    elif activation == "sigmoid":
        scores = 1 / (1 + np.exp(-given_))
    else:
        scores = given_.clip(0, 1)
    scores = scores.astype(np.float32)
    order = np.argsort(-scores, kind="stable")[:k]
    found = run(guests, outputs, {"k": k, "activation": activation, "score": 0})
    np.testing.assert_allclose([score for score, _ in found], scores[order], rtol=3e-7)
    # Equal to the last bit but one is as good as equal: then either order is right.
    for (_, label), wanted in zip(found, order, strict=True):
        assert label == wanted or abs(scores[label] - scores[wanted]) < 1e-6


def test_the_good_class_is_never_a_finding_and_does_not_make_room_for_others(
    guests: ReferenceGuests,
) -> None:
    classes = ["good", "scratch", "dent"]
    parameters = {"score": {"good": "never", "default": 0.2}}
    assert run(guests, [0.7, 0.3, 0.0], parameters, classes=classes) == []
    found = run(guests, [0.6, 0.3, 0.1], {**parameters, "k": 2}, classes=classes)
    ((score, label),) = found
    assert label == 1
    assert score == pytest.approx(0.3)


def test_outputs_that_are_no_numbers_fail_the_frame(guests: ReferenceGuests) -> None:
    for value in (np.nan, np.inf, -np.inf):
        with pytest.raises(GuestError, match="not finite numbers"):
            run(guests, [0.1, value], {})


@pytest.mark.parametrize("shape", [(2, 3), (1, 3, 2), (3,)])
def test_other_outputs_are_refused(guests: ReferenceGuests, shape: tuple[int, ...]) -> None:
    guest = guests.configured("topk", {})
    role = Postprocessor(guest, (TensorSpec("o", "float32", shape),), class_count=3)
    with pytest.raises(GuestError, match=r"needs one float32 output \[1, classes\]"):
        role.run((1.0, 1.0, 0.0, 0.0), *FRAME)


def test_a_model_of_other_classes_is_refused(guests: ReferenceGuests) -> None:
    with pytest.raises(GuestError, match="the model scores 2 classes, the configuration names 3"):
        run(guests, [0.1, 0.2], {}, classes=["a", "b", "c"])
