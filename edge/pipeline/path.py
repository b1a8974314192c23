"""The way of one frame: `decode` on the decode thread, `judge` on the engine thread.

Two threads share a path. The decode thread writes pixels into free frame slots, at most
`FRAME_SLOTS` ahead; the engine thread owns every Wasm store and the model session, and is the only
one that calls into them. Neither logs, and neither does I/O.
"""

import contextlib
import hashlib
import threading
import time
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt

from edge.contracts.messages import Failed, GuestLine, Judge, Judged, PolicyState
from edge.contracts.plan import PipelinePlan
from edge.contracts.sight import Sight
from edge.contracts.signal import SignalState
from edge.contracts.verdict import Defect
from edge.errors import FrameError, GuestError, IncompatibleError
from edge.inference.model import OnnxModel
from edge.pipeline.decode import decode, shaped
from edge.pipeline.finders import Slot
from edge.pipeline.references import DecodedReferences, Encoded, EncodedReferences
from edge.pipeline.refine import Refined
from edge.pipeline.sight import look
from edge.pipeline.stages import FRAME_SLOTS, Modules, Stages
from edge.wasm.roles import Decision

_SIGNAL_CODES: Final = {SignalState.ABSENT: 0, SignalState.FRESH: 1, SignalState.STALE: 2}


class DeadlinePassedError(FrameError):
    """No one waits for this frame's answer any more."""

    reason = "overrun"


class _Standing:
    """A set of stages with its free frame slots and its decoded references."""

    def __init__(self, stages: Stages, plan: PipelinePlan) -> None:
        self.stages = stages
        self.free = list(stages.finder.frame_slots)
        self.references = DecodedReferences(stages.finder.reference_slots, plan.image)


class DecodedFrame:
    """A frame whose pixels lie in a slot; it holds the slot until it was judged.

    Attributes:
        encoded: The reference that it was sent with, which may be withdrawn while it is under way.
        stage_ms: The stopwatch: milliseconds of each stage that is done.
        sight: What its picture is like, where it was looked at.
    """

    __slots__ = (
        "_standing",
        "encoded",
        "payload",
        "reference",
        "request",
        "sight",
        "slot",
        "stage_ms",
    )

    def __init__(
        self,
        request: Judge,
        payload: bytes | bytearray,
        standing: _Standing,
        slot: Slot,
        reference: Slot | None,
        encoded: Encoded | None,
    ) -> None:
        self.request = request
        self.payload = payload
        self.slot = slot
        self.reference = reference
        self.encoded = encoded
        self.stage_ms: dict[str, float] = {}
        self.sight: Sight | None = None
        self._standing = standing

    def lies_in(self, standing: _Standing) -> bool:
        """Whether the pixels are in the memory of that set."""
        return self._standing is standing

    def release(self) -> None:
        """Give the slot back."""
        self._standing.free.append(self.slot)


