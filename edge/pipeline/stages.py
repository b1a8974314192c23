"""The stages of one pipeline, standing: three guests, the model bound to their memory.

A cascade has two guests and a model more (`edge.pipeline.refine`).

A set is built whole and replaced whole. After a trap the guests' memory may be half-written, so
the set is dropped and the spare takes its place (`edge.pipeline.path`).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from edge.contracts.messages import GuestLine
from edge.contracts.parameters import Names
from edge.contracts.plan import GuestPlan, ModelPlan, PipelinePlan
from edge.errors import IncompatibleError
from edge.inference.model import OnnxModel
from edge.pipeline.finders import Finder, GuestFinder, ProgramFinder
from edge.pipeline.refine import Refiner
from edge.wasm.engine import GuestEngine, GuestModule, PolicyModule
from edge.wasm.guest import Guest
from edge.wasm.policy import Policy, PolicyGuest, new_policy
from edge.wasm.program import ProgramModule
from edge.wasm.roles import Postprocessor, Preprocessor

REFINE: Final = "refine_"
"""Before the role in the names of the second model's stages."""
FRAME_SLOTS: Final = 2
"""One frame being judged, one decoded ahead of it."""


class Modules(msgspec.Struct, frozen=True):
    """The compiled guests of a pipeline, by role."""

    preprocess: GuestModule | None
    postprocess: GuestModule | None
    decide: PolicyModule
    program: ProgramModule | None = None
    """In the place of the first two."""
    refine: tuple[GuestModule, GuestModule] | None = None
    """Those of a cascade's second model."""


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
    refine = None
    if plan.refine is not None:
        refine = (_load(engine, plan.refine.preprocess), _load(engine, plan.refine.postprocess))
    if plan.graph:
        program = engine.load_program(Path(first.path), first.sha256, first.memory_mib)
        return Modules(None, None, decide, program, refine)
    return Modules(_load(engine, first), _load(engine, last), decide, refine=refine)


def _load(engine: GuestEngine, guest: GuestPlan) -> GuestModule:
    return engine.load(Path(guest.path), guest.sha256, guest.memory_mib, metered=guest.fuel > 0)


def load_models(
    plan: PipelinePlan, load: Callable[[ModelPlan], OnnxModel] = OnnxModel.load
) -> tuple[OnnxModel, OnnxModel | None]:
    """Load the models that a plan names: the first, and that of a cascade's second stage.

    Args:
        plan: The pipeline.
        load: Loads one, or finds it where it is loaded already.

    Raises:
        UntrustedError, IncompatibleError: As `OnnxModel.load`.
        IncompatibleError: The two do not run on one provider.
    """
    first = load(plan.model)
    if plan.refine is None:
        return first, None
    second = load(plan.refine.model)
    if second.provider != first.provider:
        raise IncompatibleError(
            f"pipeline {plan.name}: {plan.model.path} runs on {first.provider} and "
            f"{plan.refine.model.path} on {second.provider}; a verdict names one provider "
            "(set inference.provider to one that runs both)"
        )
    return first, second


