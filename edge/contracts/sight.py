"""What a picture is like, in seven numbers: enough to tell a lamp that ages from a lens that fouls.

The worker takes them from decoded pixels (`edge.pipeline.sight`), the supervisor compares them with
those of earlier pictures (`edge.drift`). They say nothing about the part in the picture.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

GreyLevels = Annotated[float, Meta(ge=0, le=255)]
Percent = Annotated[float, Meta(ge=0, le=100)]


class Sight(msgspec.Struct, frozen=True, array_like=True):
    """The look of one picture.

    Attributes:
        brightness: Mean grey level, 0..255.
        contrast: Standard deviation of the grey levels, 0..127.5.
        dark: Share of black pixels, percent.
        bright: Share of white pixels, percent.
        sharpness: Standard deviation of the Laplacian over `contrast`: fine detail as against all
            detail. A lamp that dims changes it little, a lens out of focus much.
        across: Where the middle of the light lies, percent of the width from the left.
        down: Likewise, percent of the height from the top.
    """

    brightness: GreyLevels
    contrast: GreyLevels
    dark: Percent
    bright: Percent
    sharpness: Annotated[float, Meta(ge=0, le=10_000)]
    across: Percent
    down: Percent
