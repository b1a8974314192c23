"""What is watched, how small a change is none, and how a change is said to people."""

from typing import Final, NamedTuple

from edge.contracts.sight import Sight


class Words(NamedTuple):
    """What a change in one direction means.

    Attributes:
        claim: With the camera as subject: it ... than when the reference was learnt.
        remedy: What to do.
    """

    claim: str
    remedy: str


class SightMeasure(NamedTuple):
    """A number of `Sight`.

    Attributes:
        floor: The least spread that it is taken to have, in its unit: parts that are alike to the
            last grey level must not make every cloud a finding.
        relative: The same as a share of its typical value; the larger of the two counts.
        what: How figures are introduced.
        unit: What follows them.
        digits: After the point.
    """

    floor: float
    relative: float
    what: str
    unit: str
    digits: int
    less: Words
    more: Words


SIGHT: Final[dict[str, SightMeasure]] = {
    "brightness": SightMeasure(
        4.0,
        0.0,
        "brightness",
        " (of 255)",
        0,
        Words("is darker", "clean the lens, check the lamp and its cover"),
        Words("is brighter", "look for stray light, and whether lamp, exposure or gain were set"),
    ),
    "contrast": SightMeasure(
        1.0,
        0.04,
        "contrast",
        " (of 127)",
        0,
        Words("shows less contrast", "clean the lens of dust, oil and mist; shade stray light"),
        Words("shows more contrast", "look whether lamp, exposure or the material have changed"),
    ),
    "dark": SightMeasure(
        1.0,
        0.0,
        "black pixels",
        " %",
        1,
        Words("shows less black", "look for stray light, mist on the lens, a longer exposure"),
        Words("shows more black", "look for what hides the view, a lamp that is out"),
    ),
    "bright": SightMeasure(
        1.0,
        0.0,
        "white pixels",
        " %",
        1,
        Words("shows less white", "check lamp and exposure, clean the lens"),
        Words("is overexposed more", "shorten the exposure, look for glare"),
    ),
    "sharpness": SightMeasure(
        0.002,
        0.05,
        "sharpness",
        "",
        3,
        Words("is less sharp", "focus the lens and clean it, look for vibration"),
        Words("is sharper or noisier", "look whether focus, gain or the material have changed"),
    ),
    "across": SightMeasure(
        0.7,
        0.0,
        "middle of the light",
        " % of the width",
        1,
        Words("is brighter towards the left", "see whether lamp, camera or part have moved"),
        Words("is brighter towards the right", "see whether lamp, camera or part have moved"),
    ),
    "down": SightMeasure(
        0.7,
        0.0,
        "middle of the light",
        " % of the height",
        1,
        Words("is brighter towards the top", "see whether lamp, camera or part have moved"),
        Words("is brighter towards the bottom", "see whether lamp, camera or part have moved"),
    ),
}
"""By the names of `Sight`'s attributes, and in their order. What may be the cause comes first."""
assert tuple(SIGHT) == Sight.__struct_fields__

VERDICTS: Final = ("scores", "kinds", "defects")
"""What is watched of verdicts, by their distributions."""
MEASURES: Final = (*SIGHT, *VERDICTS)

_THEN: Final = "than when the reference was learnt"
_AFTER_VERDICTS: Final = (
    "look at frames of today and of then: the parts, the light, or a model whose time has come"
)


def floor_of(name: str, value: float) -> float:
    """Return the least spread of a number of `Sight` whose typical value is `value`."""
    measure = SIGHT[name]
    return max(measure.floor, measure.relative * abs(value))


def say_sight(name: str, source: str, now: float, reference: float) -> str:
    """Say that a camera sees otherwise."""
    measure = SIGHT[name]
    words = measure.less if now < reference else measure.more
    figures = f"{now:.{measure.digits}f} against {reference:.{measure.digits}f}{measure.unit}"
    return f"{source} {words.claim} {_THEN}: {measure.what} {figures}; {words.remedy}"


def say_verdicts(name: str, pipeline: str, now: float, reference: float, how: str) -> str:
    """Say that a pipeline judges otherwise.

    Args:
        name: Of `VERDICTS`, or a kind of verdict: then the figures are its shares.
        pipeline: The pipeline.
        now: The mean in the window.
        reference: The mean as it was learnt.
        how: The figure behind it, and what it may be.
    """
    more = "more" if now > reference else "less"
    claim, figures = {
        "scores": ("gives other scores", f"{now:.3f} against {reference:.3f} on average"),
        "defects": (f"finds {more}", f"{now:.2f} findings a frame against {reference:.2f}"),
        "reject": (f"rejects {more}", f"{now:.1%} against {reference:.1%}"),
        "review": (f"sends {more} to review", f"{now:.1%} against {reference:.1%}"),
    }[name]
    return f"{pipeline} {claim} {_THEN}: {figures} ({how}); {_AFTER_VERDICTS}"
