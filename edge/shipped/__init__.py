"""Where the files lie that edge ships beside its code, in a checkout and in an installed wheel.

They are named by their path in the checkout, such as `device_configs/x86-cpu.toml`. The wheel
carries them below this package (`[tool.hatch.build.targets.wheel.sources]` of pyproject.toml); in a
checkout they stay where people look for them. Nothing is read or copied here.
"""

from pathlib import Path
from typing import Final

from edge.errors import ConfigError

FOLDERS: Final = ("device_configs", "guests", "models/pcb/deployment", "systemd")
"""What is shipped; the wheel's `sources` name the same folders, and a test holds them to it."""

_INSTALLED: Final = Path(__file__).parent
_CHECKOUT: Final = _INSTALLED.parent.parent


def path(name: str) -> Path:
    """Return the absolute path of a shipped file or folder.

    Args:
        name: Its path in the checkout, parts joined by `/`; one of `FOLDERS`, or below one.

    Raises:
        ConfigError: This installation does not have it.
    """
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or not any(
        name == folder or name.startswith(f"{folder}/") for folder in FOLDERS
    ):
        raise ConfigError(name, f"is not below a shipped folder: {', '.join(FOLDERS)}")
    places = [_INSTALLED]
    if (_CHECKOUT / "pyproject.toml").is_file():
        places.append(_CHECKOUT)
    for place in places:
        if (found := place.joinpath(*parts)).exists():
            return found
    raise ConfigError(
        name,
        f"is not in this installation (looked in {' and '.join(map(str, places))})",
        "install the wheel again, or restore the file by `git checkout`",
    )
