"""One camera's garbage beside another's good frames: what it costs the good one's verdicts.

One daemon, two pipelines with a worker each, two cameras. The good one sends boards at 10 frames a
second. The other one takes turns: it is quiet, sends boards at the same rate, sends garbage of one
kind after the other, or sends boards at ten times the rate against a limit of 12 a second. Each of
its frames must have its verdict, and garbage must be found to be garbage.
"""

import asyncio
import contextlib
import itertools
import json
import random
import shutil
import struct
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from edge.bench.whole_line import LineFigures, camera, line_figures, time_to_ready, write_parts
from edge.config import BrokerSection
from edge.daemon.local import DEPLOYMENT
from edge.deployment.pin import pin
from edge.errors import TrialError
from edge.mqtt.brokers import LocalBroker
from edge.mqtt.messages import Incoming
from edge.mqtt.session import Session
from edge.shipped import path as shipped

QUIET: Final = "quiet"
BOARDS: Final = "boards"
FLOOD: Final = "boards, tenfold"
RATE_HZ: Final = 10.0
LIMIT_HZ: Final = 12
"""Of the other camera (`frames_per_s` of its binding): a fifth above what it should send."""
_TENFOLD: Final = 10
_SIDE: Final = "line/side/frame"
_ANSWERED_S: Final = 5.0
_JPEG: Final = "image/jpeg"
_PNG: Final = "image/png"


class _Frame(NamedTuple):
    """What the other camera sends: an image, as what, and the reference it is compared with."""

    image: bytes
    content_type: str
    reference_id: str = ""


class IsolationFigures(msgspec.Struct, frozen=True):
    """What was measured.

    Attributes:
        lines: Verdicts of the good camera, by what the other one did.
        p99_to_quiet: Beside each, over that beside a quiet one.
        p99_to_boards: Beside each, over that beside one that sends what it should.
        beside: What the other camera's frames got: how many of each reason.
    """

    lines: list[LineFigures]
    p99_to_quiet: dict[str, float]
    p99_to_boards: dict[str, float]
    beside: dict[str, dict[str, int]]