class Stages:
    """One set of guest instances with the models' tensors bound to their memory.

    Attributes:
        refiner: The second model of a cascade, which judges what `finder` found; else None.
        policy_stands_alone: Whether the policy's guest serves no other role.

    Raises:
        IncompatibleError: A guest lacks its role, refuses its parameters, or has too little memory.
    """

    def __init__(
        self,
        plan: PipelinePlan,
        modules: Modules,
        model: OnnxModel,
        second: OnnxModel | None = None,
    ) -> None:
        self._plan = plan
        self._modules = modules
        self._guests: dict[bytes, PolicyGuest] = {}
        self._speakers: dict[PolicyGuest, str] = {}
        self._keys = {stage: self._key(stage, guest) for stage, guest in plan.guests}
        self.policy_stands_alone = [*self._keys.values()].count(self._keys["decide"]) == 1
        self.finder = self._finder(model)
        self.refiner = self._refiner(second)
        self.decide = self._decider()

    @property
    def broken(self) -> bool:
        """Whether a guest trapped, so that no instance of this set may be used again."""
        return any(guest.broken for guest in self._guests.values())

    @property
    def fresh(self) -> bool:
        """Whether each frame meets a new set: a guest beside the policy is renewed with it."""
        return any(
            guest.fresh and not (stage == "decide" and self.policy_stands_alone)
            for stage, guest in self._plan.guests
        )

    @property
    def policy_fresh(self) -> bool:
        """Whether each frame is to meet a new instance of the policy alone."""
        return self._plan.decide.fresh and self.policy_stands_alone

    def renew_policy(self) -> None:
        """Give a policy that stands alone a new instance, as if no frame had been decided."""
        policy = self._guests.pop(self._keys["decide"])
        self._speakers.pop(policy, None)
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

    def _refiner(self, model: OnnxModel | None) -> Refiner | None:
        plan, refine, modules = self._plan, self._plan.refine, self._modules.refine
        if refine is None or modules is None or model is None:
            return None
        preprocess = Preprocessor(
            self._guest("refine_preprocess", modules[0], refine.preprocess),
            plan.image,
            1,
            1 if plan.reference else 0,
            refine.model.inputs,
            batched=True,
        )
        postprocess = Postprocessor(
            self._guest("refine_postprocess", modules[1], refine.postprocess),
            refine.model.outputs,
            class_count=len(refine.model.classes),
            batched=True,
        )
        return Refiner(plan, refine, preprocess, postprocess, model)

    def _decider(self) -> Policy:
        plan = self._plan
        guest = self._instance("decide", self._modules.decide, plan.decide)
        return new_policy(
            guest,
            Names(
                plan.classes,
                tuple(signal.name for signal in plan.signals),
                tuple(action.name for action in plan.actions),
            ),
        )

    def _guest(self, stage: str, module: GuestModule | None, grant: GuestPlan) -> Guest:
        assert module is not None, "there is no program, so there are guests"
        guest = self._instance(stage, module, grant)
        assert isinstance(guest, Guest), "a script serves decide alone"
        return guest

    def _instance(self, stage: str, module: PolicyModule, grant: GuestPlan) -> PolicyGuest:
        """Return the instance of a stage; stages that share what `_key` says share it."""
        role = stage.removeprefix(REFINE)
        if role not in module.roles:
            raise IncompatibleError(
                f"{grant.path}: the manifest uses it as {role}, but it exports only "
                f"{', '.join(sorted(module.roles))}"
            )
        guest = self._guests.get(self._keys[stage])
        if guest is None:
            guest = module.instantiate(
                grant.call_ms, fuel=grant.fuel, state_bytes=self._plan.decide.state_bytes
            )
            guest.configure(self._document(stage, grant))
            self._guests[self._keys[stage]] = guest
            if guest.exports("edge_log"):
                self._speakers[guest] = stage
        return guest

    def _document(self, stage: str, grant: GuestPlan) -> dict[str, Any]:
        """What a stage's guest is configured with; the second model's see one row of its batch."""
        plan = self._plan
        model, classes = plan.model, plan.model.classes
        inputs, outputs = model.inputs, model.outputs
        if plan.refine is not None and stage.startswith(REFINE):
            model = plan.refine.model
            classes = model.classes
            inputs, outputs = (
                tuple(spec.rows(1) for spec in specs) for specs in (model.inputs, model.outputs)
            )
        document: dict[str, Any] = msgspec.to_builtins(
            {
                "parameters": grant.parameters,
                "classes": plan.classes if stage == "decide" else classes,
                "signals": [signal.name for signal in plan.signals],
                "actions": [action.name for action in plan.actions],
                "inputs": inputs,
                "outputs": outputs,
            }
        )
        return document

    def _key(self, stage: str, grant: GuestPlan) -> bytes:
        """What stages must have in common to share an instance."""
        document = self._document(stage, grant)
        return msgspec.json.encode((grant.sha256, document), order="sorted")
