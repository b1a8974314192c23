"""`edge status`: what the daemon says of itself, in the terminal, once or live.

It reads the retained `edge/{device}/status` as one more client of the broker, and nothing else: it
works from any machine that may read that topic.
"""

import argparse
import asyncio
import contextlib
import io
import os
import re
import sys
import time
from collections.abc import Callable
from typing import Annotated, Any, Final

import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table

from edge import config
from edge.cli.arguments import add_config, seconds
from edge.cli.plain import plain as _plain
from edge.config import DeviceConfig, LogSection
from edge.contracts.verdict import DeploymentRef
from edge.errors import TransportError
from edge.mqtt.messages import Incoming
from edge.mqtt.session import Session
from edge.observability import log

WAIT_S: Final = 5.0
MAX_WAIT_S: Final = 3_600.0
OUTDATED_INTERVALS: Final = 3
"""A daemon speaks each interval; one that missed so many has gone without its last will."""
_GOODBYE_S: Final = 0.5
_SERIES: Final = re.compile(r"(?P<name>\w+)(?:\{(?P<labels>[^}]*)\})?")
_QUIET: Final = frozenset(
    {
        "frames_received",
        "references_received",
        "signals_received",
        "records_committed",
        "frames_kept",
        "crops_judged",
    }
)
"""Counters of ordinary traffic; every other one is worth a look when it is not zero."""


Whole = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class DriftFinding(msgspec.Struct, frozen=True):
    """Something that is not as it was learnt."""

    measure: str
    detail: str
    since_ns: int = 0


class DriftStatus(msgspec.Struct, frozen=True):
    """What the status message says of a pipeline's drift; absent where it is not watched."""

    state: str
    learnt: int = 0
    of: int = 0
    findings: tuple[DriftFinding, ...] = ()


class PipelineStatus(msgspec.Struct, frozen=True):
    """One pipeline, as the status message has it."""

    ready: bool
    budget_ms: float
    deployment: DeploymentRef
    trouble: str = ""
    provider: str = ""
    worker_pid: int = 0
    unanswered: int = 0
    latency_ms: dict[str, float] = {}
    frames_per_s: float | None = None
    policy: dict[str, Any] = {}
    drift: DriftStatus | None = None


class DeploymentsStatus(msgspec.Struct, frozen=True):
    """What the status message says of deployments; absent where a local folder runs."""

    state: str
    active: DeploymentRef | None = None
    candidate: DeploymentRef | None = None
    pinned: bool = False
    trouble: str = ""


class FramesStatus(msgspec.Struct, frozen=True):
    """What the status message says of kept frames."""

    bytes: Whole = 0
    max_bytes: Whole = 0
    files: Whole = 0
    dropped: Whole = 0
    trouble: str = ""


class LedgerStatus(msgspec.Struct, frozen=True):
    """What the status message says of the ledger."""

    committed: Whole = 0
    owed: Whole = 0
    owed_since_ns: Whole = 0
    signed: Whole | None = None
    bytes: Whole = 0
    max_bytes: Whole = 0
    waiting: Whole = 0
    stuck: bool = False
    reserve: bool = True
    trouble: str = ""
    refused_receipt: str = ""
    frames: FramesStatus | None = None


class MqttStatus(msgspec.Struct, frozen=True):
    """What the status message says of a session: its counters that are worth a look, and more."""

    protocol: str = ""
    trouble: str = ""
    disconnects: Whole = 0
    too_large: Whole = 0
    unusable: Whole = 0
    receiver_errors: Whole = 0
    publish_refused: Whole = 0
    publish_dropped: Whole = 0
    callback_errors: Whole = 0

    @property
    def notable(self) -> dict[str, int]:
        """The counters that are not zero."""
        counters = {k: v for k, v in msgspec.structs.asdict(self).items() if isinstance(v, int)}
        return {name: count for name, count in counters.items() if count}


class Status(msgspec.Struct, frozen=True):
    """The status message; keys of a newer daemon are ignored."""

    state: str
    ready: bool
    device: str = ""
    version: str = ""
    detail: str = ""
    time_ns: Whole = 0
    mqtt: MqttStatus = MqttStatus()
    mqtt_signals: MqttStatus | None = None
    pipelines: dict[str, PipelineStatus] = {}
    references: dict[str, dict[str, int]] = {}
    ledger: LedgerStatus | None = None
    deployments: DeploymentsStatus | None = None
    refused_filters: tuple[str, ...] = ()
    actions_held: tuple[str, ...] = ()
    counters: dict[str, int] = {}


