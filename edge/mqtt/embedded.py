"""The embedded broker, a process of its own: `python -m edge.mqtt.embedded --port N`.

amqtt, MQTT 3.1.1, on the loopback only, without passwords or persistence: for demos and tests on a
machine without Mosquitto, and for nothing else. To a CONNECT of MQTT 5 it gives no answer.
"""

import argparse
import asyncio
import logging
import signal

from amqtt.broker import Broker  # type: ignore[import-untyped]

from edge.mqtt.leash import die_with


async def serve(port: int) -> None:
    """Run the broker on 127.0.0.1 until SIGTERM or SIGINT."""
    broker = Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
            "plugins": {
                "amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}
            },
        }
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await broker.start()
    await stop.wait()
    await broker.shutdown()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="TCP port on 127.0.0.1")
    parser.add_argument("--parent", type=int, help="process id to end with")
    arguments = parser.parse_args()
    if arguments.parent is not None:
        die_with(arguments.parent)
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(serve(arguments.port))


if __name__ == "__main__":
    main()
