"""What the commands of `edge ledger` share: finding the ledger, records as people read them."""

import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from edge.contracts.signal import SignalState
from edge.ledger import reading
from edge.ledger.entry import Runtime
from edge.ledger.record import Override, Record


def found(folder: Path) -> Path | None:
    """Return the ledger of a folder; None, and say so, where there is none."""
    path = reading.find(folder)
    if path is None:
        print(
            f"edge: {folder}: no ledger here: expected ledger.db or ledger/ledger.db",
            file=sys.stderr,
        )
    return path


def line(record: Record | Override) -> str:
    """Return a record in one line."""
    if isinstance(record, Override):
        return (
            f"{record.seq:>8}  {time(record.decided_at_ns)}  {shown(record.pipeline)}  "
            f"{record.verdict.value:<6} said of record {record.of}, a {record.was.value}, "
            f"by {shown(record.by)}: {shown(record.reason)}"
        )
    score = "" if record.score is None else f" {record.score:.3f}"
    return (
        f"{record.seq:>8}  {time(record.decided_at_ns)}  {shown(record.pipeline)}  "
        f"{record.verdict.value:<6} {shown(record.reason)}{score}  frame {shown(record.frame_id)}"
        + (f"  part {shown(record.part_id)}" if record.part_id else "")
    )


def details(record: Record | Override, head: str = "") -> str:
    """Return the rest of a record in indented lines; `head` of the chain after it, hex."""
    if isinstance(record, Override):
        pairs = {"part": record.part_id, "frame": record.frame_id, "came in": record.via}
        return _indented({**pairs, "head": head})
    deployment, runtime = record.deployment, record.runtime
    pairs = {
        "deployment": f"{deployment.name} revision {deployment.revision} ({deployment.digest})",
        "latency": ", ".join(f"{name} {ms:.1f} ms" for name, ms in record.latency_ms.items()),
        "provider": record.provider or "none",
        **{
            f"defect {n}": f"{defect.label} {defect.score:.3f} at {list(defect.box)}"
            for n, defect in enumerate(record.defects, start=1)
        },
        **{
            name: "absent"
            if seen.state is SignalState.ABSENT
            else f"{seen.value} ({seen.state.value}, {seen.age_ns / 1e6:.0f} ms old)"
            for name, seen in record.signals.items()
        },
        **({"runtime": _runtime(runtime)} if runtime.versions else {}),
        **{
            f"{name} sha256": digest
            for name, digest in msgspec.structs.asdict(record.digests).items()
            if digest
        },
        "head": head,
    }
    return _indented(pairs)


def _runtime(runtime: Runtime) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in runtime.versions.items())
    return f"{versions}; {runtime.threads} threads"


def _indented(pairs: dict[str, str]) -> str:
    return "\n".join(
        f"          {shown(name)}: {shown(text)}" for name, text in pairs.items() if text
    )


def shown(text: str) -> str:
    """Keep what a camera or a forger named a thing from steering the terminal."""
    return text if text.isprintable() else repr(text)


def time(instant_ns: int) -> str:
    """Return an instant, UTC, as people write it."""
    try:
        return datetime.fromtimestamp(instant_ns / 1e9, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return f"{instant_ns} ns"
