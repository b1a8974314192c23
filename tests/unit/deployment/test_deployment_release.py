"""Which release a device takes, and which devices come first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.config import UpdateSection
from edge.deployment import release
from edge.deployment.asking import request_of
from edge.deployment.fetch_messages import Known
from edge.deployment.release import Release, Releases, position
from edge.deployment.rollout import Deployed, Event, Journal, advance
from edge.errors import DeploymentError

NAMES = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True)


def offered(revision: int, percent: float, *, halted: bool = False) -> Release:
    """A release."""
    return Release(
        name="bench",
        revision=revision,
        manifest=f"{revision:064x}",
        manifest_bytes=1,
        percent=percent,
        halted=halted,
    )


@given(group=NAMES, device=NAMES, small=st.floats(0, 100), large=st.floats(0, 100))
def test_who_is_in_a_share_is_in_every_larger_one(
    group: str, device: str, small: float, large: float
) -> None:
    small, large = sorted((small, large))
    assert 0 <= position(group, device) < 100
    if offered(1, small).includes(group, device):
        assert offered(1, large).includes(group, device)
    assert offered(1, 100).includes(group, device)
    assert not offered(1, 0).includes(group, device)


def test_shares_are_the_shares_of_a_fleet() -> None:
    devices = [f"box{number}" for number in range(5_000)]
    for percent in (1, 10, 50):
        inside = sum(offered(1, percent).includes("press", device) for device in devices)
        assert abs(inside / 50 - percent) < 2.5


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=8), NAMES)
def test_a_device_takes_the_highest_revision_that_is_for_it(
    releases: list[tuple[float, bool]], device: str
) -> None:
    made = tuple(
        offered(number + 1, percent, halted=halted)
        for number, (percent, halted) in enumerate(releases)
    )
    chosen = Releases(group="press", releases=made).choose(device)
    fit = [each for each in made if not each.halted and position("press", device) < each.percent]
    assert chosen == (fit[-1] if fit else None)


def test_nine_releases_and_unknown_versions_are_refused() -> None:
    too_many = Releases.model_construct(
        v=1, group="press", releases=tuple(offered(n, 1) for n in range(1, 10))
    )
    with pytest.raises(DeploymentError, match="releases"):
        release.read(too_many.model_dump_json().encode(), "here")
    with pytest.raises(DeploymentError, match="here: v"):
        release.read(b'{"v":2,"group":"press","releases":[]}', "here")


def _asked(journal: Journal) -> tuple[Known | None, tuple[Known, ...], tuple[int, ...]]:
    from pathlib import Path

    section = UpdateSection.model_construct(
        repository="x", root_file=Path("/dev/null"), group="press", deadline_s=1, tls=None,
        least_bytes_per_s=1, store_bytes=1,
    )  # fmt: skip
    request = request_of(section, "box1", Path("x"), journal, "x")
    return request.active, request.known, request.barred


def test_a_first_deployment_that_failed_is_not_taken_for_the_one_that_runs() -> None:
    """It is asked for again, until it is barred."""
    one = Deployed("bench", 1, "1" * 64)
    journal = Journal()
    for count in range(1, 4):
        journal = advance(journal, Event.OFFERED, 1, offered=one)
        journal = advance(journal, Event.FAILED, 1)
        barred = (1,) if count == 3 else ()
        assert _asked(journal) == (None, (Known(1, one.digest),), barred)


def test_what_no_repository_gave_binds_no_revision() -> None:
    own, signed = Deployed("mine", 5, "5" * 64, signed=False), Deployed("bench", 4, "4" * 64)
    journal = Journal(active=own, previous=signed)
    assert _asked(journal) == (Known(5, own.digest), (Known(4, signed.digest),), ())
