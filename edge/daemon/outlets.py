"""What dispatch causes, and what it speaks to: the seams between its rules and the world."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from edge.contracts.messages import ActionWish, Judge, Judged, PolicyState
from edge.contracts.plan import PipelinePlan
from edge.contracts.signal import SignalValue
from edge.contracts.verdict import Verdict
from edge.daemon.intake import Frame
from edge.daemon.references import Held

if TYPE_CHECKING:
    from edge.daemon.dispatch import Dispatch
    from edge.daemon.seat import Seat


class Timer(Protocol):
    """Something that was to happen, and may be called off."""

    def cancel(self) -> None:
        """Call it off."""


class Seen(NamedTuple):
    """What a verdict came from, beside the frame; `judged` is None where it is the host's own."""

    reference: Held | None
    signals: tuple[SignalValue, ...]
    judged: Judged | None = None


class Outlets(Protocol):
    """What dispatch causes."""

    def now_ns(self) -> int:
        """The monotonic clock."""

    def call_at(self, instant_ns: int, act: Callable[[], None]) -> Timer:
        """Call `act` at an instant of the monotonic clock."""

    def give(self, frame: Frame, verdict: Verdict, encoded: bytes, seen: Seen) -> None:
        """Send a frame's one verdict out, record it, and settle the frame when both are safe."""

    def repeat(self, frame: Frame, encoded: bytes) -> None:
        """Send a verdict again, for a frame that came again."""

    def act(self, frame: Frame, wishes: tuple[ActionWish, ...]) -> None:
        """Carry out what the policy asked for, within its grants."""

    def note(self, reason: str, frame: Frame, detail: str) -> None:
        """Count and log why a frame was not judged, or `late`: why its judgement was dropped."""

    def worker_hangs(self, detail: str) -> None:
        """The worker has not answered long past a deadline: replace it."""


class WorkerPort(Protocol):
    """A worker that is ready."""

    provider: str

    def judge(self, request: Judge, payload: bytes, reference: Held | None) -> None:
        """Send it a frame, and before it the reference image where it has not got that yet."""

    def take_up(self, policy: PolicyState) -> None:
        """Have its policy go on from a state, with the next frame."""


class Successor(NamedTuple):
    """What takes a worker's place between two frames.

    Attributes:
        plan: What it judges by.
        worker: Ready.
        renew: What a frame that waits is to be judged with under this plan.
        done: Called when it has taken the place.
    """

    plan: PipelinePlan
    worker: WorkerPort
    renew: Callable[[Frame], Seen]
    done: Callable[[], None]


class Companion(Outlets, Protocol):
    """Who judges some of a pipeline's frames beside its active worker."""

    @property
    def plan(self) -> PipelinePlan:
        """By which it judges."""

    @property
    def worker(self) -> "Seat":
        """By whom."""

    @property
    def dispatch(self) -> "Dispatch":
        """Through which."""

    def takes(self, frame: Frame) -> bool:
        """Whether it judges this frame."""

    def submit(self, frame: Frame) -> None:
        """Judge a frame that it takes."""

    def status(self) -> dict[str, Any]:
        """Return what the status message says of it."""
