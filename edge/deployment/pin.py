"""Brings a deployment folder up to date with its sources: copies, then digests, in one command.

    python -m edge.deployment.pin FOLDER [SOURCE ...] [--check]

Each source replaces the file of the same name that the manifest pins (or that a card names as the
pinned variant); `PLACE=SOURCE` says which one is meant where several have its name. Then the
manifest's `sha256` values are written anew, and nothing else of it: comments and layout stay. At
the end the folder is loaded as a device would load it. `--check` writes nothing and exits with 1
where something would change.

Deliberately not here: raising the revision. That a deployment is another one is a person's word.
"""

import argparse
import copy
import hashlib
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final

from edge import durable
from edge.deployment import files, pins
from edge.deployment.card import Card
from edge.deployment.folder import load_folder
from edge.deployment.manifest import Manifest
from edge.deployment.pins import MANIFEST, MAX_TEXT_BYTES
from edge.deployment.schema import document, parse, validate
from edge.errors import DeploymentError, EdgeError

_BLOCKS: Final = re.compile(r"^(?=[ \t]*\[)", re.MULTILINE)
_INLINE: Final = re.compile(r"\{[^{}\n]*\}")
_PATH: Final = re.compile(
    r"""(?:^|(?<=[{,\n]))[ \t]*path[ \t]*=[ \t]*(?:"([^"\n]*)"|'([^'\n]*)')"""
)
_DIGEST: Final = re.compile(r"""((?:^|(?<=[{,\n]))[ \t]*sha256[ \t]*=[ \t]*)["'][^"'\n]*["']""")


def pin(folder: Path, sources: Sequence[Path | str] = (), *, write: bool = True) -> list[str]:
    """Refresh the copies and digests of a deployment folder.

    Args:
        folder: Holds `manifest.toml`; its `sha256` values may be anything.
        sources: Files to take over, matched by name to what is pinned; or `PLACE=FILE`, the place
            being a path below the folder.
        write: False: only say what would change.

    Returns:
        Paths below the folder that changed, or would.

    Raises:
        DeploymentError: A source is pinned nowhere or in two places, or the folder is unsound
            after it was refreshed.
    """
    content = files.read(folder, MANIFEST, MAX_TEXT_BYTES)
    found = document(content, str(folder / MANIFEST))
    manifest = _manifest_without_digests(folder, found)
    fresh = dict(map(_placed, sources))
    if len(fresh) != len(sources):
        raise DeploymentError(f"{folder}: two sources have the same name (say PLACE=FILE)")
    contents = _contents(folder, manifest, fresh)
    _refuse_strangers(folder, fresh, contents)
    contents[MANIFEST] = _repinned(folder, content.decode(), found, contents).encode()
    changed = [path for path, content in contents.items() if _differs(folder / path, content)]
    if write:
        for path in changed:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            durable.replace(folder / path, contents[path], 0o644)
        load_folder(folder)
    return changed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m edge.deployment.pin")
    parser.add_argument("folder", type=Path, help="deployment folder")
    parser.add_argument("sources", nargs="*", help="files to take over, by name or as PLACE=FILE")
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if out of date")
    chosen = parser.parse_args(arguments)
    try:
        changed = pin(chosen.folder, chosen.sources, write=not chosen.check)
        if not chosen.check or not changed:
            load_folder(chosen.folder)
    except EdgeError as failed:
        sys.stderr.write(f"{failed}\n")
        return 1
    for path in changed:
        verb = "is out of date" if chosen.check else "was renewed"
        sys.stdout.write(f"{chosen.folder / path} {verb}\n")
    return 1 if chosen.check and changed else 0


def _manifest_without_digests(folder: Path, found: dict[str, Any]) -> Manifest:
    """Read the manifest whatever its digests are: they are what is to be written."""
    blank = copy.deepcopy(found)
    for table in _pins_in(blank):
        table["sha256"] = "0" * 64
    return validate(blank, Manifest, str(folder / MANIFEST))


def _contents(folder: Path, manifest: Manifest, fresh: dict[str, Path]) -> dict[str, bytes]:
    """What every pinned file is to hold, by its path below the folder."""
    contents: dict[str, bytes] = {}
    for each in pins.of_manifest(manifest):
        contents[each.path] = _content(folder, each.path, fresh, each.max_bytes)
    cards = {
        model.card.path: parse(contents[model.card.path], Card, str(folder / model.card.path))
        for pipeline in manifest.pipelines.values()
        for _, model in pipeline.models
    }
    for each in pins.of_cards(manifest, cards):
        contents[each.path] = _content(folder, each.path, fresh, each.max_bytes)
        _hold_to_card(each.path, each.sha256, contents[each.path])
    return contents


def _placed(source: Path | str) -> tuple[str, Path]:
    """A source with the name or path below the folder that it is for."""
    place, _, file = str(source).rpartition("=")
    return place or Path(file).name, Path(file)


def _content(folder: Path, path: str, fresh: dict[str, Path], limit: int) -> bytes:
    source = fresh.get(path, fresh.get(PurePosixPath(path).name))
    if source is None:
        return files.read(folder, path, limit)
    return files.read(source.absolute().parent, source.name, limit)


def _hold_to_card(path: str, expected: str, content: bytes) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise DeploymentError(
            f"{path}: the card pins sha256 {expected}, the file has {found} "
            "(write the card anew for this model)"
        )


def _refuse_strangers(folder: Path, fresh: dict[str, Path], contents: dict[str, bytes]) -> None:
    names = [*contents, *(PurePosixPath(path).name for path in contents if "/" in path)]
    for name, source in fresh.items():
        if names.count(name) != 1:
            raise DeploymentError(
                f"{source}: {folder / MANIFEST} pins {names.count(name)} files of this name; "
                f"it pins {', '.join(sorted(names))}"
            )


def _repinned(folder: Path, text: str, found: dict[str, Any], contents: dict[str, bytes]) -> str:
    """The manifest with every digest written anew, proved to differ in nothing else."""
    digests = {path: hashlib.sha256(content).hexdigest() for path, content in contents.items()}
    renewed = "".join(
        _edit(_INLINE.sub(lambda match: _edit(match[0], digests), block), digests)
        for block in _BLOCKS.split(text)
    )
    expected = copy.deepcopy(found)
    for table in _pins_in(expected):
        table["sha256"] = digests[table["path"]]
    if document(renewed.encode(), str(folder / MANIFEST)) != expected:
        raise DeploymentError(
            f"{folder / MANIFEST}: cannot be edited line by line; write each pin as two lines, "
            'path = "..." and sha256 = "...", or as one inline table on one line'
        )
    return renewed


def _pins_in(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every table of a manifest that pins a file."""
    values: list[Any] = [found]
    for value in values:  # grows as it goes
        if isinstance(value, dict):
            if "path" in value and "sha256" in value:
                yield value
            # A guest's parameters are its own, whatever they look like.
            values.extend(child for key, child in value.items() if key != "parameters")
        elif isinstance(value, list):
            values.extend(value)


def _edit(block: str, digests: dict[str, str]) -> str:
    """Renew the digest of a table (or inline table) that has one path and one digest."""
    bare = block if block.startswith("{") else _INLINE.sub("", block)
    paths = [double or single for double, single in _PATH.findall(bare)]
    if len(paths) != 1 or paths[0] not in digests or len(_DIGEST.findall(bare)) != 1:
        return block
    return _DIGEST.sub(lambda match: f'{match[1]}"{digests[paths[0]]}"', block)


def _differs(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() != content
    except FileNotFoundError:
        return True


if __name__ == "__main__":
    sys.exit(main())
