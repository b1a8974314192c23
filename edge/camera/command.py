"""`edge camera`: a folder, a V4L2 device, a stream or a pipe becomes frames on a topic.

Exit status 0 at the end of the source or when it was told to stop, 1 where the broker or the
source was lost for too long, a pipe brought what is no picture, or the broker took none of the
first frames, 78 where the source does not exist.
"""

import argparse
import asyncio
import json
import math
import secrets
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from edge import config
from edge.camera.picture import MAX_ID_CHARS, Picture, Source
from edge.camera.publisher import FramePublisher
from edge.camera.reader import Reader
from edge.camera.sources import PIPE, source_of
from edge.config import BrokerSection
from edge.errors import ConfigError, TransportError
from edge.mqtt.session import Session
from edge.mqtt.topics import TopicTemplate
from edge.observability import log

_FLUSH_S: Final = 5.0
_RATE_HZ: Final = 10.0
_GIVE_UP_S: Final = 60.0
_BEST_QUALITY: Final = 100
_EXAMPLES: Final = """\
examples:
  edge camera rtsp://10.0.0.7/live --config /etc/edge/edge.toml --rate 20
  edge camera /dev/video0 --topic line/top/frame --set broker.host=10.0.0.2
  edge camera boards/ --loop --reference-id board-0003
  rpicam-vid --codec mjpeg -n -t 0 -o - | edge camera -
"""


@dataclass(frozen=True)
class CameraOptions:
    """One run of a camera.

    Attributes:
        topic: Where frames go; placeholders are filled.
        rate_hz: Frames a second at most; infinite: each picture is a frame.
        frames: Stop after so many; 0: at the end of the source.
        connect_within_s: For the broker's first answer.
        give_up_s: How long a lost source is tried.
        run_id: Begins the frame ids; default: a new one.
    """

    source: Source
    broker: BrokerSection
    topic: str
    rate_hz: float
    qos: int = 1
    reference_id: str = ""
    frames: int = 0
    connect_within_s: float = 15.0
    give_up_s: float = _GIVE_UP_S
    run_id: str = ""


@dataclass(frozen=True)
class CameraCounts:
    """What a run of a camera came to.

    Attributes:
        losses: How often the source had to be opened again.
        unheard: Of those published, how many nobody subscribes to; 0 where the broker does not say.
    """

    read: int
    published: int
    dropped: int
    refused: int
    losses: int
    unheard: int = 0


async def run_camera(options: CameraOptions, stop: asyncio.Event | None = None) -> CameraCounts:
    """Publish until the source ends, `frames` were read, or `stop` is set.

    Raises:
        ConfigError: The topic is no template.
        TransportError: The broker did not answer in time, or the source was lost for too long.
    """
    return await _Camera(options, stop or asyncio.Event()).run()


