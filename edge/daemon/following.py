"""What follows from the plan by which a frame is judged: what is recorded, caused and said."""

from edge.contracts.plan import PipelinePlan
from edge.daemon.actions import Actions
from edge.daemon.guest_words import GuestWords
from edge.ledger.entry import Runtime, pinned


class Following:
    """What hangs on one plan, as long as frames are judged by it.

    Args:
        plan: The plan.
        actions: What its policy may cause.
        words: What its guests have to say.
        runtime: What runs its model and guests.
    """

    def __init__(
        self, plan: PipelinePlan, actions: Actions, words: GuestWords, runtime: Runtime
    ) -> None:
        self.plan = plan
        self.pinned = pinned(plan)
        self.actions = actions
        self.words = words
        self.runtime = runtime
