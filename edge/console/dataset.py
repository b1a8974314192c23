"""What people said, as a data set: frames with their truth, in the form that `edge replay` reads.

`parts.csv` (OK: a person said that it is good; NG: bad), `images/` with each frame and its
reference image, and no `boxes.csv`: nobody drew the true defects. Where the last word does not
decide, or the frame is not kept, the part is left out; the latter is counted.
"""

import csv
import io
import zipfile
from pathlib import Path
from typing import IO, Final, NamedTuple

from edge.console.pictures import picture
from edge.console.questions import truth
from edge.console.snapshots import View
from edge.errors import StorageError
from edge.ledger import kept
from edge.ledger import record as records
from edge.ledger.record import Record

MAX_PARTS: Final = 500
MAX_BYTES: Final = 64 << 20
"""Of pictures."""
_COLUMNS: Final = (
    *("part_id", "image", "template", "verdict", "group"),
    *("record", "was", "score", "by", "why"),
)
_FORMULAS: Final = frozenset("=+-@")
_SUFFIXES: Final = {"image/jpeg": ".jpg", "image/png": ".png"}
_VERDICTS: Final = {"good": "OK", "bad": "NG"}


class Made(NamedTuple):
    """What went into it.

    Attributes:
        parts: That are in it.
        without_frame: Whose frame is not kept any more, or cannot be shown.
        cut: There were more; these are the newest.
    """

    parts: int
    without_frame: int
    cut: bool


def write(file: IO[bytes], view: View, frames: Path, since_ns: int, until_ns: int) -> Made:
    """Write the data set as a zip file.

    Args:
        file: Where to; empty, and can be sought.
        view: The ledger.
        frames: The folder of the kept frames.
        since_ns: Verdicts decided from then on, UTC; 0: from the beginning.
        until_ns: Up to then; 0: to the end.
    """
    table = io.StringIO()
    rows = csv.DictWriter(table, _COLUMNS, lineterminator="\n")
    rows.writeheader()
    parts = without_frame = size = 0
    cut = False
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        packed: set[str] = set()

        def pack(record: Record, which: str, digest: str) -> str:
            """Add a picture once, and return its name; empty where there is none."""
            nonlocal size
            content = kept.read(frames, digest)
            shown = None if content is None else picture(content, record.content.get(which, ""))
            if shown is None:
                return ""
            name = digest + _SUFFIXES[shown.media_type]
            if name not in packed:
                packed.add(name)
                size += len(shown.content)
                archive.writestr(f"images/{name}", shown.content)
            return name

        for seq in sorted(view.words, reverse=True):
            said = truth(view, seq)
            record = _verdict(view, seq)
            if not said or record is None or record.decided_at_ns < since_ns:
                continue
            if until_ns and record.decided_at_ns > until_ns:
                continue
            if parts >= MAX_PARTS or size >= MAX_BYTES:
                cut = True
                break
            image = pack(record, "frame", record.digests.frame)
            if not image:
                without_frame += 1
                continue
            word = view.words[seq][-1]
            parts += 1
            rows.writerow(
                {
                    "part_id": _text(f"{record.part_id or record.frame_id}-{seq}"),
                    "image": image,
                    "template": pack(record, "reference", record.digests.reference),
                    "verdict": _VERDICTS[said],
                    "group": _text(record.part_id),
                    "record": seq,
                    "was": record.verdict.value,
                    "score": record.score,
                    "by": _text(word.by),
                    "why": _text(word.reason),
                }
            )
        archive.writestr("parts.csv", table.getvalue())
    return Made(parts, without_frame, cut)


def _text(said: str) -> str:
    """What a person or a camera said, which a spreadsheet must not take for a formula."""
    return f"'{said}" if said[:1] in _FORMULAS else said


def _verdict(view: View, seq: int) -> Record | None:
    row = view.ledger.record(seq)
    try:
        record = None if row is None else records.decode(row.body)
    except StorageError:
        return None
    return record if isinstance(record, Record) else None