class Heard(msgspec.Struct, frozen=True):
    """A status, as it came and as it was understood.

    Attributes:
        outdated_s: Age of an online status whose next ones did not come; 0 while it is fresh.
        age_s: Age of a status when it was heard, by this machine's clock.
    """

    document: dict[str, Any]
    status: Status
    outdated_s: float = 0.0
    age_s: float = 0.0

    @property
    def well(self) -> bool:
        """Whether the daemon runs, and is ready."""
        return self.status.state == "online" and self.status.ready and not self.outdated_s


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_config(parser)
    parser.add_argument("--watch", action="store_true", help="live, until Ctrl-C")
    parser.add_argument(
        "--wait",
        type=seconds(MAX_WAIT_S),
        default=WAIT_S,
        metavar="SECONDS",
        help=f"how long a status is waited for (default {WAIT_S:g})",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the status as JSON, one line each"
    )


def run(arguments: argparse.Namespace) -> int:
    """Show it; status 1 where there is none, or the daemon is not ready."""
    settings = config.load(arguments.config, tuple(arguments.overrides))
    # What the session would log is said once, with the remedy.
    log.configure(LogSection(level="error"), tty=False, stream=io.StringIO())
    console = Console(soft_wrap=not arguments.watch)
    with contextlib.ExitStack() as screen:
        show: Callable[[Heard], None]
        if arguments.json:
            show = _print_json
        elif arguments.watch and sys.stdout.isatty():
            live = screen.enter_context(Live(console=console, auto_refresh=False))

            def show(heard: Heard) -> None:
                live.update(picture(heard), refresh=True)
        else:

            def show(heard: Heard) -> None:
                console.print(picture(heard), highlight=False)

        heard = asyncio.run(_hear(settings, arguments.wait, show, watch=arguments.watch))
    return 0 if heard.well else 1


def _print_json(heard: Heard) -> None:
    print(msgspec.json.encode(heard.document).decode(), flush=True)


async def _hear(
    settings: DeviceConfig, wait_s: float, show: Callable[[Heard], None], *, watch: bool
) -> Heard:
    """Show the first status, or each one for ever; returns the one that was shown.

    Raises:
        TransportError: There is no broker or no status in time; with the remedy.
    """
    topic = f"edge/{settings.device.id}/status"
    arrived: asyncio.Queue[bytes] = asyncio.Queue(maxsize=100)
    # A client of its own, forgotten by the broker when it goes.
    session = Session(
        settings.broker.model_copy(update={"session_expiry_s": 0}),
        f"edge-status-{os.urandom(4).hex()}",
    )

    def receive(message: Incoming) -> None:
        session.acknowledge(message)
        with contextlib.suppress(asyncio.QueueFull):
            arrived.put_nowait(message.payload)

    session.subscribe(topic, 1, receive)
    task = asyncio.create_task(session.run(), name="status")
    try:
        heard = await _first(arrived, wait_s, settings.status.interval_s)
        if heard is None:
            raise _silence(session, settings, topic, wait_s)
        show(heard)
        while watch:
            heard = await _next(arrived, heard, settings.status.interval_s)
            show(heard)
        return heard
    finally:
        await session.close(_GOODBYE_S)
        task.cancel()
        await asyncio.wait((task,))


async def _first(arrived: "asyncio.Queue[bytes]", wait_s: float, interval_s: float) -> Heard | None:
    """Return the first status that is fresh, or an outdated one where no fresh one follows."""
    heard: Heard | None = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(wait_s):
            while heard is None or heard.outdated_s:
                heard = understood(await arrived.get(), interval_s)
    return heard


async def _next(arrived: "asyncio.Queue[bytes]", last: Heard, interval_s: float) -> Heard:
    """Return the next status, or the last one as outdated where none came for long."""
    try:
        async with asyncio.timeout(OUTDATED_INTERVALS * interval_s):
            return understood(await arrived.get(), interval_s)
    except TimeoutError:
        if last.status.state != "online":
            return last
        age_s = max(last.outdated_s, 0.0) + OUTDATED_INTERVALS * interval_s
        return msgspec.structs.replace(last, outdated_s=age_s)


