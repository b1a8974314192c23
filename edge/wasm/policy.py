"""The role `decide`, by whatever serves it: a core guest or a script. One protocol, two ways."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy.typing as npt

from edge.contracts.parameters import Names
from edge.wasm.guest import Guest
from edge.wasm.roles import Decider, Decision
from edge.wasm.script import Script
from edge.wasm.script_policy import ScriptDecider

PolicyGuest = Guest | Script
"""An instance that serves `decide`."""


class Policy(Protocol):
    """Turns defects and signals into a verdict."""

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

    def save_state(self) -> bytes | None:
        """What a successor needs to go on; `None`: nothing."""

    def restore_state(self, state: bytes) -> bool:
        """Take over a forerunner's state; whether it could."""

    @property
    def state_refusal(self) -> str:
        """Why the last state was not taken over; empty: it was."""


def new_policy(guest: PolicyGuest, names: Names) -> Policy:
    """Make a configured instance decide.

    Args:
        guest: The instance.
        names: What it is told about, each kind in the order of its indices.

    Raises:
        IncompatibleError: It does not serve this role, or its memory does not suffice.
    """
    if isinstance(guest, Script):
        return ScriptDecider(guest, names.classes, names.signals, names.actions)
    return Decider(guest, len(names.signals), len(names.actions))
