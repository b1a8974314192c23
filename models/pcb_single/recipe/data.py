"""How a frame without a reference reaches the detector; the images are those of `pcb`."""

from __future__ import annotations

from edge.contracts.frame import PixelFormat
from edge.contracts.plan import TensorSpec
from models.pcb.recipe.data import SIDE
from models.recipe.frames import FrameContract

CONTRACT = FrameContract(
    guest="letterbox",
    pixels=PixelFormat.GRAY8,
    max_side_px=1280,
    input=TensorSpec("input", "uint8", (1, 3, SIDE, SIDE)),
)
"""What the deployment pins; three equal planes, since that is what letterbox makes of grey. At this
size it copies bytes, and so `models.pcb.recipe.data.model_input` does the same."""
