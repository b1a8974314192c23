"""Ends a guest call when its time is over: a one-shot alarm that advances the engine's epoch.

An alarm is armed before each call and disarmed after it. When it goes off it ticks three times,
a millisecond apart, and compiled guest code traps at its next loop or call after the third tick.
Three, because a tick of the call before may still be on its way: POSIX promises no more than that
a disarmed timer starts no new notification. So a call is never interrupted early, and late by
2 ms and the scheduler's delay.

Measured against a periodic tick (docs/decisions/0002): arming and disarming cost 1.6 µs a call,
and nothing at all while no frame comes; a tick every 20 ms costs 1 % of a core for ever.
"""

import ctypes
import threading
import time
from functools import partial
from typing import Final, Protocol

from wasmtime import Engine, _ffi

DEADLINE_TICKS: Final = 3
_TICK_NS: Final = 1_000_000
_CLOCK_MONOTONIC: Final = 1
_SIGEV_THREAD: Final = 2

_CLOSED: Final = "the guest engine is closed: its guests can no longer be interrupted"

_ENGINES: Final[list[Engine]] = []
"""Engines of native alarms, kept until the process ends: a notification may still be on its way
when the timer is deleted, no call waits for it, and it would touch a freed engine. A worker has
one engine."""


class Alarm(Protocol):
    """Advances an engine's epoch when the armed time has passed.

    Attributes:
        native: Whether it works without the interpreter lock.
    """

    native: bool

    def budget(self, milliseconds: int) -> int:
        """Prepare a budget; the token is what `arm` takes."""

    def arm(self, token: int) -> object:
        """Start the clock."""

    def disarm(self) -> object:
        """Stop it; ticks that are on their way may still come."""

    def close(self) -> None:
        """Release the timer or the thread."""


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))


class _SigEvent(ctypes.Structure):
    """`struct sigevent` of 64-bit Linux, the same in glibc and musl: 64 bytes."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("function", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p),
        ("padding", ctypes.c_char * 32),
    )


def _timer_library() -> ctypes.PyDLL:
    """The library with `timer_create`: libc, or librt before glibc 2.34.

    A PyDLL keeps the interpreter lock: these calls take under a microsecond, less than handing
    the lock over and back.
    """
    for name in (None, "librt.so.1"):
        library = ctypes.PyDLL(name, use_errno=True)
        if hasattr(library, "timer_create"):
            return library
    raise OSError("this C library has no timer_create")


class NativeAlarm:
    """A POSIX timer whose notification function is wasmtime's own `increment_epoch`.

    No Python runs when it goes off, so a busy interpreter lock does not delay it.

    Raises:
        OSError: The system offers no such timer.
    """

    native = True

    def __init__(self, engine: Engine) -> None:
        library = _timer_library()
        increment = _ffi.dll.wasmtime_engine_increment_epoch
        event = _SigEvent(
            value=ctypes.cast(engine.ptr(), ctypes.c_void_p).value,
            notify=_SIGEV_THREAD,
            function=ctypes.cast(increment, ctypes.c_void_p).value,
        )
        timer = ctypes.c_void_p()
        if library.timer_create(_CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)):
            error = ctypes.get_errno()
            raise OSError(error, "timer_create failed")
        _ENGINES.append(engine)
        self._timer: int | None = timer.value
        self._delete = library.timer_delete
        self._delete.argtypes = [ctypes.c_void_p]
        settime = library.timer_settime
        settime.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
        self._settime = settime
        self._specs: dict[int, _TimerSpec] = {0: _TimerSpec()}
        self.disarm = partial(settime, timer.value, 0, ctypes.addressof(self._specs[0]), None)

    def budget(self, milliseconds: int) -> int:
        """Lay out the timer's setting once; the token is its address."""
        spec = self._specs.get(milliseconds)
        if spec is None:
            first = _TimeSpec(milliseconds // 1000, milliseconds % 1000 * 1_000_000)
            spec = self._specs[milliseconds] = _TimerSpec(_TimeSpec(0, _TICK_NS), first)
        return ctypes.addressof(spec)

    def arm(self, token: int) -> object:
        """Start the clock."""
        if self._timer is None:
            raise RuntimeError(_CLOSED)
        return self._settime(self._timer, 0, token, None)

    def close(self) -> None:
        """Delete the timer; the engine stays (see `_ENGINES`)."""
        if self._timer is not None:
            self._delete(self._timer)
            self._timer = None


class ThreadAlarm:
    """The fallback: a Python thread. Late by as long as other threads hold the interpreter lock.

    Measured with three busy threads: 20 ms became up to 500 ms.
    """

    native = False

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._changed = threading.Condition()
        self._due_s: float | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._watch, name="guest-alarm", daemon=True)
        self._thread.start()

    def budget(self, milliseconds: int) -> int:
        """The token is the budget itself."""
        return milliseconds

    def arm(self, token: int) -> object:
        """Start the clock."""
        with self._changed:
            if self._closed:
                raise RuntimeError(_CLOSED)
            self._due_s = time.monotonic() + token / 1000
            self._changed.notify()
        return None

    def disarm(self) -> object:
        """Stop the clock; no tick comes after this."""
        with self._changed:
            self._due_s = None
        return None

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _watch(self) -> None:
        with self._changed:
            while not self._closed:
                if self._due_s is None:
                    self._changed.wait()
                    continue
                left_s = self._due_s - time.monotonic()
                if left_s > 0:
                    self._changed.wait(left_s)
                    continue
                for _ in range(DEADLINE_TICKS):
                    self._engine.increment_epoch()
                self._due_s = None


def new_alarm(engine: Engine) -> Alarm:
    """The best alarm that this system has: native where it can be."""
    try:
        return NativeAlarm(engine)
    except OSError:
        return ThreadAlarm(engine)
