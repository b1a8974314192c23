"""A device's checkpoint, cosigned by the collector, is kept by the device for its proofs."""

import asyncio
import json
from pathlib import Path

from boxes import box
from brokers import connected, require_mosquitto, section, until
from fleets import CollectorProcess

from edge.ledger import checkpoint as checkpoints
from edge.ledger import note as notes
from edge.ledger.note import COSIGNER, LOG, Signer
from edge.ledger.signing import DUE_RECORDS, Keys
from edge.mqtt.brokers import LocalBroker


def test_a_checkpoint_comes_back_cosigned_with_the_receipt(tmp_path: Path) -> None:
    require_mosquitto()
    key, witness = notes.new_key(), tmp_path / "witness.key"
    notes.write_key(witness, notes.new_key())
    cosigner = Signer("edge-fleet", notes.read_key(witness), COSIGNER).verifier
    listed = tmp_path / "device-keys"
    listed.write_text(Signer(checkpoints.origin("box1", "0" * 16), key, LOG).verifier.vkey + "\n")
    settings = [f"collect.witness_key={witness}", f"collect.device_keys={listed}"]

    async def scenario() -> None:
        async with LocalBroker(kind="mosquitto") as broker:
            with CollectorProcess(broker, tmp_path, overrides=settings) as collector:
                await asyncio.to_thread(collector.ready)
                topics = ("edge/box1/receipts", "edge/box1/checkpoints")
                async with (
                    connected(broker, "ear", *topics) as ear,
                    box(tmp_path, section(broker), keys=Keys((key,), (cosigner,))) as made,
                ):
                    await made.record(DUE_RECORDS)
                    note, line = b"", ""
                    while not line:
                        message = await ear.next()
                        if message.topic.endswith("checkpoints"):
                            note = message.payload
                        else:
                            line = json.loads(message.payload).get("cosignature", "")
                    own = Signer(checkpoints.read(notes.parse(note)).origin, key).verifier
                    opened = checkpoints.opened(checkpoints.with_line(note, line), (own, cosigner))
                    assert set(opened.cosigners) == {cosigner}
                    ledger = made.recording
                    await until(lambda: not ledger.status()["owed"], "all is receipted")
                    counted = made.counters.snapshot()
                    assert counted.get("cosignatures_refused", 0) == 0
                    assert counted["checkpoints_signed"] >= 1
                assert (await asyncio.to_thread(collector.ask, "devices"))[0] == 0

    asyncio.run(scenario())
