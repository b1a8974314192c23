"""Counters of the supervisor: a closed list of names, each with its labels and its meaning.

A counter only rises, from zero at the start of the process. The list below is the documentation:
what is not in it cannot be counted, so that a misspelt name is a bug at the first call and not a
silent gap in a graph. A label whose values come from outside is bounded: past `MAX_SERIES` values
the rest is counted under `other`. The MQTT session counts its own (`edge.mqtt.session`).
"""

import threading
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

MAX_SERIES: Final = 64
"""Label combinations kept of one counter; keeps the status message at a few KiB."""

OTHER: Final = "other"


class Meaning(NamedTuple):
    """What a counter counts, and by which labels."""

    text: str
    labels: tuple[str, ...] = ()


TABLE: Final[Mapping[str, Meaning]] = MappingProxyType(
    {
        # Frames
        "frames_received": Meaning(
            "Frames that arrived and were bound to a pipeline.", ("pipeline",)
        ),
        "frames_repeated": Meaning(
            "Frames whose id was seen before; they got the verdict that it had.", ("pipeline",)
        ),
        "frames_odd": Meaning(
            "Frames with a property that was not believed; they were judged all the same.",
            ("cause",),
        ),
        "frames_dropped": Meaning(
            "Frames that were not judged and got the fail-safe instead.", ("reason",)
        ),
        "verdicts": Meaning("Verdicts published, by kind and reason.", ("kind", "reason")),
        "crops_judged": Meaning(
            "Findings that the second model of a cascade looked at.", ("pipeline",)
        ),
        "crops_beyond": Meaning(
            "Findings beyond max_crops of a cascade; they kept the first model's word.",
            ("pipeline",),
        ),
        "answers_late": Meaning(
            "Answers of a worker that came after the fail-safe had gone out.", ("pipeline",)
        ),
        "frames_unclaimed": Meaning(
            "Frames of a camera that no pipeline of the active deployment has."
        ),
        "drifts": Meaning(
            "Times that pictures or verdicts began to drift from what was learnt as usual.",
            ("pipeline", "measure"),
        ),
        "drift_unwritten": Meaning("Times that what was learnt as usual could not be written."),
        # Workers
        "workers_started": Meaning("Worker processes started.", ("pipeline",)),
        "workers_lost": Meaning("Worker processes that ended unasked.", ("pipeline", "cause")),
        # References, signals, actions
        "references_received": Meaning("Reference images taken into the store."),
        "references_refused": Meaning("Reference images not taken.", ("cause",)),
        "references_evicted": Meaning("Reference images that gave way to newer ones."),
        "signals_received": Meaning("Signal values taken.", ("signal",)),
        "signals_refused": Meaning("Signal payloads that could not be read.", ("signal",)),
        "sparkplug_gaps": Meaning(
            "Times that messages of a Sparkplug edge node were missing, by their numbers.",
            ("node",),
        ),
        "sparkplug_rebirths_asked": Meaning(
            "Times that a Sparkplug edge node was asked for its births.", ("node",)
        ),
        "actions_sent": Meaning("Actions published.", ("action",)),
        "actions_denied": Meaning("Actions that a policy wished and was not granted.", ("action",)),
        "actions_reverted": Meaning(
            "Actions that the daemon reverted, by cause: ttl, stop, restart.", ("action", "cause")
        ),
        "action_leases_unwritten": Meaning(
            "Times that the journal of actions that hold could not be written."
        ),
        # Guests
        "guest_lines": Meaning("Lines that guests logged.", ("pipeline", "role")),
        "guest_lines_denied": Meaning(
            "Lines that guests logged beyond their grant; they were dropped.", ("pipeline", "role")
        ),
        "policy_states_refused": Meaning(
            "Times that a policy could not go on from its state and started empty.", ("pipeline",)
        ),
        # Deployments
        "updates_refused": Meaning("Looks for an update that failed, by error.", ("cause",)),
        "deployments_failed": Meaning(
            "Deployments that did not stand their trial, shadow, canary or probation.", ("reason",)
        ),
        # Ledger
        "ledgers_set_aside": Meaning("Damaged ledgers set aside at the start, and begun anew."),
        "records_committed": Meaning("Verdicts recorded in the ledger."),
        "records_kept_back": Meaning("Verdicts that the ledger could not take at the time."),
        "records_dropped": Meaning(
            "Verdicts never recorded: of frames sent at QoS 0 while storage failed for long."
        ),
        "records_refused": Meaning(
            "Records that the broker did not take: too large for it, or not granted; sent again."
        ),
        "verdicts_overridden": Meaning("Verdicts that a person spoke against, or for.", ("kind",)),
        "frames_kept": Meaning("Frames kept for replay."),
        "frames_not_kept": Meaning("Frames that were to be kept and found no room or time."),
        "kept_files_evicted": Meaning("Kept files that went, by age, quota or for want of room."),
        "receipts_refused": Meaning("Receipts of the cloud that do not fit the ledger."),
        "checkpoints_signed": Meaning("Checkpoints of the ledger that were signed."),
        "cosignatures_refused": Meaning(
            "Cosignatures in receipts that are false, of nobody known, or of no checkpoint."
        ),
        # Time and topics
        "deadlines_missed": Meaning("Verdicts that went out after the budget.", ("pipeline",)),
        "messages_refused": Meaning("Wishes of a message that were not granted.", ("cause",)),
        "frames_over_rate": Meaning(
            "Frames of a camera beyond its rate; they got the fail-safe unseen.", ("source",)
        ),
        # What is told of all this
        "scrapes_refused": Meaning("Requests for the metrics that got none.", ("cause",)),
        "spans_sent": Meaning("Spans that the collector of traces has taken."),
        "spans_dropped": Meaning("Spans that nobody has taken.", ("cause",)),
    }
)
"""Every counter. Add a line here before counting something new."""


