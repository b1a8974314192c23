"""A line whose lamp ages and whose lens fouls, and a deployment that looks at each frame."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from daemons import DEPLOYMENT, PARTS, Line, part_jpeg
from deployments import copy_of

from edge.contracts.verdict import Reason
from edge.linesim import encode_jpeg

LEARN: Final = 24
WINDOW: Final = 20
_RULE: Final = (
    f"[drift]\nlearn_frames = {LEARN}\nwindow_frames = {WINDOW}\nevery_s = 0\nmax_psi = 1.5\n"
)
"""Each frame is looked at. Few frames are learnt, so that verdicts need more of a change."""
Pixels = npt.NDArray[np.uint8]


def darker(image: Pixels) -> Pixels:
    """What an old lamp shows of it."""
    return (image * 0.6).astype(np.uint8)


def blurred(image: Pixels) -> Pixels:
    """What a lens out of focus shows of it."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 1.0), np.uint8)


def plain(image: Pixels) -> Pixels:
    """What it is."""
    return image


@cache
def seen_as(how: Callable[[Pixels], Pixels], part: int) -> bytes:
    """A good part of board 3, as the camera shows it now."""
    decoded = cv2.imdecode(np.frombuffer(part_jpeg(3, part), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert decoded is not None
    return encode_jpeg(how(np.asarray(decoded, np.uint8)))


async def play(line: Line, frames: int, how: Callable[[Pixels], Pixels] = plain) -> None:
    """Send parts until so many were judged, each when the one before has its verdict.

    A machine that is overloaded gives some of them the fail-safe: these were not looked at.
    """
    judged = 0
    for number in range(10 * frames):
        said = await line.verdict(line.send(seen_as(how, number % PARTS), reference="board-0003"))
        judged += said["reason"] in {Reason.OK, Reason.DEFECT}
        if judged == frames:
            return
    raise AssertionError(f"{judged} of {10 * frames} frames were judged")


def watched_closely(folder: Path) -> Path:
    """Make the reference deployment with such a rule."""
    return copy_of(DEPLOYMENT, folder, (r"^\[deployment\]", f"{_RULE}\n\\g<0>"))