async def measure(folder: Path, frames: int, turns: int) -> IsolationFigures:
    """Measure.

    Args:
        folder: Takes frames, deployment, state and log.
        frames: Of the good camera beside each variant.
        turns: How often each variant has its turn.
    """
    pictures, home = folder / "frames", folder / "daemon"
    for each in (pictures, home):
        each.mkdir()
    write_parts(pictures)
    sent = _variants(pictures)
    taken: dict[str, list[float | None]] = {name: [] for name in sent}
    overruns = dict.fromkeys(sent, 0)
    beside: dict[str, Counter[str]] = {name: Counter() for name in sent}
    async with contextlib.AsyncExitStack() as stack:
        broker = await stack.enter_async_context(LocalBroker(kind="mosquitto"))
        settings = (f'bindings.camera.side={{topic="{_SIDE}", frames_per_s={LIMIT_HZ}}}',)
        deployment = _two_pipelines(folder / "deployment")
        await time_to_ready(broker.port, home, stack, settings, deployment)
        other = await stack.enter_async_context(_other(broker.port))
        for turn in range(turns):
            # In the order of the turn: what grows or tires over time falls on all alike.
            for name in reversed(sent) if turn % 2 else sent:
                rate_hz = RATE_HZ * (_TENFOLD if name == FLOOD else 1)
                async with other.sending(sent[name], rate_hz):
                    count = max(2, frames // turns)
                    result = await camera(broker.port, pictures, count, RATE_HZ, name, turn)
                taken[name] += result["latency_ms"]
                overruns[name] += result["overruns"]
                beside[name] += await other.answers()
    _hold_to_kind(beside)
    lines = [line_figures(name, taken[name], overruns[name]) for name in taken]
    p99_ms = {each.variant: each.p99_ms for each in lines}
    return IsolationFigures(
        lines=lines,
        p99_to_quiet={name: round(ms / p99_ms[QUIET], 2) for name, ms in p99_ms.items()},
        p99_to_boards={name: round(ms / p99_ms[BOARDS], 2) for name, ms in p99_ms.items()},
        beside={name: dict(found) for name, found in beside.items()},
    )


def _variants(pictures: Path) -> dict[str, list[_Frame]]:
    """What the other camera sends in its turns."""
    boards = [
        _Frame(path.read_bytes(), _JPEG, path.name.removesuffix(".frame.jpg"))
        for path in sorted(pictures.glob("*.frame.jpg"))
    ]
    noise = random.Random(1)  # noqa: S311 - no secret: the same in each run
    return {
        QUIET: [],
        BOARDS: boards,
        "half a JPEG": [
            board._replace(image=board.image[: len(board.image) // 2]) for board in boards
        ],
        "30,000 pixels square": [boards[0]._replace(image=_huge_png(30_000), content_type=_PNG)],
        "random bytes": [board._replace(image=noise.randbytes(200_000)) for board in boards[:8]],
        "another content type": [board._replace(content_type=_PNG) for board in boards],
        FLOOD: boards,
    }


def _huge_png(side: int) -> bytes:
    """A PNG of a kilobyte or so that says it is 900 million pixels, all of them the same."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1_000_000), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def _two_pipelines(folder: Path) -> Path:
    """The reference deployment with its pipeline again for the other camera."""
    shutil.copytree(shipped(DEPLOYMENT), folder)
    manifest = folder / "manifest.toml"
    text = manifest.read_text()
    again = text[text.index("[pipelines.pcb]") :].replace("pipelines.pcb", "pipelines.side")
    manifest.write_text(text + "\n" + again.replace('"camera.top"', '"camera.side"'))
    pin(folder)
    return folder


def _hold_to_kind(beside: dict[str, Counter[str]]) -> None:
    """Hold the daemon to what it said of the other camera's frames.

    Raises:
        TrialError: A kind of frame was not met with its reason: nothing was measured.
    """
    for name, found in beside.items():
        wanted = {QUIET: "", BOARDS: "ok", FLOOD: "overload"}.get(name, "decode-error")
        if wanted and not found[wanted]:
            raise TrialError(f"beside {name!r}: no frame got {wanted}: {dict(found)}")


class _Other:
    """The other camera, and whoever hears its verdicts.

    Args:
        session: Its connection.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._open: set[str] = set()
        self._reasons: Counter[str] = Counter()
        self._changed = asyncio.Event()
        self._numbers = itertools.count()
        session.subscribe("edge/box1/side/verdict", 1, self._take)

    def _take(self, message: Incoming) -> None:
        self._session.acknowledge(message)
        verdict = json.loads(message.payload)
        if verdict["frame_id"] in self._open:
            self._open.discard(verdict["frame_id"])
            reason = verdict["reason"]
            self._reasons["ok" if reason in ("ok", "defect") else reason] += 1
            self._changed.set()

    @contextlib.asynccontextmanager
    async def sending(self, frames: Sequence[_Frame], rate_hz: float) -> AsyncIterator[None]:
        """Send frames at a steady rate while the block runs; none of none."""
        task = asyncio.create_task(self._send(frames, rate_hz))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait((task,))
        if not task.cancelled():
            task.result()

    async def _send(self, frames: Sequence[_Frame], rate_hz: float) -> None:
        began = time.monotonic()
        for number, frame in enumerate(itertools.cycle(frames)):
            await asyncio.sleep(max(0.0, began + number / rate_hz - time.monotonic()))
            frame_id = f"side-{next(self._numbers)}"
            self._open.add(frame_id)
            self._session.publish(
                _SIDE,
                frame.image,
                content_type=frame.content_type,
                properties={
                    "frame-id": frame_id,
                    "reference-id": frame.reference_id,
                    "captured-at": str(time.time_ns()),
                },
            )

    async def answers(self) -> Counter[str]:
        """Wait for the verdicts of all frames since the last call, and count their reasons.

        Raises:
            TrialError: A frame had none.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ANSWERED_S):
                while self._open:
                    self._changed.clear()
                    await self._changed.wait()
        if self._open:
            raise TrialError(f"{len(self._open)} frames of the other camera have no verdict")
        found, self._reasons = self._reasons, Counter()
        return found


@contextlib.asynccontextmanager
async def _other(port: int) -> AsyncIterator[_Other]:
    session = Session(BrokerSection(port=port), "bench-other")
    other = _Other(session)
    running = asyncio.create_task(session.run())
    try:
        yield other
    finally:
        await session.close(1.0)
        running.cancel()
        await asyncio.wait((running,))
