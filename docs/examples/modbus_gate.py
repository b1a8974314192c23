#!/usr/bin/env -S uv run --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["paho-mqtt>=2.1,<3", "pymodbus>=3.11,<4"]
# ///
"""A gate behind a PLC: edge's verdicts, from MQTT into the holding registers of a Modbus TCP PLC.

    uv run docs/examples/modbus_gate.py --plc 192.168.1.20 --broker 192.168.1.10 --pipeline pcb

Silence is not pass. The bridge writes one block of registers, in one request, so that the PLC never
sees the verdict of one part beside the id of another:

    0       heartbeat   another value with each writing, at least each --beat-ms
    1       state       1: the box is online and ready; 0: stop
    2       sequence    counts verdicts, modulo 65536; a gap: a part was missed, and is rejected
    3       verdict     0 none, 1 pass, 2 reject, 3 review
    4..19   part id     up to 32 ASCII characters, two in each register, the first one high

The PLC opens the gate for a part while, and only while, state is 1, the verdict is 1, the part id
(or the sequence) is that part's, and the heartbeat has changed within, say, five --beat-ms. So it
rejects by itself when this program, its machine or the network has died.

The bridge writes verdict 0 again --hold-ms after a verdict. It writes state 0 and verdict 0 when
the box says that it is offline or not ready, when nothing was heard of it for --status-within-s,
when the broker is gone, and when it is stopped. A verdict whose capture is more than --max-age-ms
ago is never shown: let the clocks of box and bridge follow one source. Nor is one whose part id is
longer than 32 characters or not ASCII.
"""

import argparse
import json
import logging
import queue
import signal
import socket
import ssl
import time
from pathlib import Path
from typing import Any

from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from pymodbus import ModbusException
from pymodbus.client import ModbusTcpClient

VERDICTS = {"pass": 1, "reject": 2, "review": 3}
PART_REGISTERS = 16
WRITE_S = 0.25  # for one answer of the PLC; it must not stop us from hearing
log = logging.getLogger("gate")


class Gate:
    """What the PLC is to see: a state that safety decides. Times are of the monotonic clock.

    Args:
        hold_s: How long a verdict is shown.
        max_age_s: From capture to here, at most.
        status_within_s: How long the box may say nothing of itself.
    """

    def __init__(self, hold_s: float, max_age_s: float, status_within_s: float) -> None:
        self._hold_s, self._max_age_s = hold_s, max_age_s
        self._status_within_s = status_within_s
        self._ready_until = self._shown_until = 0.0
        self._beats = self._sequence = self._verdict = 0
        self._part = ""

    def silence(self) -> None:
        """Nothing is known of the box: stop."""
        self._ready_until = self._shown_until = 0.0

    def status(self, payload: bytes, now: float, retained: bool) -> None:
        """Take the box's word on itself; an old one, from the broker's shelf, proves nothing."""
        said = json.loads(payload)
        if said.get("state") != "online" or said.get("ready") is not True:
            self.silence()
        elif not retained:
            self._ready_until = now + self._status_within_s

    def verdict(self, payload: bytes, now: float, utc_ns: int) -> None:
        """Take a verdict; one that cannot be read is none."""
        self._sequence = (self._sequence + 1) % 65536
        self._verdict, self._part = 0, ""
        said = json.loads(payload)
        self._part = str(said.get("part_id") or said["frame_id"])
        age_s = (utc_ns - int(said["captured_at_ns"])) / 1e9
        if abs(age_s) > self._max_age_s:
            log.warning("%s: its verdict is %.3f s old: not shown", self._part, age_s)
            return
        if len(self._part) > 2 * PART_REGISTERS or not self._part.isascii():
            log.warning(
                "%s: an id that does not fit could be taken for another: not shown", self._part
            )
            return
        self._verdict = VERDICTS.get(said["verdict"], 0)
        self._shown_until = now + self._hold_s

    def registers(self, now: float) -> list[int]:
        """Return the block as of now; each call is a beat."""
        self._beats = (self._beats + 1) % 65536
        ready = now < self._ready_until
        verdict = self._verdict if ready and now < self._shown_until else 0
        text = self._part.encode("ascii", "replace")[: 2 * PART_REGISTERS]
        text = text.ljust(2 * PART_REGISTERS, b"\0")
        part = [int.from_bytes(text[at : at + 2], "big") for at in range(0, len(text), 2)]
        return [self._beats, int(ready), self._sequence, verdict, *part]


class Plc:
    """The PLC; while it does not answer, that is logged once, and tried at each beat."""

    def __init__(self, host: str, port: int, unit: int, address: int) -> None:
        self._client = ModbusTcpClient(
            host, port=port, timeout=WRITE_S, retries=0, reconnect_delay=WRITE_S
        )
        self._unit, self._address = unit, address
        self._lost = False

    def write(self, registers: list[int]) -> None:
        """Write the block, or say why not: the PLC sees the heartbeat stand still."""
        trouble = ""
        try:
            if self._client.connected or self._client.connect():
                answer = self._client.write_registers(
                    self._address, registers, device_id=self._unit
                )
                trouble = str(answer) if answer.isError() else ""
            else:
                trouble = "no connection"
        except (ModbusException, OSError) as failed:
            trouble = str(failed)
            self._client.close()
        if bool(trouble) != self._lost:
            self._lost = bool(trouble)
            log.warning("PLC: %s", trouble or "answers again")


