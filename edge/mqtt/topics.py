"""Topics: templates with placeholders, and MQTT's matching rules. Pure.

A template is a topic whose whole levels may be placeholders (`{reference_id}`) or wildcards
(`+`, `#`). Its filter is what is subscribed to; its match gives the placeholders' values; filled,
it is a topic to publish to.
"""

import re
from typing import Final

from edge.errors import ConfigError

MAX_TOPIC_BYTES: Final = 65_535  # MQTT 5, 1.5.4: a string's length has two bytes
_PLACEHOLDER: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
# MQTT 5, 1.5.4: NUL must not, control characters and non-characters should not occur.
_UNFIT: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


class TopicTemplate:
    """A topic with placeholders, e.g. `line/top/reference/{reference_id}`.

    Args:
        text: The template.
        share: Group of a shared subscription; empty: each subscriber gets every message.

    Attributes:
        filter: What to subscribe to, with `$share/group/` in front where there is a group.
        names: The placeholders, in order.

    Raises:
        ConfigError: The text is no topic template.
    """

    def __init__(self, text: str, share: str = "") -> None:
        self.text = text
        self._levels = text.split("/")
        self.names = tuple(name for level in self._levels if (name := _name_of(level)))
        plain = "/".join("+" if _name_of(level) else level for level in self._levels)
        self.filter = f"$share/{share}/{plain}" if share else plain
        if problem := self._problem(share):
            raise ConfigError(f"topic {text!r}", problem, "see docs/configuration.md, bindings")

    def _problem(self, share: str) -> str:
        if any("{" in level and not _name_of(level) for level in self._levels):
            return "a placeholder must be a whole level, such as {part_id}"
        if len(set(self.names)) != len(self.names):
            return "a placeholder occurs twice"
        if share and (unfit_for_a_level(share) or "$" in share):
            return f"{share!r} cannot name a group of a shared subscription"
        return filter_problem(self.filter)

    def match(self, topic: str) -> dict[str, str] | None:
        """Return the placeholders' values, or None where the topic does not match."""
        levels = topic.split("/")
        if not _levels_match(self._levels, levels):
            return None
        return {
            name: level
            for own, level in zip(self._levels, levels, strict=False)
            if (name := _name_of(own))
        }

    def fill(self, **values: str) -> str:
        """Return the topic with each placeholder replaced; values of other names are ignored.

        Raises:
            ValueError: A value is missing or cannot be a level, or the template has wildcards.
        """
        levels = []
        for level in self._levels:
            name = _name_of(level)
            if name is None:
                levels.append(level)
            elif name not in values:
                raise ValueError(f"topic {self.text!r}: no value for {{{name}}}")
            elif problem := unfit_for_a_level(values[name]):
                raise ValueError(f"topic {self.text!r}: {name} {values[name][:80]!r} {problem}")
            else:
                levels.append(values[name])
        topic = "/".join(levels)
        if problem := topic_problem(topic):
            raise ValueError(f"topic {self.text!r} cannot be published to: {problem}")
        return topic


def matches(topic_filter: str, topic: str) -> bool:
    """Say whether a filter, shared or not, takes a topic (MQTT 5, 4.7)."""
    return _levels_match(unshared(topic_filter).split("/"), topic.split("/"))


def overlap(one: str, other: str) -> bool:
    """Say whether some topic is taken by both filters, shared or not (MQTT 5, 4.7)."""
    ours, theirs = unshared(one).split("/"), unshared(other).split("/")
    first = {ours[0], theirs[0]}
    if first & {"+", "#"} and any(level.startswith("$") for level in first):
        return False  # 4.7.2: a wildcard takes no topic that begins with $
    for each, beside in zip(ours, theirs, strict=False):
        if "#" in (each, beside):
            return True
        if each != beside and "+" not in (each, beside):
            return False
    return (ours[len(theirs) :] or theirs[len(ours) :]) in ([], ["#"])  # a/# takes a, too


def unshared(topic_filter: str) -> str:
    """Return a filter without its `$share/group/`."""
    if not topic_filter.startswith("$share/"):
        return topic_filter
    parts = topic_filter.split("/", 2)
    return parts[2] if len(parts) == 3 else ""  # noqa: PLR2004 - $share, group, filter


def topic_problem(topic: str) -> str:
    """Say why a topic cannot be published to; empty where it can (MQTT 5, 3.3.2.1 and 4.7.3)."""
    if "+" in topic or "#" in topic:
        return "wildcards are for subscriptions only"
    return _text_problem(topic)


def filter_problem(topic_filter: str) -> str:
    """Say why a filter cannot be subscribed to; empty where it can (MQTT 5, 4.7)."""
    if topic_filter.startswith("$share/"):
        group = topic_filter.split("/", 2)[1]
        if not group or "+" in group or "#" in group:
            return "a shared subscription needs a group without wildcards"
    levels = unshared(topic_filter).split("/")
    for level in levels:
        if len(level) > 1 and ("+" in level or "#" in level):
            return f"{level!r}: a wildcard must be a whole level"
    if "#" in levels[:-1]:
        return "'#' must be the last level"
    return _text_problem(unshared(topic_filter))


def unfit_for_a_level(text: str) -> str:
    """Say why a text cannot stand as one level of a topic; empty where it can."""
    if not text:
        return "is empty"
    if any(mark in text for mark in "/+#"):
        return "contains '/', '+' or '#'"
    return "contains control characters" if _UNFIT.search(text) else ""


def _text_problem(text: str) -> str:
    if not text:
        return "it is empty"
    if _UNFIT.search(text):
        return "it contains control characters"
    if len(text.encode()) > MAX_TOPIC_BYTES:
        return f"it is longer than {MAX_TOPIC_BYTES} bytes"
    return ""


def _name_of(level: str) -> str | None:
    match = _PLACEHOLDER.fullmatch(level)
    return match[1] if match else None


def _levels_match(own: list[str], levels: list[str]) -> bool:
    # Topics of the broker itself ($SYS) are not taken by a leading wildcard (4.7.2).
    if levels[0].startswith("$") and (own[0] in ("+", "#") or _name_of(own[0])):
        return False
    for index, level in enumerate(own):
        if level == "#":  # before the length is asked: "a/#" takes "a" too (4.7.1.2)
            return True
        if index == len(levels):
            return False
        if level not in ("+", levels[index]) and not _name_of(level):
            return False
    return len(own) == len(levels)
