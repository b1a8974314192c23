"""Setting a damaged ledger aside: the line goes on with a new one, and the old one is evidence.

Rules:

1. Nothing of it is changed or copied: its folder gets another name, and lies beside the new one.
2. The new ledger has another name and begins at 1. It is linked to nothing, and the collector says
   so (`new-ledger`). What the old one still owed the cloud lies in it, for `edge ledger export`.
3. There is a limit: a disk that damages one ledger after the other is no place for a next one.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from edge.durable import storage_error, sync_folder
from edge.errors import DamagedError

MAX_ASIDE: Final = 8
_MARK: Final = ".damaged-"


def found(folder: Path) -> list[Path]:
    """Return what was set aside of a ledger's folder, oldest first."""
    try:
        return sorted(folder.parent.glob(f"{folder.name}{_MARK}*"))
    except OSError:
        return []


def set_aside(folder: Path, damage: DamagedError, now: datetime | None = None) -> Path:
    """Rename the folder of a damaged ledger; nobody may have it open.

    Args:
        folder: Of the ledger.
        damage: Why.
        now: UTC.

    Returns:
        Where it lies now.

    Raises:
        DamagedError: Too many lie there already.
        StorageError: It cannot be renamed.
    """
    before = found(folder)
    if len(before) >= MAX_ASIDE:
        raise DamagedError(
            f"{damage}; {len(before)} damaged ledgers lie beside it already: look at the disk, and "
            "move them away"
        ) from damage
    moment = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%S.%fZ")
    target = folder.with_name(f"{folder.name}{_MARK}{moment}")
    try:
        folder.rename(target)
        sync_folder(folder.parent)
    except OSError as failed:
        raise storage_error(f"{damage}; and {folder} cannot be set aside", failed) from failed
    return target
