"""The outbox: sends committed records to the cloud, in order, until it has receipted them. Pure.

Rules:

1. A record is owed until the cloud's receipt covers it. The broker's acknowledgement means only
   that the broker has it, and a broker may forget.
2. Records go out in order of their place. At most `window` are on the way to the broker, and at
   most `ahead` beyond the receipt.
3. Without progress of the receipt for `retry_s`, everything after it is sent again; the wait then
   doubles up to `last_retry_s`. Progress, and a new connection, set it back.
4. Whoever catches up on a week must not delay a frame. A go takes `GO_S` of the loop's time, and
   the next comes `PAUSE_S` later; while a frame waits for its verdict, there is only one every
   `YIELD_S`. By the clock and not by number: on a slow or crowded machine a go carries fewer.
5. All state is the place that was receipted, so a restart needs nothing but the ledger.

Not here: sockets, clock, disk. They come in as calls; all calls are made on one thread.
"""

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final, Protocol

from edge.ledger.record import Pending

WINDOW: Final = 64
"""Records on the way to the broker: 64 KiB or so, and the round trip is filled."""
AHEAD: Final = 1_024
"""Records sent and not receipted: at a receipt every 100 ms, up to 10,000 a second."""
LOAD: Final = 256
"""Records read at once, while those before them go out."""
GO_S: Final = 0.000_5
"""Of the loop's time, in one go: 20 records or so, which is what a frame may have to wait."""
PAUSE_S: Final = 0.008
"""From one go to the next: 3,000 records a second or so."""
YIELD_S: Final = 0.05
"""… while frames wait: 400 a second where there is no end of frames. That is more than they are,
and so no line is so busy that its records stay where they are."""
RETRY_S: Final = 10.0
LAST_RETRY_S: Final = 300.0


class Outlets(Protocol):
    """What the outbox causes."""

    def now_s(self) -> float:
        """The monotonic clock."""

    def later(self, pause_s: float, act: Callable[[], None]) -> None:
        """Call `act`, once, after so long."""

    def load(self, after: int, limit: int) -> None:
        """Read the next records. `Outbox.loaded` must be called, later, with what was found.

        Not called again before.
        """

    def frames_wait(self) -> bool:
        """Whether a frame waits for its verdict."""

    def together(self) -> AbstractContextManager[None]:
        """Have what is published inside leave in one piece."""

    def publish(self, body: bytes, on_done: Callable[[bool], None]) -> bool:
        """Send a record at QoS 1; False where nothing can be taken now.

        Args:
            body: The record's canonical bytes.
            on_done: Called once, later: whether the broker took it.
        """


