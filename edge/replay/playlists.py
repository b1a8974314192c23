"""Playlists: of a data set in its variants, of the line simulator, and of a plain folder.

DeepPCB shows defective boards alone. Good ones, and boards with a single defect, are made from
them by pasting the template over annotated defects; only where the pair shows no unexplained
difference (`residual_px` = 0) is the result known to be good.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.errors import ConfigError
from edge.linesim import Camera, Part, boards_of, encode_jpeg, line
from edge.replay.dataset import Row, read_dataset
from edge.replay.parts import JPEG, PNG, Payload, Playlist, ReplayPart, TrueBox, Truth

ERASE_MARGIN_PX: Final = 4
"""Annotations are tight to a pixel or two; the data set's own README erases with this margin."""
REPAIRED_QUALITY: Final = 95
MOST_SIMULATED: Final = 1_000
"""Parts of a simulated playlist: 60 MB of pictures, a quarter of a minute to render."""
CONTENT_TYPES: Final = {".jpg": JPEG, ".jpeg": JPEG, ".png": PNG}

_Grey = NDArray[np.uint8]


class Variant(StrEnum):
    """What is made of a part of the data set."""

    AS_IS = "as-is"
    """The picture as its file holds it."""
    OK = "ok"
    """All defects pasted over; parts that are good anyway are played as they are."""
    NG_SINGLE = "ng-single"
    """All defects but one pasted over."""


def dataset_playlist(
    folder: Path,
    variants: Sequence[Variant] = (Variant.OK, Variant.NG_SINGLE),
    *,
    split: str = "",
    seed: int = 1,
    limit: int | None = None,
) -> Playlist:
    """Parts of a data set, each in all its `variants` that can be made, in seeded order.

    Frames that show one part (column `group`) have its id, and follow each other.

    Raises:
        ConfigError: The folder is not in the data format, or none of the variants can be made.
    """
    rows = read_dataset(folder, split)
    ids = _reference_ids(folder, (row.template for row in rows if row.template is not None))
    parts = [
        part
        for row in rows
        for variant in variants
        if (part := _part(row, variant, seed, ids)) is not None
    ]
    if not parts:
        wanted = ", ".join(variants)
        raise ConfigError(
            folder,
            f"no part can be played as {wanted}",
            "ok and ng-single need templates and boxes",
        )
    parts = _shuffled(parts, seed)[:limit]
    needed = {part.reference_id for part in parts}
    references = {
        name: partial(_read_file, template) for template, name in ids.items() if name in needed
    }
    return Playlist(f"{folder.name}{f' ({split})' if split else ''}", parts, references)


def time_lapse_playlist(folder: Path, *, split: str = "", limit: int | None = None) -> Playlist:
    """Each split of a data set as a series in order of its part ids, its first frame the reference.

    For drift: a score that should rise along the series is compared with time.

    Raises:
        ConfigError: The folder is not in the data format.
    """
    series: dict[str, list[Row]] = {}
    for row in sorted(read_dataset(folder, split), key=lambda row: row.part_id):
        series.setdefault(row.split, []).append(row)
    ids = _reference_ids(folder, (rows[0].image for rows in series.values()))
    parts = [
        ReplayPart(
            row.part_id,
            Truth(row.is_good, None, row.label),
            partial(_read_file, row.image),
            ids[rows[0].image],
            series=name,
        )
        for name, rows in series.items()
        for row in rows
    ]
    references = {name: partial(_read_file, image) for image, name in ids.items()}
    title = f"{folder.name}, {len(series)} series in order of time"
    return Playlist(title, parts[:limit], references)


def simulated_playlist(
    seed: int, frames: int, *, ok_share: float = 0.7, boards: int = 4, camera: Camera | None = None
) -> Playlist:
    """Parts of the simulated line of this seed, rendered at once: about 15 ms and 60 KB each.

    A playlist longer than `MOST_SIMULATED` is the same parts again.

    Raises:
        ValueError: A share or a number of boards outside its range.
    """
    made = line(seed, ok_share, boards, camera)
    parts = [_simulated(part) for part in islice(made, min(frames, MOST_SIMULATED))]
    references = {
        board.reference_id: partial(Payload, encode_jpeg(board.reference(camera)))
        for board in boards_of(seed, boards)
    }
    return Playlist(f"simulated line {seed}", parts, references)


