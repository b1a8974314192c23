"""All figures of the daemon as Prometheus wants them, gathered when somebody asks.

Nothing is kept here: counters, latencies and the status message are what the rooms keep anyway.
Names follow Prometheus' conventions: base units, `_total` for what only rises.
"""

import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from edge.daemon.active_pipeline import ActivePipeline
from edge.daemon.worker_memory import resident_mib
from edge.deployment.rollout import State
from edge.mqtt.counting import COUNTERS
from edge.observability.counters import Counters
from edge.observability.exposition import PREFIX, Family, gauge, render
from edge.observability.heap import heap

_MIB: Final = 1 << 20
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_NS: Final = 1e9


def exposition(
    status: dict[str, Any], pipelines: Iterable[ActivePipeline], counters: Counters
) -> bytes:
    """Return everything that is told to Prometheus.

    Args:
        status: What the status message says now.
        pipelines: That run.
        counters: The daemon's.
    """
    running = tuple(pipelines)
    return render(
        [
            *_box(status),
            *_pipelines(running, status["pipelines"]),
            *_drift(status["pipelines"]),
            *_latencies(running),
            *_counted(counters),
            *_broker(status),
            *_ledger(status["ledger"]),
            *_deployments(status["deployments"]),
            *_process(),
            *_heap(),
        ]
    )


def _box(status: dict[str, Any]) -> list[Family]:
    names = {"device": status["device"], "version": status["version"]}
    held = {str(name): each for name, each in status["references"].items()}
    return [
        gauge("build_info", "This device and the version that runs on it; always 1.", (names, 1)),
        gauge("ready", "Whether all pipelines and the broker stand.", ({}, int(status["ready"]))),
        gauge(
            "reference_images",
            "Reference images held.",
            *(({"reference": name}, each["images"]) for name, each in held.items()),
        ),
        gauge(
            "reference_bytes",
            "What they take, encoded.",
            *(({"reference": name}, each["bytes"]) for name, each in held.items()),
        ),
    ]


def _pipelines(running: tuple[ActivePipeline, ...], status: dict[str, Any]) -> list[Family]:
    def each(name: str, text: str, key: str) -> Family:
        values = (({"pipeline": p}, float(status[p][key])) for p in status)
        return gauge(name, text, *values)

    infos = [
        {
            "pipeline": name,
            "provider": of["provider"],
            "deployment": of["deployment"].name,
            "revision": str(of["deployment"].revision),
            "digest": of["deployment"].digest[:12],
            "signed": str(of["deployment"].signed).lower(),
        }
        for name, of in status.items()
    ]
    return [
        gauge(
            "pipeline_info",
            "Provider and deployment of a pipeline; always 1.",
            *((info, 1) for info in infos),
        ),
        each("pipeline_ready", "Whether a worker stands that passed its probe.", "ready"),
        gauge(
            "budget_seconds",
            "From capture to verdict.",
            *(({"pipeline": p.plan.name}, p.plan.budget_ms / 1e3) for p in running),
        ),
        each("unanswered_frames", "Frames that wait for their verdict.", "unanswered"),
        gauge(
            "queue_frames",
            "Frames that wait for the worker to have time for them.",
            *(({"pipeline": p.plan.name}, p.queued) for p in running),
        ),
        gauge(
            "queue_limit_frames",
            "Frames that may wait; beyond it one gives way.",
            *(({"pipeline": p.plan.name}, p.plan.queue_frames) for p in running),
        ),
        gauge(
            "worker_resident_memory_bytes",
            "Memory that a worker has resident, for each pipeline in it; 0 where none stands.",
            *(
                (
                    {"pipeline": name},
                    resident_mib(of["worker_pid"]) * _MIB if of["worker_pid"] else 0,
                )
                for name, of in status.items()
            ),
        ),
    ]


def _drift(status: dict[str, Any]) -> list[Family]:
    watched = {name: of["drift"] for name, of in status.items() if of["drift"]}
    rows = [
        ({"pipeline": name, "measure": measure}, figures)
        for name, drift in watched.items()
        for measure, figures in drift["measures"].items()
    ]
    drifting = {
        (name, finding["measure"])
        for name, drift in watched.items()
        for finding in drift["findings"]
    }
    return [
        gauge(
            "drift_learnt_ratio",
            "Share of what is usual that was learnt; below 1 nothing is compared yet.",
            *(({"pipeline": name}, of["learnt"] / of["of"]) for name, of in watched.items()),
        ),
        gauge(
            "drifting",
            "Whether a measure has left what was learnt as usual.",
            *(
                (labels, int((labels["pipeline"], labels["measure"]) in drifting))
                for labels, _ in rows
            ),
        ),
        gauge(
            "drift_ratio",
            "How far a measure is from what is usual, over how far it may be.",
            *((labels, figures["ratio"]) for labels, figures in rows),
        ),
        gauge(
            "drift_now",
            "A measure as it is now; units are the measures' own.",
            *((labels, figures["now"]) for labels, figures in rows),
        ),
        gauge(
            "drift_reference",
            "The same as it was learnt.",
            *((labels, figures["reference"]) for labels, figures in rows),
        ),
    ]


