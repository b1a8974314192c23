"""`make update-kills` in its shortest form; test_fetch_faults kills the fetch at sampled steps."""

import itertools

import pytest
from crashes import require_strace
from every_step import Bench, every


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A publisher of two revisions."""
    require_strace()
    return Bench(tmp_path_factory.mktemp("bench"), b"a model")


@pytest.mark.parametrize("way", ["held", "failed"])
def test_a_kill_in_the_activation_or_in_going_back_ends_on_the_old_or_the_new(
    bench: Bench, way: str
) -> None:
    found = {result["found"] for result in every(bench.activation, way, "sound", step=7)}
    assert found <= {"revision 1", "revision 2"}
    assert "revision 1" in found


def test_control_a_journal_that_is_written_in_place_is_found_by_a_kill(bench: Bench) -> None:
    found = (bench.activation("write", nth, "held", "torn") for nth in itertools.count(1))
    first = next(result for result in found if result is None or "neither" in result["found"])
    assert first is not None
    assert "is no journal" in first["found"]
