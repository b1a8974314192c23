"""One instance of a guest, set up for one vector, as a pipeline sets it up; and its answers."""

from typing import Any, Final

import msgspec
import numpy as np

from edge.contracts import abi
from edge.contracts.frame import part_number
from edge.contracts.parameters import Names
from edge.contracts.plan import ImagePlan
from edge.errors import IncompatibleError
from edge.sdk.vectors import Array, Call, ImageRule, Vector, VectorError, digest
from edge.wasm.engine import PolicyModule
from edge.wasm.guest import Guest
from edge.wasm.policy import PolicyGuest, new_policy
from edge.wasm.roles import DEFECT, Decision, ImageSlot, Postprocessor, Preprocessor

_STATES: Final = {
    "absent": abi.SIGNAL_ABSENT,
    "fresh": abi.SIGNAL_FRESH,
    "stale": abi.SIGNAL_STALE,
}
_UNTOUCHED: Final = 0xA5
"""What an input tensor holds before the guest fills it: an earlier frame's rest."""


class Answer(msgspec.Struct, frozen=True):
    """What one call gave: of the role's own fields, the others are empty."""

    transform: tuple[float, ...] = ()
    inputs: tuple[Array, ...] = ()
    defects: Array | None = None
    decision: Decision | None = None

    def bits(self) -> bytes:
        """All of it as bytes: equal answers, bit for bit, give equal bytes."""
        arrays = (*self.inputs, *(() if self.defects is None else (self.defects,)))
        return b"".join(
            (
                np.array(self.transform, "<f8").tobytes(),
                *(array.tobytes() for array in arrays),
                b"" if self.decision is None else msgspec.json.encode(self.decision),
            )
        )


class Session:
    """A fresh instance with its configuration and its role; owned by the calling thread.

    Attributes:
        guest: The instance.
        frame_index: Frames decided so far; an heir of another session's state goes on from it.

    Raises:
        IncompatibleError: It refuses its configuration, or does not serve the role.
        VectorError: The vector's images or tensors cannot be made.
    """

    def __init__(self, module: PolicyModule, vector: Vector, call_ms: int) -> None:
        self.vector = vector
        self.guest: PolicyGuest = module.instantiate(call_ms)
        self.guest.configure(msgspec.to_builtins(vector.document))
        self.frame_index = 0
        self._images: dict[ImageRule, Any] = {}
        document = vector.document
        if vector.role == "preprocess":
            self._preprocessor = self._make_preprocessor()
        elif vector.role == "postprocess":
            self._postprocessor = Postprocessor(
                self._core_guest(),
                tuple(document.outputs),
                class_count=max(1, len(document.classes)),
            )
        else:
            names = (document.classes, document.signals, document.actions)
            self._decider = new_policy(self.guest, Names(*map(tuple, names)))

    def _core_guest(self) -> Guest:
        if isinstance(self.guest, Guest):
            return self.guest
        raise IncompatibleError(
            f"guest {self.guest.name}: a script serves decide, not {self.vector.role}"
        )

    def _make_preprocessor(self) -> Preprocessor:
        rules = [rule for call in self.vector.calls for rule in (call.frame, call.reference)]
        self._images = {rule: self.vector.image(rule) for rule in rules if rule is not None}
        shapes = [image.shape for image in self._images.values()] or [(1, 1)]
        plan = ImagePlan(
            self.vector.format, max(shape[1] for shape in shapes), max(shape[0] for shape in shapes)
        )
        return Preprocessor(self._core_guest(), plan, 1, 1, tuple(self.vector.document.inputs))

    def run(self, call: Call) -> Answer:
        """Make one call and copy what it gave.

        Raises:
            GuestError: The guest failed, trapped, or broke the ABI; `guest.broken` tells a trap.
        """
        self.prepare(call)
        return self.answer(call)

    def prepare(self, call: Call) -> None:
        """Lay the call's images or tensors into the guest's memory."""
        if self.vector.role == "preprocess":
            role = self._preprocessor
            for tensor in role.inputs:
                tensor.view(np.uint8)[...] = _UNTOUCHED
            self._fill(role.frame_slots[0], call.frame)
            if call.reference is not None:
                self._fill(role.reference_slots[0], call.reference)
        elif self.vector.role == "postprocess":
            specs = self.vector.document.outputs
            if len(call.outputs) != len(specs):
                raise VectorError(
                    f"{self.vector.name}: a call has {len(call.outputs)} outputs, "
                    f"the document names {len(specs)}"
                )
            for view, rule, spec in zip(
                self._postprocessor.outputs, call.outputs, specs, strict=True
            ):
                view[...] = self.vector.tensor(rule, spec)
        elif len(call.signals) != len(self.vector.document.signals):
            raise VectorError(
                f"{self.vector.name}: a call has {len(call.signals)} signals, "
                f"the document names {len(self.vector.document.signals)}"
            )

    def answer(self, call: Call) -> Answer:
        """The call itself, prepared before; what it gave is checked by the host, and copied."""
        frame = call.frame
        if self.vector.role == "preprocess":
            role = self._preprocessor
            reference = role.reference_slots[0] if call.reference is not None else None
            transform = role.run(role.frame_slots[0], reference)
            return Answer(transform, tuple(tensor.copy() for tensor in role.inputs))
        if self.vector.role == "postprocess":
            count = self._postprocessor.run(call.transform, frame.width, frame.height)
            return Answer(defects=self._postprocessor.defects(count))
        defects = np.array([(*d.box, d.score, d.label) for d in call.defects], DEFECT)
        signals = [(s.value, int(s.age_ms * 1e6), _STATES[s.state]) for s in call.signals]
        decision = self._decider.run(
            defects, len(defects), signals, self.frame_index, call.captured_at_ns, frame.width,
            frame.height, part_number(call.part),
        )  # fmt: skip
        self.frame_index += 1
        return Answer(decision=decision)

    def _fill(self, slot: ImageSlot, rule: ImageRule) -> None:
        image = self._images[rule]
        slot.pixels[: image.size] = image.reshape(-1)
        slot.set_size(image.shape[1], image.shape[0])


