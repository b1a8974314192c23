"""The journal's own protocol: a log line as fields, so that `journalctl EDGE_EVENT=…` finds it.

One datagram an entry, as systemd's "Native Journal Protocol" says: `FIELD=value`, or the name, the
length and the value where the value has more than one line. journald adds the process, its unit and
the time by itself. The message stays the canonical line, so nothing is lost on who reads only that.

What cannot be sent is the caller's to write elsewhere; nothing here blocks or raises.
"""

import socket
import struct
from collections.abc import Mapping
from typing import Final

ADDRESS: Final = "/run/systemd/journal/socket"
FIELDS: Final = ("event", "room", "pipeline", "frame", "part", "reason", "error", "revision")
"""Keys of a line that become fields, by the name `EDGE_` and the key in capitals: those that people
search by. The rest is in the message."""
_IDENTIFIER: Final = "edge"


class Journal:
    """The socket of journald; thread-safe, because an entry is one datagram.

    Args:
        address: Its path.
    """

    def __init__(self, address: str = ADDRESS) -> None:
        self._address = address
        self._socket = socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        )

    def write(self, message: str, priority: int, fields: Mapping[str, str]) -> bool:
        """Send one entry; say whether journald has taken it.

        Args:
            message: The line.
            priority: Of syslog, 0 to 7.
            fields: More of it, by names of the journal: capitals, digits and underscores.
        """
        parts = {
            "MESSAGE": message,
            "PRIORITY": str(priority),
            "SYSLOG_IDENTIFIER": _IDENTIFIER,
            **fields,
        }
        entry = b"".join(_field(name, value) for name, value in parts.items())
        try:
            self._socket.sendto(entry, self._address)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Let go of the socket; later entries are refused."""
        self._socket.close()


def fields_of(line: Mapping[str, object]) -> dict[str, str]:
    """Return the fields of a finished line, values as text; those that it has not are left out."""
    return {
        f"EDGE_{key.upper()}": str(value)
        for key in FIELDS
        if (value := line.get(key)) not in (None, "")
    }


def _field(name: str, value: str) -> bytes:
    # A lone surrogate, of a file name say, must not cost the entry.
    encoded = value.encode(errors="backslashreplace")
    if b"\n" not in encoded:
        return name.encode() + b"=" + encoded + b"\n"
    return name.encode() + b"\n" + struct.pack("<Q", len(encoded)) + encoded + b"\n"