class Counters:
    """The counts of one process. Any thread may count.

    Args:
        table: The names that may be counted; the default is the product's.
    """

    def __init__(self, table: Mapping[str, Meaning] = TABLE) -> None:
        self._table = table
        self._lock = threading.Lock()
        self._counts: dict[str, dict[tuple[str, ...], int]] = {name: {} for name in table}

    def count(self, name: str, by: int = 1, **labels: str) -> None:
        """Add to a counter.

        Args:
            name: A name of the table.
            by: How much, at least 0; 0 begins a series. Prometheus sees no rise in one that begins
                with its first event, so what alerts ask for begins so.
            labels: Exactly the labels that the table gives this name.

        Raises:
            KeyError: The name is not in the table.
            ValueError: The labels are not those of the table, or `by` is negative.
        """
        key = self._key(name, labels)
        if by < 0:
            raise ValueError(f"counter {name!r} only rises: by={by}")
        with self._lock:
            series = self._counts[name]
            if key and key not in series and len(series) >= MAX_SERIES:
                key = (OTHER,) * len(key)
            series[key] = series.get(key, 0) + by

    def value(self, name: str, **labels: str) -> int:
        """Return a count; 0 before its first event. Raises as `count` does."""
        key = self._key(name, labels)
        with self._lock:
            return self._counts[name].get(key, 0)

    def total(self, name: str) -> int:
        """Return the sum of a counter over all its labels. Raises KeyError for an unknown name."""
        with self._lock:
            return sum(self._counts[name].values())

    def snapshot(self) -> dict[str, int]:
        """Return all counts that are not zero, sorted: `verdicts{kind=pass,reason=ok}` to 12."""
        with self._lock:
            found = [
                (name + self._suffix(name, key), count)
                for name, series in self._counts.items()
                for key, count in series.items()
                if count
            ]
        return dict(sorted(found))

    def series(self) -> list[tuple[str, Meaning, list[tuple[dict[str, str], int]]]]:
        """Return each counter with its counts by labels; one that has none counts 0."""
        with self._lock:
            found = {name: list(series.items()) for name, series in self._counts.items()}
        return [
            (
                name,
                self._table[name],
                [
                    (dict(zip(self._table[name].labels, key, strict=True)), count)
                    for key, count in (counts if counts or self._table[name].labels else [((), 0)])
                ],
            )
            for name, counts in found.items()
        ]

    def _key(self, name: str, labels: dict[str, str]) -> tuple[str, ...]:
        expected = self._table[name].labels
        if labels.keys() != set(expected):
            raise ValueError(
                f"counter {name!r} has the labels {expected}, found {tuple(sorted(labels))}"
            )
        return tuple(labels[label] for label in expected)

    def _suffix(self, name: str, key: tuple[str, ...]) -> str:
        pairs = zip(self._table[name].labels, key, strict=True)
        text = ",".join(f"{label}={value}" for label, value in pairs)
        return f"{{{text}}}" if text else ""
