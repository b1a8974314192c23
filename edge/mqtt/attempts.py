"""When to try the broker again, and in which version of MQTT. Pure: no clock, no socket."""

from collections.abc import Callable
from typing import Final, Literal

Version = Literal["5", "3.1.1"]

FIRST_DELAY_S: Final = 0.2
LONGEST_DELAY_S: Final = 15.0
SILENCES_THAT_DISPROVE: Final = 3
"""A broker that spoke MQTT 5 before may be slow; so often in a row, it is another broker."""


class Backoff:
    """Jittered exponential delays, bounded.

    Args:
        random: Uniform in [0, 1); jitter keeps a fleet from reconnecting in step.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._failures = 0

    def next_s(self) -> float:
        """Return the next delay in seconds: half to the whole of 0.2, 0.4, 0.8, ... 15."""
        # 2**7 * 0.2 s lies beyond the bound; the exponent stays small for ever.
        whole = min(LONGEST_DELAY_S, FIRST_DELAY_S * (1 << min(self._failures, 7)))
        self._failures += 1
        return whole * (0.5 + 0.5 * self._random())

    def reset(self) -> None:
        """Start over: a connection has stood."""
        self._failures = 0


class VersionChoice:
    """Which version of MQTT the next CONNECT speaks.

    `auto` begins with 5. A refusal for its version moves on to the other one; so does silence,
    for there are brokers that answer nothing to a version they do not know. What worked stays.

    Args:
        configured: `auto`, or the one version to speak.
    """

    def __init__(self, configured: Literal["auto", "5", "3.1.1"]) -> None:
        self._fixed = configured != "auto"
        self.current: Version = "3.1.1" if configured == "3.1.1" else "5"
        self._proven = False
        self._silences = 0

    def worked(self) -> None:
        """The broker accepted the current version."""
        self._proven = True
        self._silences = 0

    def unsupported(self) -> bool:
        """The broker refused the version; say whether to try the other one at once."""
        self._proven = False
        return self._change()

    def silent(self) -> bool:
        """No answer to CONNECT; say whether to try the other version at once."""
        self._silences += 1
        if self._proven and self._silences < SILENCES_THAT_DISPROVE:
            return False
        self._proven = False
        return self._change()

    def _change(self) -> bool:
        if self._fixed:
            return False
        self._silences = 0
        self.current = "3.1.1" if self.current == "5" else "5"
        # Back to 5 only after a delay: else a broker that hangs up at once would be hammered.
        return self.current == "3.1.1"