def _silence(session: Session, settings: DeviceConfig, topic: str, wait_s: float) -> TransportError:
    at = f"{settings.broker.host}:{settings.broker.port}"
    if not session.connected:
        reason = session.last_error or f"broker {at}: no connection in {wait_s:g} s"
        return TransportError(f"{reason} (is it running? edge doctor says more)")
    if refusal := session.refused_filters.get(topic):
        return TransportError(
            f"broker {at} refuses to subscribe to {topic}: {refusal} (grant it in its access list)"
        )
    return TransportError(
        f"no status of {settings.device.id} on {topic} at broker {at} in {wait_s:g} s "
        "(has `edge run` been started there, is device.id the right one, and may this user read "
        "the topic?)"
    )


def understood(payload: bytes, interval_s: float, now_ns: int | None = None) -> Heard:
    """Read a status message.

    Args:
        payload: As it came.
        interval_s: How often the daemon speaks.
        now_ns: UTC; for tests.

    Raises:
        TransportError: It is none.
    """
    try:
        document = msgspec.json.decode(payload, type=dict[str, Any])
        status = msgspec.convert(document, Status)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
        raise TransportError(
            f"the status message cannot be read: {wrong} (is the daemon of another version?)"
        ) from None
    age_s = ((time.time_ns() if now_ns is None else now_ns) - status.time_ns) / 1e9
    late = status.state == "online" and age_s > OUTDATED_INTERVALS * interval_s
    return Heard(document, status, age_s if late else 0.0, age_s)


def picture(heard: Heard) -> RenderableType:
    """Draw a status for the terminal."""
    status = heard.status
    parts: list[RenderableType] = [_headline(heard)]
    parts += (_pipeline(*each) for each in status.pipelines.items())
    if verdicts := [(k, n) for k, n in status.counters.items() if k.startswith("verdicts{")]:
        parts.append(_verdicts(verdicts))
    rest = Table.grid(padding=(0, 2))
    if status.deployments:
        rest.add_row("deployments", _deployments(status.deployments))
    for name, shelf in status.references.items():
        size = f"{shelf.get('images', 0)} images, {shelf.get('bytes', 0) / 1024:,.0f} KiB"
        rest.add_row("references", f"{_plain(name)}: {size}")
    if status.ledger:
        rest.add_row("ledger", _ledger(status, status.ledger))
        if status.ledger.frames:
            rest.add_row("kept frames", _frames(status.ledger.frames))
    if status.actions_held:
        rest.add_row("actions on", ", ".join(map(_plain, status.actions_held)))
    if status.refused_filters:
        text = ", ".join(map(_plain, status.refused_filters))
        rest.add_row("[red]refused[/red]", f"{text}: grant them in the broker's access list")
    seen = [(k, n) for k, n in status.counters.items() if _name(k) not in {"verdicts", *_QUIET}]
    seen += [(f"mqtt.{k}", n) for k, n in status.mqtt.notable.items()]
    if of := status.mqtt_signals:
        seen += [(f"mqtt_signals.{k}", n) for k, n in of.notable.items()]
        if not of.protocol:
            rest.add_row("[red]no signals[/red]", _plain(of.trouble) or "no connection yet")
    for key, count in seen:
        rest.add_row("counter", f"{_plain(key)} {count}")
    return Group(*parts, *([rest] if rest.row_count else []))


def _deployments(deployments: DeploymentsStatus) -> str:
    text = _plain(deployments.state)
    if deployments.active is None:
        text += "; [yellow]none is installed yet[/yellow]"
    if candidate := deployments.candidate:
        text += f"; candidate {_plain(candidate.name)} revision {candidate.revision}"
    if deployments.pinned:
        text += "; [yellow]pinned[/yellow]: none is taken but by hand"
    if deployments.trouble:
        text += f"; [red]{_plain(deployments.trouble)}[/red]"
    return text


def _ledger(status: Status, ledger: LedgerStatus) -> str:
    text = f"{ledger.committed} records, {ledger.owed} owed to the cloud"
    if ledger.owed_since_ns:
        text += f" since {_span((status.time_ns - ledger.owed_since_ns) / 1e9)}"
    if ledger.signed is not None:
        text += f"; signed up to {ledger.signed}"
    if ledger.max_bytes:
        text += f"; {_mib(ledger.bytes)} of {_mib(ledger.max_bytes)} MiB"
    if ledger.waiting:
        text += f"; {ledger.waiting} wait for the disk"
    if ledger.stuck:
        text += "; [red]storage takes no record: frames are reviewed unjudged[/red]"
    if not ledger.reserve:
        text += "; [yellow]no reserve[/yellow]"
    if ledger.trouble:
        text += f"; [red]{_plain(ledger.trouble)}[/red]"
    if ledger.refused_receipt:
        text += f"; [red]a receipt was refused: {_plain(ledger.refused_receipt)}[/red]"
    return text


