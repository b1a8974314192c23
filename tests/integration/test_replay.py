"""Replay through a real broker, against a peer that answers as daemons do, well and badly."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from brokers import Peer, connected, section

from edge.cli.main import main
from edge.contracts.verdict import DeploymentRef, Kind, Verdict, to_json
from edge.errors import ConfigError, TransportError
from edge.linesim import boards_of, line
from edge.linesim.folder import write_folder
from edge.mqtt.brokers import LocalBroker
from edge.mqtt.messages import Incoming
from edge.replay.command import ReplayOptions, replay
from edge.replay.parts import Playlist
from edge.replay.player import Pace, Target
from edge.replay.playlists import simulated_playlist
from edge.replay.score import Rate, Score

FRAMES = 12
PLAYLIST = simulated_playlist(8, FRAMES, ok_share=0.5, boards=2)
PLAIN = "line/top/frame"
IN_TOPIC = "line/top/frame/{reference_id}/{part_id}/{frame_id}"
Answering = Callable[[int, Verdict], list[Verdict]]


def honest(_number: int, verdict: Verdict) -> list[Verdict]:
    return [verdict]


def test_an_honest_daemon_gets_a_clean_score(mosquitto: LocalBroker) -> None:
    score, seen = played(mosquitto, honest)
    assert score.is_clean
    assert (score.frames, score.answered) == (FRAMES, FRAMES)
    assert (score.escape.count, score.overkill.count) == (0, 0)
    assert score.escape.of + score.overkill.of == FRAMES
    assert 0 < score.latency_ms["p50"] <= score.latency_ms["max"]
    references = {m.topic: m.payload for m in seen if "/reference/" in m.topic}
    assert references == {
        f"line/top/reference/{name}": picture().image
        for name, picture in PLAYLIST.references.items()
    }
    frames = [m for m in seen if m.topic == PLAIN]
    assert [m.payload for m in frames] == [part.picture().image for part in PLAYLIST.parts]
    for message, part in zip(frames, PLAYLIST.parts, strict=True):
        assert message.content_type == "image/jpeg"
        assert message.properties["part-id"] == part.part_id
        assert message.properties["reference-id"] == part.reference_id
        assert abs(int(message.properties["captured-at"]) - message.arrived_at_ns) < 60e9
    assert len({m.properties["frame-id"] for m in frames}) == FRAMES


def test_ids_travel_in_the_topic_where_mqtt_has_no_properties(
    embedded_broker: LocalBroker,
) -> None:
    score, seen = played(embedded_broker, honest, frame_topic=IN_TOPIC)
    assert score.is_clean
    levels = [m.topic.split("/")[3:] for m in seen if m.topic.startswith("line/top/frame/")]
    assert [(reference, part) for reference, part, _ in levels] == [
        (part.reference_id, part.part_id) for part in PLAYLIST.parts
    ]


def test_without_properties_or_placeholders_nothing_is_played(
    embedded_broker: LocalBroker,
) -> None:
    with pytest.raises(ConfigError, match=r"MQTT 3\.1\.1, which carries no frame ids"):
        played(embedded_broker, honest)


def test_a_verdict_that_does_not_come_is_missing(mosquitto: LocalBroker) -> None:
    score, _ = played(mosquitto, lambda n, v: [] if n == 3 else [v], answer_within_s=2.0)
    assert (score.missing, score.is_clean) == (1, False)


def test_frames_that_nobody_hears_are_told(mosquitto: LocalBroker) -> None:
    score, _ = played(mosquitto, honest, frame_topic="lime/top/frame", answer_within_s=1.0)
    assert (score.unheard, score.missing, score.is_clean) == (FRAMES, FRAMES, False)


def test_a_verdict_that_comes_twice_is_found(mosquitto: LocalBroker) -> None:
    score, _ = played(mosquitto, lambda n, v: [v, v] if n == FRAMES - 1 else [v], linger_s=2.0)
    assert (score.duplicates, score.contradictions, score.is_clean) == (1, 0, False)


@pytest.mark.parametrize("noise", [b"{}", b"\xff", b'{"device":"\xff"}'])
def test_what_is_no_verdict_is_counted_and_the_replay_goes_on(
    mosquitto: LocalBroker, noise: bytes
) -> None:
    score, _ = played(mosquitto, honest, noise=noise)
    assert (score.undecodable, score.answered, score.is_clean) == (1, FRAMES, False)


def test_verdicts_that_contradict_each_other_are_found(mosquitto: LocalBroker) -> None:
    score, _ = played(mosquitto, lambda n, v: [v, flipped(v)] if n == 0 else [v])
    assert (score.duplicates, score.contradictions, score.is_clean) == (0, 1, False)


def test_wrong_verdicts_are_escapes_and_overkill(mosquitto: LocalBroker) -> None:
    score, _ = played(mosquitto, lambda _n, v: [flipped(v)])
    assert score.escape == Rate(score.escape.of, score.escape.of)
    assert score.overkill == Rate(score.overkill.of, score.overkill.of)
    assert (
        score.is_clean
    )  # each frame had one verdict in time: what it said is no fault of the line


def test_a_playlist_is_played_again_until_there_are_enough_frames(mosquitto: LocalBroker) -> None:
    score, seen = played(mosquitto, honest, frames=2 * FRAMES + 1)
    frames = [m for m in seen if m.topic == PLAIN]
    assert score.is_clean
    assert score.frames == len(frames) == 2 * FRAMES + 1
    assert frames[0].payload == frames[FRAMES].payload == frames[2 * FRAMES].payload


def test_a_daemon_that_is_not_ready_is_named(mosquitto: LocalBroker) -> None:
    with pytest.raises(TransportError, match=r'daemon box1 was not ready within 3 s.*"offline"'):
        played(mosquitto, honest, status={"state": "offline", "ready": False}, ready_within_s=3.0)


def test_a_pipeline_that_the_daemon_has_not_is_told_with_those_that_it_has(
    mosquitto: LocalBroker,
) -> None:
    status = {"state": "online", "ready": True, "pipelines": {"caps": {}}}
    with pytest.raises(ConfigError, match=r"daemon box1 has no 'pcb'; it has caps"):
        played(mosquitto, honest, status=status)


def test_a_broker_that_is_not_there_is_named(mosquitto: LocalBroker) -> None:
    target = Target(section(mosquitto, port=9), "box1", "pcb", PLAIN)
    pace = Pace(50.0, 1, connect_within_s=0.2)
    with pytest.raises(TransportError, match=r"no broker on 127\.0\.0\.1:9 within 0\.2 s"):
        asyncio.run(replay(ReplayOptions(PLAYLIST, target, pace)))


def test_frames_keep_an_absolute_schedule(mosquitto: LocalBroker) -> None:
    _, seen = played(mosquitto, honest, frames=FRAMES, rate_hz=40.0)
    captured = [int(m.properties["captured-at"]) for m in seen if m.topic == PLAIN]
    # Never early: the last is due 11 periods after the first, and no delay shortens that
    # by more than what the first itself was late.
    assert captured[-1] - captured[0] >= (FRAMES - 2) * 1e9 / 40.0
    assert captured == sorted(captured)


def test_the_command_ends_with_one_json_object(
    mosquitto: LocalBroker, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    parts = [part for part, _ in zip(line(8, 0.0, boards=1), range(4), strict=False)]
    write_folder(tmp_path, parts, boards_of(8, 1))
    words = [
        "replay", str(tmp_path), "--rate", "50", "--json", "--quiet", "--variants", "ng-single",
        "--set", f"broker.port={mosquitto.port}", "--set", "broker.protocol='5'",
    ]  # fmt: skip

    async def scene() -> int:
        async with connected(mosquitto, "daemon", "line/#") as peer:
            answering = asyncio.create_task(answer(peer, honest, []))
            await say_status(peer, {"state": "online", "ready": True})
            status = await asyncio.to_thread(main, words)
            answering.cancel()
            return status

    assert asyncio.run(scene()) == 0
    printed = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert printed["frames"] == 4
    assert printed["verdicts"] == {"pass": 4, "reject": 0, "review": 0}
    assert printed["escape"] == 1.0


def played(
    broker: LocalBroker,
    answering: Answering,
    *,
    playlist: Playlist = PLAYLIST,
    frame_topic: str = PLAIN,
    status: dict[str, Any] | None = None,
    frames: int = FRAMES,
    rate_hz: float = 50.0,
    ready_within_s: float = 60.0,
    answer_within_s: float = 60.0,
    linger_s: float = 0.3,
    noise: bytes = b"",
) -> tuple[Score, list[Incoming]]:
    """Play to a peer that answers like this, and return the score and what the peer has seen."""
    seen: list[Incoming] = []

    async def scene() -> Score:
        async with connected(broker, "daemon", "line/#") as peer:
            answers = asyncio.create_task(answer(peer, answering, seen, noise))
            await say_status(peer, status or {"state": "online", "ready": True})
            target = Target(
                section(broker), "box1", "pcb", frame_topic, "line/top/reference/{reference_id}"
            )
            pace = Pace(
                rate_hz,
                frames,
                ready_within_s=ready_within_s,
                answer_within_s=answer_within_s,
                linger_s=linger_s,
            )
            try:
                return await replay(ReplayOptions(playlist, target, pace))
            finally:
                answers.cancel()
                await asyncio.wait((answers,))

    return asyncio.run(scene()), seen


async def say_status(peer: Peer, status: dict[str, Any]) -> None:
    assert await peer.publish("edge/box1/status", json.dumps(status).encode(), retain=True)


async def answer(
    peer: Peer, answering: Answering, seen: list[Incoming], noise: bytes = b""
) -> None:
    """Judge each frame by the truth of its part, then answer as `answering` says."""
    truths = {part.part_id: part.truth for part in PLAYLIST.parts}
    number = 0
    while True:
        message = await peer.messages.get()
        seen.append(message)
        if not message.topic.startswith(PLAIN):
            continue
        if noise and not number:
            peer.session.publish("edge/box1/pcb/verdict", noise)
        in_topic = message.topic.split("/")[3:]
        frame_id = message.properties.get("frame-id") or in_topic[2]
        part_id = message.properties.get("part-id") or in_topic[1]
        truth = truths.get(part_id)
        kind = Kind.PASS if truth is None or truth.is_good else Kind.REJECT
        for verdict in answering(number, verdict_of(frame_id, part_id, kind)):
            peer.session.publish("edge/box1/pcb/verdict", to_json(verdict))
        number += 1


def verdict_of(frame_id: str, part_id: str, kind: Kind) -> Verdict:
    return Verdict(
        device="box1",
        pipeline="pcb",
        deployment=DeploymentRef("pcb", 1, "ab"),
        frame_id=frame_id,
        part_id=part_id,
        verdict=kind,
        reason="ok" if kind is Kind.PASS else "defect",
        score=0.0,
        defects=(),
        captured_at_ns=0,
        latency_ms={"total": 1.0},
        budget_ms=200.0,
        provider="cpu",
    )


def flipped(verdict: Verdict) -> Verdict:
    kind = Kind.REJECT if verdict.verdict is Kind.PASS else Kind.PASS
    return verdict_of(verdict.frame_id, verdict.part_id, kind)
