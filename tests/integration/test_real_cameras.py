"""Cameras that speak what cameras speak, to a real daemon: `make cameras` runs this.

RTSP from GStreamer's server, GigE Vision from Aravis' fake camera. Skipped but there, and where
Debian's python3 lacks them (`make cameras` installs them).
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from brokers import connected, until
from daemons import ROOT, Daemon, Line, line_to
from rtsp_bench import BOARD, SYSTEM_PYTHON, TOPIC, filming, rtsp_camera, stamp_ns

from edge.linesim import render_part
from edge.mqtt.brokers import LocalBroker

BRIDGE: Final = ROOT / "docs" / "examples" / "genicam_bridge.py"
CAMERA: Final = "127.0.0.1"  # Aravis' fake camera takes GigE Vision's own port, of an address


def has(*namespaces: str) -> bool:
    """Whether Debian's python3 finds these."""
    named = dict(namespace.split("=") for namespace in namespaces)
    program = f"import gi, numpy\nfor named in {named}.items(): gi.require_version(*named)"
    tried = subprocess.run([SYSTEM_PYTHON, "-c", program], capture_output=True, check=False)
    return tried.returncode == 0


pytestmark = pytest.mark.skipif(
    "EDGE_TEST_CAMERAS" not in os.environ, reason="a minute, and GStreamer: make cameras"
)
needs_rtsp = pytest.mark.skipif(
    not has("Gst=1.0", "GstRtspServer=1.0"), reason="GStreamer's RTSP server is not installed"
)
needs_aravis = pytest.mark.skipif(not has("Aravis=0.8"), reason="Aravis is not installed")


@asynccontextmanager
async def stand(tmp_path: Path, *overrides: str) -> AsyncIterator[tuple[LocalBroker, Line]]:
    """A broker, a daemon that is ready, and a line."""
    async with LocalBroker(kind="mosquitto") as broker:
        with Daemon(broker, tmp_path, overrides=overrides) as daemon:
            daemon.ready()
            async with line_to(broker) as line:
                yield broker, line


def said(line: Line) -> list[dict[str, Any]]:
    return [json.loads(found[0][0]) for found in line.verdicts.values()]


@needs_rtsp
@pytest.mark.parametrize("codec", ["h264", "mjpeg"])
def test_boards_before_an_rtsp_camera_are_judged_and_it_may_die(codec: str, tmp_path: Path) -> None:
    good = np.stack([render_part(BOARD, 0).image])
    bad = np.stack([render_part(BOARD, 1, ("open",)).image])

    async def scene() -> tuple[set[str], set[str]]:
        async with stand(tmp_path) as (broker, line):
            with rtsp_camera(good, tmp_path, "--codec", codec) as camera:
                port = camera.port
                words = ("--reference-id", BOARD.reference_id, "--rate", "10")
                filmed = filming(camera.url, broker, *words)
                await filmed.__aenter__()
                await until(lambda: len(line.verdicts) >= 10, "verdicts", 40)
            first = {verdict["verdict"] for verdict in said(line)}
            # Another camera on its port: the old one is noticed, and the new one taken up.
            with rtsp_camera(bad, tmp_path, "--codec", codec, port=port):
                line.verdicts.clear()
                await until(lambda: len(line.verdicts) >= 10, "verdicts again", 40)
                second = {verdict["verdict"] for verdict in said(line)[1:]}
                await filmed.__aexit__(None, None, None)
            return first, second

    assert asyncio.run(scene()) == ({"pass"}, {"reject"})


@needs_rtsp
@pytest.mark.parametrize("codec", ["h264", "mjpeg"])
def test_a_streams_pictures_are_young_from_the_first_one_on(codec: str, tmp_path: Path) -> None:
    """At two pictures a second each one that a decoder keeps back would cost half a second."""
    pictures = np.stack([render_part(BOARD, n).image for n in range(2)])

    async def scene() -> list[float]:
        async with LocalBroker(kind="mosquitto") as broker:
            with rtsp_camera(
                pictures, tmp_path, "--codec", codec, "--stamp", "--fps", "2"
            ) as camera:
                async with (
                    connected(broker, "watcher", TOPIC) as peer,
                    filming(camera.url, broker, "--rate", "100"),
                ):
                    frames = [await peer.next(40) for _ in range(4)]
        return [(frame.arrived_at_ns - stamp_ns(frame.payload)) / 1e9 for frame in frames]

    ages_s = asyncio.run(scene())
    # FFmpeg sees that an H.264 picture is whole when the next one begins: half a second here.
    assert max(ages_s) < 0.5 + 0.4, ages_s
    assert min(ages_s) >= 0, ages_s


