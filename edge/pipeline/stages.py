"""The stages of one pipeline, standing: three guests, the model bound to their memory.

A set is built whole and replaced whole. After a trap the guests' memory may be half-written, so
the set is dropped and the spare takes its place (`edge.pipeline.path`).
"""

from pathlib import Path
from typing import Any, Final

import msgspec

from edge.contracts.messages import GuestLine
from edge.contracts.parameters import Names
from edge.contracts.plan import GuestPlan, PipelinePlan
from edge.errors import IncompatibleError
from edge.inference.model import OnnxModel
from edge.pipeline.finders import Finder, GuestFinder, ProgramFinder
from edge.wasm.engine import GuestEngine, GuestModule, PolicyModule
from edge.wasm.guest import Guest
from edge.wasm.policy import Policy, PolicyGuest, new_policy
from edge.wasm.program import ProgramModule
from edge.wasm.roles import Postprocessor, Preprocessor

FRAME_SLOTS: Final = 2
"""One frame being judged, one decoded ahead of it."""


class Modules(msgspec.Struct, frozen=True):
    """The compiled guests of a pipeline, by role."""

    preprocess: GuestModule | None
    postprocess: GuestModule | None
    decide: PolicyModule
    program: ProgramModule | None = None
    """In the place of the first two."""


def load_modules(engine: GuestEngine, plan: PipelinePlan) -> Modules:
    """Load what a plan names: compiled, or taken from the cache.

    Raises:
        DeploymentError: A file is not the pinned one, or none that this host can run.
        StorageError: A file cannot be read, or the cache not written.
    """
    first, last, policy = plan.preprocess, plan.postprocess, plan.decide
    decide = engine.load_policy(
        Path(policy.path), policy.sha256, policy.memory_mib, metered=policy.fuel > 0
    )
    if plan.graph:
        program = engine.load_program(Path(first.path), first.sha256, first.memory_mib)
        return Modules(None, None, decide, program)
    preprocess, postprocess = (
        engine.load(Path(guest.path), guest.sha256, guest.memory_mib, metered=guest.fuel > 0)
        for guest in (first, last)
    )
    return Modules(preprocess, postprocess, decide)


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
        self.finder = self._finder(model)
        self.decide = self._decider()

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

    def _finder(self, model: OnnxModel) -> Finder:
        plan, modules = self._plan, self._modules
        if modules.program is not None:
            return ProgramFinder(plan, modules.program, model, FRAME_SLOTS)
        preprocess = Preprocessor(
            self._guest("preprocess", modules.preprocess, plan.preprocess),
            plan.image,
            FRAME_SLOTS,
            plan.reference_slots if plan.reference else 0,
            plan.model.inputs,
        )
        postprocess = Postprocessor(
            self._guest("postprocess", modules.postprocess, plan.postprocess),
            plan.model.outputs,
            class_count=len(plan.model.classes),
        )
        infer = model.bind(preprocess.inputs, postprocess.outputs)
        return GuestFinder(preprocess, infer, postprocess)

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

    def _guest(self, role: str, module: GuestModule | None, grant: GuestPlan) -> Guest:
        assert module is not None, "there is no program, so there are guests"
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
