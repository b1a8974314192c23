"""The files that a deployment consists of: names, digests, and how large each may be.

In two steps, because the model's digest stands in its card: first what the manifest pins, then,
with the cards read, what they pin.
"""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Final, NamedTuple

from edge.contracts.plan import MAX_MODEL_BYTES
from edge.deployment.card import Card
from edge.deployment.manifest import Manifest, Model
from edge.errors import DeploymentError

MANIFEST: Final = "manifest.toml"
MAX_TEXT_BYTES: Final = 256 << 10
"""Manifest or card: the reference ones take 4 KB."""
MAX_GUEST_BYTES: Final = 32 << 20
"""A Python interpreter as a guest takes 18 MB; a C guest 4 KB."""

MAX_IMAGE_BYTES: Final = 8 << 20
"""A golden frame, encoded as a camera sends it."""


class Pin(NamedTuple):
    """One pinned file: path below the folder, SHA-256, and the most bytes of its kind."""

    path: str
    sha256: str
    max_bytes: int


def of_manifest(manifest: Manifest) -> tuple[Pin, ...]:
    """Return the guests, cards and golden frames, each file once.

    Raises:
        DeploymentError: Two tables pin one file to different digests.
    """
    found: list[Pin] = []
    for pipeline in manifest.pipelines.values():
        found += (Pin(each.path, each.sha256, MAX_GUEST_BYTES) for each in pipeline.modules)
        cards = (model.card for _, model in pipeline.models)
        found += (Pin(card.path, card.sha256, MAX_TEXT_BYTES) for card in cards)
        for golden in pipeline.golden:
            images = (golden.frame, golden.reference) if golden.reference else (golden.frame,)
            found += (Pin(each.path, each.sha256, MAX_IMAGE_BYTES) for each in images)
    return _each_once(found)


def of_cards(manifest: Manifest, cards: Mapping[str, Card]) -> tuple[Pin, ...]:
    """Return the model files, each once.

    Args:
        manifest: The manifest.
        cards: Every card, by its path below the folder.

    Raises:
        DeploymentError: A card does not offer the variant that its pipeline wants.
    """
    return _each_once(
        [
            model(f"pipelines.{name}.{place}", wanted, cards[wanted.card.path])
            for name, pipeline in manifest.pipelines.items()
            for place, wanted in pipeline.models
        ]
    )


def model(place: str, wanted: Model, card: Card) -> Pin:
    """Return the file of a model variant.

    Args:
        place: Of the model in the manifest.
        wanted: What the manifest says.
        card: Its card.

    Raises:
        DeploymentError: The card does not offer it.
    """
    variant = card.variant(wanted.variant)
    if variant is None:
        offered = ", ".join(variant.name for variant in card.model.variants)
        raise DeploymentError(
            f"{MANIFEST}: {place}.variant is {wanted.variant!r}; "
            f"{wanted.card.path} offers {offered}"
        )
    folder = PurePosixPath(wanted.card.path).parent
    return Pin(str(folder / variant.file), variant.sha256, MAX_MODEL_BYTES)


def _each_once(found: list[Pin]) -> tuple[Pin, ...]:
    by_path: dict[str, Pin] = {}
    for pin in found:
        first = by_path.setdefault(pin.path, pin)
        if first.sha256 != pin.sha256:
            raise DeploymentError(
                f"{MANIFEST}: {pin.path} is pinned to two digests, {first.sha256[:12]} and "
                f"{pin.sha256[:12]}"
            )
    return tuple(by_path.values())
