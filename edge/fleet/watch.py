"""Who has been heard, and who has not: the alarms that come of silence. Pure.

Silence is measured on this process's monotonic clock, from its own start on: no clock that is set
makes a device silent, and a collector that was down blames nobody for it.
"""

from typing import Final

from edge.fleet.alarms import Alarm, Kind
from edge.fleet.store import Gap

_MAX_GARBAGE: Final = 1_000
"""Devices whose refused messages are told in one round."""
_GONE: Final = "its broker, or the device itself, says that it is not there"


class Watch:
    """What is known of each device's signs of life.

    Args:
        silent_after_s: Without a sign.
        gap_after_s: That a missing record may be late.
        max_devices: Known; beyond it, new ones are not.
    """

    def __init__(self, silent_after_s: float, gap_after_s: float, max_devices: int) -> None:
        self._silent_after_s = silent_after_s
        self._gap_after_s = gap_after_s
        self._max_devices = max_devices
        self._heard_at: dict[str, float] = {}
        self._states: dict[str, str] = {}
        self._changed: dict[str, str] = {}
        self._alive: set[str] = set()  # heard since the start
        self._told: dict[tuple[str, Kind], bool] = {}
        self._gaps: dict[tuple[str, str], tuple[int, float]] = {}
        self._garbage: dict[str, str] = {}

    def __len__(self) -> int:
        """Return how many devices are known."""
        return len(self._heard_at)

    def know(self, device: str, state: str, now_s: float) -> None:
        """A device of the store: its silence begins now."""
        self._heard_at.setdefault(device, now_s)
        self._states.setdefault(device, state)

    def heard(self, device: str, now_s: float) -> bool:
        """A sign of life; False where there are too many devices already."""
        if device not in self._heard_at and len(self._heard_at) >= self._max_devices:
            return False
        self._heard_at[device] = now_s
        self._alive.add(device)
        self._changed.setdefault(device, "")
        return True

    def said(self, device: str, state: str, now_s: float, *, retained: bool) -> bool:
        """A status, `online` or `offline`; False where there are too many devices already.

        What the broker kept is no sign of life: it may be years old.
        """
        if not retained and state == "online":
            if not self.heard(device, now_s):
                return False
        elif device not in self._heard_at:
            if len(self._heard_at) >= self._max_devices:
                return False
            self._heard_at[device] = now_s
        self._states[device] = self._changed[device] = state
        return True

    def refused(self, device: str, why: str) -> None:
        """It sent what is no record."""
        if len(self._garbage) < _MAX_GARBAGE:
            self._garbage.setdefault(device, why)

    def take_changed(self) -> dict[str, str]:
        """Return what is to be written down of devices, and forget it."""
        changed, self._changed = self._changed, {}
        return changed

    def give_back(self, changed: dict[str, str]) -> None:
        """It could not be written down."""
        self._changed = {**changed, **self._changed}

    def alarms(self, now_s: float) -> tuple[list[Alarm], list[tuple[str, str, Kind]]]:
        """Return what is to be raised and to be ended; again, until it is `told`."""
        raised = [Alarm(device, "", Kind.GARBAGE, 0, why) for device, why in self._garbage.items()]
        ended: list[tuple[str, str, Kind]] = []
        for device, heard_at in self._heard_at.items():
            quiet_s = now_s - heard_at
            if quiet_s > self._silent_after_s:
                wanted = f"nothing was heard of it for {quiet_s:.0f} s"
                self._want(device, Kind.SILENT, wanted, raised, ended)
            elif device in self._alive:
                self._want(device, Kind.SILENT, "", raised, ended)
            if state := self._states.get(device):
                wanted = _GONE if state == "offline" else ""
                self._want(device, Kind.OFFLINE, wanted, raised, ended)
        return raised, ended

    def told(self, raised: list[Alarm], ended: list[tuple[str, str, Kind]]) -> None:
        """What `alarms` returned is in the store."""
        for alarm in raised:
            if alarm.kind is Kind.GARBAGE:
                self._garbage.pop(alarm.device, None)
            else:
                self._told[alarm.device, alarm.kind] = True
        for device, _, kind in ended:
            self._told[device, kind] = False

    def _want(
        self,
        device: str,
        kind: Kind,
        detail: str,
        raised: list[Alarm],
        ended: list[tuple[str, str, Kind]],
    ) -> None:
        if self._told.get((device, kind)) == bool(detail):
            return
        if detail:
            raised.append(Alarm(device, "", kind, 0, detail))
        else:
            ended.append((device, "", kind))

    def gaps(self, found: list[Gap], now_s: float) -> list[Alarm]:
        """Return the alarms for records that are missing longer than they may be late."""
        before, self._gaps = self._gaps, {}
        raised = []
        for gap in found:
            name = (gap.device, gap.ledger)
            seq, since_s = before.get(name, (gap.seq, now_s))
            if seq != gap.seq:
                since_s = now_s
            self._gaps[name] = (gap.seq, since_s)
            if now_s - since_s >= self._gap_after_s:
                first, last = gap.seq + 1, gap.resumes - 1
                what = f"record {first} is" if first == last else f"records {first} to {last} are"
                detail = (
                    f"{what} not here, though later ones are (the device may have been receipted "
                    f"for them by another store; `edge fleet accept {gap.device}` goes on without)"
                )
                raised.append(Alarm(gap.device, gap.ledger, Kind.GAP, first, detail))
        return raised
