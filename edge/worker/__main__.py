"""Entry of a worker process: `python -m edge.worker FD`. Started by the supervisor only."""

import os
import signal
import socket
import sys

from edge.worker.channel import WorkerEnd
from edge.worker.engine_loop import work


def main() -> int:
    """Serve the supervisor at the other end of the inherited socket."""
    # Signals go to the supervisor, which tells its workers; a terminal's Ctrl-C reaches both.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        try:
            return work(WorkerEnd(connection))
        except BrokenPipeError:
            return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Native threads of ONNX Runtime and the epoch timer need no orderly end: the supervisor waits.
    os._exit(status)
