"""`edge replay`: plays parts with known truth to a running daemon, and scores its verdicts.

Exit status 0 where each frame had one verdict in time, 1 where one was missing, late, contradicted
or came twice; with --json one JSON object is the last line on standard output.
"""

import argparse
import asyncio
import json
import math
import secrets
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from edge import config
from edge.errors import ConfigError
from edge.observability import log
from edge.replay.parts import Playlist
from edge.replay.player import Pace, Target, Watcher, play
from edge.replay.playlists import (
    Variant,
    dataset_playlist,
    plain_playlist,
    simulated_playlist,
    time_lapse_playlist,
)
from edge.replay.report import TerminalWatcher, score_table
from edge.replay.score import Score, percentiles, score

_SIMULATED_FRAMES = 100


@dataclass(frozen=True)
class ReplayOptions:
    """One replay.

    Attributes:
        run_id: Begins every frame id; default: a new one.
        watcher: Told as it goes.
    """

    playlist: Playlist
    target: Target
    pace: Pace
    run_id: str = ""
    watcher: Watcher | None = None


async def replay(options: ReplayOptions) -> Score:
    """Play, and score what came.

    Raises:
        ConfigError: A topic is no template, or a picture of the data set cannot be used.
        TransportError: The broker or the daemon was not there in time.
    """
    played = await play(
        options.playlist,
        options.target,
        options.pace,
        options.run_id or f"replay-{secrets.token_hex(4)}",
        options.watcher,
    )
    return replace(
        score(played.shots, played.answers),
        unsent=played.unsent,
        unheard=played.unheard,
        undecodable=played.undecodable,
        lag_ms=percentiles(played.lag_ms),
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        help="folder in the data format (parts.csv, images/), or of plain JPEG and PNG files; "
        "without it, a simulated line is played",
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="the daemon's device config: broker, topics"
    )
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE",
        help="override one key of the config, e.g. broker.port=1884; may be given several times",
    )  # fmt: skip
    parser.add_argument("--pipeline", default="pcb", help="whose verdicts (default: %(default)s)")
    parser.add_argument(
        "--source", default="top", metavar="NAME",
        help="the camera and reference bindings of the config to play to (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--frame-topic", default="", help="instead of the binding's")
    parser.add_argument("--reference-topic", default="", help="instead of the binding's")
    parser.add_argument("--qos", type=int, choices=(0, 1), default=1, help="of the frames")
    parser.add_argument(
        "--rate", type=positive, default=10.0, metavar="HZ", help="frames a second (default: 10)"
    )
    parser.add_argument(
        "--frames", type=_count, metavar="N",
        help="how many; more than there are parts: they are played again "
        f"(default: each part once; of a simulated line {_SIMULATED_FRAMES})",
    )  # fmt: skip
    parser.add_argument(
        "--variants", type=_variants, default=(Variant.OK, Variant.NG_SINGLE), metavar="LIST",
        help="of a data set, from as-is, ok, ng-single (default: ok,ng-single)",
    )  # fmt: skip
    parser.add_argument("--split", default="", help="of a data set: play this part of it alone")
    parser.add_argument(
        "--time-lapse", action="store_true",
        help="of a data set: each split is a series, played in order of its part ids, its first "
        "frame the reference of all; scored is how the verdicts' score follows time",
    )  # fmt: skip
    parser.add_argument(
        "--reference-id", default="", help="of a plain folder: the reference of all its frames"
    )
    parser.add_argument("--seed", type=int, default=1, help="of order, choice and simulation")
    parser.add_argument(
        "--ready-within", type=positive, default=120.0, metavar="S",
        help="seconds to wait for the daemon (default: 120)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    parser.add_argument("--quiet", action="store_true", help="no verdict lines, no progress bar")


def run(arguments: argparse.Namespace) -> int:
    """Play and print; returns the exit status."""
    overrides = tuple(arguments.overrides)
    settings = (
        config.load(arguments.config, overrides)
        if arguments.config
        else config.parse({}, "--set", overrides)
    )
    # Of the connection only what goes wrong: verdict lines are what this command has to say.
    quiet = settings.log.model_copy(update={"level": "warning"})
    log.configure(quiet, tty=sys.stderr.isatty())
    target = _target(arguments, settings)
    playlist = _playlist(arguments)
    pace = Pace(
        arguments.rate,
        arguments.frames or len(playlist.parts),
        ready_within_s=arguments.ready_within,
    )
    console = Console(stderr=arguments.json)
    watcher = None if arguments.quiet else TerminalWatcher(console)
    try:
        result = asyncio.run(replay(ReplayOptions(playlist, target, pace, watcher=watcher)))
    finally:
        if watcher is not None:
            watcher.ends()
    console.print(score_table(result))
    if arguments.json:
        sys.stdout.write(json.dumps(result.to_json()) + "\n")
        sys.stdout.flush()
    return 0 if result.is_clean else 1


def _playlist(arguments: argparse.Namespace) -> Playlist:
    folder: Path | None = arguments.folder
    if folder is None:
        return simulated_playlist(arguments.seed, arguments.frames or _SIMULATED_FRAMES)
    if arguments.time_lapse:
        return time_lapse_playlist(folder, split=arguments.split, limit=arguments.frames)
    if (folder / "parts.csv").is_file():
        return dataset_playlist(
            folder,
            arguments.variants,
            split=arguments.split,
            seed=arguments.seed,
            limit=arguments.frames,
        )
    return plain_playlist(folder, arguments.reference_id, arguments.frames)


def _target(arguments: argparse.Namespace, settings: config.DeviceConfig) -> Target:
    source = arguments.source
    frame_topic = arguments.frame_topic or _bound(settings, f"camera.{source}")
    reference = arguments.reference_topic or _bound(settings, f"reference.{source}")
    # Beside the daemon's own session; kept by the broker only while we are there.
    broker = settings.broker.model_copy(update={"client_id": "", "session_expiry_s": 0})
    return Target(
        broker,
        settings.device.id,
        arguments.pipeline,
        frame_topic or f"line/{source}/frame",
        reference or f"line/{source}/reference/{{reference_id}}",
        arguments.qos,
    )


def _bound(settings: config.DeviceConfig, name: str) -> str:
    """The topic that a logical name is bound to; empty where it is not bound.

    Raises:
        ConfigError: It is bound to a filter with wildcards, to which nothing can be published; or
            it is a camera, and others are bound instead.
    """
    binding = settings.bindings.find(name)
    kind = name.partition(".")[0]
    # A deployment may do without references; a camera that is not bound is heard by nobody.
    if kind == "camera" and binding is None and (bound := settings.bindings.camera):
        raise ConfigError(
            f"bindings.{name}",
            f"is not there; bound are {', '.join(bound)}",
            "name one of them by --source, or give --frame-topic",
        )
    topic = binding.topic if binding else ""
    if "+" in topic or "#" in topic:
        option = "--frame-topic" if name.startswith("camera.") else "--reference-topic"
        raise ConfigError(
            f"bindings.{name}", f"{topic!r} has wildcards: where to publish?", f"give {option}"
        )
    return topic


def positive(text: str) -> float:
    """Read an argument that is a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, found {text!r}")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, found {text!r}")
    return int(text)


def _variants(text: str) -> tuple[Variant, ...]:
    try:
        return tuple(Variant(word.strip()) for word in text.split(","))
    except ValueError:
        known = ", ".join(Variant)
        raise argparse.ArgumentTypeError(f"expected some of {known}, found {text!r}") from None
