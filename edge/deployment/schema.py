"""Words that manifests and model cards have in common, and how both are read.

Deliberately not here: what a manifest or a card says (`manifest`, `card`), and files (`files`).
"""

import tomllib
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.config import explain
from edge.errors import DeploymentError

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256, lower-case hex.")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
FilePath = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$",
        max_length=200,
        description="Path below the folder, parts joined by /, none starting with a dot.",
    ),
]


class Strict(BaseModel):
    """Base of all tables: unknown keys are refused, nothing is coerced, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Pinned(Strict):
    """A file of the deployment folder."""

    path: FilePath
    sha256: Sha256


T = TypeVar("T", bound=Strict)


def parse(content: bytes, model: type[T], where: str) -> T:
    """Read a TOML document into its model.

    Args:
        content: The file as it lies on disk.
        model: The class of the whole document.
        where: Names the file in errors.

    Raises:
        DeploymentError: It is not UTF-8, not TOML, or not what the model asks for; the message
            lists every finding with its key.
    """
    return validate(document(content, where), model, where)


def document(content: bytes, where: str) -> dict[str, Any]:
    """Read TOML.

    Raises:
        DeploymentError: It is not UTF-8 or not TOML.
    """
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError as failed:
        raise DeploymentError(f"{where}: is not UTF-8: {failed}") from failed
    except tomllib.TOMLDecodeError as failed:
        raise DeploymentError(f"{where}: is not TOML: {failed}") from failed
    except RecursionError:
        raise DeploymentError(f"{where}: tables or arrays are nested too deeply") from None


def validate(found: dict[str, Any], model: type[T], where: str) -> T:
    """Hold a document to its model.

    Raises:
        DeploymentError: It is not what the model asks for; every finding with its key.
    """
    try:
        return model.model_validate(found)
    except ValidationError as invalid:
        raise DeploymentError(f"{where}: {explain(invalid)}") from None
