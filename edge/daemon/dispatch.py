"""Dispatch: every accepted frame gets exactly one verdict, by its deadline, whatever happens.

The rules of one pipeline, with no I/O of its own: frames, answers and clock come in as calls,
verdicts and work go out through `Outlets`. All calls are made on the event loop's thread.

A frame is *waiting* (for the worker), *at work* (sent to it) or *answered*. It is answered once,
by the first of: an answer of the worker, its deadline, the loss of the worker, or giving way to
another frame. A worker's answer that comes later is counted and dropped.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Final

from edge.config import DeadlineSection
from edge.contracts import verdict as verdicts
from edge.contracts.frame import part_number
from edge.contracts.messages import Failed, Judge, Judged, PolicyState
from edge.contracts.plan import Overflow, PipelinePlan
from edge.contracts.signal import SignalValue
from edge.contracts.verdict import Defect, Kind, Reason, Verdict
from edge.daemon.intake import Fault, Frame
from edge.daemon.outlets import Outlets, Seen, Successor, Timer, WorkerPort
from edge.daemon.references import Held
from edge.daemon.remembered import Given, Remembered, refusal_key
from edge.daemon.underway import Underway

MAX_AT_WORK: Final = 2
"""Frames sent to a worker and not answered: one it judges, one it decodes ahead."""
_NS_PER_MS: Final = 1_000_000


class _Admission:
    """One frame on its way."""

    __slots__ = ("answered", "frame", "reference", "sent_ns", "signals", "ticket", "timer")

    def __init__(
        self, ticket: int, frame: Frame, reference: Held | None, signals: tuple[SignalValue, ...]
    ) -> None:
        self.ticket = ticket
        self.frame = frame
        self.reference = reference
        self.signals = signals
        self.sent_ns = 0
        self.answered = False
        self.timer: Timer | None = None


class Dispatch:
    """The rules of one pipeline.

    Args:
        device: The device's id.
        plan: The pipeline.
        deadlines: Margins.
        remembered: Verdicts given before; kept here for redelivered frames.
        outlets: Where everything goes.
        underway: The pipeline's frames without a verdict, where another dispatch has some of them.
    """

    def __init__(
        self,
        device: str,
        plan: PipelinePlan,
        deadlines: DeadlineSection,
        remembered: Remembered,
        outlets: Outlets,
        underway: Underway | None = None,
    ) -> None:
        self.plan = plan
        self.policy = PolicyState()
        self._device = device
        self._margin_ns = deadlines.margin_ms * _NS_PER_MS
        self._hang_ns = deadlines.hang_ms * _NS_PER_MS
        self._remembered = remembered
        self._outlets = outlets
        self._worker: WorkerPort | None = None
        self._successor: Successor | None = None
        self._was_ready = False
        self._waiting: deque[_Admission] = deque()
        self._at_work: OrderedDict[int, _Admission] = OrderedDict()
        self._underway = Underway() if underway is None else underway

    @property
    def ready(self) -> bool:
        """Whether a worker stands that passed its probe."""
        return self._worker is not None

    @property
    def waiting(self) -> bool:
        """Whether a frame waits for the worker to have time for it."""
        return bool(self._waiting)

    @property
    def queued(self) -> int:
        """How many do."""
        return len(self._waiting)

    @property
    def owes(self) -> bool:
        """Whether a frame that was given to this dispatch has no verdict yet."""
        return bool(self._waiting) or not self._all_answered()

    @property
    def oldest_deadline_ns(self) -> int | None:
        """The earliest deadline of a frame that waits, or that the worker has not given back."""
        return min(
            (each.frame.deadline_ns for each in (*self._waiting, *self._at_work.values())),
            default=None,
        )

    def submit(
        self, frame: Frame, reference: Held | None, signals: tuple[SignalValue, ...]
    ) -> None:
        """Accept a frame; from here on it is owed a verdict.

        Args:
            frame: The frame.
            reference: Its reference image; None where there is none.
            signals: As of its capture, in the order of the plan's grants.
        """
        given = self._remembered.find(frame.frame_id)
        under_way = self._underway.fingerprint(frame.frame_id)
        known = given.fingerprint if given else under_way
        if known is not None and known != frame.fingerprint:
            self._refuse_reused(frame, seen=Seen(reference, signals))
            return
        if given is not None:
            self._outlets.repeat(frame, given.verdict)
            return
        if under_way is not None:
            # Its pixels are not needed: a camera that repeats itself must not fill the memory.
            self._underway.share(frame.without_pixels())
            return
        self._underway.begin(frame)
        admission = _Admission(self._underway.ticket(), frame, reference, signals)
        fault = self._fault_of(admission)
        if fault is None:
            fault = self._make_room()
        if fault is not None:
            self._fail(admission, fault.reason, fault.detail)
            return
        self._waiting.append(admission)
        self._set_deadline(admission)
        self._send_on()

    def give_back(self) -> tuple[Frame, ...]:
        """Let go of the worker and of every frame without a verdict; return these, oldest first.

        Another dispatch, with the same frames under way, is to adopt them.
        """
        return tuple(admission.frame for admission in self._let_go())

    def give_up(self, detail: str) -> None:
        """Let go of the worker, and give every frame without a verdict its fail-safe now."""
        for admission in self._let_go():
            self._fail(admission, Reason.WORKER_LOST, detail)

    def _let_go(self) -> list[_Admission]:
        left = [each for each in (*self._at_work.values(), *self._waiting) if not each.answered]
        self._worker = None
        self._at_work.clear()
        self._waiting.clear()
        for admission in left:
            admission.answered = True  # here
            if admission.timer is not None:
                admission.timer.cancel()
        return left

    def adopt(self, frames: Sequence[tuple[Frame, Seen]]) -> None:
        """Take over frames that are owed their verdict already, oldest first.

        They come before those that wait: their time is shortest. For once more may wait than may.
        """
        for frame, seen in reversed(frames):
            admission = _Admission(self._underway.ticket(), frame, seen.reference, seen.signals)
            if (fault := self._fault_of(admission)) is not None:
                self._fail(admission, fault.reason, fault.detail)
                continue
            self._waiting.appendleft(admission)
            self._set_deadline(admission)
        self._send_on()

    def attach(self, worker: WorkerPort) -> None:
        """Use a worker that is ready."""
        self._worker = worker
        self._was_ready = True
        self._send_on()

    def exchange(self, successor: Successor) -> None:
        """Go on with another plan and worker, between two frames.

        Frames that wait are held back until those at work are answered: by their judgement, their
        deadline, or the loss of the old worker. The policy goes on from where it stopped.
        """
        self._successor = successor
        self._send_on()

    def call_off(self) -> None:
        """Stay with what there is: the successor is gone before it took its place."""
        self._successor = None
        self._send_on()

    def detach(self) -> None:
        """Forget the worker, which is gone; frames at work get `worker-lost`."""
        self._worker = None
        lost, self._at_work = self._at_work, OrderedDict()
        for admission in lost.values():
            if not admission.answered:
                self._fail(admission, Reason.WORKER_LOST, "the worker ended while judging it")
        self._send_on()

    def judged(self, judged: Judged) -> None:
        """Take a worker's judgement."""
        if judged.policy is not None and judged.ticket in self._at_work:
            self.policy = judged.policy  # also where the frame was answered without it
        admission = self._back(judged.ticket)
        if admission is not None:
            self._answer(
                admission,
                judged.verdict,
                judged.reason,
                score=judged.score,
                defects=judged.defects,
                stage_ms=judged.stage_ms,
                judged=judged,
            )
            if judged.actions:
                self._outlets.act(admission.frame, judged.actions)
        self._send_on()

    def failed(self, failed: Failed) -> None:
        """Take a worker's word that a frame cannot be judged."""
        admission = self._back(failed.ticket)
        if admission is not None:
            self._fail(admission, failed.reason, failed.detail, failed.stage_ms)
        self._send_on()

    def _fault_of(self, admission: _Admission) -> Fault | None:
        frame = admission.frame
        if frame.fault is not None:
            return frame.fault
        if self.plan.reference and admission.reference is None:
            return Fault(
                Reason.NO_REFERENCE,
                f"no reference image {frame.reference_id!r} on {self.plan.reference}",
            )
        if self._worker is None and not self._was_ready:
            return Fault(Reason.NOT_READY, "the pipeline has not passed its probe yet")
        if self._outlets.now_ns() >= frame.deadline_ns - self._margin_ns:
            return Fault(Reason.STALE, "its deadline is over or too near to judge it")
        return None

    def _make_room(self) -> Fault | None:
        if len(self._waiting) < self.plan.queue_frames:
            return None
        # Without a worker it is not the camera that is too fast.
        reason = Reason.OVERLOAD if self._worker is not None else Reason.WORKER_LOST
        if self.plan.overflow is Overflow.QUEUE:
            return Fault(reason, f"{len(self._waiting)} frames wait already")
        oldest = self._waiting.popleft()
        self._fail(oldest, reason, "a newer frame took its place")
        return None

    def _send_on(self) -> None:
        if self._successor is not None:
            if not self._all_answered():
                return
            self._succeed(self._successor)
        while self._worker is not None and self._waiting and len(self._at_work) < MAX_AT_WORK:
            admission = self._waiting.popleft()
            admission.sent_ns = self._outlets.now_ns()
            self._at_work[admission.ticket] = admission
            frame = admission.frame
            self._worker.judge(
                Judge(
                    ticket=admission.ticket,
                    content_type=frame.content,
                    deadline_ns=frame.deadline_ns - self._margin_ns,
                    captured_at_ns=frame.captured_at_ns,
                    reference=admission.reference.key if admission.reference else "",
                    signals=admission.signals,
                    part=part_number(frame.part_id),
                ),
                frame.payload,
                admission.reference,
            )

    def _succeed(self, successor: Successor) -> None:
        self._successor = None
        self._at_work.clear()  # answered, every one: their judgements are not waited for
        self.plan = successor.plan
        self._worker = successor.worker
        self._was_ready = True
        successor.worker.take_up(self.policy)
        for admission in self._waiting:
            admission.reference, admission.signals, _ = successor.renew(admission.frame)
        successor.done()  # before any verdict by the new plan: what is recorded hangs on it
        for admission in tuple(self._waiting):
            if (fault := self._fault_of(admission)) is not None:
                self._waiting.remove(admission)
                self._fail(admission, fault.reason, fault.detail)

    def _all_answered(self) -> bool:
        return all(admission.answered for admission in self._at_work.values())

    def _set_deadline(self, admission: _Admission) -> None:
        admission.timer = self._outlets.call_at(
            admission.frame.deadline_ns - self._margin_ns, lambda: self._deadline(admission)
        )

    def _back(self, ticket: int) -> _Admission | None:
        """Take a frame back from the worker; None where it was answered without it."""
        admission = self._at_work.pop(ticket, None)
        if admission is None:
            return None
        if admission.answered:
            self._outlets.note("late", admission.frame, "the worker answered after its deadline")
            return None
        return admission

    def _deadline(self, admission: _Admission) -> None:
        if admission.sent_ns:
            self._fail(admission, Reason.OVERRUN, "the worker has not answered in time")
            self._outlets.call_at(
                admission.frame.deadline_ns + self._hang_ns, lambda: self._hang(admission)
            )
            self._send_on()
            return
        self._waiting.remove(admission)
        if self._worker is None:
            self._fail(admission, Reason.WORKER_LOST, "no worker stood in time")
        else:
            self._fail(admission, Reason.OVERRUN, "its turn did not come in time")

    def _hang(self, admission: _Admission) -> None:
        if self._at_work.get(admission.ticket) is admission:
            self._outlets.worker_hangs(
                f"no answer to frame {admission.frame.frame_id} "
                f"{self._hang_ns / 1e6:.0f} ms past its deadline"
            )

    def _fail(
        self,
        admission: _Admission,
        reason: str,
        detail: str,
        stage_ms: dict[str, float] | None = None,
    ) -> None:
        self._answer(admission, self._fail_safe(reason), reason, stage_ms=stage_ms or {})
        self._outlets.note(reason, admission.frame, detail)

    def _fail_safe(self, reason: str) -> Kind:
        """A part whose verdict cannot be recorded does not pass, whatever the fail-safe is."""
        passes = self.plan.fail_safe is Kind.PASS and reason == Reason.STORAGE
        return Kind.REVIEW if passes else self.plan.fail_safe

    def _answer(
        self,
        admission: _Admission,
        kind: Kind,
        reason: str,
        *,
        stage_ms: dict[str, float],
        score: float = 0.0,
        defects: tuple[Defect, ...] = (),
        judged: Judged | None = None,
    ) -> None:
        """Publish a frame's one verdict."""
        admission.answered = True
        if admission.timer is not None:
            admission.timer.cancel()
        frame = admission.frame
        verdict = self._verdict(admission, kind, reason, score, defects, stage_ms)
        encoded = verdicts.to_json(verdict)
        seen = Seen(admission.reference, admission.signals, judged)
        self._outlets.give(frame, verdict, encoded, seen)
        self._remembered.keep(frame.frame_id, Given(encoded, frame.fingerprint))
        for repeated in self._underway.end(frame.frame_id):
            self._outlets.repeat(repeated, encoded)

    def _refuse_reused(self, frame: Frame, seen: Seen) -> None:
        """Answer other pixels under an id that has its verdict, or is about to get it.

        A camera that counts from the start again must not pass parts by the verdicts of others.
        Where the same pixels come again, they get the same refusal.
        """
        key = refusal_key(frame.frame_id, frame.fingerprint)
        if (refused := self._remembered.find(key)) is not None:
            self._outlets.repeat(frame, refused.verdict)
            return
        admission = _Admission(-1, frame, seen.reference, seen.signals)
        verdict = self._verdict(admission, self.plan.fail_safe, Reason.ID_REUSED, 0.0, (), {})
        encoded = verdicts.to_json(verdict)
        self._outlets.give(frame, verdict, encoded, seen)
        self._remembered.keep(key, Given(encoded, frame.fingerprint))
        self._outlets.note(
            Reason.ID_REUSED,
            frame,
            "other pixels came under this id before: the camera must not count anew",
        )

    def _verdict(
        self,
        admission: _Admission,
        kind: Kind,
        reason: str,
        score: float,
        defects: tuple[Defect, ...],
        stage_ms: dict[str, float],
    ) -> Verdict:
        frame = admission.frame
        return Verdict(
            device=self._device,
            pipeline=self.plan.name,
            deployment=self.plan.deployment,
            frame_id=frame.frame_id,
            part_id=frame.part_id,
            verdict=kind,
            reason=reason,
            score=score,
            defects=defects,
            captured_at_ns=frame.captured_at_ns,
            latency_ms=self._latency(admission, stage_ms),
            budget_ms=float(self.plan.budget_ms),
            provider=self._worker.provider if self._worker and admission.sent_ns else "",
        )

    def _latency(self, admission: _Admission, stage_ms: dict[str, float]) -> dict[str, float]:
        """Account for the whole way from capture to this instant, in milliseconds."""
        frame, now_ns = admission.frame, self._outlets.now_ns()
        latency = {"total": _ms(now_ns - frame.captured_ns)}
        if frame.arrived_ns > frame.captured_ns:
            latency["transport"] = _ms(frame.arrived_ns - frame.captured_ns)
        if not admission.sent_ns:
            latency["wait"] = _ms(now_ns - frame.arrived_ns)
            return latency
        latency["wait"] = _ms(admission.sent_ns - frame.arrived_ns)
        latency.update(stage_ms)
        if stage_ms:
            channel = _ms(now_ns - admission.sent_ns) - sum(stage_ms.values())
            latency["channel"] = round(max(channel, 0.0), 3)
        return latency


def _ms(nanoseconds: int) -> float:
    return round(nanoseconds / 1e6, 3)
