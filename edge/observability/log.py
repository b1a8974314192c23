"""The log on standard error: one canonical line for each event.

Text for people on a terminal, JSON lines for machines, and under systemd entries of the journal
with priority and fields (`edge.observability.journal`), so that `journalctl -p warning
EDGE_PIPELINE=pcb` finds them; where journald takes none, lines with their priority (sd-daemon(3)).

Rules held here, so that no caller can break them:

1. One event is one line, except for a traceback on a terminal.
2. A value whose key names a secret is never written.
3. Text from outside (topics, payloads, file names) cannot forge a line or move a cursor: control
   characters are escaped, and every value is cut to `MAX_VALUE_CHARS`.
4. A flood of warnings of one kind is thinned, and says how many lines it swallowed.
5. A log that cannot be written is dropped; it never raises.

What other libraries say through `logging` goes the same way.
"""

import logging
import math
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Final, TextIO

import structlog

from edge.config import LogSection
from edge.observability.journal import Journal, fields_of

MAX_VALUE_CHARS: Final = 2_000
"""journald splits a line at 48 KiB (LineMax=); a dozen values of this length stay below it."""

MAX_DEPTH: Final = 2
MAX_ITEMS: Final = 32
"""Tables and lists that are written as such; what is deeper or longer becomes cut text."""

FLOOD_LINES: Final = 20
FLOOD_SECONDS: Final = 10.0
"""At most so many warnings or errors of one event in so many seconds: 7 MB an hour at worst."""

_MAX_EVENTS: Final = 1_000
_PRIORITY: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_SECRET: Final = re.compile(
    r"password|passwd|secret|token|credential|private|authorization", re.IGNORECASE
)

Line = MutableMapping[str, Any]


