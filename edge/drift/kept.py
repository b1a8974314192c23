"""What a watch keeps between samples, and from one start of the daemon to the next."""

from typing import Annotated, Final, Literal, NamedTuple

import msgspec

from edge.contracts.sight import Sight
from edge.contracts.verdict import Kind

MAX_RECIPES: Final = 32
"""Of one pipeline; beyond them the one that was not seen for longest is forgotten."""
MAX_FRAMES: Final = 1_000
"""The most that a reference is learnt from, and that a window holds: 32 references that are being
learnt at once from the default of 600 take 5 MB in memory, and 1 MB in the file, which is encoded
in 20 ms."""

SCORE_BINS: Final = 50
DEFECT_BINS: Final = 6

Numbers = tuple[float, float, float, float, float, float, float]
"""Those of a `Sight`, in its order."""
Counts = Annotated[int, msgspec.Meta(ge=0)]
Instant = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
"""UTC, nanoseconds: within what a date can say."""


class Sample(NamedTuple):
    """A frame that was looked at and judged.

    Attributes:
        recipe: What the line makes, by its reference image; empty: it makes one thing.
        defects: How many were found.
    """

    recipe: str
    sight: Sight
    kind: Kind
    score: float
    defects: int


class Judgement(msgspec.Struct, frozen=True, array_like=True):
    """What counts of a verdict."""

    recipe: Annotated[str, msgspec.Meta(max_length=200)]
    kind: Kind
    score: float
    defects: Counts


class Verdicts(msgspec.Struct):
    """How the frames of a recipe were judged while its reference was learnt."""

    kinds: Annotated[list[Counts], msgspec.Meta(min_length=3, max_length=3)] = msgspec.field(
        default_factory=lambda: [0] * len(Kind)
    )
    scores: Annotated[list[Counts], msgspec.Meta(min_length=SCORE_BINS, max_length=SCORE_BINS)] = (
        msgspec.field(default_factory=lambda: [0] * SCORE_BINS)
    )
    defects: Annotated[
        list[Counts], msgspec.Meta(min_length=DEFECT_BINS, max_length=DEFECT_BINS)
    ] = msgspec.field(default_factory=lambda: [0] * DEFECT_BINS)
    score_sum: float = 0.0
    defect_sum: Counts = 0

    @property
    def frames(self) -> int:
        """How many were learnt."""
        return sum(self.kinds)


class Reference(msgspec.Struct):
    """What one recipe looks like, and how it is judged.

    Attributes:
        samples: While the look is learnt; empty afterwards.
        typical: Medians of its numbers; None until they are learnt.
        spread: Their spreads.
        verdicts: Learnt anew with each deployment.
    """

    samples: Annotated[list[Numbers], msgspec.Meta(max_length=MAX_FRAMES)] = []
    typical: Numbers | None = None
    spread: Numbers | None = None
    verdicts: Verdicts = msgspec.field(default_factory=Verdicts)


class Kept(msgspec.Struct):
    """Everything that a watch remembers.

    Attributes:
        camera: What it looks through: source and pixel format. Another one is learnt anew.
        deployment: Digest of the one whose verdicts were learnt.
        since_ns: UTC, when learning began.
        by: Who had it begin, and why; empty: it was the first time.
        references: By recipe, the one seen last at the end.
        sights: The window of looks, each as distances from its recipe's reference, in spreads.
        judgements: The window of verdicts.
        drifting: What drifts, and since when, UTC.
    """

    camera: str = ""
    deployment: str = ""
    since_ns: Instant = 0
    by: Annotated[str, msgspec.Meta(max_length=1_000)] = ""
    references: Annotated[dict[str, Reference], msgspec.Meta(max_length=MAX_RECIPES)] = {}
    sights: Annotated[list[Numbers], msgspec.Meta(max_length=MAX_FRAMES)] = []
    judgements: Annotated[list[Judgement], msgspec.Meta(max_length=MAX_FRAMES)] = []
    drifting: Annotated[dict[str, Instant], msgspec.Meta(max_length=16)] = {}
    v: Literal[1] = 1


Book = Annotated[dict[str, Kept], msgspec.Meta(max_length=64)]
"""All watches of a device, by pipeline."""

_book: Final = msgspec.json.Decoder(Book)


def decode(content: bytes) -> dict[str, Kept]:
    """Read what `encode` wrote.

    Raises:
        msgspec.DecodeError, UnicodeDecodeError: It is something else.
    """
    return _book.decode(content)


def encode(book: dict[str, Kept]) -> bytes:
    """Write it down."""
    return msgspec.json.encode(book)
