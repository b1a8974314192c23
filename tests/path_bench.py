"""A frame path of the reference deployment, or of one with another policy, driven by one thread."""

from pathlib import Path

import pytest
from daemons import CONFIG, PATIENCE, part_jpeg, reference_jpeg
from msgspec.structs import replace

from edge import config
from edge.contracts.frame import ContentType
from edge.contracts.messages import Judge, Judged, PolicyState
from edge.contracts.plan import GuestPlan, PipelinePlan
from edge.contracts.signal import SignalState, SignalValue
from edge.deployment.folder import load_folder, plans
from edge.errors import GuestError
from edge.pipeline.path import DecodedFrame, FramePath
from edge.pipeline.stages import load_models, load_modules
from edge.wasm.engine import GuestEngine

FOR_EVER = (1 << 63) - 1
JPEG = ContentType()
GOOD = SignalValue(1.0, 0, SignalState.FRESH)
EVIL = SignalValue(99.0, 0, SignalState.FRESH)
"""The lamp under which `counting_policy` traps."""


class Bench:
    """A frame path with the references of a few boards, driven by one thread."""

    def __init__(
        self, plan: PipelinePlan, engine: GuestEngine, policy: PolicyState | None = None
    ) -> None:
        modules = load_modules(engine, plan)
        model, second = load_models(plan)
        self.path = FramePath(plan, modules, model, policy or PolicyState(), second)
        self._tickets = 0

    def teach(self, *seeds: int) -> None:
        for seed in seeds:
            self.path.encoded.keep(str(seed), JPEG, reference_jpeg(seed))

    def decode(
        self,
        payload: bytes,
        seed: int = 3,
        *,
        lamp: SignalValue = GOOD,
        deadline_ns: int = FOR_EVER,
        probe: bool = False,
    ) -> DecodedFrame:
        self._tickets += 1
        request = Judge(
            self._tickets, JPEG, deadline_ns, 1_000, str(seed), signals=(lamp,), probe=probe
        )
        return self.path.decode(request, payload)

    def judge(
        self, part: int = 0, *defects: str, seed: int = 3, lamp: SignalValue = GOOD
    ) -> Judged:
        return self.path.judge(self.decode(part_jpeg(seed, part, defects), seed, lamp=lamp))

    def count(self) -> int:
        """Judge a frame and return the counting policy's count."""
        return round(self.judge().score * 100)

    def trap(self) -> None:
        with pytest.raises(GuestError, match="unreachable"):
            self.judge(lamp=EVIL)


def plan_of(folder: Path) -> PipelinePlan:
    """The plan of a deployment's one pipeline, with time for its guests on a busy machine."""
    (plan,) = plans(load_folder(folder), config.load(CONFIG))
    refine = plan.refine
    if refine is not None:
        refine = replace(
            refine, preprocess=patient(refine.preprocess), postprocess=patient(refine.postprocess)
        )
    return replace(
        plan,
        preprocess=patient(plan.preprocess),
        postprocess=patient(plan.postprocess),
        decide=patient(plan.decide),
        refine=refine,
    )


def patient(guest: GuestPlan) -> GuestPlan:
    """A guest with so much more time."""
    return replace(guest, call_ms=PATIENCE * guest.call_ms)