def _frames(frames: FramesStatus) -> str:
    text = f"{frames.files} files, {_mib(frames.bytes)} of {_mib(frames.max_bytes)} MiB"
    if frames.dropped:
        text += f", {frames.dropped} frames not kept"
    if frames.trouble:
        text += f"; [yellow]{_plain(frames.trouble)}[/yellow]"
    return text


def _mib(size: float) -> str:
    return f"{size / (1 << 20):,.0f}"


def _span(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0.0):.0f} s"


def _headline(heard: Heard) -> str:
    status = heard.status
    if status.state != "online":
        said = f"[red]{_plain(status.state)}[/red]"
        return f"{said}  {_plain(status.detail)}" if status.detail else said
    state = "[green]ready[/green]" if heard.well else "[red]not ready[/red]"
    spoken = f"edge {_plain(status.version)}, MQTT {_plain(status.mqtt.protocol)}"
    line = f"{_plain(status.device)}  {state}  {spoken}"
    if heard.age_s >= 1 and not heard.outdated_s:
        line += f", said {heard.age_s:.0f} s ago"
    if heard.outdated_s:
        line += (
            f"\n[red]outdated[/red]: it last spoke {heard.outdated_s:.0f} s ago; the daemon or its "
            "network is gone, or the clocks differ"
        )
    return line


def _pipeline(name: str, pipeline: PipelineStatus) -> Table:
    table = Table.grid(padding=(0, 2))
    deployment = pipeline.deployment
    signed = "signed" if deployment.signed else "[yellow]UNSIGNED[/yellow]"
    state = "[green]ready[/green]" if pipeline.ready else "[red]not ready[/red]"
    table.add_row(f"[bold]{_plain(name)}[/bold]", state)
    if pipeline.trouble:
        table.add_row("  trouble", f"[red]{_plain(pipeline.trouble)}[/red]")
    revision = f"revision {deployment.revision} ({_plain(deployment.digest[:12])}, {signed})"
    table.add_row("  deployment", f"{_plain(deployment.name)} {revision}")
    worker = f"process {pipeline.worker_pid}" if pipeline.worker_pid else "none"
    table.add_row("  provider", f"{_plain(pipeline.provider) or 'none'}, worker {worker}")
    latency = pipeline.latency_ms
    if latency.get("count"):
        over = int(latency.get("over_budget", 0))
        colour = "red" if over else "green"
        table.add_row(
            "  latency",
            f"p50 {latency.get('p50', 0):.1f}, p95 {latency.get('p95', 0):.1f}, "
            f"p99 {latency.get('p99', 0):.1f}, max {latency.get('max', 0):.1f} ms of "
            f"{pipeline.budget_ms:g}; [{colour}]{over} of {int(latency['count'])} over[/{colour}]",
        )
    else:
        table.add_row("  latency", f"no frame yet; the budget is {pipeline.budget_ms:g} ms")
    if pipeline.frames_per_s is not None:
        table.add_row("  rate", f"{pipeline.frames_per_s:.1f} frames/s")
    if pipeline.unanswered:
        table.add_row("  at work", f"{pipeline.unanswered} frames")
    if refused := pipeline.policy.get("state_refused"):
        table.add_row("  policy", f"[yellow]started empty: {_plain(str(refused))}[/yellow]")
    if pipeline.drift is not None:
        _add_drift(table, pipeline.drift)
    return table


def _add_drift(table: Table, drift: DriftStatus) -> None:
    if drift.state == "learning":
        table.add_row("  drift", f"learns what is usual: {drift.learnt} of {drift.of} frames")
    elif not drift.findings:
        table.add_row("  drift", "none")
    for finding in drift.findings:
        table.add_row("  drift", f"[yellow]{_plain(finding.detail)}[/yellow]")


def _verdicts(series: list[tuple[str, int]]) -> Table:
    table = Table.grid(padding=(0, 2))
    for key, count in sorted(series, key=lambda each: -each[1]):
        labels = dict(pair.split("=", 1) for pair in _labels(key).split(",") if "=" in pair)
        kind, reason = (_plain(labels.get(name, "")) for name in ("kind", "reason"))
        table.add_row("verdicts", f"{kind:<7} {reason:<16} {count:>8}")
    return table


def _name(key: str) -> str:
    match = _SERIES.match(key)
    return match["name"] if match else key


def _labels(key: str) -> str:
    match = _SERIES.match(key)
    return (match["labels"] or "") if match else ""
