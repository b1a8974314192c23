"""Writes `model.toml`, the card: every figure in it comes from a report of `evaluate`.

`python -m models.pcb_single.recipe.card --models models/pcb_single --version 1.0.0`
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from models.pcb.recipe.card import MODEL as WITH_REFERENCE
from models.pcb.recipe.card import detector_card
from models.pcb_single.recipe.data import CONTRACT
from models.recipe import card as common

if TYPE_CHECKING:
    from pathlib import Path

MODEL = WITH_REFERENCE | {
    "name": "pcb_single",
    "summary": "Defects of bare printed circuit boards, found in the frame alone. Worse than pcb, "
    "which compares with a reference: for lines that have none.",
}
_CHANNELS = "three times the grey frame, 0..255: the model sees the mean of the three"
_PREPROCESSING = {
    "guest": "letterbox",
    "description": "The frame as 8-bit grey, 640x640, copper dark on a bright board as in the "
    "training images, neither scaled nor normalised: bytes are copied into three equal planes",
}


def card(models: Path, reports: dict[str, dict[str, Any]], version: str) -> str:
    """The text of the card.

    Args:
        models: the folder of the ONNX files.
        reports: for each variant what `evaluate --report` wrote.
        version: of the weights.
    """
    return detector_card(models, reports, version, MODEL, CONTRACT, _CHANNELS, _PREPROCESSING)


if __name__ == "__main__":
    common.main(card, __doc__)
