"""The daemon signs what it recorded, publishes that, and keeps the cloud's cosignature."""

import asyncio
import json
import stat
from pathlib import Path

from brokers import require_mosquitto, until
from daemons import Daemon, Line, line_to

from edge.ledger import checkpoint as checkpoints
from edge.ledger import note as notes
from edge.ledger import reading
from edge.ledger.note import COSIGNER, Signer, Verifier
from edge.ledger.record import GENESIS, next_head
from edge.mqtt.brokers import LocalBroker
from edge.mqtt.messages import Incoming

CLOUD = Signer("cloud.example/plant7", notes.new_key(), COSIGNER)
COSIGNED = ("status.interval_s=0.5", f"ledger.cosigners=['{CLOUD.verifier.vkey}']")


class Told:
    """What came at a topic, by a line's session."""

    def __init__(self, line: Line, topic: str) -> None:
        self.messages: list[Incoming] = []
        self._session = line.session
        line.session.subscribe(topic, 1, self._take)

    def _take(self, message: Incoming) -> None:
        self.messages.append(message)
        self._session.acknowledge(message)


def test_a_stopped_daemon_has_signed_all_and_the_cloud_cosigns_it(tmp_path: Path) -> None:
    require_mosquitto()
    key = tmp_path / "state" / "ledger.key"
    path = tmp_path / "state" / "ledger" / "ledger.db"

    def log() -> Verifier:
        with reading.opened(path) as ledger:
            origin = checkpoints.origin(ledger.origin.device, ledger.origin.ledger)
        return Signer(origin, notes.read_key(key)).verifier

    async def scenario() -> None:
        async with LocalBroker(kind="mosquitto") as broker:
            with Daemon(broker, tmp_path, overrides=COSIGNED) as daemon:
                async with line_to(broker) as line:
                    told = Told(line, "edge/box1/checkpoints")
                    records = Told(line, "edge/box1/records")
                    await line.all_verdicts([line.inspect(number) for number in range(3)])
                    await until(lambda: len(records.messages) >= 3, "three records have come")
                    assert await asyncio.to_thread(daemon.end) == 0
                    await until(lambda: bool(told.messages), "the last checkpoint has come")
                    note = told.messages[0].payload
                    assert checkpoints.opened(note, [log()]).checkpoint.size == 3
                daemon.start()
                # Who comes later finds the last one retained, and the daemon says it again.
                async with line_to(broker) as line:
                    told = Told(line, "edge/box1/checkpoints")
                    await until(lambda: bool(told.messages), "the retained checkpoint has come")
                    assert told.messages[0].payload == note
                    head = GENESIS
                    bodies = {json.loads(m.payload)["seq"]: m.payload for m in records.messages}
                    for seq in (1, 2, 3):
                        head = next_head(head, bodies[seq])
                    for size in (2, 3):
                        receipt = {
                            "seq": 3,
                            "head": head.hex(),
                            "checkpoint": size,
                            "cosignature": checkpoints.cosignature(note, CLOUD, 1_700_000_000),
                        }
                        line.session.publish("edge/box1/receipts", json.dumps(receipt).encode())
                    await line.status(
                        lambda s: (
                            s["ledger"]["receipted"] == 3
                            and s["ledger"]["signed"] == 3
                            and s["counters"].get("cosignatures_refused") == 1
                        ),
                        "the receipt is taken, and the cosignature of no checkpoint is refused",
                    )

    asyncio.run(scenario())
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    with reading.opened(path) as ledger:
        kept = ledger.checkpoint()
    assert kept is not None
    opened = checkpoints.opened(kept.note, [log(), CLOUD.verifier])
    assert opened.cosigners == {CLOUD.verifier: 1_700_000_000}
