"""`edge bench`: measures the frame path and a whole line, each beside the bare script."""

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table

from edge.bench import (
    drain,
    frame_path,
    guests,
    isolation,
    ledger,
    metrics,
    model,
    signals,
    whole_line,
)
from edge.config import LogSection
from edge.observability import log

_PARTS: Final = (
    "path", "line", "drain", "ledger", "guests", "metrics", "model", "isolation", "signals",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--only",
        choices=_PARTS,
        metavar="PART",
        help="path: the frame path; line: the whole line; drain: how an outage is caught up; "
        "ledger; guests: what they cost; metrics: what these and traces cost; model: the reference "
        "model; isolation: one camera's garbage beside another's good frames; signals: sensors "
        "beside them (default: path and line)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the frames: to see that it runs"
    )
    parser.add_argument(
        "--rate", type=float, default=20.0, metavar="HZ", help="frames a second (default: 20)"
    )
    parser.add_argument(
        "--frames", type=int, default=5_000, metavar="N",
        help="through ours, of the whole line (default: 5000)",
    )  # fmt: skip
    parser.add_argument(
        "--records", type=int, default=1_000_000, metavar="N",
        help="drain: owed to the cloud at the beginning; 5 KB each (default: 1000000)",
    )  # fmt: skip
    parser.add_argument(
        "--traced", type=float, default=0.01, metavar="SHARE",
        help="metrics: share of frames traced (default: 0.01, as shipped)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="end with one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; status 1 where a frame of ours had no verdict or overran."""
    log.configure(LogSection(level="error"), tty=sys.stderr.isatty())
    console = Console(stderr=arguments.json)
    found: dict[str, Any] = {"machine": _machine()}
    console.print(f"[bold]machine[/]  {found['machine']}")
    clean = True
    with tempfile.TemporaryDirectory(prefix="edge-bench-") as temporary:
        folder = Path(temporary)
        alone = {
            "drain": _drain,
            "ledger": _ledger,
            "guests": _guests,
            "metrics": _metrics,
            "model": _model,
            "isolation": _isolation,
            "signals": _signals,
        }
        if arguments.only in alone:
            return alone[arguments.only](arguments, console, folder, found)
        if arguments.only != "line":
            with console.status("frame path: ours, bare script, floor, in turn"):
                paths = frame_path.measure(folder, 20 if arguments.quick else 200)
            console.print(_path_table(paths))
            for each in paths:
                stages = ", ".join(f"{name} {ms:.2f}" for name, ms in each.stage_ms.items())
                console.print(f"[dim]{each.case}: {stages} ms[/]", highlight=False)
            found["frame_path"] = msgspec.to_builtins(paths)
        if arguments.only != "path":
            frames, rounds = (300, 2) if arguments.quick else (max(20, arguments.frames), 10)
            with console.status(f"whole line: 4 variants in turn, {frames} frames through ours"):
                lines, daemon = asyncio.run(
                    whole_line.measure(folder, frames, arguments.rate, rounds)
                )
            console.print(_line_table(lines, arguments.rate))
            console.print(
                f"[bold]daemon[/]   resident {daemon.supervisor_mib} MiB supervisor + "
                f"{daemon.worker_mib} MiB worker; READY after {daemon.ready_cold_s} s with an "
                f"empty cache, {daemon.ready_warm_s} s with a warm one"
            )
            found["whole_line"] = msgspec.to_builtins(lines)
            found["daemon"] = msgspec.to_builtins(daemon)
            ours = lines[-1]
            clean = not (ours.unanswered or ours.overruns)
    if arguments.json:
        sys.stdout.write(json.dumps(found) + "\n")
    return 0 if clean else 1


def _guests(
    arguments: argparse.Namespace, console: Console, folder: Path, found: dict[str, Any]
) -> int:
    """Measure what guests cost, beside cv2 and NumPy, and beside Extism where it is installed."""
    with console.status("guests: calls, cold starts, pixels in turn"):
        figures = guests.measure(folder, 20 if arguments.quick else 200)
    console.print(
        f"[bold]guests[/]   warm call {figures.call_us} µs; host work of a frame "
        f"{figures.frame_us} µs; compiled code to first decision {figures.cold_ms} ms "
        f"({figures.cold_bytes >> 10} KiB); fresh instance {figures.fresh_us} µs; "
        f"fuel {figures.fuel_ratio}x"
    )
    table = Table(title="Letterbox, normalise, CHW, medians", title_justify="left")
    for column in ("frame", "guest", "cv2 + NumPy", "guest/cv2", "Extism", "Extism/guest"):
        table.add_column(column, justify="left" if column == "frame" else "right")
    for each in figures.pixels:
        table.add_row(
            each.case,
            f"{each.ours_ms:.2f} ms",
            f"{each.cv2_ms:.2f} ms",
            f"{each.ratio:.2f}",
            f"{each.extism_ms:.2f} ms" if each.extism_ms else "not installed",
            f"{each.extism_ratio:.1f}" if each.extism_ratio else "",
        )
    console.print(table)
    found["guests"] = msgspec.to_builtins(figures)
    if arguments.json:
        sys.stdout.write(json.dumps(found) + "\n")
    return 0


def _metrics(
    arguments: argparse.Namespace, console: Console, folder: Path, found: dict[str, Any]
) -> int:
    """Measure what telling of itself costs the daemon."""
    frames, turns = (300, 2) if arguments.quick else (max(100, arguments.frames), 10)
    with console.status(f"2 daemons in turn, {frames} frames through each"):
        of = asyncio.run(metrics.measure(folder, frames, arguments.rate, turns, arguments.traced))
    console.print(_line_table(of.lines, arguments.rate))
    console.print(
        f"[bold]metrics[/]  and traces of {arguments.traced:.0%} of frames: p50 {of.p50_ratio}, "
        f"p99 {of.p99_ratio} of that without; {of.scrapes} scrapes, {of.trace_requests} requests "
        f"of traces meanwhile\n[bold]processor[/] a frame takes {of.frame_cpu_ms[1]} ms of the "
        f"supervisor, {of.frame_cpu_ms[0]} without, and a scrape {of.scrape_cpu_ms} ms"
    )
    found["metrics"] = msgspec.to_builtins(of)
    if arguments.json:
        sys.stdout.write(json.dumps(found) + "\n")
    return 1 if any(line.unanswered for line in of.lines) else 0


def _isolation(
    arguments: argparse.Namespace, console: Console, folder: Path, found: dict[str, Any]
) -> int:
    """Measure what a camera's garbage costs its neighbour; a tenth of the frames for each kind."""
    frames, turns = (60, 2) if arguments.quick else (max(200, arguments.frames // 10), 10)
    with console.status(f"two cameras, {frames} good frames beside each of 7 kinds, in turn"):
        of = asyncio.run(isolation.measure(folder, frames, turns))
    console.print(_line_table(of.lines, isolation.RATE_HZ))
    for variant, to_quiet in of.p99_to_quiet.items():
        answers = (
            ", ".join(f"{n} {reason}" for reason, n in of.beside[variant].items()) or "nothing"
        )
        console.print(
            f"[bold]{variant}[/]: p99 {to_quiet} of that beside a quiet camera, "
            f"{of.p99_to_boards[variant]} beside one that sends boards ({answers})"
        )
    found["isolation"] = msgspec.to_builtins(of)
    if arguments.json:
        sys.stdout.write(json.dumps(found) + "\n")
    return 1 if any(line.unanswered for line in of.lines) else 0


def _signals(
    arguments: argparse.Namespace, console: Console, folder: Path, found: dict[str, Any]
) -> int:
    """Measure what a sensor's updates cost a camera; a tenth of the frames for each rate."""
    frames, turns = (60, 2) if arguments.quick else (max(200, arguments.frames // 10), 10)
    with console.status(f"a camera and a sensor, {frames} frames beside each of 7 rates, in turn"):
        of = asyncio.run(signals.measure(folder, frames, arguments.rate, turns))
    console.print(_line_table(of.lines, arguments.rate))
    for each in of.sensors:
        console.print(
            f"[bold]{each.variant}[/]: p99 {each.p99_to_silent} of that beside a silent sensor; "
            f"{each.taken} of {each.sent} values taken, each {each.supervisor_us} µs of the "
            "supervisor's processor"
        )
    found["signals"] = msgspec.to_builtins(of)
    if arguments.json:
        sys.stdout.write(json.dumps(found) + "\n")
    return 1 if any(line.unanswered for line in of.lines) else 0


def _model(
    arguments: argparse.Namespace, console: Console, _folder: Path, found: dict[str, Any]
) -> int:
    """Measure the reference model's variants, the frame around it, and memory."""
    with console.status("model: int8 and fp32 in turn, the frame beside ONNX Runtime, memory"):
        figures = model.measure(20 if arguments.quick else 200)
    console.print(
        f"[bold]int8[/]     {figures.int8_ms} ms, fp32 {figures.fp32_ms} ms: "
        f"{figures.int8_to_fp32}\n"
        f"[bold]frame[/]    {figures.frame_ms} ms, ONNX Runtime alone {figures.runtime_ms} ms: "
        f"{figures.frame_to_runtime}\n"
        f"[bold]memory[/]   a worker has {figures.above_bare_mib} MiB above an interpreter with "
        f"ONNX Runtime, {figures.loaded_mib} of them session, guests and images; "
        f"{model.SHARING} pipelines have {model.SHARING * figures.own_worker_mib} MiB in workers "
        f"of their own, {figures.shared_worker_mib} in one that they share",
        highlight=False,
    )
    if (crop := figures.crop) is not None:
        console.print(
            f"[bold]crop[/]     {crop.crop_us} µs for a second model, ONNX Runtime alone "
            f"{crop.runtime_us} µs: {crop.to_runtime} ({crop.crops} in a frame); "
            f"{figures.second_model_mib} MiB more",
            highlight=False,
        )
    found["model"] = msgspec.to_builtins(figures)
    if arguments.json:
        sys.stdout.write(json.dumps(found) + "\n")
    return 0


def _drain(
    arguments: argparse.Namespace, console: Console, folder: Path, found: dict[str, Any]
) -> int:
    """Measure the ledger beside a line; not part of the whole, because it takes long."""
    quick = arguments.quick
    records, frames, turns = (
        (40_000, 200, 2) if quick else (arguments.records, max(100, arguments.frames), 5)
    )
    with console.status(f"{records} records owed, 3 daemons in turn, {frames} frames through each"):
        figures = asyncio.run(drain.measure(folder, records, frames, arguments.rate, turns))
    console.print(_line_table(figures.lines, arguments.rate))
    console.print(
        f"[bold]drain[/]    {figures.records} records, {figures.per_second} a second; p99 of "
        f"verdicts {figures.drain_to_outage} of that before; with ledger {figures.with_to_without} "
        "of that without"
    )
    found["drain"] = msgspec.to_builtins(figures)
    if arguments.json:
        sys.stdout.write(json.dumps(found) + "\n")
    return 1 if any(line.unanswered for line in figures.lines) else 0


def _ledger(
    arguments: argparse.Namespace, console: Console, folder: Path, found: dict[str, Any]
) -> int:
    """Measure the ledger alone; its tree of ten million leaves takes a minute and 350 MB."""
    count, leaves = (5_000, 100_000) if arguments.quick else (50_000, 10_000_000)
    with console.status(f"{count} records committed and verified, {leaves} leaves proved"):
        of = ledger.measure(folder, count, leaves)
    console.print(
        f"[bold]commit[/]   {of.records_per_s} records/s in batches of {ledger.BATCH} of "
        f"{of.record_bytes} bytes; p50 {of.commit_p50_ms:.1f} ms, p99 {of.commit_p99_ms:.1f} ms "
        f"(bare bytes and fdatasync: p50 {of.fsync_p50_ms:.1f} ms)\n"
        f"[bold]chain[/]    and tree: {of.chain_and_tree_us:.1f} µs a record; "
        f"{of.sign_us:.0f} µs to sign a checkpoint\n"
        f"[bold]verify[/]   {of.verified_per_s} records in a second of one core\n"
        f"[bold]proof[/]    of one in {of.leaves}: p50 {of.proof_p50_ms:.1f} ms, "
        f"p99 {of.proof_p99_ms:.1f} ms ({of.proof_cpu_p99_ms:.1f} ms of CPU); up to "
        f"{of.proof_tiles} tiles read, {of.proof_bytes} bytes",
        highlight=False,
    )
    found["ledger"] = msgspec.to_builtins(of)
    if arguments.json:
        sys.stdout.write(json.dumps(found) + "\n")
    return 0


def _machine() -> str:
    name = next(
        (
            row.partition(":")[2].strip()
            for row in Path("/proc/cpuinfo").read_text().splitlines()
            if row.startswith(("model name", "Model"))
        ),
        platform.machine(),
    )
    return f"{name}, {os.cpu_count()} cores, Python {platform.python_version()}"


def _path_table(paths: list[frame_path.PathFigures]) -> Table:
    table = Table(title="Frame path, one thread, medians", title_justify="left")
    for column in ("frame", "edge", "bare", "floor", "edge/bare", "over floor"):
        table.add_column(
            column, justify="left" if column == "frame" else "right", no_wrap=column != "frame"
        )
    for each in paths:
        table.add_row(
            each.case,
            *(f"{ms:.2f} ms" for ms in (each.ours_ms, each.bare_ms, each.floor_ms)),
            f"{each.ratio:.2f}",
            f"{each.over_floor:+.1%}",
        )
    return table


def _line_table(lines: list[whole_line.LineFigures], rate_hz: float) -> Table:
    table = Table(
        title=f"Frame published to verdict received, board model int8, {rate_hz:g} frames/s, QoS 1",
        title_justify="left",
        caption="milliseconds; p99.9 of 1,000 up; lost: no verdict; late: over 200",
        caption_justify="left",
    )
    rare = any(each.p99_9_ms is not None for each in lines)
    table.add_column("variant", overflow="fold")  # gives way in a narrow terminal; figures do not
    for column in ("frames", "p50", "p95", "p99", *(["p99.9"] if rare else []), "max"):
        table.add_column(column, justify="right", no_wrap=True, min_width=5)
    for column in ("lost", "late"):
        table.add_column(column, justify="right", no_wrap=True, min_width=4)
    for each in lines:
        highest = [each.p99_9_ms, each.max_ms] if rare else [each.max_ms]
        table.add_row(
            each.variant,
            str(each.frames),
            *(f"{ms:.1f}" for ms in (each.p50_ms, each.p95_ms, each.p99_ms)),
            *("" if ms is None else f"{ms:.1f}" for ms in highest),
            str(each.unanswered),
            str(each.over_budget),
        )
    return table
