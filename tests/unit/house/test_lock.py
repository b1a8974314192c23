"""The lock holds what is declared, exactly, and by hash: what can be said without a network."""

import re
import tomllib
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parent.parent.parent.parent
LOCKS: Final = ("requirements.lock", "scripts/guest_toolchains.lock")
_PIN: Final = re.compile(r"([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?==(\S+)")
_HASH: Final = re.compile(r"--hash=sha256:[0-9a-f]{64}$")


def blocks(text: str) -> list[str]:
    """The lock's entries, each with its hashes on one line, without comments."""
    bare = "\n".join(row for row in text.splitlines() if not row.lstrip().startswith("#"))
    return [each for each in bare.replace("\\\n", " ").splitlines() if each.strip()]


def unpinned(text: str) -> list[str]:
    """Entries that are no exact version, or whose files are not all known by hash."""
    return [
        each
        for each in blocks(text)
        if not _PIN.match(each)
        or "--hash=" not in each
        or not all(_HASH.match(word) for word in each.split() if word.startswith("--hash"))
    ]


@pytest.mark.parametrize("name", LOCKS)
def test_every_entry_is_an_exact_version_with_hashes(name: str) -> None:
    text = (ROOT / name).read_text()
    assert blocks(text)
    assert not unpinned(text)


def test_every_dependency_is_locked_within_its_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    versions: dict[str, list[str]] = {}
    for each in blocks((ROOT / "requirements.lock").read_text()):
        if match := _PIN.match(each):
            versions.setdefault(canonicalize_name(match[1]), []).append(match[2].rstrip(";"))
    for text in wanted:
        requirement = Requirement(text)
        locked = versions.get(canonicalize_name(requirement.name), [])
        assert locked, f"{text} is not locked: make lock"
        for version in locked:
            assert requirement.specifier.contains(version), f"{text}, locked {version}: make lock"


@pytest.mark.parametrize(
    "entry",
    ["numpy>=2 --hash=sha256:" + "0" * 64, "numpy==2.2", "numpy==2.2 --hash=md5:00", "git+x"],
)
def test_control_what_is_not_pinned_is_found(entry: str) -> None:
    assert unpinned(entry) == [entry]
