"""An event loop on which nobody waits: while there is nothing to wait for but time, time jumps.

What happens is real: sockets, threads, refused connections. Only idle waits are left out, and the
loop's clock is put forward by as much. A day of reconnecting takes seconds.
"""

import asyncio
import contextlib
import selectors
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Final

_CONNECTING: Final = "mqtt-connect"
"""Threads of this name do something real (`edge.mqtt.connection`): it is waited for."""
_LOOK_S: Final = 0.001
"""Between two looks whether one of them has ended."""


class DayLoop(asyncio.SelectorEventLoop):
    """The loop.

    Attributes:
        skipped_s: How far its clock was put forward so far.
    """

    def __init__(self) -> None:
        self.skipped_s = 0.0
        self._selector_of_days = _Impatient(self)
        self.patient = False
        super().__init__(self._selector_of_days)

    def time(self) -> float:
        """Monotonic seconds, those that were left out included."""
        return super().time() + self.skipped_s

    @contextlib.contextmanager
    def real_time(self) -> Iterator[None]:
        """Inside, every wait takes its time."""
        self.patient = True
        try:
            yield
        finally:
            self.patient = False


class _Impatient(selectors.BaseSelector):
    """The usual selector, but for idle waits."""

    def __init__(self, loop: DayLoop) -> None:
        self._loop = loop
        self._real = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[Any]:
        if self._loop.patient or len(self._real.get_map()) > 1:  # besides the loop's own pipe
            return self._real.select(timeout)
        if any(thread.name == _CONNECTING for thread in threading.enumerate()):
            return self._real.select(_LOOK_S if timeout is None else min(timeout, _LOOK_S))
        ready = self._real.select(0)
        if not ready and timeout:
            self._loop.skipped_s += timeout
        return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()