def differences(vector: Vector, call: Call, found: Answer) -> list[str]:
    """What differs from the call's expectation; empty: nothing does."""
    expect, said = call.expect, []
    near = _Near(expect.tolerance)
    if expect.transform is not None and not near.all(found.transform, expect.transform):
        said.append(f"transform is {found.transform}, expected {expect.transform}")
    for spec, tensor, rule in zip(
        vector.document.inputs, found.inputs, expect.inputs or (), strict=False
    ):
        if rule.sha256:
            if digest(tensor) != rule.sha256:
                said.append(f"input {spec.name}: sha256 is {digest(tensor)}")
        else:
            said += near.tensor(f"input {spec.name}", tensor, vector.tensor(rule, spec))
    if expect.inputs is not None and len(expect.inputs) != len(found.inputs):
        said.append(f"{len(found.inputs)} inputs, expected {len(expect.inputs)}")
    if expect.defects is not None and found.defects is not None:
        said += _defect_differences(near, found.defects, expect.defects)
    if found.decision is not None:
        said += _decision_differences(near, found.decision, call)
    return said


class _Near:
    """Compares numbers within a tolerance; 0 asks for equal float32 values."""

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance

    def all(self, found: Any, expected: Any) -> bool:
        one = np.asarray(found, np.float64)
        other = np.asarray(expected, np.float64).astype(np.float32).astype(np.float64)
        return one.shape == other.shape and bool((abs(one - other) <= self._tolerance).all())

    def tensor(self, name: str, found: Array, expected: Array) -> list[str]:
        if self._tolerance == 0 and found.tobytes() == expected.tobytes():
            return []
        distance = abs(found.astype(np.float64) - expected.astype(np.float64))
        good = distance <= self._tolerance  # NaN is not
        if good.all():
            return []
        at = tuple(int(i) for i in np.argwhere(~good)[0])
        return [
            f"{name}: {int((~good).sum())} of {good.size} elements differ, first at {list(at)}: "
            f"{found[at]}, expected {expected[at]} within {self._tolerance:g}"
        ]


def _defect_differences(near: _Near, found: Array, expected: Any) -> list[str]:
    said = []
    if len(found) != len(expected):
        said.append(f"{len(found)} defects, expected {len(expected)}: {found.tolist()}")
    for index, (row, rule) in enumerate(zip(found, expected, strict=False)):
        x0, y0, x1, y1, score, label = row.tolist()
        if label != rule.label or not near.all((x0, y0, x1, y1, score), (*rule.box, rule.score)):
            said.append(f"defect {index} is {row.tolist()}, expected {rule}")
    return said


def _decision_differences(near: _Near, found: Decision, call: Call) -> list[str]:
    expect, said = call.expect, []
    for name, one, other in (
        ("verdict", found.kind.value, expect.verdict),
        ("reason", found.reason, expect.reason),
    ):
        if other is not None and one != other:
            said.append(f"{name} is {one!r}, expected {other!r}")
    if expect.score is not None and not near.all(found.score, expect.score):
        said.append(f"score is {found.score:g}, expected {expect.score:g}")
    if expect.actions is not None:
        wishes = [(a.index, a.value, a.ttl_ms) for a in found.actions]
        wanted = [(a.index, a.value, a.ttl_ms) for a in expect.actions]
        if wishes != wanted:
            said.append(f"actions are {wishes}, expected {wanted}")
    return said
