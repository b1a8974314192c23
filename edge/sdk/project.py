"""A guest's project folder: made from a template, described by `guest.toml`, built in place."""

import json
import re
import tempfile
import tomllib
from pathlib import Path
from typing import Final

import msgspec

from edge import shipped
from edge.errors import ConfigError, IncompatibleError
from edge.sdk.languages import TABLE, Source
from edge.wasm.section import embed

PROJECT: Final = "guest.toml"
SCHEMA: Final = "parameters.json"
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,39}")
_MAX_MEMORY_MIB: Final = 1024


class Project(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `guest.toml` says.

    Attributes:
        language: One of `edge.sdk.languages.TABLE`.
        source: File in the project's folder.
        memory_mib: Minimum and maximum of the module's memory at once.
    """

    name: str
    language: str
    source: str
    memory_mib: int


def make(name: str, language: str, role: str, folder: Path) -> Path:
    """Write a project that builds and passes its vectors.

    Args:
        name: Of the guest and of its source: a-z, 0-9 and -, a letter first.
        language: Which template; one of `edge.sdk.languages.TABLE`.
        role: One of `abi.ROLES`.
        folder: Where the project's folder, called `name`, is made.

    Returns:
        The project's folder.

    Raises:
        ConfigError: The name is none, the language does not serve the role, or the folder exists:
            nothing is ever overwritten.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(name, "expected 1..40 characters a-z, 0-9 and -, a letter first")
    chosen = TABLE[language]
    if role not in chosen.roles:
        others = ", ".join(each.name for each in TABLE.values() if role in each.roles)
        raise ConfigError(
            f"--lang {language}",
            f"serves {', '.join(chosen.roles)}, not {role}",
            f"choose one of {others}",
        )
    target = folder / name
    source = f"{name}.{chosen.suffix}"
    template = shipped.path(f"guests/templates/{language}/{role}/guest.{chosen.suffix}")
    vectors = sorted(shipped.path(f"guests/templates/vectors/{role}").iterdir())
    parameters = shipped.path(f"guests/templates/parameters/{role}.json")
    readme = shipped.path("guests/templates/README.md").read_text(encoding="utf-8")
    words = {
        "NAME": name,
        "ROLE": role,
        "LANGUAGE": chosen.title,
        "SOURCE": source,
        "INSTALL": chosen.install,
    }
    for word, value in words.items():
        readme = readme.replace(word, value)
    texts = {
        source: template.read_text(encoding="utf-8").replace("NAME", name),
        "README.md": readme,
        SCHEMA: parameters.read_text(encoding="utf-8").replace("NAME", name),
        PROJECT: f'name = "{name}"\nlanguage = "{language}"\nsource = "{source}"\n'
        f"memory_mib = {chosen.memory_mib[role]} # minimum and maximum at once\n",
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
    if not _NAME.fullmatch(project.name) or not 1 <= project.memory_mib <= _MAX_MEMORY_MIB:
        raise ConfigError(file, f"name: a-z, 0-9 and -; memory_mib: 1..{_MAX_MEMORY_MIB}")
    if project.language not in TABLE:
        raise ConfigError(file, f"language: {project.language!r}, none of {', '.join(TABLE)}")
    return project


def _carry_schema(schema: Path, built: Path) -> None:
    if not schema.is_file():
        return
    try:
        document = json.loads(schema.read_text(encoding="utf-8"))
        text = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
        built.write_bytes(embed(built.read_bytes(), text))
    except (OSError, ValueError, RecursionError, IncompatibleError) as wrong:
        raise ConfigError(schema, str(wrong), "guests/ABI.md has the language") from wrong


def build(folder: Path) -> Path:
    """Compile a project.

    Returns:
        The module, `NAME.wasm` in the project's folder; replaced whole, or not at all.

    Where the project has a `parameters.json`, the module carries it (guests/ABI.md).

    Raises:
        ConfigError: It is no project, or its parameter schema is none.
        BuildError: The toolchain is not installed, or refused the source.
    """
    project = read(folder)
    target = folder / f"{project.name}.wasm"
    source = Source((folder / project.source).resolve(), project.memory_mib)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".build-") as aside:
        built = Path(aside).resolve() / target.name
        TABLE[project.language].compile(source, built)
        _carry_schema(folder / SCHEMA, built)
        built.replace(target)
    return target
