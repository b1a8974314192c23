"""Which parts a canary judges, and what its manifest may ask for."""

import pytest
from pydantic import ValidationError

from edge.deployment.rules import CanaryRule

ONE, TWO = "1" * 64, "2" * 64


def test_a_part_is_drawn_once_and_for_all_and_each_release_draws_anew() -> None:
    rule = CanaryRule(frames=10, share=0.3)
    parts = [f"part-{number}" for number in range(2_000)]
    drawn = {part for part in parts if rule.includes(ONE, part)}
    assert drawn == {part for part in parts if rule.includes(ONE, part)}
    assert 0.25 < len(drawn) / len(parts) < 0.35
    assert drawn != {part for part in parts if rule.includes(TWO, part)}


def test_a_larger_share_keeps_the_parts_of_a_smaller_one() -> None:
    few, many = CanaryRule(frames=1, share=0.1), CanaryRule(frames=1, share=0.4)
    parts = [str(number) for number in range(500)]
    assert all(many.includes(ONE, part) for part in parts if few.includes(ONE, part))


@pytest.mark.parametrize("share", [0.0, 0.51, 1.0, -0.1, float("nan")])
def test_a_canary_never_has_most_of_the_line(share: float) -> None:
    with pytest.raises(ValidationError):
        CanaryRule(frames=10, share=share)


def test_a_manifest_that_does_not_ask_has_none() -> None:
    assert CanaryRule().frames == 0
