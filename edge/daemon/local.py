"""A daemon as a child process, beside `edge.mqtt.brokers.LocalBroker`: for demo and benchmark.

It runs with a shipped device config and the reference deployment, on a broker of this machine.
"""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Final, Self

from edge.errors import EdgeError
from edge.shipped import path as shipped

CONFIG: Final = "device_configs/x86-cpu.toml"
DEPLOYMENT: Final = "models/pcb/deployment"
_STOP_S: Final = 10.0
_LOG_LINES: Final = 15


class DaemonEndedError(EdgeError):
    """The daemon ended by itself; its last log lines say why."""


class LocalDaemon:
    """`edge run` as a child process; `async with` starts it and stops it by SIGTERM.

    Args:
        port: The broker's port on 127.0.0.1.
        folder: Takes its state and its log; kept by the caller.
        overrides: Further `key=value` settings.
        deployment: Its folder; None: the reference deployment.
    """

    def __init__(
        self,
        port: int,
        folder: Path,
        overrides: tuple[str, ...] = (),
        deployment: Path | None = None,
    ) -> None:
        self._log = folder / "daemon.log"
        self._overrides = (f"broker.port={port}", f"storage.path={folder / 'state'}", *overrides)
        self._deployment = deployment or shipped(DEPLOYMENT)
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Process id of the supervisor; 0 where it does not run."""
        return self._process.pid if self._process else 0

    async def __aenter__(self) -> Self:
        settings = [word for override in self._overrides for word in ("--set", override)]
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "edge.mqtt.leash", str(os.getpid())),
                *(sys.executable, "-m", "edge.cli.main", "run"),
                f"--config={shipped(CONFIG)}",
                f"--deployment={self._deployment}",
                "--allow-unsigned",
                *settings,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for us: we stop it, in our order.
                start_new_session=True,
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(_STOP_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def ended(self) -> None:
        """Wait until it ends by itself, and raise.

        Raises:
            DaemonEndedError: It has ended.
        """
        assert self._process is not None, "entered before"
        status = await self._process.wait()
        lines = self._log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        raise DaemonEndedError("\n".join([f"the daemon ended with status {status}:", *lines]))
