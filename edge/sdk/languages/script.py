"""Python and JavaScript, for the role `decide`: an interpreter and the source, in one component.

Both toolchains run the script once while they build, and keep the image of its memory. That image
holds seeds which they draw, so a second build gives other bytes, and the same verdicts.
"""

import os
import shutil
import sysconfig
from pathlib import Path
from typing import Final

from edge import shipped
from edge.sdk.languages.language import (
    Language,
    Source,
    ToolchainMissingError,
    beside_this_python,
    npm_command,
    run_compiler,
)

_WIT: Final = "guests/sdk/script/policy.wit"
_WORLD: Final = "stateful-script"
_PYTHON: Final = "pip install componentize-py==0.25.1"
REQUIREMENT_JAVASCRIPT: Final = "componentize-qjs@0.4.5"
_JAVASCRIPT: Final = f"npm install {REQUIREMENT_JAVASCRIPT}"


def find_python() -> list[str]:
    """The command that runs componentize-py.

    Raises:
        ToolchainMissingError: It is neither beside this Python nor in the PATH.
    """
    beside = os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", "")))
    found = shutil.which("componentize-py", path=beside)
    if found is None:
        raise ToolchainMissingError(
            f"componentize-py is not installed: {beside_this_python(_PYTHON)}"
        )
    return [found]


def find_javascript() -> list[str]:
    """The command that runs componentize-qjs.

    Raises:
        ToolchainMissingError: It is not installed.
    """
    return [npm_command("componentize-qjs", _JAVASCRIPT)]


def compile_python(source: Source, target: Path) -> None:
    """Make a component of one Python file and the SDK's `edge_script.py`.

    Raises:
        BuildError: The toolchain is missing, or refused it.
    """
    folder = _lay_out(source, target, "python/edge_script.py", "policy_source.py")
    command = [*find_python(), "--quiet", "--wit-path", str(shipped.path(_WIT)), "--world", _WORLD]
    command += ["componentize", "--stub-wasi", "--python-path", str(folder)]
    # No folder of this Python's own packages is searched: what a script imports lies beside it.
    run_compiler(
        [*command, "policy_source", "--output", str(target.resolve())],
        folder / "policy_source.py",
        {"VIRTUAL_ENV": str(folder), "PYTHONHASHSEED": "0"},
    )


def compile_javascript(source: Source, target: Path) -> None:
    """Make a component of one JavaScript file and the SDK's `edge_script.js`.

    Raises:
        BuildError: The toolchain is missing, or refused it.
    """
    folder = _lay_out(source, target, "javascript/edge_script.js", source.file.name)
    command = [*find_javascript(), "--wit", str(shipped.path(_WIT)), "--world", _WORLD]
    command += ["--sync", "--stub-wasi", "--module-root", str(folder)]
    run_compiler(
        [*command, "--js", source.file.name, "--output", str(target.resolve())],
        folder / source.file.name,
    )


def _lay_out(source: Source, target: Path, sdk: str, name: str) -> Path:
    """A folder with the source and the SDK's module side by side, in the build's own folder."""
    folder = target.resolve().parent / "source"
    folder.mkdir()
    shutil.copyfile(source.file, folder / name)
    shutil.copyfile(shipped.path(f"guests/sdk/script/{sdk}"), folder / Path(sdk).name)
    return folder


PYTHON: Final = Language(
    name="python",
    title="Python",
    suffix="py",
    install=_PYTHON,
    find=find_python,
    compile=compile_python,
    memory_mib={"decide": 64},
    reproducible=False,
)
JAVASCRIPT: Final = Language(
    name="javascript",
    title="JavaScript",
    suffix="js",
    install=_JAVASCRIPT,
    find=find_javascript,
    compile=compile_javascript,
    memory_mib={"decide": 16},
    reproducible=False,
)
