"""W3C trace contexts."""

import pytest

from edge.observability.tracing import Context

GOOD = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_context_is_read_and_written_back() -> None:
    found = Context.parse(GOOD)
    assert found is not None
    assert found.sampled
    assert str(found) == GOOD
    unsampled = Context.parse(GOOD[:-2] + "02")
    assert unsampled is not None
    assert not unsampled.sampled
    assert Context.parse(GOOD.replace("00-", "01-", 1) + "-more") is not None  # a later version


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        GOOD + "-more",
        GOOD.replace("00-", "ff-", 1),
        GOOD.upper(),
        GOOD + "\n",
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
    ],
)
def test_what_is_no_context_is_none(text: str) -> None:
    assert Context.parse(text) is None
