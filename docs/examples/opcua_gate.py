#!/usr/bin/env -S uv run --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["asyncua>=1.1,<3", "paho-mqtt>=2.1,<3", "pymodbus>=3.11,<4"]
# ///
"""A gate for a PLC or a SCADA that speaks OPC UA: edge's verdicts as variables of a server.

    uv run docs/examples/opcua_gate.py --endpoint opc.tcp://0.0.0.0:4840/edge --broker 192.168.1.10

The rules, and all of the box's side, are those of modbus_gate.py beside it: silence is not pass.
The variable `Block` under Objects/Gate (namespace `urn:edge:gate`, node id `s=Gate.Block`) is an
array of UInt16 with the layout of its registers: one value, so nobody ever reads the verdict of one
part beside the id of another.

Clients may read and not write. There is no encryption and no user here: give the server and its
clients a network of their own, or add a policy and a certificate (asyncua's documentation).
"""

import argparse
import asyncio
import logging
import queue
import signal
import time
from typing import Any

from asyncua import Server, ua
from modbus_gate import add_arguments, gate_of, heard, log, take_next

NAMESPACE = "urn:edge:gate"


async def serve(words: argparse.Namespace) -> None:
    """Serve until a signal; what is left then is stop."""
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    server = Server()
    await server.init()
    server.set_endpoint(words.endpoint)
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    space = await server.register_namespace(NAMESPACE)
    folder = await server.nodes.objects.add_object(ua.NodeId("Gate", space), "Gate")
    gate = gate_of(words)

    def block() -> ua.Variant:
        return ua.Variant(gate.registers(time.monotonic()), ua.VariantType.UInt16)

    shown = await folder.add_variable(ua.NodeId("Gate.Block", space), "Block", block())
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    client = heard(words, inbox)
    async with server:
        log.warning("serves Objects/Gate/Block on %s", words.endpoint)
        try:
            while not stopped.is_set():
                await asyncio.to_thread(take_next, gate, inbox, words.beat_ms / 1e3)
                await shown.write_value(block())
        finally:
            gate.silence()
            await shown.write_value(block())
            client.disconnect()
            client.loop_stop()


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument(
        "--endpoint", default="opc.tcp://0.0.0.0:4840/edge", help="where to serve (%(default)s)"
    )
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    logging.getLogger("asyncua").setLevel(logging.ERROR)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
