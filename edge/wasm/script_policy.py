"""The role `decide` by a script: the record goes out as JSON, the answer comes back as JSON."""

import math
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from edge.contracts import abi
from edge.contracts.messages import ActionWish
from edge.contracts.script import (
    MAX_ANSWER_BYTES,
    FrameSize,
    Record,
    ScriptAnswer,
    ScriptDefect,
    ScriptSignal,
)
from edge.contracts.signal import SignalState
from edge.contracts.verdict import HOST_REASONS
from edge.errors import GuestError
from edge.wasm.guest import printable
from edge.wasm.roles import Decision
from edge.wasm.script import Script, ScriptRefusal

_STATES: Final = {
    abi.SIGNAL_ABSENT: SignalState.ABSENT,
    abi.SIGNAL_FRESH: SignalState.FRESH,
    abi.SIGNAL_STALE: SignalState.STALE,
}
_RESERVED_REASONS: Final = frozenset(reason.value for reason in HOST_REASONS)
_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(ScriptAnswer)


class ScriptDecider:
    """Turns defects and signals into a verdict; to its callers the same as `roles.Decider`.

    Args:
        script: The configured instance.
        classes: Names of the labels.
        signals: Names of the granted signals, in the plan's order.
        actions: Names of the granted actions, in the plan's order.
    """

    def __init__(
        self,
        script: Script,
        classes: Sequence[str],
        signals: Sequence[str],
        actions: Sequence[str],
    ) -> None:
        self._script = script
        self._classes = tuple(classes)
        self._signals = tuple(signals)
        self._actions = {name: index for index, name in enumerate(actions)}

    def run(
        self,
        defects: npt.NDArray[Any],
        count: int,
        signals: Sequence[tuple[float, int, int]],
        frame_index: int,
        captured_at_ns: int,
        width: int,
        height: int,
        part: int = 0,
    ) -> Decision:
        """See `roles.Decider.run`."""
        if len(signals) != len(self._signals):
            raise ValueError(f"{len(signals)} signals, {len(self._signals)} are granted")
        record = Record(
            frame_index,
            captured_at_ns,
            FrameSize(width, height),
            part,
            [self._defect(row) for row in np.asarray(defects[:count]).tolist()],
            {
                name: ScriptSignal(value, age_ns, _STATES[state])
                for name, (value, age_ns, state) in zip(self._signals, signals, strict=True)
            },
        )
        try:
            answer = self._script.call("decide", _encoder.encode(record).decode())
        except ScriptRefusal as refused:
            raise GuestError(f"guest {self._script.name}: decide failed: {refused}") from None
        return self._decision(answer)

    def save_state(self) -> bytes | None:
        """See `Script.save_state`."""
        return self._script.save_state()

    def restore_state(self, state: bytes) -> bool:
        """See `Script.restore_state`."""
        return self._script.restore_state(state)

    @property
    def state_refusal(self) -> str:
        """See `Script.state_refusal`."""
        return self._script.state_refusal

    def _defect(self, row: tuple[float, float, float, float, float, int]) -> ScriptDefect:
        x0, y0, x1, y1, score, label = row
        name = self._classes[label] if 0 <= label < len(self._classes) else ""
        return ScriptDefect(name, label, score, (x0, y0, x1, y1))

    def _decision(self, text: str) -> Decision:
        if len(text) > MAX_ANSWER_BYTES:
            raise self._wrong(f"{len(text)} characters; at most {MAX_ANSWER_BYTES} may be")
        try:
            answer = _decoder.decode(text)
        except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
            raise self._wrong(f"what is no answer: {printable(str(error), 300)}") from None
        if answer.reason.endswith(
            "\n"
        ):  # the schema's `$` lets one pass in Python, and nowhere else
            raise self._wrong(f"reason {answer.reason!r}, with a line end")
        if answer.reason in _RESERVED_REASONS:
            raise self._wrong(f"reason {answer.reason!r}, which only the host gives")
        self._script.lines += tuple(printable(line, abi.MAX_ERROR_BYTES) for line in answer.log)
        wishes = []
        for wish in answer.actions:
            index = self._actions.get(wish.action)
            if index is None:
                raise self._wrong(
                    f"action {printable(wish.action, 80)!r}; granted are "
                    f"{', '.join(self._actions) or 'none'}"
                )
            if not math.isfinite(wish.value):
                raise self._wrong(f"action {wish.action} the value {wish.value}")
            wishes.append(ActionWish(index, wish.value, wish.ttl_ms))
        return Decision(answer.verdict, answer.reason, answer.score, tuple(wishes))

    def _wrong(self, what: str) -> GuestError:
        return GuestError(f"guest {self._script.name}: decide gave {what}")