def heard(words: argparse.Namespace, inbox: "queue.SimpleQueue[Any]") -> mqtt.Client:
    """Connect to the broker; what is heard goes to the inbox, None where nothing can be."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
    if words.username:
        password = Path(words.password_file).read_text().strip() if words.password_file else None
        client.username_pw_set(words.username, password)
    if words.ca:
        client.tls_set_context(ssl.create_default_context(cafile=words.ca))

    said = ""

    def tell(text: str) -> None:
        nonlocal said
        if text != said:  # once, not at each attempt
            log.warning("broker %s:%d: %s", words.broker, words.broker_port, text)
        said = text

    def on_connect(_c: Any, _u: Any, _f: Any, reason: Any, _p: Any) -> None:
        if reason.is_failure:
            tell(str(reason))
            return
        tell(f"connected; hears edge/{words.device}/status and its verdicts of {words.pipeline}")
        # A verdict at QoS 0: one that is sent again comes too late anyway, and silence rejects.
        client.subscribe(
            [
                (f"edge/{words.device}/{words.pipeline}/verdict", 0),
                (f"edge/{words.device}/status", 1),
            ]
        )

    def on_subscribe(_c: Any, _u: Any, _m: Any, codes: list[Any], _p: Any) -> None:
        if any(code.is_failure for code in codes):
            log.error("the broker refuses a subscription: may this user read both topics?")

    def on_socket_open(_c: Any, _u: Any, opened: Any) -> None:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def on_disconnect(_c: Any, _u: Any, _f: Any, reason: Any, _p: Any) -> None:
        inbox.put(None)
        if reason.is_failure:  # else we hung up
            tell("no connection")

    client.on_connect = on_connect
    client.on_connect_fail = lambda *_: tell("no connection")
    client.on_subscribe = on_subscribe
    client.on_disconnect = on_disconnect
    client.on_message = lambda _client, _user, message: inbox.put(message)
    client.on_socket_open = on_socket_open
    client.reconnect_delay_set(1, 10)
    client.connect_async(words.broker, words.broker_port, keepalive=5)
    client.loop_start()
    return client


def take(gate: Gate, message: Any, now: float) -> None:
    """Bring one message to the gate; what cannot be read is silence."""
    try:
        if message is None:
            gate.silence()
        elif message.topic.endswith("/status"):
            gate.status(message.payload, now, message.retain)
        elif not message.retain:
            gate.verdict(message.payload, now, time.time_ns())
    except (ValueError, KeyError, TypeError, AttributeError) as wrong:
        log.warning("%s: cannot be read: %r", message.topic, wrong)
        if message.topic.endswith("/status"):
            gate.silence()


def take_next(gate: Gate, inbox: "queue.SimpleQueue[Any]", beat_s: float) -> None:
    """Wait for a message, or for a beat, and take whatever has come."""
    try:
        take(gate, inbox.get(timeout=beat_s), time.monotonic())
        while not inbox.empty():
            take(gate, inbox.get(), time.monotonic())
    except queue.Empty:
        pass


def gate_of(words: argparse.Namespace) -> Gate:
    """Make the gate that the command line asks for."""
    return Gate(words.hold_ms / 1e3, words.max_age_ms / 1e3, words.status_within_s)


def run(words: argparse.Namespace) -> None:
    """Write to the PLC at each verdict and each beat, until a signal; then leave it in stop."""
    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _frame: stopped.append(received))
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    gate = gate_of(words)
    plc = Plc(words.plc, words.plc_port, words.unit, words.address)
    client = heard(words, inbox)
    try:
        while not stopped:
            take_next(gate, inbox, words.beat_ms / 1e3)
            plc.write(gate.registers(time.monotonic()))
    finally:
        gate.silence()
        plc.write(gate.registers(time.monotonic()))
        client.disconnect()
        client.loop_stop()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the box's side, and of time."""
    parser.add_argument("--broker", default="127.0.0.1", help="its address (%(default)s)")
    parser.add_argument("--broker-port", type=int, default=1883, help="(%(default)s)")
    parser.add_argument("--username", default="", help="at the broker, with --password-file")
    parser.add_argument("--password-file", default="", help="file whose content is the password")
    parser.add_argument("--ca", default="", help="certificate authority: then TLS is spoken")
    parser.add_argument("--device", default="box1", help="device.id of the box (%(default)s)")
    parser.add_argument("--pipeline", default="pcb", help="whose verdicts (%(default)s)")
    for name, default in (("--beat-ms", 100.0), ("--hold-ms", 500.0), ("--max-age-ms", 500.0)):
        parser.add_argument(name, type=float, default=default, help="see above (%(default)g)")
    parser.add_argument(
        "--status-within-s", type=float, default=15.0,
        help="three times the box's status.interval_s (%(default)g)",
    )  # fmt: skip


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--plc", required=True, help="its address")
    parser.add_argument("--plc-port", type=int, default=502, help="(%(default)s)")
    parser.add_argument("--unit", type=int, default=1, help="Modbus unit id (%(default)s)")
    parser.add_argument(
        "--address", type=int, default=0, help="of the block's first register (%(default)s)"
    )
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    logging.getLogger("pymodbus").setLevel(logging.CRITICAL)  # we say it once, not at each beat
    run(parser.parse_args())


if __name__ == "__main__":
    main()
