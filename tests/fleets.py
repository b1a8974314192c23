"""Chains of records as devices send them, and the real collector as a process."""

import contextlib
import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from edge.fleet import arrivals
from edge.fleet.arrivals import Arrival
from edge.ledger.record import GENESIS, next_head
from edge.mqtt.brokers import LocalBroker

MAX_BYTES: Final = 256 << 10
END_S: Final = 60.0


def name_of(text: str) -> str:
    """A ledger's name, the same for the same text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Chain:
    """A device's ledger as the collector sees it: bodies, and the head after each.

    Args:
        device: Whose.
        ledger: Its name.
    """

    def __init__(self, device: str = "box1", ledger: str = name_of("first")) -> None:
        self.device = device
        self.ledger = ledger
        self.bodies: list[bytes] = []
        self.heads = [GENESIS]

    def grow(self, count: int, **more: object) -> "Chain":
        """Append records."""
        for _ in range(count):
            body = json.dumps(
                {
                    "v": 1, "type": "verdict", "device": self.device, "ledger": self.ledger,
                    "seq": len(self.bodies) + 1, "prev": self.heads[-1].hex(),
                    "frame_id": f"frame-{len(self.bodies) + 1}", **more,
                },
                separators=(",", ":"), sort_keys=True,
            ).encode()  # fmt: skip
            self.bodies.append(body)
            self.heads.append(next_head(self.heads[-1], body))
        return self

    def fork(self, at: int, count: int, **more: object) -> "Chain":
        """Another chain that shares the records before `at`."""
        other = Chain(self.device, self.ledger)
        other.bodies, other.heads = self.bodies[: at - 1], self.heads[:at]
        return other.grow(count, fork=True, **more)

    def arrivals(self, *places: int) -> list[Arrival]:
        """These records as they arrive; all where none is named."""
        chosen = places or range(1, len(self.bodies) + 1)
        return [arrivals.record(self.device, self.bodies[n - 1], MAX_BYTES) for n in chosen]


class CollectorProcess:
    """`edge fleet collect`, started in the background; `with` ends it whatever happens.

    Args:
        broker: Where it connects.
        folder: Of its config, its log and, by default, its database.
        url: Its store.
        name: Its name; several need different ones.
        overrides: More `--set` values.
    """

    def __init__(
        self,
        broker: LocalBroker,
        folder: Path,
        *,
        url: str = "",
        name: str = "collect",
        overrides: Sequence[str] = (),
    ) -> None:
        self.url = url or f"sqlite://{folder / 'fleet.db'}"
        self.log_file = folder / f"{name}.jsonl"
        self.config = folder / f"{name}.toml"
        self.config.write_text(
            f'[broker]\nport = {broker.port}\n[store]\nurl = "{self.url}"\n'
            f'[collect]\nname = "{name}"\nstatus_interval_s = 0.2\n'
        )
        self._overrides = [word for override in overrides for word in ("--set", override)]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "CollectorProcess":
        """Start it; it is not ready yet."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Kill it."""
        self.kill()

    def command(self, subcommand: str, *words: str) -> list[str]:
        """The words of a command with its config."""
        python = [sys.executable, "-m", "edge.cli.main", "fleet", subcommand]
        return [*python, "--config", str(self.config), *self._overrides, *words]

    def ask(self, subcommand: str, *words: str) -> tuple[int, str]:
        """Run another command with its config; return exit status and output."""
        done = subprocess.run(
            self.command(subcommand, *words), capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout + done.stderr

    def devices(self) -> dict[str, dict[str, Any]]:
        """What `edge fleet devices` says, by device."""
        _, printed = self.ask("devices", "--json")
        return {found["device"]: found for found in json.loads(printed)["devices"]}

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, also again after its end; the log goes on."""
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self.command("collect"), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def end(self) -> int:
        """SIGTERM; return the exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(END_S)

    def log(self) -> str:
        """All that it has written so far."""
        return self.log_file.read_text(errors="replace")

    def events(self, event: str) -> list[dict[str, Any]]:
        """Its log lines of one event."""
        found = []
        for line in self.log().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                entry = json.loads(line)
                if entry.get("event") == event:
                    found.append(entry)
        return found

    def logged(self, event: str, *, times: int = 1, deadline_s: float = END_S) -> dict[str, Any]:
        """Wait until it has logged an event so often, and return the last of them."""
        end = time.monotonic() + deadline_s
        while len(found := self.events(event)) < times:
            if not self.alive or time.monotonic() > end:
                pytest.fail(f"the collector has not logged {event!r}:\n{self.log()[-4000:]}")
            time.sleep(0.02)  # between two looks, until the deadline
        return found[times - 1]

    def ready(self, *, times: int = 1) -> "CollectorProcess":
        """Wait until it has logged that it is ready."""
        self.logged("ready", times=times)
        return self