@contextmanager
def gige_camera() -> Iterator[subprocess.Popen[bytes]]:
    program = (
        "import gi; gi.require_version('Aravis', '0.8'); from gi.repository import Aravis, GLib; "
        f"camera = Aravis.GvFakeCamera.new('{CAMERA}', 'GV01'); "
        "print(camera.is_running(), flush=True); GLib.MainLoop().run()"
    )
    process = subprocess.Popen([SYSTEM_PYTHON, "-c", program], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"True\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def bridged() -> subprocess.Popen[bytes]:
    """The example, as its user runs it, with pictures of the size that the model knows."""
    words = ("--camera", CAMERA, "--rate", "10", "--format", "Mono8")
    size = ("--features", "Width=640 Height=640")
    return subprocess.Popen([BRIDGE, *words, *size], stdout=subprocess.PIPE)


@needs_aravis
def test_a_gige_vision_camera_is_judged_by_one_pipe_that_ends_with_it(tmp_path: Path) -> None:
    async def scene() -> tuple[list[dict[str, Any]], dict[str, Any], tuple[int, int]]:
        async with (
            stand(tmp_path) as (broker, line),
            connected(broker, "watcher", TOPIC) as watcher,
        ):
            with gige_camera() as camera:
                bridge = bridged()
                filming = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "edge.cli.main", "camera", "-"),
                    *("--set", f"broker.port={broker.port}", "--reference-id", "seen"),
                    stdin=bridge.stdout,
                )
                assert bridge.stdout is not None
                bridge.stdout.close()
                first = await watcher.next()
                line.session.publish(
                    "line/top/reference/seen",
                    first.payload,
                    retain=True,
                    content_type=first.content_type,
                )
                await until(lambda: len(line.verdicts) >= 20, "verdicts")
                camera.kill()
                ends = (await asyncio.to_thread(bridge.wait, 40), await filming.wait())
            status = await line.box_ready()
            return said(line), status, ends

    verdicts, status, ends = asyncio.run(scene())
    assert ends == (1, 0)
    judged = [verdict for verdict in verdicts if verdict["reason"] in {"ok", "defect"}]
    assert len(judged) >= 10
    assert all(verdict["frame_id"].startswith("GV01-") for verdict in verdicts)
    # The capture time was believed: the way from the camera's stamp to the box is told.
    assert all(verdict["latency_ms"]["transport"] >= 0 for verdict in judged)
    assert status["counters"].get("frames_odd", 0) == 0


CLOCK: Final = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("bridge", sys.argv[1])
bridge = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bridge)
clock = bridge.Clock(lag_ns=int(sys.argv[2]))
print(json.dumps([clock.captured_ns(*frame) for frame in json.loads(sys.argv[3])]))
"""


@needs_aravis
def test_a_cameras_own_clock_is_mapped_by_the_shortest_way_of_late() -> None:
    """Frames each 0.1 s by a camera's clock that began at 7, on their way for 5 ms and more."""
    second = 10**9
    frames = []
    for number, way_ms in enumerate([9, 5, 80, 6, 7] + [8] * 700):
        taken = 1_000 * second + number * second // 10
        frames.append((taken - 993 * second, taken + way_ms * 1_000_000))
    lag_ns = 2_000_000
    told = subprocess.run(
        [SYSTEM_PYTHON, "-c", CLOCK, BRIDGE, str(lag_ns), json.dumps(frames)],
        capture_output=True,
        check=True,
    )
    off_ms = [
        round((captured - (stamp + 993 * second)) / 1e6)
        for captured, (stamp, _) in zip(json.loads(told.stdout), frames, strict=True)
    ]
    # The shortest way so far is taken for none, and for 60 s; the lag that was given comes off it.
    assert off_ms[:5] == [7, 3, 3, 3, 3]
    assert (off_ms[600], off_ms[601], off_ms[-1]) == (3, 4, 6)
