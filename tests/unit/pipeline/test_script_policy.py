"""A script in the frame path: its state outlives a trap, a probe and a successor."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from daemons import CONFIG, DEPLOYMENT, part_jpeg, reference_jpeg
from deployments import with_policy
from script_wat import counting_script

from edge import config
from edge.contracts.frame import ContentType
from edge.contracts.messages import Judge, Judged, PolicyState
from edge.contracts.signal import SignalState, SignalValue
from edge.deployment.folder import load_folder, plans
from edge.errors import GuestError
from edge.inference.model import OnnxModel
from edge.pipeline.path import FramePath
from edge.pipeline.stages import load_modules
from edge.wasm.engine import GuestEngine

FOR_EVER = (1 << 63) - 1
JPEG = ContentType()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuestEngine]:
    with GuestEngine(tmp_path_factory.mktemp("cache") / "guests") as opened:
        yield opened


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("deployments") / "script"
    return with_policy(DEPLOYMENT, place, counting_script(), call_ms=120)


def stand(engine: GuestEngine, folder: Path, policy: PolicyState | None = None) -> FramePath:
    (plan,) = plans(load_folder(folder), config.load(CONFIG))
    model = OnnxModel.load(plan.model)
    path = FramePath(plan, load_modules(engine, plan), model, policy or PolicyState())
    path.encoded.keep("board", JPEG, reference_jpeg(3))
    return path


def judge(path: FramePath, lamp: float = 1.0, *, probe: bool = False) -> Judged:
    signal = SignalValue(lamp, 0, SignalState.FRESH)
    request = Judge(1, JPEG, FOR_EVER, 1_000, "board", signals=(signal,), probe=probe)
    return path.judge(path.decode(request, part_jpeg(3, 0)))


def count(path: FramePath) -> int:
    return round(judge(path).score * 10)


def test_its_state_survives_a_trap(engine: GuestEngine, folder: Path) -> None:
    path = stand(engine, folder)
    assert [count(path), count(path)] == [1, 2]
    for _ in range(2):
        with pytest.raises(GuestError, match=r"decide trapped: .*unreachable"):
            judge(path, lamp=99.0)
        path.mend()
    assert count(path) == 3


def test_a_probe_leaves_it_as_it_was(engine: GuestEngine, folder: Path) -> None:
    path = stand(engine, folder)
    assert count(path) == 1
    assert round(judge(path, probe=True).score * 10) == 2
    assert count(path) == 2


def test_a_successor_goes_on_where_it_stopped(engine: GuestEngine, folder: Path) -> None:
    path = stand(engine, folder)
    count(path)
    state = judge(path).policy
    assert state == PolicyState(2, b"2")
    assert count(stand(engine, folder, state)) == 3


def test_a_state_that_is_no_text_is_refused_and_said(engine: GuestEngine, folder: Path) -> None:
    path = stand(engine, folder, PolicyState(7, b"\xff\xfe"))
    assert "forerunner's state is no text" in path.take_state_refusal()
    assert count(path) == 1
