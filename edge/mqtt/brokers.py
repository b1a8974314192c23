"""A broker of our own, for demos, replays and tests: Mosquitto where there is one, else amqtt.

A child process on 127.0.0.1, with its files in a temporary folder. It ends with the `async with`
block, and with this process, however that ends. Not for production: plants have their broker.
"""

import asyncio
import contextlib
import importlib.metadata
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, Self

from edge.config import TlsSection
from edge.errors import TransportError
from edge.mqtt import security

Kind = Literal["mosquitto", "embedded"]

START_S: Final = 15.0
"""A cold Python with amqtt takes two seconds on a slow box; Mosquitto a tenth."""
PROBE_S: Final = 1.0
"""How long one look may take."""
STOP_S: Final = 5.0
PORT_ATTEMPTS: Final = 5
SEARCH: Final = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/sbin"
# CONNECT of MQTT 3.1.1: protocol name, level 4, clean session, keepalive 10 s, client id "ready".
_CONNECT: Final = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x0a\x00\x05ready"
_CONNACK: Final = 0x20


def find_mosquitto() -> str | None:
    """Return the path of the Mosquitto program; None where it is not installed."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path=SEARCH)


class LocalBroker:
    """A broker as a child process, started and stopped by `async with`.

    Args:
        kind: Which program; `auto` takes Mosquitto where it is installed.
        port: TCP port on 127.0.0.1; 0: a free one, kept over restarts.
        persist: Keep sessions and messages over a restart, even after a kill (Mosquitto only).
        nodelay: TCP_NODELAY on the broker's side; off only to measure what it is worth.
        anonymous: Admit clients without a user name.
        settings: Further lines for Mosquitto's configuration, after those of the listener.
        tls: How to connect, where `settings` make it a TLS listener.

    Attributes:
        host: Where it listens; `localhost` with TLS, for the certificate's sake.
        kind: The program that runs.
        version: Its version.
        folder: Its files, while the block lasts.

    Raises:
        TransportError: On start: it is not installed, or does not answer; with its own words.
    """

    def __init__(
        self,
        *,
        kind: Literal["auto", "mosquitto", "embedded"] = "auto",
        port: int = 0,
        persist: bool = False,
        nodelay: bool = True,
        anonymous: bool = True,
        settings: Sequence[str] = (),
        tls: TlsSection | None = None,
    ) -> None:
        self._program = find_mosquitto() if kind != "embedded" else None
        if kind == "mosquitto" and self._program is None:
            raise TransportError(
                "Mosquitto is not installed: install it, or use the embedded broker"
            )
        self.kind: Kind = "mosquitto" if self._program else "embedded"
        self.host = "localhost" if tls else "127.0.0.1"
        self.port = port
        self.version = ""
        self._fixed_port = port != 0
        self._persist = persist
        self._nodelay = nodelay
        self._anonymous = anonymous
        self._settings = tuple(settings)
        self._tls = tls
        self._process: subprocess.Popen[bytes] | None = None
        self._stack = contextlib.ExitStack()
        self.folder = Path()

    async def __aenter__(self) -> Self:
        """Start it; on return it answers CONNECT."""
        try:
            self.folder = Path(
                self._stack.enter_context(
                    tempfile.TemporaryDirectory(prefix="edge-broker-", ignore_cleanup_errors=True)
                )
            )
            self.version = await self._read_version()
            await self.start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop it and remove its files."""
        try:
            await self.stop()
        finally:
            self._stack.close()

    @property
    def pid(self) -> int:
        """Process id of the running broker."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it, also again after `stop` or `kill`, on the same port.

        Raises:
            TransportError: It does not answer CONNECT in time, or has ended.
        """
        for attempt in range(PORT_ATTEMPTS):
            try:
                self.port = _claim(self.port)
                await self._start_once()
            except TransportError as failed:
                await self.kill()
                # Another process may have taken the free port before the broker did.
                taken = "in use" in str(failed) and not self._fixed_port
                if not taken or attempt == PORT_ATTEMPTS - 1:
                    raise
                self.port = 0
            else:
                self._fixed_port = True
                return

    async def stop(self) -> None:
        """Stop it in good order: Mosquitto then saves what it persists."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self._process.wait, STOP_S)
        await self.kill()

    async def kill(self) -> None:
        """End it at once (SIGKILL), as a power cut would."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            await asyncio.to_thread(process.wait)

    def output(self) -> str:
        """Return what it has printed, at most the last 4,000 characters."""
        try:
            return (self.folder / "output").read_text(errors="replace")[-4_000:]
        except OSError:
            return ""

    async def _start_once(self) -> None:
        process = self._process = self._spawn()
        try:
            async with asyncio.timeout(START_S):
                while not await self._answers():
                    if (ended := process.poll()) is not None:
                        raise TransportError(
                            f"the {self.kind} broker ended with {ended}: {self.output().strip()}"
                        )
                    await asyncio.sleep(0.02)  # between two looks, until START_S
        except TimeoutError:
            raise TransportError(
                f"the {self.kind} broker on {self.host}:{self.port} gave no answer in "
                f"{START_S:g} s: {self.output().strip()}"
            ) from None

    def _spawn(self) -> subprocess.Popen[bytes]:
        # On this thread, which lasts: the kernel ties the leash to it (prctl(2), PR_SET_PDEATHSIG).
        with (self.folder / "output").open("wb") as output:
            return subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # The broker gets no signals meant for us (Ctrl-C): we stop it, in our order.
                start_new_session=True,
            )

    def _command(self) -> list[str]:
        parent = str(os.getpid())
        if self._program is None:
            python = [sys.executable, "-m", "edge.mqtt.embedded"]
            return [*python, "--port", str(self.port), "--parent", parent]
        path = self.folder / "mosquitto.conf"
        path.write_text("\n".join(self._configuration()) + "\n")
        leash = [sys.executable, "-m", "edge.mqtt.leash", parent]
        return [*leash, self._program, "-c", str(path)]

    def _configuration(self) -> list[str]:
        lines = [
            "log_dest stderr",
            "log_type error",
            "log_type warning",
            "log_type notice",
            f"set_tcp_nodelay {str(self._nodelay).lower()}",
            "max_queued_messages 2000",  # for each session; of frames that is about 100 MB
            "max_inflight_messages 64",
            f"persistence {str(self._persist).lower()}",
        ]
        if os.geteuid() == 0:
            lines.append("user root")  # else it drops to a user that cannot read our folder
        if self._persist:
            # Save after each change: a killed Mosquitto loses what it has not saved.
            lines += [
                f"persistence_location {self.folder}/",
                "autosave_on_changes true",
                "autosave_interval 1",
            ]
        return [
            *lines,
            f"listener {self.port} 127.0.0.1",
            f"allow_anonymous {str(self._anonymous).lower()}",
            *self._settings,
        ]

    async def _answers(self) -> bool:
        """Whether it answers a CONNECT with a CONNACK, be it a refusal."""
        try:
            context = security.tls_context(self._tls) if self._tls else None
            async with asyncio.timeout(PROBE_S):
                reader, writer = await asyncio.open_connection(self.host, self.port, ssl=context)
                try:
                    writer.write(_CONNECT)
                    answer = await reader.read(4)
                    writer.write(b"\xe0\x00")  # DISCONNECT
                finally:
                    writer.close()
                    with contextlib.suppress(OSError, ssl.SSLError):
                        await writer.wait_closed()
        except OSError:
            return False
        return answer[:1] == bytes([_CONNACK])

    async def _read_version(self) -> str:
        if self._program is None:
            return importlib.metadata.version("amqtt")
        printed = await asyncio.to_thread(
            subprocess.run, [self._program, "-h"], capture_output=True, check=False, timeout=STOP_S
        )
        match = re.search(rb"version ([0-9][0-9.]*)", printed.stdout)
        return match[1].decode() if match else "unknown"


def _claim(port: int) -> int:
    """Return the port, or a free one for 0; refuse one where another program answers."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # past our own last run
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as taken:
            raise TransportError(
                f"no broker on 127.0.0.1:{port}: {taken.strerror}; choose another port"
            ) from taken
        claimed: int = probe.getsockname()[1]
        return claimed
