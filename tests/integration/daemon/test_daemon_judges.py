"""Frames in, verdicts out: the whole path, with the real model, over a real broker."""

import asyncio
import time
from threading import Event
from typing import Any

import pytest
from brokers import until
from daemons import PATIENT_MS, Line, line_to, part_jpeg, reference_jpeg
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge.linesim import Board
from edge.mqtt.brokers import LocalBroker

pytestmark = pytest.mark.usefixtures("daemon")


def play(broker: LocalBroker, scenario: Any) -> None:
    """Run a scenario on a line whose box is ready."""

    async def run() -> None:
        async with line_to(broker) as line:
            await scenario(line)

    asyncio.run(run())


def test_a_good_board_passes_and_a_bad_one_is_rejected_where_it_is_bad(
    broker: LocalBroker,
) -> None:
    async def scenario(line: Line) -> None:
        good = line.inspect(0, part_id="part-7")
        bad = line.inspect(1, defects=("short",))
        await line.kept([good, bad])
        passed, rejected = await line.all_verdicts([good, bad])
        assert (passed["verdict"], passed["reason"], passed["defects"]) == ("pass", "ok", [])
        assert (passed["device"], passed["part_id"], passed["v"]) == ("box1", "part-7", 1)
        assert passed["provider"] == "cpu"
        assert passed["deployment"]["signed"] is False
        assert rejected["verdict"] == "reject"
        x0, y0, x1, y1 = rejected["defects"][0]["box"]
        assert rejected["defects"][0]["class"] == "short"
        assert 0 <= x0 < x1 <= 640
        assert 0 <= y0 < y1 <= 640
        stages = {"decode", "preprocess", "infer", "postprocess", "decide"}
        assert stages < passed["latency_ms"].keys()
        assert passed["latency_ms"]["total"] <= line.latency_ms(good)

    play(broker, scenario)


def test_a_reject_asks_the_gate_for_its_action(broker: LocalBroker) -> None:
    async def scenario(line: Line) -> None:
        bad = line.inspect(1, defects=("short",), part_id="p-1")
        await until(lambda: "line/top/reject" in line.heard, "the gate is asked")
        asked = line.heard["line/top/reject"][-1].payload
        assert f'"frame_id":"{bad}"'.encode() in asked
        assert b'"action":"action.reject","value":1.0,"ttl_ms":2000' in asked
        good = line.inspect(0)
        await line.verdict(good)
        assert all(good.encode() not in m.payload for m in line.heard["line/top/reject"])

    play(broker, scenario)


def test_a_frame_that_comes_again_gets_the_verdict_that_it_had(broker: LocalBroker) -> None:
    async def scenario(line: Line) -> None:
        name = line.inspect(2)
        await line.verdict(name)
        line.inspect(2, frame_id=name)
        await until(lambda: len(line.verdicts["pcb", name]) == 2, "the verdict comes again")
        assert line.judgements(name) == 1

    play(broker, scenario)


def test_other_pixels_under_a_used_id_get_the_fail_safe(broker: LocalBroker) -> None:
    async def scenario(line: Line) -> None:
        name = line.inspect(2)
        await line.verdict(name)
        line.inspect(3, frame_id=name, defects=("open",))
        await until(lambda: len(line.verdicts["pcb", name]) == 2, "the other frame is answered")
        await line.status(
            lambda s: s["counters"].get("frames_dropped{reason=id-reused}") == 1,
            "the status tells that an id came with other pixels",
        )

    play(broker, scenario)


def test_a_burst_of_the_same_frame_is_judged_once(broker: LocalBroker) -> None:
    async def scenario(line: Line) -> None:
        name = line.new_id()
        for _ in range(5):
            line.inspect(2, frame_id=name)
        after = line.inspect(3)
        await line.all_verdicts([name, after])
        assert line.judgements(name) == 1

    play(broker, scenario)


@pytest.mark.parametrize(
    ("age_ms", "reason"),
    [(100.0, "ok"), (PATIENT_MS + 1_000.0, "stale"), (86_399_000.0, "stale"), (-30.0, "ok")],
)
def test_the_capture_time_decides_whether_a_frame_is_worth_judging(
    broker: LocalBroker, age_ms: float, reason: str
) -> None:
    async def scenario(line: Line) -> None:
        verdict = await line.verdict(line.inspect(0, age_ms=age_ms))
        assert verdict["reason"] == reason
        assert (verdict["verdict"] == "pass") == (reason == "ok")

    play(broker, scenario)


@pytest.mark.parametrize("captured_at", ["0", str(4 * 10**18), "yesterday", "-1", "9" * 30, ""])
def test_a_camera_whose_clock_is_wrong_is_judged_by_the_arrival(
    broker: LocalBroker, captured_at: str
) -> None:
    async def scenario(line: Line) -> None:
        verdict = await line.verdict(line.inspect(0, captured_at=captured_at))
        assert verdict["reason"] == "ok"
        assert abs(verdict["captured_at_ns"] - time.time_ns()) < 10e9

    play(broker, scenario)


