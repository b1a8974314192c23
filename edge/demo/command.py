"""`edge demo`: starts a broker and the daemon, plays a simulated line, and scores the verdicts.

Nothing of it is a mock: the broker is Mosquitto (or the embedded one), the daemon is `edge run` as
a process of its own, the model is the board model, and the frames are JPEGs over MQTT.
"""

import argparse
import asyncio
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Final, Literal, NamedTuple

from rich.console import Console

from edge.config import BrokerSection, LogSection
from edge.daemon.local import DEPLOYMENT, LocalDaemon
from edge.errors import ConfigError
from edge.mqtt.brokers import LocalBroker
from edge.observability import log
from edge.replay.command import ReplayOptions, positive, replay
from edge.replay.player import Pace, Target
from edge.replay.playlists import simulated_playlist
from edge.replay.report import TerminalWatcher, score_table
from edge.replay.score import Score

_SECONDS: Final = 15.0
_RATE_HZ: Final = 10.0


class _Wire(NamedTuple):
    """How the camera speaks to the daemon."""

    protocol: Literal["auto", "3.1.1"]
    frame_topic: str


_MQTT_5: Final = _Wire("auto", "line/top/frame")
# MQTT 3.1.1 has no user properties: what a frame is called stands in its topic.
_MQTT_3: Final = _Wire("3.1.1", "line/top/frame/{reference_id}/{part_id}/{frame_id}")
_MAX_SECONDS: Final = 86_400
_MAX_RATE_HZ: Final = 1_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--seconds", type=positive, default=_SECONDS, metavar="S",
        help="how long the line runs (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--rate", type=positive, default=_RATE_HZ, metavar="HZ",
        help="frames a second (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=1, help="which simulated line")
    parser.add_argument(
        "--broker", choices=("auto", "mosquitto", "embedded"), default="auto",
        help="auto: Mosquitto where it is installed (default)",
    )  # fmt: skip
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="save what was shown as an SVG picture"
    )
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    parser.add_argument("--quiet", action="store_true", help="no verdict lines, no progress bar")


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; status 1 where a frame had no verdict, or not in time."""
    if not (0 < arguments.rate <= _MAX_RATE_HZ and 0 < arguments.seconds <= _MAX_SECONDS):
        print(
            f"edge demo: --rate lies in 0..{_MAX_RATE_HZ}, --seconds in 0..{_MAX_SECONDS}",
            file=sys.stderr,
        )
        return 2
    if arguments.picture is not None:
        _try(arguments.picture)
    log.configure(LogSection(level="error"), tty=sys.stderr.isatty())
    console = Console(stderr=arguments.json, record=arguments.picture is not None)
    score = asyncio.run(_demo(arguments, console))
    console.print(score_table(score))
    if arguments.picture is not None:
        picture = console.export_svg(title="make demo")
        # Rich names fonts on a public host; the page that shows the picture has its own.
        bare = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)
        arguments.picture.write_text(bare, encoding="utf-8")
    if arguments.json:
        sys.stdout.write(json.dumps(score.to_json()) + "\n")
    return 0 if score.is_clean else 1


def _try(picture: Path) -> None:
    """Have a picture that cannot be saved said before the line has run for it."""
    try:
        picture.open("ab").close()
    except OSError as failed:
        raise ConfigError("--picture", f"{picture}: cannot be written: {failed.strerror}") from None


async def _demo(arguments: argparse.Namespace, console: Console) -> Score:
    frames = max(1, round(arguments.seconds * arguments.rate))
    with tempfile.TemporaryDirectory(prefix="edge-demo-") as folder:
        async with LocalBroker(kind=arguments.broker) as broker:
            console.print(f"[bold]broker[/]  {broker.kind} {broker.version} on port {broker.port}")
            wire = _MQTT_3 if broker.kind == "embedded" else _MQTT_5
            overrides = (
                f"broker.protocol={wire.protocol}",
                f"bindings.camera.top={wire.frame_topic}",
            )
            async with LocalDaemon(broker.port, Path(folder), overrides) as daemon:
                console.print(f"[bold]daemon[/]  process {daemon.pid}, {DEPLOYMENT}, unsigned")
                console.print(
                    f"[bold]line[/]    {frames} simulated boards, {arguments.rate:g} a second; "
                    "each is judged beside its reference"
                )
                watcher = None if arguments.quiet else TerminalWatcher(console)
                options = ReplayOptions(
                    simulated_playlist(arguments.seed, frames),
                    Target(
                        BrokerSection(port=broker.port, protocol=wire.protocol),
                        "box1",
                        "pcb",
                        wire.frame_topic,
                        "line/top/reference/{reference_id}",
                    ),
                    Pace(arguments.rate, frames),
                    watcher=watcher,
                )
                try:
                    return await _unless(daemon, options)
                finally:
                    if watcher is not None:
                        watcher.ends()


async def _unless(daemon: LocalDaemon, options: ReplayOptions) -> Score:
    """Replay, unless the daemon ends by itself.

    Raises:
        DaemonEndedError: It did.
    """
    playing = asyncio.create_task(replay(options))
    ending = asyncio.create_task(daemon.ended())
    try:
        await asyncio.wait((playing, ending), return_when=asyncio.FIRST_COMPLETED)
        if ending.done() and not playing.done():
            ending.result()
        return await playing
    finally:
        for task in (playing, ending):
            task.cancel()
        await asyncio.gather(playing, ending, return_exceptions=True)