class _Camera:
    """The run: a reading thread, a publisher, a session."""

    def __init__(self, options: CameraOptions, stop: asyncio.Event) -> None:
        self._options = options
        self._stop = stop
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._connected = asyncio.Event()
        run_id = options.run_id or f"camera-{secrets.token_hex(4)}"
        self._session = Session(
            options.broker, options.broker.client_id or run_id, on_connected=self._on_connected
        )
        self._publisher = FramePublisher(
            self._session,
            TopicTemplate(options.topic),
            options.qos,
            run_id,
            options.reference_id,
            lambda said: self._note_end(TransportError(said)),
        )
        self._reader = Reader(
            options.source, options.rate_hz, self._keep, self._end, options.give_up_s
        )
        self._read = 0

    async def run(self) -> CameraCounts:
        running = asyncio.create_task(self._session.run(), name="camera-session")
        try:
            await self._connect(running)
            self._reader.start()
            stopped = asyncio.create_task(self._stop.wait(), name="camera-stop")
            await asyncio.wait((stopped, self._ended, running), return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            await asyncio.to_thread(self._reader.stop)
            await self._drain()
        finally:
            await self._session.close(_FLUSH_S)
            running.cancel()
            await asyncio.wait((running,))
        if self._ended.done():
            self._ended.result()  # raises why the source was given up
        publisher = self._publisher
        return CameraCounts(
            self._read,
            publisher.published,
            publisher.dropped,
            publisher.refused,
            self._reader.losses,
            publisher.unheard,
        )

    async def _connect(self, running: asyncio.Task[None]) -> None:
        waiting = asyncio.create_task(self._connected.wait(), name="camera-connect")
        await asyncio.wait(
            (waiting, running),
            timeout=self._options.connect_within_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
        waiting.cancel()
        if not self._connected.is_set():
            broker = self._options.broker
            raise TransportError(
                f"no broker on {broker.host}:{broker.port} within "
                f"{self._options.connect_within_s:g} s: {self._session.last_error or 'no answer'} "
                "(is it running? broker.host and broker.port, of --config or --set, say where)"
            )

    async def _drain(self) -> None:
        """Give the broker time for the last frames."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_S):
                await self._publisher.idle.wait()

    def _on_connected(self) -> None:
        self._connected.set()
        self._publisher.pump()

    def _keep(self, picture: Picture) -> None:
        """On the reading thread; after the loop's end nobody wants it."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._offer, picture)

    def _end(self, failure: Exception | None) -> None:
        """On the reading thread, likewise."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._note_end, failure)

    def _offer(self, picture: Picture) -> None:
        limit = self._options.frames
        if limit and self._read >= limit:
            return
        self._read += 1
        self._publisher.offer(picture)
        if self._read == limit:
            self._stop.set()

    def _note_end(self, failure: Exception | None) -> None:
        if self._ended.done():
            return
        if failure is None:
            self._ended.set_result(None)
        else:
            self._ended.set_exception(failure)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    parser.add_argument(
        "source", metavar="SOURCE",
        help="folder of JPEG and PNG files; /dev/video0 or 0; rtsp://...; http://... (MJPEG); "
        "- for a pipe of JPEGs, PNGs or multipart parts (docs/connecting.md); @FILE where one of "
        "these stands in a file, since all users of a machine see a command's arguments",
    )  # fmt: skip
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="the daemon's device config, for its broker and topics",
    )
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE",
        help="override one key of the config, e.g. broker.port=1884; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--camera", default="top", metavar="NAME",
        help="the camera binding of the config to publish to (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--topic",
        default="",
        help="publish there instead; without --config the broker's address "
        "is given by --set broker.host=...",
    )
    parser.add_argument(
        "--qos", type=int, choices=(0, 1), default=1,
        help="1: a frame whose answer is lost is sent again (default); 0: it is sent once",
    )  # fmt: skip
    parser.add_argument(
        "--rate", type=_positive, metavar="HZ",
        help="frames a second at most (default: 10; of a pipe: each picture)",
    )  # fmt: skip
    parser.add_argument(
        "--frames", type=_count, default=0, metavar="N", help="stop after so many (default: never)"
    )
    parser.add_argument("--loop", action="store_true", help="begin a folder again after its end")
    parser.add_argument(
        "--reference-id", type=_identity, default="", help="the reference of all frames"
    )
    parser.add_argument(
        "--quality", type=_quality, default=90, metavar="1..100",
        help="of the JPEGs made of video (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--lag-ms", type=_number, default=0.0, metavar="MS",
        help="how old a video's picture is when it is read here, taken off its capture time: "
        "measure it (default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--give-up", type=_positive, metavar="S",
        help="seconds that a lost camera or stream is tried (default: 60); that a pipe may be "
        "silent (default: for ever, as a camera waits for its trigger)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="end with one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Publish until the end or a signal; returns the exit status."""
    overrides = tuple(arguments.overrides)
    settings = (
        config.load(arguments.config, overrides)
        if arguments.config
        else config.parse({}, "--set", overrides)
    )
    log.configure(settings.log, tty=sys.stderr.isatty(), journal=False)
    options = CameraOptions(
        source_of(
            arguments.source,
            loop=arguments.loop,
            quality=arguments.quality,
            lag_ms=arguments.lag_ms,
            max_bytes=settings.limits.max_payload_bytes,
            silence_s=arguments.give_up or math.inf,
        ),
        settings.broker.model_copy(update={"client_id": "", "session_expiry_s": 0}),
        _publishable("--topic", arguments.topic, arguments.reference_id)
        if arguments.topic
        else _bound_topic(settings, arguments.camera, arguments.reference_id),
        arguments.rate or (math.inf if arguments.source == PIPE else _RATE_HZ),
        arguments.qos,
        arguments.reference_id,
        arguments.frames,
        give_up_s=arguments.give_up or _GIVE_UP_S,
    )
    counts = asyncio.run(_until_signalled(options))
    if arguments.json:
        sys.stdout.write(json.dumps(vars(counts)) + "\n")
    else:
        published = f"{counts.published} frames published"
        if counts.unheard:
            published += f" ({counts.unheard} of them heard by nobody)"
        Console(soft_wrap=True).print(
            f"{published}, {counts.dropped} dropped for newer ones, "
            f"{counts.refused} refused; the source was lost {counts.losses} times"
        )
    return int(counts.refused > 0 and not counts.published)


async def _until_signalled(options: CameraOptions) -> CameraCounts:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return await run_camera(options, stop)


def _bound_topic(settings: config.DeviceConfig, camera: str, reference_id: str) -> str:
    binding = settings.bindings.find(f"camera.{camera}")
    if binding is None and (bound := settings.bindings.camera):
        raise ConfigError(
            f"bindings.camera.{camera}",
            f"is not there; bound are {', '.join(bound)}",
            "name one of them by --camera, or give --topic",
        )
    topic = binding.topic if binding else f"line/{camera}/frame"
    return _publishable(f"bindings.camera.{camera}", topic, reference_id)


def _publishable(where: str, topic: str, reference_id: str) -> str:
    """Return a topic that frames can go to; what is filled in may make it none."""
    if "+" in topic or "#" in topic:
        raise ConfigError(where, f"{topic!r} has wildcards: where to publish?", "give --topic")
    try:
        TopicTemplate(topic).fill(frame_id="1", part_id="1", reference_id=reference_id or "none")
    except ValueError as unfit:
        raise ConfigError(where, f"takes no frame: {unfit}", "give --topic") from unfit
    return topic


def _positive(text: str) -> float:
    if (value := _number(text)) == 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, found {text!r}")
    return value


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number, not below 0, found {text!r}")
    return value


def _identity(text: str) -> str:
    if len(text) > MAX_ID_CHARS or not text.isprintable():
        raise argparse.ArgumentTypeError(
            f"expected at most {MAX_ID_CHARS} printable characters, found {text[:80]!r}"
        )
    return text


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number, found {text!r}")
    return int(text)


def _quality(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _BEST_QUALITY:
        raise argparse.ArgumentTypeError(f"expected a whole number 1..100, found {text!r}")
    return int(text)