def test_without_its_reference_a_frame_goes_to_review_and_with_it_is_judged(
    broker: LocalBroker,
) -> None:
    async def scenario(line: Line) -> None:
        board = Board(4)
        early = line.send(part_jpeg(4, 0), reference=board.reference_id)
        verdict = await line.verdict(early)
        assert (verdict["verdict"], verdict["reason"]) == ("review", "no-reference")
        line.teach(board)
        late = line.send(part_jpeg(4, 0), reference=board.reference_id)
        assert (await line.verdict(late))["reason"] == "ok"
        # Another golden sample under the same id counts from the next frame on.
        line.session.publish(
            f"line/top/reference/{board.reference_id}", reference_jpeg(5), retain=True
        )
        wrong = line.send(part_jpeg(4, 0), reference=board.reference_id)
        assert (await line.verdict(wrong))["verdict"] == "reject"
        line.session.publish(f"line/top/reference/{board.reference_id}", b"", retain=True)
        gone = line.send(part_jpeg(4, 0), reference=board.reference_id)
        assert (await line.verdict(gone))["reason"] == "no-reference"

    play(broker, scenario)


def test_more_recipes_than_slots_are_judged_by_their_own_reference(broker: LocalBroker) -> None:
    async def scenario(line: Line) -> None:
        boards = [Board(seed) for seed in range(10, 16)]
        for board in boards:
            line.teach(board)
        names = []
        for turn in range(3):
            for board in boards:
                names.append(line.send(part_jpeg(board.seed, turn), reference=board.reference_id))
                await line.verdict(names[-1])
        assert await line.kept(names) == {"ok": 18}

    play(broker, scenario)


def test_the_lamp_as_of_the_capture_decides_and_not_the_lamp_of_now(broker: LocalBroker) -> None:
    async def scenario(line: Line) -> None:
        line.lamp(1.0)
        bright = line.inspect(0)
        assert (await line.verdict(bright))["reason"] == "ok"
        failed = time.monotonic()
        line.lamp(0.2)
        dark = line.inspect(0)
        # Captured before the lamp failed, though it arrives after it.
        before = line.inspect(1, age_ms=(time.monotonic() - failed) * 1e3 + 5)
        try:
            verdict = await line.verdict(dark)
            assert (verdict["verdict"], verdict["reason"]) == ("review", "lamp-failure")
            assert (await line.verdict(before))["reason"] == "ok"
        finally:
            line.lamp(1.0)
            assert (await line.verdict(line.inspect(0)))["reason"] == "ok"

    play(broker, scenario)


def test_a_signal_that_cannot_be_read_is_refused_and_holds_nothing_up(broker: LocalBroker) -> None:
    async def scenario(line: Line) -> None:
        refused = (b"", b"NaN", b"{", b"[" * 60_000, b'{"v": "bright"}', b"1" * 400, b"9" * 70_000)
        before = line.statuses[-1]["counters"].get("signals_refused{signal=signal.lamp}", 0)
        for payload in refused:
            line.session.publish("line/lamp", payload)
        assert (await line.verdict(line.inspect(0)))["reason"] == "ok"
        await line.status(
            lambda s: s["counters"].get("signals_refused{signal=signal.lamp}") == before + 7,
            "every one of them was counted",
        )

    play(broker, scenario)


class Asker:
    """An MQTT 5 client that asks for its answer on a topic of its own."""

    def __init__(self, broker: LocalBroker, topic: str) -> None:
        self.answers: list[MQTTMessage] = []
        self.came = Event()
        up = Event()
        self._topic = topic
        self.client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self.client.on_message = self._take
        self.client.on_subscribe = lambda *_: up.set()
        self.client.connect(broker.host, broker.port)
        self.client.subscribe(topic, 1)
        self.client.loop_start()
        assert up.wait(60)

    def _take(self, _client: Client, _userdata: object, message: MQTTMessage) -> None:
        self.answers.append(message)
        self.came.set()

    def ask(self, frame_id: str) -> None:
        properties: Any = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.ResponseTopic = self._topic
        properties.CorrelationData = b"\x00call-7"
        properties.UserProperty = [("frame-id", frame_id), ("reference-id", "board-0003")]
        self.client.publish("line/top/frame", part_jpeg(3, 0), 1, properties=properties)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def test_who_asks_for_an_answer_gets_it_with_his_correlation_data(broker: LocalBroker) -> None:
    async def scenario(line: Line) -> None:
        asker = Asker(broker, "robots/7/answer")
        try:
            asker.ask(name := line.new_id())
            verdict = await line.verdict(name)
            assert await asyncio.to_thread(asker.came.wait, 60)
            (answer,) = asker.answers
            assert verdict["frame_id"].encode() in answer.payload
            assert getattr(answer.properties, "CorrelationData", None) == b"\x00call-7"
        finally:
            asker.close()

    play(broker, scenario)


@pytest.mark.parametrize(
    "topic", ["line/lamp", "line/top/reference/board-0003", "line/top/reject", "edge/box1/status"]
)
def test_no_one_steers_the_box_by_a_response_topic(broker: LocalBroker, topic: str) -> None:
    async def scenario(line: Line) -> None:
        before = line.statuses[-1]["counters"].get(COUNT, 0)
        asker = Asker(broker, topic)
        try:
            asker.ask(name := line.new_id())
            await line.verdict(name)
            await line.status(lambda s: s["counters"].get(COUNT) == before + 1, "it is counted")
            assert all(name.encode() not in answer.payload for answer in asker.answers)
        finally:
            asker.close()

    play(broker, scenario)


COUNT = "messages_refused{cause=response topic}"
