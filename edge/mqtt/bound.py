"""Which topics a binding stands for: one, or those of a Sparkplug edge node; and which are ours."""

from typing import Final

from edge.config import Binding
from edge.mqtt.topics import TopicTemplate

_OF_NODE: Final = ("NBIRTH", "NDATA", "NDEATH")
_OF_DEVICES: Final = ("DBIRTH", "DDATA", "DDEATH")


def filters(binding: Binding) -> tuple[str, ...]:
    """Return what an input's binding subscribes to, without a share group.

    An edge node numbers its own messages and those of all its devices in one row (Sparkplug 3.0,
    chapter 6): who shall see that one is missing must hear them all.
    """
    if not binding.metric:
        return (TopicTemplate(binding.topic).filter,)
    namespace, group, _, node, *_ = binding.topic.split("/")
    return (
        *(f"{namespace}/{group}/{kind}/{node}" for kind in _OF_NODE),
        *(f"{namespace}/{group}/{kind}/{node}/+" for kind in _OF_DEVICES),
    )


def reserved(binding: Binding) -> str:
    """Return a filter of all topics that belong to a binding, its commands among them."""
    if not binding.metric:
        return TopicTemplate(binding.topic).filter
    namespace, group, _, node, *_ = binding.topic.split("/")
    return f"{namespace}/{group}/+/{node}/#"


def is_ours(topic: str) -> bool:
    """Whether a topic is one of those by which devices and their cloud speak: `edge`, and below."""
    return topic.partition("/")[0] == "edge"
