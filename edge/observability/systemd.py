"""Telling systemd how we are: sd_notify(3) over the datagram socket that it gave us.

A message that cannot be sent is counted and forgotten: systemd draws its own conclusion when the
watchdog stays silent. Only Unix sockets, by path or abstract, are spoken; systemd hands a `vsock:`
address to a virtual machine's first process only, and that this is not.
"""

import socket
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

MAX_STATUS_CHARS: Final = 200
"""A status is one line of `systemctl status`."""


class Notifier:
    """The line to systemd; silent where there is none. Thread-safe: each message is one datagram.

    Args:
        address: `NOTIFY_SOCKET`: a path, or `@name` for an abstract socket; empty: no systemd.
        watchdog_interval_s: Seconds between signs of life, or None when systemd wants none.

    Attributes:
        failed: Messages that could not be sent.
    """

    def __init__(self, address: str = "", watchdog_interval_s: float | None = None) -> None:
        self.watchdog_interval_s = watchdog_interval_s
        self.failed = 0
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if self._address.startswith(("/", "\0")):
            self._socket = socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], pid: int) -> Self:
        """Read what systemd put into the environment of the process `pid`.

        The watchdog's interval is half of what systemd allows, as sd_watchdog_enabled(3)
        recommends; it is None where the watchdog is off or meant for another process.
        """
        allowed_us = environment.get("WATCHDOG_USEC", "")
        meant_for = environment.get("WATCHDOG_PID", "")
        ours = meant_for in ("", str(pid))
        wanted = ours and allowed_us.isascii() and allowed_us.isdigit() and int(allowed_us) > 0
        return cls(
            environment.get("NOTIFY_SOCKET", ""),
            int(allowed_us) / 2e6 if wanted else None,
        )

    @property
    def enabled(self) -> bool:
        """Whether anyone listens."""
        return self._socket is not None

    def ready(self, status: str = "") -> None:
        """Say that start-up is over: the required provider runs and a probe frame went through."""
        self._send("READY=1", status)

    def status(self, status: str) -> None:
        """Set the line that `systemctl status` shows."""
        self._send("", status)

    def watchdog(self) -> None:
        """Give a sign of life."""
        self._send("WATCHDOG=1")

    def stopping(self, status: str = "") -> None:
        """Say that the way down has begun."""
        self._send("STOPPING=1", status)

    def close(self) -> None:
        """Let go of the socket; later messages go nowhere."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _send(self, state: str, status: str = "") -> None:
        if self._socket is None:
            return
        # Assignments are separated by newlines: one in the text would begin another.
        line = " ".join(status.split())[:MAX_STATUS_CHARS]
        message = "\n".join(part for part in (state, f"STATUS={line}" if line else "") if part)
        try:
            self._socket.sendto(message.encode(errors="replace"), self._address)
        except OSError:
            self.failed += 1
