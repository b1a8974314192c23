"""What is simulated, what is told meanwhile, and what came of it."""

from typing import Final

import msgspec

from edge.errors import ConfigError
from edge.fleet.publisher.rings import Tally
from edge.fleet.publisher.rollout import End

MAX_DEVICES: Final = 5_000
"""Of one process: a session and a store each."""
_MAX_S: Final = 3_600.0


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """The terms.

    Attributes:
        seed: Of everything that is left to chance.
        steps: Shares of the group, in percent, of each rollout.
        max_failed_percent: Failed devices at which a rollout halts.
        bad_share: Chance of the bad release to fail on probation, on each device.
        poll_s: Between two looks of a device that nobody hints at.
        stage_s: What trial, shadow and probation take each on average, on a device.
        ring_s: The longest that a ring is waited for.
    """

    devices: int = 1_000
    seed: int = 1
    steps: tuple[float, ...] = (1.0, 10.0, 50.0, 100.0)
    max_failed_percent: float = 5.0
    bad_share: float = 0.5
    poll_s: float = 60.0
    stage_s: float = 1.0
    ring_s: float = 600.0

    def hold(self) -> None:
        """Refuse what cannot be played.

        Raises:
            ConfigError: A term is out of its bounds.
        """
        for name, value, least, most in (
            ("--devices", self.devices, 1, MAX_DEVICES),
            ("--max-failed-percent", self.max_failed_percent, 0, 100),
            ("--bad-share", self.bad_share, 0, 1),
            ("--poll-s", self.poll_s, 1, _MAX_S),
            ("--stage-s", self.stage_s, 0, _MAX_S),
        ):
            if not least <= value <= most:
                raise ConfigError(name, f"is {value:g}; expected {least:g} to {most:g}")


class Standing(msgspec.Struct, frozen=True):
    """Where it stands: told as it changes.

    Attributes:
        phase: A few words.
        done: Devices that are through with it, of `Scenario.devices`.
        percent: Share of the group that the release is offered to; 0: no release is under way.
    """

    phase: str
    done: int
    percent: float = 0.0
    tally: Tally | None = None


class Looks(msgspec.Struct, frozen=True):
    """Looks for an update, of one outcome.

    Attributes:
        bytes_each: Median that one received, bodies alone.
        bytes_most: The most that one received.
    """

    count: int
    bytes_each: int
    bytes_most: int


class Polls(msgspec.Struct, frozen=True):
    """What devices with nothing new ask of a static server.

    Attributes:
        a_second: Mean over the time that was watched.
        most_in_a_second: The busiest second of it.
        requests_each: Of one look.
    """

    looks: int
    a_second: float
    most_in_a_second: int
    requests_each: float
    bytes_each: int


class Rolled(msgspec.Struct, frozen=True):
    """One rollout.

    Attributes:
        percent: Share of the group that it was offered to at its end.
        ran: Devices on which it was active, ever.
        on: Devices that run it at the end.
        reverted: Devices on which it was active and which went back.
        untouched: Devices that never took it up.
        rings: For each, its percent, its seconds, and devices with the release and without it.
        fetched: Looks that brought it.
        requests: Of all devices to the server meanwhile.
        messages: Of all devices to the broker meanwhile, and hints to them.
    """

    revision: int
    bad: bool
    end: End
    percent: float
    seconds: float
    ran: int
    on: int
    reverted: int
    untouched: int
    rings: tuple[tuple[float, float, int, int], ...]
    fetched: Looks
    requests: int
    messages: int


class Result(msgspec.Struct, frozen=True):
    """What came of it.

    Attributes:
        metadata_bytes: Size of each file of the repository's metadata, by role.
        refused: Looks that failed, by their error; none is expected.
    """

    scenario: Scenario
    seconds: float
    polls: Polls
    rollouts: tuple[Rolled, ...]
    metadata_bytes: dict[str, int]
    refused: dict[str, int]

    @property
    def findings(self) -> list[str]:
        """What did not come out as it must: good releases everywhere, bad ones halted."""
        found = [f"{count} looks failed: {error}" for error, count in sorted(self.refused.items())]
        for each in self.rollouts:
            if each.bad and each.end is not End.HALTED:
                found.append(
                    f"revision {each.revision} is bad, and was not halted: it {each.end}, and ran "
                    f"on {each.ran} of {self.scenario.devices} devices"
                )
            if not each.bad and each.on != self.scenario.devices:
                found.append(
                    f"revision {each.revision} is good, and runs on {each.on} of "
                    f"{self.scenario.devices} devices: it {each.end}"
                )
        return found
