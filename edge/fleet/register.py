"""Devices and alarms, as the store knows them. Used by the store's thread."""

from collections.abc import Callable, Sequence

import msgspec

from edge.fleet.alarms import Alarm, Kind
from edge.fleet.database import Database


class Limits(msgspec.Struct, frozen=True):
    """What the config bounds."""

    max_devices: int = 1_000
    max_device_bytes: int = 20 << 30


class Held(msgspec.Struct, frozen=True):
    """Up to where a ledger is held whole: what a receipt says."""

    device: str
    ledger: str
    seq: int
    head: bytes


class Taken(msgspec.Struct):
    """What became of a batch.

    Attributes:
        held: Of each ledger that was touched.
        raised: Alarms that stand since now.
        ended: Alarms whose cause has gone.
        stored: Records that are new.
        repeated: Records that were there.
        left: Records beyond a bound.
    """

    held: list[Held] = []
    raised: list[Alarm] = []
    ended: list[Alarm] = []
    stored: int = 0
    repeated: int = 0
    left: int = 0


class DeviceRow(msgspec.Struct, frozen=True):
    """A device: `state` is `online`, `offline`, or empty where it has not said so."""

    device: str
    state: str
    seen_ns: int


class Register:
    """The part of the store that says which devices there are, and what is wrong with them.

    Args:
        database: Where it lies.
        limits: How many devices are taken in.
        now_ns: UTC.
    """

    def __init__(self, database: Database, limits: Limits, now_ns: Callable[[], int]) -> None:
        self._database = database
        self._limits = limits
        self._now_ns = now_ns

    def note_devices(self, states: dict[str, str]) -> Taken:
        """Write down what devices said: `online`, `offline`, or "" for a sign of life.

        Raises:
            StorageError: Nothing of it was written.
        """
        taken = Taken()
        now_ns = self._now_ns()
        with self._database.transaction():
            for device, state in sorted(states.items()):
                if not self._admits(device):
                    taken.left += 1
                    continue
                self._database.run(
                    "INSERT INTO device VALUES(?, ?, ?) ON CONFLICT(device) DO UPDATE SET "
                    "seen_ns=excluded.seen_ns, state=CASE WHEN excluded.state='' "
                    "THEN device.state ELSE excluded.state END",
                    (device, state, now_ns),
                )
        return taken

    def change_alarms(
        self, raised: Sequence[Alarm], ended: Sequence[tuple[str, str, Kind]]
    ) -> Taken:
        """Raise alarms, and end those of these devices, ledgers and kinds, where they stand.

        Raises:
            StorageError: Nothing of it was written.
        """
        taken = Taken()
        with self._database.transaction():
            for alarm in raised:
                self._raise(alarm, taken)
            for device, ledger, kind in ended:
                self._end(device, ledger, kind, taken)
        return taken

    def alarms(self) -> list[Alarm]:
        """Return all that stand."""
        with self._database.transaction():
            return self._alarms("", ())

    def devices(self) -> list[DeviceRow]:
        """Return all devices, by name."""
        with self._database.transaction():
            rows = self._database.rows("SELECT device, state, seen_ns FROM device ORDER BY device")
        return [DeviceRow(*row) for row in rows]

    def _alarms(self, where: str, values: tuple[object, ...]) -> list[Alarm]:
        rows = self._database.rows(
            f"SELECT device, ledger, kind, seq, detail, count, raised_at_ns FROM alarm{where} "  # noqa: S608 - our own words
            "ORDER BY device, raised_at_ns",
            values,
        )
        return [Alarm(d, name, Kind(kind), *rest) for d, name, kind, *rest in rows]

    def _raise(self, alarm: Alarm, taken: Taken) -> None:
        now_ns = self._now_ns()
        count = self._database.rows(
            "INSERT INTO alarm VALUES(?, ?, ?, ?, ?, 1, ?) ON CONFLICT(device, ledger, kind) "
            "DO UPDATE SET count=alarm.count + 1 RETURNING count",
            (alarm.device, alarm.ledger, alarm.kind.value, alarm.seq, alarm.detail, now_ns),
        )[0][0]
        if count == 1:
            taken.raised.append(msgspec.structs.replace(alarm, raised_at_ns=now_ns))

    def _end(self, device: str, ledger: str, kind: Kind, taken: Taken) -> None:
        ended = self._database.run(
            "DELETE FROM alarm WHERE device=? AND ledger=? AND kind=?", (device, ledger, kind.value)
        )
        if ended:
            taken.ended.append(Alarm(device, ledger, kind, 0, ""))

    def _admits(self, device: str) -> bool:
        known = self._database.rows("SELECT 1 FROM device WHERE device=?", (device,))
        if known:
            return True
        count = self._database.rows("SELECT count(*) FROM device")[0][0]
        if count >= self._limits.max_devices:
            return False
        self._database.run(
            "INSERT INTO device VALUES(?, '', ?) ON CONFLICT DO NOTHING", (device, self._now_ns())
        )
        return True