class FramePath:
    """One pipeline, able to judge frames.

    Args:
        plan: What it is made of.
        modules: Its compiled guests.
        model: Its loaded model.
        policy: Where the policy's forerunner stopped.
        second: The second model of a cascade, loaded.

    Raises:
        IncompatibleError: The guests do not fit the plan (see `Stages`).
    """

    def __init__(
        self,
        plan: PipelinePlan,
        modules: Modules,
        model: OnnxModel,
        policy: PolicyState,
        second: OnnxModel | None = None,
    ) -> None:
        self.encoded = EncodedReferences()
        self._plan = plan
        self._modules = modules
        self._model = model
        self._second = second
        self._classes = plan.classes
        self._policy = policy
        self._lines: tuple[GuestLine, ...] = ()
        self._state_refusal = ""
        self._placing = threading.Lock()
        self._under_way: list[DecodedFrame] = []
        self._standing = self._stand()
        self._spare: _Standing | None = self._stand()
        self._fresh = self._standing.stages.fresh
        # Where each frame meets a set of its own, that set must stand before its pixels come.
        self._ahead = threading.Semaphore(1 if self._fresh else FRAME_SLOTS)
        self._astray = False
        self._look_again_ns = 0
        self._resume(self._standing)
        if self._standing.stages.refiner is not None:
            self._standing.stages.refiner.warm()
        self._expect_state_within_grant()

    @property
    def provider(self) -> str:
        """The execution provider that runs the models, as ONNX Runtime names it."""
        return self._model.provider

    def decode(self, request: Judge, payload: bytes | bytearray) -> DecodedFrame:
        """Place a frame's pixels in guest memory; waits for a free slot. Decode thread.

        Raises:
            FrameError: The frame or its reference cannot be decoded, or its deadline passed.
        """
        self._ahead.acquire()
        try:
            with self._placing:
                frame = self._place(request, payload)
                self._under_way.append(frame)
        except BaseException:
            self._ahead.release()
            raise
        return frame

    def judge(self, frame: DecodedFrame) -> Judged:
        """Take a decoded frame to its judgement, and release its slot. Engine thread.

        Raises:
            FrameError: A stage failed, or the deadline passed before it began.
        """
        try:
            _expect_time_left(frame.request)
            self._call_policy_back()  # first: it may bring a new set, and the pixels must follow
            frame = self._follow(frame)
            before = self._policy
            try:
                decision, refined = self._run(frame)
            except FrameError:
                with contextlib.suppress(GuestError):  # the first failure counts
                    self._lines = self._standing.stages.log_lines()
                if self._astray and not frame.request.probe:
                    with contextlib.suppress(GuestError):
                        self._keep_state(decided=0)  # it goes on from what the failure left
                raise
            self._lines = self._standing.stages.log_lines()
        finally:
            # No lock: the next frame may be decoding, and this answer must not wait for it.
            self._under_way.remove(frame)
            frame.release()
            if self._standing.stages.broken or self._fresh:
                self._replace()
            self._ahead.release()
        return Judged(
            ticket=frame.request.ticket,
            verdict=decision.kind,
            reason=decision.reason,
            score=round(decision.score, 4),
            defects=self._named(refined.found),
            stage_ms=frame.stage_ms,
            actions=decision.actions,
            policy=None if frame.request.probe else self._policy,
            lines=self._take_lines(),
            state_refused=self.take_state_refusal(),
            before=before,
            findings=hashlib.sha256(refined.found.tobytes()).hexdigest(),
            crops=refined.crops,
            crops_beyond=refined.beyond,
            sight=frame.sight,
            seat=frame.request.seat,
        )

    def take_up(self, policy: PolicyState) -> None:
        """Go on from another state, such as a recorded one; between frames. Engine thread.

        A state that the policy refuses leaves it empty (`take_state_refusal`).
        """
        if policy != self._policy:
            self._policy = policy
            self._astray = True
            self.mend()

    def failed(self, frame: DecodedFrame, error: FrameError) -> Failed:
        """Say of a frame that `judge` raised for, with what there is to tell besides."""
        return Failed(
            frame.request.ticket,
            error.reason,
            str(error),
            frame.stage_ms,
            self._take_lines(),
            self.take_state_refusal(),
            seat=frame.request.seat,
        )

    def take_state_refusal(self) -> str:
        """Why the policy started empty since this was asked last; empty: it did not."""
        refusal, self._state_refusal = self._state_refusal, ""
        return refusal

    def mend(self) -> None:
        """Build what the next frames need in place of what was used up; between frames."""
        self._call_policy_back()
        if self._spare is None:
            self._spare = self._stand()

    def _call_policy_back(self) -> None:
        """Give a policy that went astray a new instance, which goes on from the known state.

        Astray is one that is used up, or whose last call, of a probe, say, is to leave no trace.
        """
        if not self._astray:
            return
        if self._standing.stages.policy_stands_alone:
            self._astray = False
            self._standing.stages.renew_policy()
            self._resume(self._standing)
        else:
            self._replace()

    def _take_lines(self) -> tuple[GuestLine, ...]:
        lines, self._lines = self._lines, ()
        return lines

    def _expect_state_within_grant(self) -> None:
        """Find a state that is larger than its grant now, and not with every frame.

        Raises:
            IncompatibleError: The policy cannot save its state.
        """
        try:
            self._standing.stages.decide.save_state()
        except GuestError as unfit:
            raise IncompatibleError(str(unfit)) from unfit

    def _run(self, frame: DecodedFrame) -> tuple[Decision, Refined]:
        stages, slot, request = self._standing.stages, frame.slot, frame.request
        watch = _Stopwatch(frame.stage_ms)
        found = stages.finder.find(slot, frame.reference, watch.lap)
        refined = Refined(found, 0, 0)
        if stages.refiner is not None:
            refined = stages.refiner.run(
                found, slot, frame.reference, watch.lap, partial(_expect_time_left, request)
            )
            found = refined.found
        self._astray = True  # until it is known where the call leaves it
        decision = stages.decide.run(
            found,
            len(found),
            [(s.value, s.age_ns, _SIGNAL_CODES[s.state]) for s in request.signals],
            self._policy.frame_index,
            request.captured_at_ns,
            slot.width,
            slot.height,
            request.part,
        )
        if not request.probe:
            self._keep_state(decided=1)
        watch.lap("decide")
        return decision, refined

    def _keep_state(self, decided: int) -> None:
        stages = self._standing.stages
        blob = stages.decide.save_state() or b""
        self._policy = PolicyState(self._policy.frame_index + decided, blob)
        self._astray = stages.policy_fresh

    def _named(self, found: npt.NDArray[np.void]) -> tuple[Defect, ...]:
        classes = self._classes
        return tuple(
            Defect(
                classes[label],
                round(score, 4),
                (round(x0, 2), round(y0, 2), round(x1, 2), round(y1, 2)),
            )
            for x0, y0, x1, y1, score, label in found.tolist()
        )

    def _place(
        self, request: Judge, payload: bytes | bytearray, encoded: Encoded | None = None
    ) -> DecodedFrame:
        """Decode into the standing set; the caller holds `_placing`."""
        _expect_time_left(request)
        began = time.perf_counter_ns()
        standing = self._standing
        reference = None
        if self._plan.reference:
            busy = frozenset(frame.request.reference for frame in tuple(self._under_way))
            encoded = encoded or self.encoded.find(request.reference)
            reference = standing.references.fetch(request.reference, encoded, busy)
        slot = standing.free.pop()
        try:
            width, height = decode(payload, request.content_type, self._plan.image, slot.pixels)
        except BaseException:
            standing.free.append(slot)
            raise
        slot.set_size(width, height)
        frame = DecodedFrame(request, payload, standing, slot, reference, encoded)
        if self._is_to_be_looked_at(request, began):
            frame.sight = look(shaped(slot.pixels, width, height, self._plan.image.pixel_format))
        frame.stage_ms["decode"] = _ms(time.perf_counter_ns() - began)
        return frame

    def _is_to_be_looked_at(self, request: Judge, now_ns: int) -> bool:
        """Whether it is time for a look at what pictures are like; the next is due later then."""
        rule = self._plan.drift
        if not rule.learn_frames or request.probe or now_ns < self._look_again_ns:
            return False
        self._look_again_ns = now_ns + rule.every_ms * 1_000_000
        return True

    def _follow(self, frame: DecodedFrame) -> DecodedFrame:
        """Bring a frame along whose guest memory went away with a trap after it was decoded."""
        if frame.lies_in(self._standing):
            return frame
        with self._placing:
            moved = self._place(frame.request, frame.payload, frame.encoded)
            moved.sight = moved.sight or frame.sight
            self._under_way[self._under_way.index(frame)] = moved
            frame.release()
        return moved

    def _stand(self) -> _Standing:
        stages = Stages(self._plan, self._modules, self._model, self._second)
        return _Standing(stages, self._plan)

    def _replace(self) -> None:
        with self._placing:
            self._standing, self._spare = self._spare or self._stand(), None
        self._astray = False
        self._resume(self._standing)

    def _resume(self, standing: _Standing) -> None:
        """Hand the policy its forerunner's state; where it cannot read it, it starts empty."""
        if not self._policy.blob:
            return
        try:
            if standing.stages.decide.restore_state(self._policy.blob):
                return
            self._state_refusal = standing.stages.decide.state_refusal
        except GuestError as trapped:
            # It traps on this state: drop the state, and let the next frame find a whole guest.
            self._state_refusal = str(trapped)
            self._policy = PolicyState()
            self._replace()
            return
        self._policy = PolicyState()


class _Stopwatch:
    """Laps in milliseconds, written into the frame's own record."""

    def __init__(self, stage_ms: dict[str, float]) -> None:
        self._stage_ms = stage_ms
        self._last = time.perf_counter_ns()

    def lap(self, stage: str) -> None:
        """End the stage that began with the last lap; of a stage of several laps, the sum."""
        now = time.perf_counter_ns()
        took_ms = _ms(now - self._last)
        before_ms = self._stage_ms.get(stage)
        self._stage_ms[stage] = took_ms if before_ms is None else round(before_ms + took_ms, 3)
        self._last = now


def _expect_time_left(request: Judge, when: str = "before its turn") -> None:
    late_ns = time.monotonic_ns() - request.deadline_ns
    if late_ns > 0:
        raise DeadlinePassedError(f"its deadline passed {_ms(late_ns)} ms ago, {when}")


def _ms(nanoseconds: int) -> float:
    return round(nanoseconds / 1e6, 3)