def _latencies(running: tuple[ActivePipeline, ...]) -> list[Family]:
    whole = [({"pipeline": p.plan.name}, p.latencies.whole) for p in running]
    stages = [
        ({"pipeline": p.plan.name, "stage": stage}, buckets)
        for p in running
        for stage, buckets in p.latencies.stages.items()
    ]
    return [
        Family(
            f"{PREFIX}latency_seconds",
            "histogram",
            "From capture, or arrival, to the verdict; one bucket ends at the budget.",
            whole,
        ),
        Family(
            f"{PREFIX}stage_latency_seconds",
            "histogram",
            "Of each stage, with the waits between them.",
            stages,
        ),
    ]


def _counted(counters: Counters) -> list[Family]:
    return [
        Family(f"{PREFIX}{name}_total", "counter", meaning.text, series)
        for name, meaning, series in counters.series()
    ]


def _broker(status: dict[str, Any]) -> list[Family]:
    sessions = {"frames": status["mqtt"]}
    if status["mqtt_signals"] is not None:
        sessions["signals"] = status["mqtt_signals"]
    labelled = [({"session": name}, of) for name, of in sessions.items()]
    counted = [
        Family(
            f"{PREFIX}mqtt_{name}_total",
            "counter",
            f"MQTT: {name}.",
            [(labels, of[name]) for labels, of in labelled],
        )
        for name in COUNTERS
    ]
    return [
        *counted,
        gauge(
            "mqtt_connected",
            "Whether the broker has accepted us.",
            *((labels, int(bool(of["protocol"]))) for labels, of in labelled),
        ),
        gauge(
            "mqtt_refused_filters",
            "Subscriptions that the broker does not grant.",
            ({}, len(status["refused_filters"])),
        ),
        gauge("actions_held", "Actions that are on.", ({}, len(status["actions_held"]))),
    ]


def _ledger(ledger: dict[str, Any] | None) -> list[Family]:
    if ledger is None:
        return []
    since_ns = ledger["owed_since_ns"]
    lag_s = max(0.0, (time.time_ns() - since_ns) / _NS) if since_ns else 0.0

    def one(name: str, text: str, value: float) -> Family:
        return gauge(name, text, ({}, value))

    return [
        one("ledger_committed_records", "The last record on the medium.", ledger["committed"]),
        one("ledger_receipted_records", "The last that the cloud holds.", ledger["receipted"]),
        one("ledger_waiting_records", "Verdicts not on the medium yet.", ledger["waiting"]),
        one("ledger_lag_seconds", "Age of the oldest record that the cloud has not.", lag_s),
        one("outbox_records", "Records that the cloud has not receipted.", ledger["owed"]),
        one("ledger_stuck", "Whether a verdict now could not be recorded.", int(ledger["stuck"])),
        one("ledger_set_aside", "Damaged ledgers that lie aside.", len(ledger["set_aside"])),
        one("ledger_size_bytes", "What the ledger takes.", ledger["bytes"]),
        one("ledger_limit_bytes", "What it may take.", ledger["max_bytes"]),
        *(
            [
                one("kept_frames_bytes", "What kept frames take.", ledger["frames"]["bytes"]),
                one("kept_frames_limit_bytes", "May take.", ledger["frames"]["max_bytes"]),
            ]
            if ledger["frames"]
            else []
        ),
    ]


def _deployments(deployments: dict[str, Any] | None) -> list[Family]:
    if deployments is None:
        return []
    active, state = deployments["active"], deployments["state"]
    return [
        gauge(
            "deployment_state",
            "Where the rollout stands: 1 for the state that it is in.",
            *(({"state": each.value}, int(each == state)) for each in State),
        ),
        gauge(
            "deployment_revision",
            "The active deployment's; 0 where there is none.",
            ({"deployment": active.name if active else ""}, active.revision if active else 0),
        ),
        gauge(
            "deployment_pinned",
            "Whether updates are taken by hand only.",
            ({}, int(bool(deployments["pinned"]))),
        ),
        gauge(
            "deployment_trouble",
            "Whether the last look for an update failed.",
            ({}, int(bool(deployments["trouble"]))),
        ),
    ]


def _heap() -> list[Family]:
    """A leak grows `used`, or the blocks; memory that grows without them is the allocators'."""
    blocks = sys.getallocatedblocks()
    told = [gauge("python_blocks", "Small objects of the supervisor.", ({}, blocks))]
    if (of := heap()) is not None:
        samples = [({"state": name}, float(size)) for name, size in of._asdict().items()]
        text = "What the supervisor has of malloc: used, or kept free."
        told.append(gauge("heap_bytes", text, *samples))
    return told


def _process() -> list[Family]:
    """What Prometheus' own clients tell of a process, under the same names."""
    times = os.times()
    open_fds = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names alone are counted
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    booted = next(
        int(row.split()[1]) for row in Path("/proc/stat").read_text().splitlines() if "btime" in row
    )

    def one(name: str, kind: Any, text: str, value: float) -> Family:
        return Family(f"process_{name}", kind, text, [({}, value)])

    return [
        one(
            "resident_memory_bytes",
            "gauge",
            "Of the supervisor.",
            resident_mib(os.getpid()) * _MIB,
        ),
        one("cpu_seconds_total", "counter", "Of the supervisor.", times.user + times.system),
        one("open_fds", "gauge", "Of the supervisor.", open_fds),
        # Field 22 of proc(5), stat; counted from behind the name, which may hold blanks.
        one(
            "start_time_seconds",
            "gauge",
            "Of the supervisor, UTC.",
            booted + int(fields[19]) / _TICKS_PER_S,
        ),
    ]
