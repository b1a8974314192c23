"""Plays the walk through docs/updates.md: its commands, in order, in a folder of their own.

`make demo-fleet`. The broker's port is a free one; everything else is as it stands on the page.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from rich.console import Console

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs/updates.md"
DEPLOYMENT: Final = ROOT / "models/pcb/deployment"
_SECTION: Final = re.compile(r"^### (.*?)\n(.*?)(?=^##)", re.MULTILINE | re.DOTALL)
_BLOCK: Final = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


def script(port: int) -> str:
    """The page's commands as one shell script that tells where it is."""
    lines = ["set -eu", "trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT"]
    for title, text in _SECTION.findall(PAGE.read_text()):
        lines.append(f"printf '\\n\\033[1m%s\\033[0m\\n' '{title}'")
        lines += [block.replace("1883", str(port)) for block in _BLOCK.findall(text)]
    return "\n".join(lines)


def play(folder: Path, output: int | None = None, deployment: Path = DEPLOYMENT) -> int:
    """Run it; return the exit status of the first command that failed, or 0.

    Args:
        folder: Where; empty.
        output: Descriptor of the file that takes what is said; None: standard output.
        deployment: What is released and released again.
    """
    shutil.copytree(deployment, folder / "models/pcb/deployment")
    shutil.copytree(ROOT / "device_configs", folder / "device_configs")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path = f"{Path(sys.executable).parent}{os.pathsep}/usr/sbin{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        ["bash", "-c", script(port)],
        cwd=folder,
        env={**os.environ, "PATH": path},
        start_new_session=True,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
    )
    try:
        return process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def main() -> int:
    """Play it in a folder that is removed afterwards."""
    console = Console()
    if not (shutil.which("mosquitto") or Path("/usr/sbin/mosquitto").exists()):
        console.print("[red]Mosquitto is not installed[/red] (Debian: apt-get install mosquitto)")
        return 1
    with tempfile.TemporaryDirectory(prefix="edge-fleet-") as folder:
        status = play(Path(folder))
    ended = "[green]as docs/updates.md says[/green]" if status == 0 else f"[red]{status}[/red]"
    console.print(f"\nended: {ended}")
    return status


if __name__ == "__main__":
    sys.exit(main())
