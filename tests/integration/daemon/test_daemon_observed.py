"""A running daemon as Prometheus, a trace collector and a snooper find it."""

import asyncio
import contextlib
import itertools
import json
import os
import random
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from brokers import port_of_nobody, require_mosquitto, until
from collectors import Collector, collecting
from daemons import ROOT, Daemon, Line, line_to
from promtool import judged_by_promtool, prometheus_program

from edge.mqtt.brokers import LocalBroker

PASSWORD = "hush-7f3a9c-broker"
TOKEN = "Bearer hush-51be02-traces"
BUDGET_MS = 2_000
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Box(NamedTuple):
    """A daemon with everything on that tells of it."""

    broker: LocalBroker
    daemon: Daemon
    collector: Collector
    port: int
    textfile: Path


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """One for the whole file, with a password to its broker and to its collector."""
    require_mosquitto()
    folder = tmp_path_factory.mktemp("observed")
    secret, token, passwords = (folder / name for name in ("password", "token", "passwords"))
    secret.write_text(PASSWORD + "\n")
    token.write_text(TOKEN + "\n")
    passwords.touch(mode=0o600)
    subprocess.run(
        ["mosquitto_passwd", "-b", str(passwords), "box1", PASSWORD], check=True, timeout=30
    )
    port = port_of_nobody()
    textfile = folder / "edge.prom"
    with asyncio.Runner() as runner, collecting() as collector:
        # Anonymous clients are admitted too: cameras and tests; the daemon has its user.
        broker = LocalBroker(kind="mosquitto", settings=[f"password_file {passwords}"])
        runner.run(broker.__aenter__())
        overrides = (
            "status.interval_s=0.5",
            'broker.username="box1"',
            f"broker.password_file={str(secret)!r}",
            f'metrics.listen="127.0.0.1:{port}"',
            f"metrics.textfile={str(textfile)!r}",
            "metrics.interval_s=1",
            f"traces.endpoint={collector.endpoint!r}",
            f"traces.authorization_file={str(token)!r}",
            "traces.share=0",
        )
        try:
            with Daemon(broker, folder, overrides=overrides, budget_ms=BUDGET_MS) as daemon:
                yield Box(broker, daemon.ready(), collector, port, textfile)
        finally:
            runner.run(broker.__aexit__())