def plain_playlist(folder: Path, reference_id: str = "", limit: int | None = None) -> Playlist:
    """All JPEG and PNG files of a folder, by name, of which no truth is known.

    Raises:
        ConfigError: There is no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise ConfigError(folder, "there is no such folder")
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in CONTENT_TYPES)[:limit]
    if not files:
        raise ConfigError(folder, f"holds no picture ({', '.join(CONTENT_TYPES)})")
    parts = [ReplayPart(f.stem, None, partial(_read_file, f), reference_id) for f in files]
    return Playlist(folder.name, parts)


def _part(
    row: Row, variant: Variant, seed: int, reference_ids: Mapping[Path, str]
) -> ReplayPart | None:
    """The part in one variant; None where it cannot be made, or its truth would not be known."""
    reference_id = reference_ids[row.template] if row.template is not None else ""
    as_is = ReplayPart(
        row.group or row.part_id,
        Truth(row.is_good, row.boxes, row.label),
        partial(_read_file, row.image),
        reference_id,
        grouped=bool(row.group),
    )
    if variant is Variant.AS_IS or (variant is Variant.OK and row.is_good):
        return as_is
    if row.is_good or row.template is None or not row.boxes:
        return None
    if variant is Variant.OK:
        if row.residual_px != 0:
            return None
        name, kept = f"{row.part_id}-ok", None
    else:
        name = f"{row.part_id}-single"
        kept = random.Random(f"{seed}/{row.part_id}").choice(row.boxes)  # noqa: S311
    truth = Truth(kept is None, (kept,) if kept else ())
    picture = partial(_repaired, row.image, row.template, row.boxes, kept)
    return ReplayPart(name, truth, picture, reference_id)


def _shuffled(parts: Sequence[ReplayPart], seed: int) -> list[ReplayPart]:
    """In seeded order, frames of one part together and as they stood."""
    together: dict[str, list[ReplayPart]] = {}
    for part in parts:
        together.setdefault(part.part_id, []).append(part)
    bursts = list(together.values())
    random.Random(seed).shuffle(bursts)  # noqa: S311 - an order of play, not a secret
    return [part for burst in bursts for part in burst]


def _simulated(part: Part) -> ReplayPart:
    boxes = tuple(TrueBox(b.label, (b.x0, b.y0, b.x1, b.y1)) for b in part.boxes)
    payload = Payload(encode_jpeg(part.image))
    return ReplayPart(part.part_id, Truth(part.is_good, boxes), lambda: payload, part.reference_id)


def _repaired(
    image: Path, template: Path, boxes: Sequence[TrueBox], kept: TrueBox | None
) -> Payload:
    """The picture with the template pasted over every box but `kept`, which stays whole."""
    frame, reference = _read_grey(image), _read_grey(template)
    if frame.shape != reference.shape:
        raise ConfigError(
            image, f"is {frame.shape}, its template {reference.shape} (rows, columns)"
        )
    repaired = frame.copy()
    for box in boxes:
        if box is not kept:
            window = _window(box, ERASE_MARGIN_PX)
            repaired[window] = reference[window]
    if kept is not None:
        window = _window(kept, 0)
        repaired[window] = frame[window]
    return Payload(encode_jpeg(repaired, REPAIRED_QUALITY))


def _window(box: TrueBox, margin: int) -> tuple[slice, slice]:
    x0, y0, x1, y1 = (int(side) for side in box.box)
    return (
        slice(max(y0 - margin, 0), y1 + margin),
        slice(max(x0 - margin, 0), x1 + margin),
    )


def _reference_ids(folder: Path, images: Iterable[Path]) -> dict[Path, str]:
    """Name reference images by their stems, and those that share one by their whole paths."""
    stems: dict[str, set[Path]] = {}
    for image in images:
        stems.setdefault(image.stem, set()).add(image)
    return {
        image: stem if len(sharing) == 1 else image.relative_to(folder / "images").as_posix()
        for stem, sharing in stems.items()
        for image in sharing
    }


def _read_file(path: Path) -> Payload:
    content_type = CONTENT_TYPES.get(path.suffix.lower())
    if content_type is None:
        raise ConfigError(path, f"is none of {', '.join(CONTENT_TYPES)}")
    try:
        return Payload(path.read_bytes(), content_type)
    except OSError as failed:
        raise ConfigError(path, f"cannot be read: {failed.strerror}") from failed


def _read_grey(path: Path) -> _Grey:
    encoded = np.frombuffer(_read_file(path).image, np.uint8)
    image = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE) if len(encoded) else None
    if image is None:
        raise ConfigError(path, "is not an image that can be decoded")
    return np.asarray(image, np.uint8)
