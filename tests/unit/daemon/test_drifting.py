"""What was learnt as usual lies in a file, and a file that fails costs that and no verdict."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import structlog
from daemons import DEPLOYMENT
from path_bench import plan_of

from edge.contracts.messages import Judged
from edge.contracts.plan import DriftPlan, PipelinePlan
from edge.contracts.sight import Sight
from edge.contracts.verdict import Kind, Verdict
from edge.daemon.control import LearnAnew
from edge.daemon.drifting import FILE, Drifting, read
from edge.daemon.intake import Frame
from edge.daemon.outlets import Seen
from edge.errors import StorageError
from edge.observability.counters import Counters
from edge.worker.channel import decode_from_worker

USUAL = Sight(118.0, 50.0, 1.0, 2.0, 0.4, 50.0, 50.0)
WHO = LearnAnew("maintenance", "another lamp")


class Box:
    """A state directory, and the drift of a pipeline that is watched there."""

    def __init__(self, folder: Path, plan: PipelinePlan | None = None) -> None:
        drift = DriftPlan(learn_frames=20, window_frames=20, every_ms=0)
        self.plan = plan or msgspec.structs.replace(plan_of(DEPLOYMENT), drift=drift)
        self.counters = Counters()
        self.committed = True
        self.drifting = Drifting(folder, self.counters, lambda: self.committed, lambda: None)
        self.drifting.recover()

    def give(self, frames: int, sight: Sight | None = USUAL) -> None:
        """Give verdicts of frames that look so."""
        judged = Judged(1, Kind.PASS, "ok", 0.1, (), {}, sight=sight)
        verdict = Verdict(
            *("box1", "pcb", self.plan.deployment, "f", "p", Kind.PASS, "ok", 0.1, ()),
            *(0, {"total": 1.0}, 200.0, "cpu"),
        )
        frame = cast("Frame", type("Named", (), {"reference_id": "board-0003"}))
        for _ in range(frames):
            self.drifting.given(self.plan, frame, verdict, Seen(None, (), judged))

    @property
    def status(self) -> dict[str, Any]:
        found = self.drifting.status(self.plan)
        assert found is not None
        return found


def packed(said: Judged) -> bytes:
    return msgspec.msgpack.encode(said)


def inode(file: Path) -> int:
    return file.stat().st_ino


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())


def test_what_was_learnt_is_there_at_the_next_start(tmp_path: Path) -> None:
    async def scenario() -> None:
        box = Box(tmp_path)
        assert box.status["state"] == "learning"
        box.give(30)
        await box.drifting.save()
        again = Box(tmp_path)
        assert (again.status["state"], again.status["learnt"]) == ("watching", 20)

    run(scenario)
    assert [each.name for each in tmp_path.iterdir()] == [FILE]
    assert not (tmp_path / FILE).stat().st_mode & 0o077


@pytest.mark.parametrize("content", [b"", b"{", b'{"pcb": {"v": 2}}', b"\xff", b"[" * 100_000])
def test_a_file_that_is_something_else_is_said_and_learnt_anew(
    tmp_path: Path, content: bytes
) -> None:
    async def scenario() -> None:
        (tmp_path / FILE).write_bytes(content)
        with pytest.raises(StorageError):
            read(tmp_path)
        with structlog.testing.capture_logs() as lines:
            Box(tmp_path)
        assert [line["event"] for line in lines] == ["drift_unreadable"]
        assert str(tmp_path / FILE) in lines[0]["detail"]
        box = Box(tmp_path)
        box.give(20)
        await box.drifting.save()
        assert read(tmp_path)["pcb"].references["board-0003"].typical is not None

    run(scenario)


def test_a_disk_that_takes_nothing_is_counted_and_asked_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        box = Box(tmp_path / "away")
        box.give(5)
        with structlog.testing.capture_logs() as lines:
            await box.drifting.save()
        assert [line["event"] for line in lines] == ["drift_unwritten"]
        assert box.counters.value("drift_unwritten") == 1
        (tmp_path / "away").mkdir()
        await box.drifting.save()
        assert read(tmp_path / "away").keys() == {"pcb"}

    run(scenario)


def test_nothing_new_is_not_written(tmp_path: Path) -> None:
    async def scenario() -> None:
        box = Box(tmp_path)
        box.give(1)
        await box.drifting.save()
        before = inode(tmp_path / FILE)
        await box.drifting.save()
        assert inode(tmp_path / FILE) == before  # a new file would have another
        box.give(1)
        await box.drifting.save()
        assert len(read(tmp_path)["pcb"].references["board-0003"].samples) == 2

    run(scenario)


def test_a_lamp_that_was_exchanged_is_learnt_and_who_said_so_is_kept(tmp_path: Path) -> None:
    async def scenario() -> None:
        box = Box(tmp_path)
        box.give(40)
        dark = msgspec.structs.replace(USUAL, brightness=60.0)
        with structlog.testing.capture_logs() as lines:
            box.give(20, dark)
        assert [(line["event"], line["measure"]) for line in lines] == [
            ("drift_began", "brightness")
        ]
        assert box.counters.value("drifts", pipeline="pcb", measure="brightness") == 1
        (finding,) = box.status["findings"]
        assert finding["detail"].startswith("camera.top is darker than when")
        with structlog.testing.capture_logs() as lines:
            assert await box.drifting.learn_anew(WHO, "uid 7") == ""
        assert lines[0]["event"] == "drift_learnt_anew"
        assert (lines[0]["by"], lines[0]["via"]) == ("maintenance", "uid 7")
        assert lines[0]["drifted"] == ["brightness"]
        assert lines[0]["reference"]["brightness"] == 118
        box.give(60, dark)
        assert (box.status["state"], box.status["findings"]) == ("watching", [])
        assert box.status["by"] == "maintenance (uid 7): another lamp"
        refusal = await box.drifting.learn_anew(
            msgspec.structs.replace(WHO, pipeline="pcp"), "uid 7"
        )
        assert refusal == "pipeline 'pcp' is not watched (pcb)"

    run(scenario)


def test_another_camera_is_learnt_anew(tmp_path: Path) -> None:
    async def scenario() -> None:
        box = Box(tmp_path)
        box.give(30)
        await box.drifting.save()
        other = Box(tmp_path, msgspec.structs.replace(box.plan, source="camera.side"))
        assert other.status["learnt"] == 0

    run(scenario)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -0.1, 1e300])
@pytest.mark.parametrize("name", Sight.__struct_fields__)
def test_numbers_that_no_picture_has_do_not_come_from_a_worker(name: str, number: float) -> None:
    said = Judged(1, Kind.PASS, "ok", 0.1, (), {}, sight=USUAL)
    assert decode_from_worker.decode(packed(said)) == said
    wrong = msgspec.structs.replace(USUAL, **{name: number})
    with pytest.raises(msgspec.ValidationError):
        decode_from_worker.decode(packed(msgspec.structs.replace(said, sight=wrong)))


def test_a_frame_that_was_not_looked_at_is_left(tmp_path: Path) -> None:
    async def scenario() -> None:
        box = Box(tmp_path)
        box.give(30, None)
        assert box.status["learnt"] == 0
        await box.drifting.save()
        assert not (tmp_path / FILE).exists()

    run(scenario)


def test_a_pipeline_that_is_not_to_be_watched_is_not(tmp_path: Path) -> None:
    async def scenario() -> None:
        plan = msgspec.structs.replace(plan_of(DEPLOYMENT), drift=DriftPlan())
        box = Box(tmp_path, plan)
        box.give(30)
        assert box.drifting.status(plan) is None
        assert await box.drifting.learn_anew(WHO, "uid 7") == (
            "nothing is watched here: no pipeline runs"
        )

    run(scenario)


def test_verdicts_on_probation_are_nobodys_reference(tmp_path: Path) -> None:
    async def scenario() -> None:
        box = Box(tmp_path)
        box.committed = False
        box.give(30)
        assert box.status["learnt"] == 0
        box.committed = True
        box.give(30)
        assert box.status["learnt"] == 20
        await box.drifting.save()
        assert json.loads((tmp_path / FILE).read_text())["pcb"]["deployment"] == (
            box.plan.deployment.digest
        )

    run(scenario)