class Outbox:
    """The pacing of records towards the cloud.

    Args:
        receipted: Up to where the cloud holds all.
        outlets: Where everything goes.
        window: Rule 2.
        ahead: Rule 2.
        retry_s: Rule 3.
        last_retry_s: Rule 3.

    Attributes:
        receipted: Up to where the cloud holds all.
        sent: The last record that was sent since records were last sent again.
        resent: Times that everything after the receipt was sent again.
    """

    def __init__(
        self,
        receipted: int,
        outlets: Outlets,
        *,
        window: int = WINDOW,
        ahead: int = AHEAD,
        retry_s: float = RETRY_S,
        last_retry_s: float = LAST_RETRY_S,
    ) -> None:
        self.receipted = receipted
        self.sent = receipted
        self.resent = 0
        self._outlets = outlets
        self._window = window
        self._ahead = ahead
        self._first_retry_s = self._retry_s = retry_s
        self._last_retry_s = last_retry_s
        self._committed = receipted
        self._connected = False
        self._loading = False
        self._loaded: deque[Pending] = deque()
        self._on_the_way = 0
        self._round = 0
        self._went_at_s = -YIELD_S  # the last go
        self._pausing = False
        self._waiting_since_s = outlets.now_s()

    @property
    def owed(self) -> int:
        """Records committed and not receipted."""
        return self._committed - self.receipted

    def committed(self, seq: int) -> None:
        """Records up to `seq` are committed: there is something to send."""
        if seq <= self._committed:
            return
        if not self.owed:
            self._waiting_since_s = self._outlets.now_s()
        self._committed = seq
        self._send_on()

    def connected(self) -> None:
        """The broker is there: begin after the receipt, since what was on the way may be lost."""
        self._connected = True
        self._retry_s = self._first_retry_s
        self._begin_again()

    def disconnected(self) -> None:
        """The broker is gone: nothing is sent until it is back."""
        self._connected = False

    def receipt_taken(self, receipted: int) -> None:
        """The ledger has written down that the cloud holds all up to here."""
        if receipted <= self.receipted:
            return
        self.receipted = receipted
        self.sent = max(self.sent, receipted)
        self._committed = max(self._committed, receipted)
        self._retry_s = self._first_retry_s
        self._waiting_since_s = self._outlets.now_s()
        self._send_on()

    def loaded(self, found: list[Pending]) -> None:
        """Take what was read."""
        self._loading = False
        # A receipt, or a new beginning, may have come while it was read.
        if found and found[0].seq == self._last_loaded + 1:
            self._loaded.extend(found)
        # None, though some are owed: storage fails, and the next tick asks again.
        if found:
            self._send_on()

    def tick(self) -> None:
        """To be called every second or so: sends again what is overdue, and what was held up."""
        now_s = self._outlets.now_s()
        if self.sent > self.receipted and now_s - self._waiting_since_s >= self._retry_s:
            self._retry_s = min(2 * self._retry_s, self._last_retry_s)
            self.resent += 1
            self._begin_again()
        else:
            self._send_on()

    def _begin_again(self) -> None:
        self.sent = self.receipted
        self._loaded.clear()
        # Answers about earlier sendings no longer count against the window.
        self._round += 1
        self._on_the_way = 0
        self._waiting_since_s = self._outlets.now_s()
        self._send_on()

    def _send_on(self) -> None:
        if not self._connected:
            return
        if self._may_send() and not self._pausing and self._go():
            self._pausing = True
            self._outlets.later(PAUSE_S, self._go_on)
        if len(self._loaded) < self._window and not self._loading and self._wanted() > 0:
            self._loading = True
            self._outlets.load(self._last_loaded, self._wanted())

    def _may_send(self) -> bool:
        return bool(self._loaded) and self._on_the_way < self._window and self._within_reach()

    def _go(self) -> bool:
        """Send what rule 4 allows; False where the publisher takes no more: the next tick asks."""
        began_s = now_s = self._outlets.now_s()
        if now_s - self._went_at_s < YIELD_S and self._outlets.frames_wait():
            return True
        self._went_at_s = began_s
        with self._outlets.together():
            while self._may_send() and now_s - began_s < GO_S:
                record = self._loaded.popleft()
                if record.seq > self.sent and not self._send(record):
                    self._loaded.appendleft(record)
                    return False
                now_s = self._outlets.now_s()
        return True

    def _go_on(self) -> None:
        self._pausing = False
        self._send_on()

    def _send(self, record: Pending) -> bool:
        this_round = self._round

        def on_done(taken: bool) -> None:
            if this_round == self._round:
                self._on_the_way -= 1
                if taken:
                    self._send_on()

        self._on_the_way += 1
        self.sent = record.seq
        if self._outlets.publish(record.body, on_done):
            return True
        self._on_the_way -= 1
        self.sent = record.seq - 1
        return False

    def _within_reach(self) -> bool:
        return self.sent - self.receipted < self._ahead

    @property
    def _last_loaded(self) -> int:
        return self._loaded[-1].seq if self._loaded else self.sent

    def _wanted(self) -> int:
        last = self._last_loaded
        return min(LOAD, self._ahead - (last - self.receipted), self._committed - last)