def configure(
    section: LogSection, *, tty: bool, journal: bool = False, stream: TextIO | None = None
) -> "Sink":
    """Set up the log of this process; a second call replaces the first.

    Args:
        section: The config's `log` section.
        tty: Whether `stream` is a terminal: then `auto` means coloured text.
        journal: Whether `stream` is read by journald; see `goes_to_journal`.
        stream: Where lines go; standard error when None.

    Returns:
        The last step of the log, which counts the lines that it could not write.
    """
    native = Journal() if journal and stream is None else None
    sink = Sink(sys.stderr if stream is None else stream, journal, native)
    text = section.format == "text" or (section.format == "auto" and tty)
    render = (
        structlog.dev.ConsoleRenderer(
            colors=tty, exception_formatter=structlog.dev.plain_traceback, pad_event_to=24
        )
        if text
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _name_room,
            Flood(),
            structlog.processors.ExceptionRenderer(),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _bound,
            _Rendered(render) if native else render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(section.level),
        logger_factory=lambda *names: Lines(sink, *names),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [_FromLogging()]
    # Libraries are chatty below a warning, and their chatter is not in our words.
    root.setLevel(max(logging.WARNING, logging.getLevelName(section.level.upper())))
    return sink


def get(room: str) -> structlog.typing.FilteringBoundLogger:
    """Return the logger of a room, such as `edge.daemon`; each of its lines says `room`."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(room)
    return logger


def goes_to_journal(journal_stream: str, descriptor: int) -> bool:
    """Say whether a file descriptor is the one that systemd connected to the journal.

    Args:
        journal_stream: `JOURNAL_STREAM` of the environment, `device:inode`; empty when unset. It
            is inherited by children whose output went elsewhere since, so it is compared.
        descriptor: Usually 2, standard error.
    """
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return journal_stream == f"{status.st_dev}:{status.st_ino}"


class Sink:
    """Where lines go: written whole, from any thread; never raises.

    Args:
        stream: Where to.
        journal: Whether each line begins with its priority.
        native: The journal itself, which is tried first; None: the stream is all there is.

    Attributes:
        lost: Lines that could not be written.
    """

    def __init__(self, stream: TextIO, journal: bool, native: Journal | None = None) -> None:
        self._stream = stream
        self._journal = journal
        self._native = native
        self._lock = threading.Lock()
        self.lost = 0

    def write(self, line: str, level: str, fields: Mapping[str, str] | None = None) -> None:
        """Write one finished line; a traceback in it stays with it.

        Args:
            line: As it is rendered.
            level: Its severity.
            fields: What the journal gets beside it.
        """
        if self._native and self._native.write(line, _PRIORITY[level], fields or {}):
            return
        if self._journal:
            priority = f"<{_PRIORITY[level]}>"
            line = "\n".join(priority + part for part in line.split("\n"))
        try:
            with self._lock:
                self._stream.write(line + "\n")
                self._stream.flush()
        except (OSError, ValueError):  # a pipe that was closed, a stream that was
            self.lost += 1


class Lines:
    """The last step of structlog, for one room: hands each line on with its severity."""

    def __init__(self, sink: Sink, room: str = "") -> None:
        self._sink = sink
        self.room = room

    def debug(self, line: str, fields: Mapping[str, str] | None = None) -> None:
        """Write a line of this severity."""
        self._sink.write(line, "debug", fields)

    def info(self, line: str, fields: Mapping[str, str] | None = None) -> None:
        """Write a line of this severity."""
        self._sink.write(line, "info", fields)

    def warning(self, line: str, fields: Mapping[str, str] | None = None) -> None:
        """Write a line of this severity."""
        self._sink.write(line, "warning", fields)

    def error(self, line: str, fields: Mapping[str, str] | None = None) -> None:
        """Write a line of this severity."""
        self._sink.write(line, "error", fields)

    def critical(self, line: str, fields: Mapping[str, str] | None = None) -> None:
        """Write a line of this severity."""
        self._sink.write(line, "critical", fields)


class _Rendered:
    """Renders a line, and hands the journal's fields of it on beside the text."""

    def __init__(self, render: structlog.typing.Processor) -> None:
        self._render = render

    def __call__(self, logger: object, level: str, line: Line) -> Any:
        fields = fields_of(line)
        return (self._render(logger, level, line),), {"fields": fields}


def _name_room(lines: Lines, _level: str, line: Line) -> Line:
    if lines.room:
        line.setdefault("room", lines.room)
    return line


class Flood:
    """Thins warnings and errors that repeat: rule 4.

    Lines of lower severity pass: how many of those there are is a decision, not an accident.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # Event names are constants of the code; the cut makes that a fact for libraries too.
        self._windows: dict[str, tuple[float, int]] = {}

    def __call__(self, _logger: object, level: str, line: Line) -> Line:
        """Pass the line on, or raise `structlog.DropEvent`."""
        if level not in ("warning", "error"):
            return line
        event = str(line.get("event"))[:80]
        now = self._clock()
        with self._lock:
            started, count = self._windows.get(event, (now, 0))
            swallowed = 0
            if now - started >= FLOOD_SECONDS:
                swallowed = max(0, count - FLOOD_LINES)
                started, count = now, 0
            if len(self._windows) >= _MAX_EVENTS:
                self._windows.clear()
            self._windows[event] = (started, count + 1)
        if count >= FLOOD_LINES:
            raise structlog.DropEvent
        if swallowed:
            line["swallowed"] = swallowed
        return line


def _bound(_logger: object, _level: str, line: Line) -> Line:
    """Rules 2 and 3, for every value of the line."""
    for key, value in line.items():
        if key == "exception" and isinstance(value, str):
            # The end of a traceback names the culprit; of all else, the beginning does.
            line[key] = _escape(value[-5 * MAX_VALUE_CHARS :], "\n")
        else:
            line[key] = _bounded(key, value, MAX_DEPTH)
    return line


def _bounded(key: str, value: object, depth: int) -> object:
    if _SECRET.search(key) and not key.endswith(("_file", "_path")):
        return "(withheld)"
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else repr(value)  # JSON has no NaN
        case dict() if depth and len(value) <= MAX_ITEMS:
            return {
                _escape(name[:MAX_VALUE_CHARS], ""): _bounded(name, inner, depth - 1)
                for name, inner in ((str(each), inner) for each, inner in value.items())
            }
        case list() | tuple() if depth and len(value) <= MAX_ITEMS:
            return [_bounded("", inner, depth - 1) for inner in value]
    return _escape(_text(value)[:MAX_VALUE_CHARS], "")


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - rule 5 holds for values that cannot even be shown
        return f"({type(value).__name__})"


def _escape(text: str, keep: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape").decode()
        for char in text
    )


class _FromLogging(logging.Handler):
    """Carries what libraries log into the same lines."""

    def emit(self, record: logging.LogRecord) -> None:
        log = get(record.name)
        level = min(max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL)
        try:
            log.log(level, record.getMessage(), exc_info=record.exc_info)
        except Exception:  # noqa: BLE001 - a library's broken log call is not our failure
            log.warning("unreadable log record", source=f"{record.pathname}:{record.lineno}")
