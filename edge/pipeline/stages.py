"""The stages of one pipeline, standing: three guests, the model bound to their memory.

A set is built whole and replaced whole. After a trap the guests' memory may be half-written, so
the set is dropped and the spare takes its place (`edge.pipeline.path`).
"""

from typing import Any, Final

import msgspec

from edge.contracts.messages import GuestLine
from edge.contracts.plan import GuestPlan, PipelinePlan
from edge.errors import IncompatibleError
from edge.inference.model import OnnxModel
from edge.wasm.engine import GuestModule, PolicyModule
from edge.wasm.guest import Guest
from edge.wasm.policy import Names, Policy, PolicyGuest, new_policy
from edge.wasm.roles import Postprocessor, Preprocessor

FRAME_SLOTS: Final = 2
"""One frame being judged, one decoded ahead of it."""


class Modules(msgspec.Struct, frozen=True):
    """The compiled guests of a pipeline, by role."""

    preprocess: GuestModule
    postprocess: GuestModule
    decide: PolicyModule


class Stages:
    """One set of guest instances with the model's tensors bound to their memory.

    Raises:
        IncompatibleError: A guest lacks its role, refuses its parameters, or has too little memory.
    """

    def __init__(self, plan: PipelinePlan, modules: Modules, model: OnnxModel) -> None:
        self._plan = plan
        self._modules = modules
        self._guests: dict[bytes, PolicyGuest] = {}
        self._speakers: dict[PolicyGuest, str] = {}
        self.preprocess = Preprocessor(
            self._guest("preprocess", modules.preprocess, plan.preprocess),
            plan.image,
            FRAME_SLOTS,
            plan.reference_slots if plan.reference else 0,
            plan.model.inputs,
        )
        self.postprocess = Postprocessor(
            self._guest("postprocess", modules.postprocess, plan.postprocess),
            plan.model.outputs,
            class_count=len(plan.model.classes),
        )
        self.decide = self._decider()
        self.infer = model.bind(self.preprocess.inputs, self.postprocess.outputs)

    @property
    def broken(self) -> bool:
        """Whether a guest trapped, so that no instance of this set may be used again."""
        return any(guest.broken for guest in self._guests.values())

    @property
    def fresh(self) -> bool:
        """Whether each frame meets a new set: a guest beside the policy is renewed with it."""
        plan = self._plan
        shared = plan.decide.fresh and not self.policy_stands_alone
        return plan.preprocess.fresh or plan.postprocess.fresh or shared

    @property
    def policy_fresh(self) -> bool:
        """Whether each frame is to meet a new instance of the policy alone."""
        return self._plan.decide.fresh and self.policy_stands_alone

    @property
    def policy_stands_alone(self) -> bool:
        """Whether the policy's guest serves no other role."""
        shared = (self._plan.preprocess, self._plan.postprocess)
        return _key(self._plan.decide) not in map(_key, shared)

    def renew_policy(self) -> None:
        """Give a policy that stands alone a new instance, as if no frame had been decided."""
        self._speakers.pop(self._guests.pop(_key(self._plan.decide)), None)
        self.decide = self._decider()

    def log_lines(self) -> tuple[GuestLine, ...]:
        """What the guests logged since they were asked last; a broken one is not asked.

        Raises:
            GuestError: One trapped over it, or points outside its memory.
        """
        return tuple(
            GuestLine(role, line)
            for guest, role in self._speakers.items()
            if not guest.broken
            for line in guest.log_lines()
        )

    def _decider(self) -> Policy:
        plan = self._plan
        guest = self._instance("decide", self._modules.decide, plan.decide)
        return new_policy(
            guest,
            Names(
                plan.model.classes,
                tuple(signal.name for signal in plan.signals),
                tuple(action.name for action in plan.actions),
            ),
        )

    def _guest(self, role: str, module: GuestModule, grant: GuestPlan) -> Guest:
        guest = self._instance(role, module, grant)
        assert isinstance(guest, Guest), "a script serves decide alone"
        return guest

    def _instance(self, role: str, module: PolicyModule, grant: GuestPlan) -> PolicyGuest:
        """Return the instance of a role; roles of one module with equal parameters share it."""
        if role not in module.roles:
            raise IncompatibleError(
                f"{grant.path}: the manifest uses it as {role}, but it exports only "
                f"{', '.join(sorted(module.roles))}"
            )
        guest = self._guests.get(_key(grant))
        if guest is None:
            guest = module.instantiate(
                grant.call_ms, fuel=grant.fuel, state_bytes=self._plan.decide.state_bytes
            )
            guest.configure(self._document(grant))
            self._guests[_key(grant)] = guest
            if guest.exports("edge_log"):
                self._speakers[guest] = role
        return guest

    def _document(self, grant: GuestPlan) -> dict[str, Any]:
        plan = self._plan
        document: dict[str, Any] = msgspec.to_builtins(
            {
                "parameters": grant.parameters,
                "classes": plan.model.classes,
                "signals": [signal.name for signal in plan.signals],
                "actions": [action.name for action in plan.actions],
                "inputs": plan.model.inputs,
                "outputs": plan.model.outputs,
            }
        )
        return document


def _key(grant: GuestPlan) -> bytes:
    return msgspec.json.encode((grant.sha256, grant.parameters), order="sorted")
