"""What a language is to the SDK, and how its compiler is run."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from edge.contracts import abi
from edge.errors import EdgeError

_BUILD_S: Final = 300
"""The longest that one run of a compiler may take."""


class BuildError(EdgeError):
    """The compiler refused the source, or is missing; its own output is in the sentence."""


class ToolchainMissingError(BuildError):
    """There is no compiler; the sentence says how to install it."""


class Source(msgspec.Struct, frozen=True):
    """What is compiled.

    Attributes:
        file: The source, in its project's folder; one file.
        memory_mib: Minimum and maximum of the module's memory at once.
    """

    file: Path
    memory_mib: int

    @property
    def memory_bytes(self) -> int:
        """The memory in bytes."""
        return self.memory_mib << 20


class Language(msgspec.Struct, frozen=True):
    """A row of the table.

    Attributes:
        name: What `--lang` takes, and the folder below `guests/templates`.
        title: As people write it.
        suffix: Of its sources, without the dot.
        install: How to install the toolchain, in one line.
        find: Raises `ToolchainMissingError`, with `install` in it, where the toolchain is missing.
        compile: Compiles a source into a file; raises `BuildError`. Whatever it writes beside the
            target lies in the target's folder, which is the build's own.
        memory_mib: The memory that a new project starts with, for each role that it serves.
        reproducible: Whether a build gives the same bytes in any folder.
    """

    name: str
    title: str
    suffix: str
    install: str
    find: Callable[[], object]
    compile: Callable[[Source, Path], None]
    memory_mib: Mapping[str, int]
    reproducible: bool = True

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that it can serve, in the ABI's order."""
        return tuple(role for role in abi.ROLES if role in self.memory_mib)


def beside_this_python(install: str) -> str:
    """What to type for `pip install REQUIREMENT`, by how edge itself was installed.

    The environments of pipx, of `uv tool` and of the Debian package have no pip, and one that is
    found elsewhere installs elsewhere.
    """
    requirement = install.removeprefix("pip install ")
    home = Path(sys.prefix)
    if (home / "pipx_metadata.json").exists():
        return f"pipx inject edge-verdict {requirement}"
    if (home / "uv-receipt.toml").exists():
        return f"uv tool install --with {requirement} WHEEL, as edge was installed"
    if (home / "state-format").exists():
        return f"not on a box; where edge was installed from its wheel: {install}"
    return install


def cache_folder(name: str) -> Path:
    """Where a toolchain keeps what every build needs again; made where it is missing.

    Below `$XDG_CACHE_HOME/edge`, which may be emptied at any time.

    Raises:
        BuildError: This user may not write there.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base).absolute() / "edge" / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as failed:
        raise BuildError(
            f"{folder}: cannot be made: {failed.strerror} "
            "(let XDG_CACHE_HOME name a folder that this user may write)"
        ) from failed
    return folder


def npm_command(name: str, install: str) -> str:
    """A command of an npm package.

    It is looked for in each `node_modules` from here upwards, in that of this Python's environment
    (`npm install --prefix .venv`), and on the path.

    Args:
        name: The command.
        install: How to install it, for the error.

    Raises:
        ToolchainMissingError: There is none.
    """
    here = Path.cwd()
    for folder in (here, *here.parents, Path(sys.prefix)):
        if (command := folder / "node_modules/.bin" / name).is_file():
            return str(command)
    if command_on_path := shutil.which(name):
        return command_on_path
    raise ToolchainMissingError(f"{name} is not installed: {install}")


def run_compiler(
    command: list[str], source: Path, environment: Mapping[str, str] | None = None
) -> None:
    """Run a compiler in the folder of its source.

    Args:
        command: Its arguments.
        source: What it is said to compile, in errors.
        environment: Laid over this process's own.

    Raises:
        BuildError: It refused the source, or took too long.
    """
    try:
        done = subprocess.run(
            command,
            cwd=source.parent,
            env={**os.environ, **environment} if environment else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_BUILD_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BuildError(f"{source}: the compiler took longer than {_BUILD_S} s") from None
    if done.returncode != 0:
        output = (done.stderr.strip() + "\n" + done.stdout.strip()).strip()
        raise BuildError(f"{source}: not compiled:\n{output}")
