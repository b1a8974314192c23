"""The three roles that a guest may serve, each a thin object over a `Guest`.

A role allocates everything once, at set-up; a frame costs it a few field writes, one call and
the checks of what came back. Several roles may share one `Guest`.

Results are preset to what no guest may answer (NaN, a verdict that is none), so a field that the
guest did not set is found.
"""

import ctypes
import math
import re
import struct
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from edge.contracts import abi
from edge.contracts.messages import ActionWish
from edge.contracts.plan import ImagePlan, TensorSpec
from edge.contracts.verdict import HOST_REASONS, Kind
from edge.errors import GuestError, IncompatibleError
from edge.wasm.guest import Guest
from edge.wasm.placement import STRUCT_ALIGNMENT, CallStruct, ImageSlot, Rows, Tensors

__all__ = [
    "DEFECT",
    "Decider",
    "Decision",
    "ImageSlot",
    "Postprocessor",
    "Preprocessor",
    "Transform",
]

DEFECT: Final = np.dtype(
    [
        ("x0", "<f4"),
        ("y0", "<f4"),
        ("x1", "<f4"),
        ("y1", "<f4"),
        ("score", "<f4"),
        ("label", "<i4"),
    ]
)
"""`abi.Defect` as NumPy sees it."""

_KINDS: Final = {
    abi.VERDICT_PASS: Kind.PASS,
    abi.VERDICT_REJECT: Kind.REJECT,
    abi.VERDICT_REVIEW: Kind.REVIEW,
}
_MAX_REASON: Final = abi.REASON_BYTES - 1  # the field holds a NUL, too
_REASON: Final = re.compile(rb"[a-z0-9-]{1,%d}" % _MAX_REASON)
_RESERVED_REASONS: Final = frozenset(reason.value.encode() for reason in HOST_REASONS)
_SIGNAL: Final = struct.Struct("<dqII")
_NAN: Final = math.nan

_FEW: Final = 64
"""Defects up to which a Python loop beats NumPy's fixed cost."""

Transform = tuple[float, float, float, float]
"""scale_x, scale_y, offset_x, offset_y: frame = (input - offset) * scale, in pixels."""


def _require(guest: Guest, role: str) -> None:
    if role not in guest.roles:
        raise IncompatibleError(f"guest {guest.name} does not serve the role {role}")


class Preprocessor:
    """Turns a decoded frame into the model's inputs, in guest memory.

    Attributes:
        frame_slots: Room for frames, to be decoded into.
        reference_slots: Room for reference images.
        inputs: The model's inputs, for IO binding; aligned to 64 bytes; alive as long as held.
        rows: The same, where their first dimension is a batch and each call fills one row of it.

    Raises:
        IncompatibleError: The guest does not serve this role, or its memory does not suffice.
    """

    def __init__(
        self,
        guest: Guest,
        image: ImagePlan,
        frame_slots: int,
        reference_slots: int,
        inputs: tuple[TensorSpec, ...],
        *,
        batched: bool = False,
    ) -> None:
        _require(guest, "preprocess")
        self._guest = guest
        self.frame_slots = tuple(ImageSlot(guest, image) for _ in range(frame_slots))
        self.reference_slots = tuple(ImageSlot(guest, image) for _ in range(reference_slots))
        self.rows = Rows(guest, inputs) if batched else None
        self._tensors = self.rows or Tensors(guest, inputs)
        self.inputs = self._tensors.views
        self._call = call = CallStruct(guest, abi.PreprocessCall)
        host = call.host
        host.inputs = self._tensors.address
        host.input_count = len(inputs)
        host.transform = abi.Transform(_NAN, _NAN, _NAN, _NAN)
        self._frame, self._reference = host.frame, host.reference
        self._transform: abi.Transform = call.guest.transform

    def run(self, frame: ImageSlot, reference: ImageSlot | None) -> Transform:
        """Fill `inputs` from a frame.

        Returns:
            The transform from model input to frame; finite, its scales above 0.

        Raises:
            GuestError: The guest trapped or failed, or its transform is not such a one.
            GuestBudgetError: It took longer than its budget.
        """
        frame.describe(self._frame)
        if reference is None:
            ctypes.memset(ctypes.addressof(self._reference), 0, ctypes.sizeof(abi.Image))
        else:
            reference.describe(self._reference)
        self._tensors.send()
        self._call.send()
        result = self._guest.call("preprocess", self._call.address)
        if result != abi.OK:
            raise _failed(self._guest, "preprocess", result)
        t = self._transform
        found = (t.scale_x, t.scale_y, t.offset_x, t.offset_y)
        if not all(map(math.isfinite, found)) or found[0] <= 0 or found[1] <= 0:
            raise GuestError(
                f"guest {self._guest.name}: preprocess set the transform {found}; "
                "it must be finite, with scales above 0"
            )
        return found