def scraped(port: int) -> str:
    """What Prometheus would read."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
        return text


def figure(text: str, series: str) -> float:
    """The value of one series."""
    (row,) = [row for row in text.splitlines() if row.startswith(series + " ")]
    return float(row.rpartition(" ")[2])


def test_what_is_told_is_right_and_promtool_has_nothing_against_it(box: Box) -> None:
    async def scenario() -> None:
        async with line_to(box.broker) as line:
            before = await asyncio.to_thread(scraped, box.port)
            received = 'edge_latency_seconds_count{pipeline="pcb"}'
            names = await line.play(10)
            await line.all_verdicts([*names, line.send(b"no image", reference="board-0003")])
            passed = f"{received} {round(figure(before, received)) + 11}\n"
            text = ""
            end = asyncio.get_running_loop().time() + 60
            while passed not in text:
                assert asyncio.get_running_loop().time() < end, text
                text = await asyncio.to_thread(scraped, box.port)
            assert not judged_by_promtool("check", "metrics", stdin=text.encode())
            assert figure(text, 'edge_verdicts_total{kind="review",reason="decode-error"}') >= 1
            assert figure(text, 'edge_pipeline_ready{pipeline="pcb"}') == 1
            assert 0 < figure(text, 'edge_drift_learnt_ratio{pipeline="pcb"}') < 1
            assert figure(text, 'edge_worker_resident_memory_bytes{pipeline="pcb"}') > 50 << 20
            assert figure(text, "process_resident_memory_bytes") > 20 << 20
            assert 'edge_stage_latency_seconds_bucket{pipeline="pcb",stage="infer",le="0.2"' in text
            assert 'edge_latency_seconds_bucket{pipeline="pcb",le="2"} ' in text
            await until(lambda: passed in box.textfile.read_text(), "the textfile follows")

    asyncio.run(scenario())


def test_what_alerts_ask_for_is_told_before_it_happens(box: Box) -> None:
    text = scraped(box.port)
    for series in (
        'edge_deadlines_missed_total{pipeline="pcb"}',
        'edge_workers_lost_total{pipeline="pcb",cause="WorkerGoneError"}',
        'edge_frames_dropped_total{reason="guest-trap"}',
        'edge_frames_dropped_total{reason="stale"}',
    ):
        assert figure(text, series) == 0


def test_a_real_prometheus_reads_the_box_and_its_alerts_stay_quiet(
    box: Box, tmp_path: Path
) -> None:
    program = prometheus_program("prometheus")
    shipped = (ROOT / "monitoring" / "prometheus.yml").read_text()
    config = tmp_path / "prometheus.yml"
    config.write_text(
        shipped.replace("127.0.0.1:9464", f"127.0.0.1:{box.port}").replace("15s", "1s")
    )
    shutil.copy(ROOT / "monitoring" / "alerts.yml", tmp_path)
    at = f"127.0.0.1:{port_of_nobody()}"
    arguments = [f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address={at}"]
    with (tmp_path / "output").open("wb") as output:
        server = subprocess.Popen(
            [program, f"--config.file={config}", *arguments], stdout=output, stderr=output
        )
    try:

        def found(query: str) -> list[Any]:
            address = f"http://{at}/api/v1/query?query={urllib.parse.quote(query)}"
            with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5) as answer:
                result: list[Any] = json.load(answer)["data"]["result"]
                return result
            return []

        async def scenario() -> None:
            await until(lambda: bool(found("edge_ready == 1")), "it has read the box")
            assert found("edge_latency_seconds_bucket")
            assert found('up{job="edge"} == 1')
            assert not found('ALERTS{alertstate="firing"}')

        asyncio.run(scenario())
    finally:
        server.kill()
        server.wait()


def test_a_frame_is_followed_from_its_camera_to_the_one_who_takes_the_verdict(box: Box) -> None:
    async def scenario() -> None:
        async with line_to(box.broker) as line:
            heard: list[dict[str, str]] = []
            line.session.subscribe(
                "edge/box1/pcb/verdict", 1, lambda message: _take(line, message, heard)
            )
            untraced = line.inspect(0)
            traced = line.inspect(1, age_ms=3.0, traceparent=PARENT)
            await line.all_verdicts([untraced, traced])
            await until(lambda: len(heard) >= 2, "verdicts with properties")
            # Filters that overlap bring a message more than once; the frame that had none has none.
            (context,) = {named["traceparent"] for named in heard if named}
            assert context.startswith(PARENT[:36])
            assert context != PARENT
            parent_id, trace_id = bytes.fromhex(PARENT[36:52]), bytes.fromhex(PARENT[3:35])
            await until(lambda: len(box.collector.named("record")) == 1, "the record's span")
            (whole,) = box.collector.named("frame pcb")
            assert (whole.trace_id, whole.parent_span_id) == (trace_id, parent_id)
            assert whole.span_id.hex() == context[36:52]
            attributes = {each.key: each.value.string_value for each in whole.attributes}
            assert attributes["edge.frame_id"] == traced
            steps = [span for span in box.collector.spans if span.parent_span_id == whole.span_id]
            assert {span.name for span in steps} == {
                *("transport", "wait", "decode", "preprocess", "infer", "postprocess"),
                *("decide", "channel", "publish", "record"),
            }
            assert all(span.trace_id == trace_id for span in steps)
            for earlier, later in itertools.pairwise(steps):
                assert later.start_time_unix_nano >= earlier.start_time_unix_nano
            for span in steps:
                if span.name not in ("publish", "record"):
                    assert span.end_time_unix_nano <= whole.end_time_unix_nano + 10_000

    asyncio.run(scenario())


def _take(line: Line, message: Any, heard: list[dict[str, str]]) -> None:
    heard.append(message.properties)
    line.session.acknowledge(message)


def test_whoever_knocks_at_the_metrics_port_makes_no_frame_late(box: Box) -> None:
    knocks: list[bytes] = []

    async def knock(stop: asyncio.Event) -> None:
        """Connect as fast as it goes; say nothing, or nonsense, or half of something."""
        while not stop.is_set():
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(0.2):
                    _, writer = await asyncio.open_connection("127.0.0.1", box.port)
                    said = random.choice((b"", b"GET /metr", b"\x00" * 9_000, b"GET /metrics H"))
                    writer.write(said)
                    knocks.append(said)
                    await asyncio.sleep(0.01)  # a knock's own length; the loop goes on meanwhile
                    writer.close()

    async def scenario() -> None:
        async with line_to(box.broker) as line:
            stop = asyncio.Event()
            knocking = [asyncio.create_task(knock(stop)) for _ in range(4)]
            names = await line.play(40)
            while len(knocks) < 20:
                names += await line.play(2)
            verdicts = await line.all_verdicts(names)
            stop.set()
            # What a busy machine's broker takes is not the daemon's; all from the arrival on is.
            for name, each in zip(names, verdicts, strict=True):
                took = each["latency_ms"]
                allowed = BUDGET_MS + line.excused_ms(name)
                assert took["total"] - took.get("transport", 0.0) <= allowed
            assert any(each["reason"] == "ok" for each in verdicts)
            await asyncio.gather(*knocking)
        text = await asyncio.to_thread(scraped, box.port)
        assert "edge_scrapes_refused_total" in text

    asyncio.run(scenario())


def told_of(pid: int) -> bytes:
    """What anybody may read of a process: its arguments; and its owner: its environment."""
    return b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))


def test_no_secret_is_in_log_arguments_environment_or_messages(box: Box) -> None:
    async def scenario() -> None:
        async with line_to(box.broker) as line:
            # Losses and failures are what logs are full of.
            os.kill(box.daemon.worker(), 9)
            await line.status(lambda s: not s["ready"], "its worker is lost")
            box.collector.status = 401
            await box.broker.kill()
            await box.broker.start()
            status = await line.box_ready()
            line.inspect(0, traceparent=PARENT)
            await until(lambda: bool(box.daemon.events("spans_not_sent")), "the refusal is told")
            box.collector.status = 200
            said = str(status) + scraped(box.port) + box.textfile.read_text()
            for word in (PASSWORD, TOKEN, TOKEN.removeprefix("Bearer ")):
                assert word not in box.daemon.log()
                assert word not in said
            for pid in (box.daemon.pid, *box.daemon.children()):
                assert b"hush-" not in told_of(pid), f"process {pid}"
            # The control: the daemon has the secrets, and used them.
            assert TOKEN in box.collector.authorizations

    asyncio.run(scenario())


def test_the_supervisor_leaves_no_core_and_is_not_dumpable(box: Box) -> None:
    limits = Path(f"/proc/{box.daemon.pid}/limits").read_text()
    assert limits.split("Max core file size")[1].split()[0] == "0"
    # What is not dumpable belongs to root in /proc, whoever runs it (proc(5)).
    assert Path(f"/proc/{box.daemon.pid}/mem").stat().st_uid == 0
