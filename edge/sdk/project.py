"""A guest's project folder: made from a template, described by `guest.toml`, built by Zig.

Zig is both compilers, of C and of Zig, from one Python wheel, and gives the same bytes wherever it
runs. It is a development tool: nothing that runs guests needs it.
"""

import importlib.util
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Final, Literal

import msgspec

from edge import shipped
from edge.errors import ConfigError, EdgeError

PROJECT: Final = "guest.toml"
ZIGLANG: Final = "ziglang==0.17.1"
"""What pyproject.toml pins: another version may give other bytes."""

Language = Literal["c", "zig"]
LANGUAGES: Final[tuple[Language, ...]] = ("c", "zig")
_MEMORY_MIB: Final = {"preprocess": 64, "postprocess": 16, "decide": 1}
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,39}")
_BUILD_S: Final = 300

C_FLAGS: Final = (
    "--target=wasm32-freestanding",
    "-mcpu=lime1+simd128+bulk_memory",
    "-std=c17",
    "-O3",
    "-g0",
    "-ffreestanding",
    "-ffp-contract=off",
    "-nostdlib",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wl,--no-entry",
    "-Wl,--strip-all",
    "-Wl,-z,stack-size=65536",
)
"""Those of the reference guests (guests/build.py); a test compares."""

ZIG_FLAGS: Final = (
    "-target",
    "wasm32-freestanding",
    "-mcpu=lime1+simd128+bulk_memory",
    "-O",
    "ReleaseFast",
    "-fstrip",
    "-fno-entry",
    "-rdynamic",
    "--stack",
    "65536",
)


class Project(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `guest.toml` says.

    Attributes:
        source: File in the project's folder.
        memory_mib: Minimum and maximum of the module's memory at once.
    """

    name: str
    language: Language
    source: str
    memory_mib: int


class BuildError(EdgeError):
    """The compiler is missing, or refused the source; its own output is in the sentence."""


def make(name: str, language: Language, role: str, folder: Path) -> Path:
    """Write a project that builds and passes its vectors.

    Args:
        name: Of the guest and of its source: a-z, 0-9 and -, a letter first.
        language: Which template.
        role: One of `abi.ROLES`.
        folder: Where the project's folder, called `name`, is made.

    Returns:
        The project's folder.

    Raises:
        ConfigError: The name is none, or the folder exists: nothing is ever overwritten.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(name, "expected 1..40 characters a-z, 0-9 and -, a letter first")
    target = folder / name
    source = f"{name}.{language}"
    template = shipped.path(f"guests/templates/{language}/{role}/guest.{language}")
    vectors = sorted(shipped.path(f"guests/templates/vectors/{role}").iterdir())
    readme = shipped.path("guests/templates/README.md").read_text(encoding="utf-8")
    words = {"NAME": name, "ROLE": role, "LANGUAGE": language, "SOURCE": source}
    for word, value in words.items():
        readme = readme.replace(word, value)
    texts = {
        source: template.read_text(encoding="utf-8").replace("NAME", name),
        "README.md": readme.replace("ziglang==PIN", ZIGLANG),
        PROJECT: f'name = "{name}"\nlanguage = "{language}"\nsource = "{source}"\n'
        f"memory_mib = {_MEMORY_MIB[role]} # minimum and maximum at once\n",
        ".gitignore": "*.wasm\n",
        **{f"vectors/{file.name}": file.read_text(encoding="utf-8") for file in vectors},
    }
    try:
        target.mkdir(parents=True)
        (target / "vectors").mkdir()
        for path, text in texts.items():
            (target / path).write_text(text, encoding="utf-8")
    except FileExistsError:
        raise ConfigError(target, "exists; nothing is overwritten", "choose another name") from None
    except OSError as error:
        raise ConfigError(target, f"cannot be written: {error.strerror}") from error
    return target


def read(folder: Path) -> Project:
    """Read a project.

    Raises:
        ConfigError: There is no `guest.toml`, or it says something else than a project.
    """
    file = folder / PROJECT
    try:
        project = msgspec.convert(tomllib.loads(file.read_text(encoding="utf-8")), Project)
    except OSError as error:
        raise ConfigError(file, f"{error.strerror}", "edge guest new makes a project") from error
    except (ValueError, msgspec.ValidationError) as error:
        raise ConfigError(file, str(error)) from error
    if not _NAME.fullmatch(project.name) or not 1 <= project.memory_mib <= 1024:  # noqa: PLR2004
        raise ConfigError(file, "name: a-z, 0-9 and -; memory_mib: 1..1024")
    return project


def build(folder: Path) -> Path:
    """Compile a project.

    Returns:
        The module, `NAME.wasm` in the project's folder; replaced whole, or not at all.

    Raises:
        ConfigError: It is no project.
        BuildError: The compiler is not installed, or refused the source.
    """
    project = read(folder)
    if importlib.util.find_spec("ziglang") is None:
        raise BuildError(f"the compiler is not installed: pip install {ZIGLANG}")
    target = folder / f"{project.name}.wasm"
    with tempfile.TemporaryDirectory(dir=folder, prefix=".build-") as aside:
        built = Path(aside).resolve() / target.name
        command = [sys.executable, "-m", "ziglang", *_arguments(project, built)]
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=_BUILD_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise BuildError(f"{folder}: the compiler took longer than {_BUILD_S} s") from None
        if done.returncode != 0:
            raise BuildError(f"{folder / project.source}: not compiled:\n{done.stderr.strip()}")
        built.replace(target)
    return target


def _arguments(project: Project, built: Path) -> list[str]:
    size = project.memory_mib << 20
    if project.language == "zig":
        sdk = shipped.path("guests/sdk/zig/edge.zig")
        limits = [f"--initial-memory={size}", f"--max-memory={size}"]
        cache = ["--cache-dir", str(built.parent / "cache")]
        modules = ["--dep", "edge", f"-Mroot={project.source}", f"-Medge={sdk}"]
        return ["build-exe", *ZIG_FLAGS, *limits, *cache, *modules, f"-femit-bin={built}"]
    limits = [f"-Wl,--initial-memory={size}", f"-Wl,--max-memory={size}"]
    include = f"-I{shipped.path('guests/sdk/c')}"
    return ["cc", *C_FLAGS, *limits, include, "-o", str(built), project.source]