class Postprocessor:
    """Turns the model's outputs, in guest memory, into defects.

    Attributes:
        outputs: The model's outputs, for IO binding; aligned to 64 bytes; alive as long as held.
        rows: The same, where their first dimension is a batch and each call reads one row of it.

    Raises:
        IncompatibleError: The guest does not serve this role, or its memory does not suffice.
    """

    def __init__(
        self,
        guest: Guest,
        outputs: tuple[TensorSpec, ...],
        *,
        class_count: int,
        capacity: int = abi.MAX_DEFECTS,
        batched: bool = False,
    ) -> None:
        _require(guest, "postprocess")
        self._guest = guest
        self._class_count = class_count
        self._capacity = capacity
        self.rows = Rows(guest, outputs) if batched else None
        self._tensors = self.rows or Tensors(guest, outputs)
        self.outputs = self._tensors.views
        address = guest.alloc(capacity * DEFECT.itemsize, STRUCT_ALIGNMENT)
        self._defects = guest.view(address, (capacity,), DEFECT)
        self._call = CallStruct(guest, abi.PostprocessCall)
        host = self._call.host
        host.outputs = self._tensors.address
        host.output_count = len(outputs)
        host.defects = address
        host.defect_capacity = capacity
        self._host = host
        self._transform: abi.Transform = host.transform
        self._width = self._height = 0

    def run(self, transform: Transform, width: int, height: int) -> int:
        """Judge the outputs of a frame of `width` x `height` pixels.

        Returns:
            The number of defects, 0..capacity; `defects` gives them.

        Raises:
            GuestError: The guest trapped or failed, or claims more than it was given room for.
            GuestBudgetError: It took longer than its budget.
        """
        t = self._transform
        t.scale_x, t.scale_y, t.offset_x, t.offset_y = transform
        self._host.frame_width = self._width = width
        self._host.frame_height = self._height = height
        self._tensors.send()
        self._call.send()
        count = self._guest.call("postprocess", self._call.address)
        if count < 0:
            raise _failed(self._guest, "postprocess", count)
        if count > self._capacity:
            raise GuestError(
                f"guest {self._guest.name}: postprocess claims {count} defects; "
                f"it was given room for {self._capacity}"
            )
        return count

    def defects(self, count: int) -> npt.NDArray[Any]:
        """The last call's defects, checked.

        Args:
            count: What `run` returned.

        Returns:
            A copy of shape (count,) and dtype `DEFECT`, strongest first, boxes clipped to the
            frame.

        Raises:
            GuestError: A number is not finite, a score is outside 0..1, a label is none of the
                model's, or a box is inside out.
        """
        found = self._defects[:count].copy()
        if count <= _FEW and self._are_sound(found.tolist()):
            return found
        boxes = found.view("<f4").reshape(count, DEFECT.itemsize // 4)[:, :4]
        scores, labels = found["score"], found["label"]
        known = (labels >= 0) & (labels < self._class_count)
        # Each test is written so that NaN fails it.
        self._check(np.isfinite(boxes).all(axis=1), found, "has a box that is not finite")
        self._check((scores >= 0) & (scores <= 1), found, "has a score outside 0..1")
        self._check(known, found, f"has a label outside 0..{self._class_count - 1}")
        self._check((boxes[:, :2] <= boxes[:, 2:]).all(axis=1), found, "has a box inside out")
        np.clip(boxes, 0, (self._width, self._height) * 2, out=boxes)
        if count > 1 and (scores[1:] > scores[:-1]).any():
            found = found[np.argsort(-scores, kind="stable")]
        return found

    def _are_sound(self, rows: list[tuple[float, float, float, float, float, int]]) -> bool:
        """Whether nothing needs to be refused, clipped or sorted; NaN fails every comparison.

        For a few defects this loop takes a tenth of the array operations' time (15 against 145 us,
        the caches cold after inference).
        """
        width, height, classes = self._width, self._height, self._class_count
        strongest = 1.0
        for x0, y0, x1, y1, score, label in rows:
            inside = 0 <= x0 <= x1 <= width and 0 <= y0 <= y1 <= height
            if not (inside and 0 <= score <= strongest and 0 <= label < classes):
                return False
            strongest = score
        return True

    def _check(self, good: Any, found: npt.NDArray[Any], problem: str) -> None:
        if good.all():
            return
        index = int(np.argmin(good))
        raise GuestError(
            f"guest {self._guest.name}: postprocess: defect {index} {problem}: {found[index]}"
        )


class Decision(msgspec.Struct, frozen=True):
    """What a policy decided on one frame; checked, copied out of guest memory.

    Attributes:
        reason: A code of [a-z0-9-], at most 31; none of those that only the host gives.
        score: 0..1.
        actions: Wishes, by index of the grants; the host bounds their rate and duration.
    """

    kind: Kind
    reason: str
    score: float
    actions: tuple[ActionWish, ...] = ()


class Decider:
    """Turns defects and signals into a verdict.

    Raises:
        IncompatibleError: The guest does not serve this role, or its memory does not suffice.
    """

    def __init__(self, guest: Guest, signal_count: int, action_count: int) -> None:
        _require(guest, "decide")
        self._guest = guest
        self._signal_count = signal_count
        self._action_count = action_count
        defects = guest.alloc(abi.MAX_DEFECTS * DEFECT.itemsize, STRUCT_ALIGNMENT)
        self._defects = guest.view(defects, (abi.MAX_DEFECTS,), DEFECT)
        signals = guest.alloc(max(signal_count, 1) * _SIGNAL.size, STRUCT_ALIGNMENT)
        self._signals = memoryview(
            guest.view(signals, (signal_count * _SIGNAL.size,), np.uint8)  # type: ignore[arg-type]
        )
        self._call = call = CallStruct(guest, abi.DecideCall)
        host = call.host
        host.defects, host.signals = defects, signals
        host.signal_count = signal_count
        host.verdict = 0xFFFF_FFFF
        host.score = _NAN
        self._host = host
        self._answer = call.guest

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
        """Decide on one frame.

        Args:
            defects: As `Postprocessor.defects` gives them; `count` of them are read.
            count: 0..MAX_DEFECTS.
            signals: (value, age_ns, state) of each granted signal, in the plan's order; the state
                one of `abi.SIGNAL_*`.
            frame_index: Frames decided since the guest's state began, from 0.
            captured_at_ns: UTC.
            width: Pixels of the frame.
            height: Pixels of the frame.
            part: Equal for the frames of one part; 0: none is known.

        Raises:
            GuestError: The guest trapped or failed, or decided what the ABI does not allow.
            GuestBudgetError: It took longer than its budget.
        """
        if len(signals) != self._signal_count:
            raise ValueError(f"{len(signals)} signals, {self._signal_count} are granted")
        self._defects[:count] = defects[:count]
        offset = 0
        for value, age_ns, state in signals:
            _SIGNAL.pack_into(self._signals, offset, value, age_ns, state, 0)
            offset += _SIGNAL.size
        host = self._host
        host.frame_index = frame_index
        host.captured_at_ns = captured_at_ns
        host.frame_width = width
        host.frame_height = height
        host.defect_count = count
        host.part = part
        self._call.send()
        result = self._guest.call("decide", self._call.address)
        if result != abi.OK:
            raise _failed(self._guest, "decide", result)
        return self._decision()

    def save_state(self) -> bytes | None:
        """See `Guest.save_state`."""
        return self._guest.save_state()

    def restore_state(self, state: bytes) -> bool:
        """See `Guest.restore_state`."""
        return self._guest.restore_state(state)

    @property
    def state_refusal(self) -> str:
        """See `Guest.state_refusal`."""
        return self._guest.state_refusal

    def _decision(self) -> Decision:
        answer = self._answer
        kind = _KINDS.get(answer.verdict)
        if kind is None:
            raise self._wrong(f"verdict {answer.verdict}, none of the ABI's")
        score = answer.score
        if not 0 <= score <= 1:
            raise self._wrong(f"score {score}, outside 0..1")
        reason = answer.reason
        if not _REASON.fullmatch(reason):
            raise self._wrong(
                f"reason {reason!r}; codes are of [a-z0-9-], at least one and at most {_MAX_REASON}"
            )
        if reason in _RESERVED_REASONS:
            raise self._wrong(f"reason {reason.decode()!r}, which only the host gives")
        actions = answer.action_count
        if actions == 0:
            return Decision(kind, reason.decode(), score)
        if actions > abi.MAX_ACTIONS:
            raise self._wrong(f"{actions} actions; at most {abi.MAX_ACTIONS} may be")
        wishes = tuple(self._wish(answer.actions[index]) for index in range(actions))
        return Decision(kind, reason.decode(), score, wishes)

    def _wish(self, action: abi.Action) -> ActionWish:
        if action.index >= self._action_count:
            raise self._wrong(f"action {action.index}; {self._action_count} are granted")
        if not math.isfinite(action.value):
            raise self._wrong(f"action {action.index} the value {action.value}")
        return ActionWish(action.index, action.value, action.ttl_ms)

    def _wrong(self, what: str) -> GuestError:
        return GuestError(f"guest {self._guest.name}: decide gave {what}")


def _failed(guest: Guest, role: str, result: int) -> GuestError:
    return GuestError(f"guest {guest.name}: {role} failed: {guest.error_text(result)}")
