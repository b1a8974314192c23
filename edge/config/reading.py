"""From a TOML file and `--set` values to a config, or to an error that names every finding."""

import copy
import difflib
import tomllib
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from edge.config.sections import NAME, DeviceConfig, Section
from edge.errors import ConfigError

MAX_FILE_BYTES: Final = 1 << 20
"""Largest device config; a real one has 2 KiB."""
_MAX_SHOWN: Final = 80
_WHERE: Final = "name a file by --config; device_configs/ has one for each kind of box"
_REMEDY: Final = (
    "correct it and run `edge check --config FILE`; docs/configuration.md lists all keys"
)

_TOML_WORDS: Final = {
    "model_type": "a table",
    "dict_type": "a table",
    "tuple_type": "an array",
    "list_type": "an array",
    "path_type": "a path in quotes",
}
"""What pydantic calls by the names of Python."""
_IN_WORDS: Final = {
    NAME: "should be 1 to 64 letters, digits, - and _, a letter or a digit first",
}
"""Patterns that people meet."""

ConfigT = TypeVar("ConfigT", bound=Section)


def load(path: Path, overrides: tuple[str, ...] = ()) -> DeviceConfig:
    """Read a device config and lay `--set key.path=value` overrides over it.

    Args:
        path: The TOML file.
        overrides: Each `key.path=value`; the value is TOML, or else taken as a string.

    Raises:
        ConfigError: The file cannot be read, is not TOML, or a key is unknown or out of range.
    """
    return parse(_read_toml(path, _WHERE), str(path), overrides)


def load_as(
    model: type[ConfigT], path: Path, overrides: tuple[str, ...] = (), remedy: str = ""
) -> ConfigT:
    """Read another program's config by the same rules as `load`; `remedy` ends its errors.

    Raises:
        ConfigError: As in `load`.
    """
    return _parse_as(model, _read_toml(path, ""), str(path), overrides, remedy)


def parse(document: dict[str, Any], where: str, overrides: tuple[str, ...] = ()) -> DeviceConfig:
    """Validate a config that is already a dictionary; `where` names it in errors.

    Raises:
        ConfigError: A key is unknown, missing or out of range, or an override is not `key=value`.
    """
    return _parse_as(DeviceConfig, document, where, overrides, _REMEDY)


def _parse_as(
    model: type[ConfigT],
    document: dict[str, Any],
    where: str,
    overrides: tuple[str, ...],
    remedy: str,
) -> ConfigT:
    laid_over = copy.deepcopy(document)
    keys = {lay_over(laid_over, override) for override in overrides}
    try:
        return model.model_validate(laid_over)
    except ValidationError as invalid:
        raise ConfigError(where, explain(invalid, model, keys), remedy) from None


def explain(
    invalid: ValidationError,
    model: type[BaseModel] | None = None,
    overridden: set[str] | frozenset[str] = frozenset(),
) -> str:
    """Say every finding of a validation: key, what was expected, what was found.

    The value of an unknown key is not shown: it may be a secret that was put in the wrong place.

    Args:
        invalid: The findings.
        model: The model of the whole document, for a guess at what an unknown key was meant to be.
        overridden: Dotted keys that came from `--set` and not from the file.
    """
    findings = []
    for error in invalid.errors(include_url=False):
        parts = [str(part) for part in error["loc"]]
        key = ".".join(parts) or "(file)"
        message = error["msg"].removeprefix("Value error, ")
        message = message.replace("Input should", "should").replace("String should", "should")
        match error["type"]:
            case kind if kind in _TOML_WORDS:
                message = f"should be {_TOML_WORDS[kind]}, found {_shortened(error['input'])}"
            case "extra_forbidden":
                message = "unknown key" + (_guess(model, parts) if model else "")
            case "missing":
                message = "is missing"
            case "value_error":
                pass
            case _:
                message = _IN_WORDS.get(error.get("ctx", {}).get("pattern", ""), message)
                message += f", found {_shortened(error['input'])}"
        origin = (
            " (from --set)" if any(f"{key}.".startswith(f"{name}.") for name in overridden) else ""
        )
        findings.append(f"{key}{origin}: {message}")
    return "; ".join(findings)


def _guess(model: type[BaseModel], parts: list[str]) -> str:
    """Name the keys that the last of `parts` may have been meant to be."""
    known: type[BaseModel] | None = model
    for part in parts[:-1]:
        field = known.model_fields.get(part) if known else None
        inner = field.annotation if field else None
        known = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None
    if known is None:
        return ""
    near = difflib.get_close_matches(parts[-1], known.model_fields, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known.model_fields)}"


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "…"


def _read_toml(path: Path, where: str) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as failed:
        raise ConfigError(path, f"cannot be read: {failed.strerror}", where) from failed
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(path, f"is larger than {MAX_FILE_BYTES} bytes", "is it the right file?")
    try:
        # Editors of another system put a byte order mark in front.
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as failed:
        raise ConfigError(path, f"is not UTF-8: {failed}", "save it as UTF-8") from failed
    except tomllib.TOMLDecodeError as failed:
        raise ConfigError(path, f"is not TOML: {failed}", "see toml.io for the syntax") from failed
    except RecursionError:
        raise ConfigError(path, "is not a config: tables or arrays nest too deeply") from None


def lay_over(document: dict[str, Any], override: str) -> str:
    """Put one `key.path=value` into a document and return its key; the value is TOML, or a string.

    Raises:
        ConfigError: It is not of that form, or a part of the path is no table.
    """
    key, equals, text = override.partition("=")
    key = key.strip()
    *parents, last = key.split(".")
    if not equals or not all((*parents, last)):
        raise ConfigError("--set", f"{override!r} is not of the form key.path=value")
    try:
        found = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        found = {}
    table = document
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise ConfigError("--set", f"{key!r}: {parent!r} is not a table")
    table[last] = found["value"] if found.keys() == {"value"} else text.strip()
    return key
