"""Building the frame path of a plan: guests compiled or taken from the cache, models loaded."""

import time
from collections.abc import Callable

from edge.contracts.messages import PolicyState
from edge.contracts.plan import ModelPlan, PipelinePlan
from edge.inference.model import OnnxModel
from edge.pipeline.path import FramePath
from edge.pipeline.stages import load_models, load_modules
from edge.wasm.engine import GuestEngine


class LoadedModels:
    """The models of one worker: where two plans are equal, weights and context are there once."""

    def __init__(self) -> None:
        self._models: list[tuple[ModelPlan, OnnxModel]] = []

    def load(self, plan: ModelPlan) -> OnnxModel:
        """Load a model, unless it is here; raises what `OnnxModel.load` does."""
        for known, model in self._models:
            if known == plan:
                return model
        model = OnnxModel.load(plan)
        self._models.append((plan, model))
        return model


def build(
    engine: GuestEngine,
    plan: PipelinePlan,
    policy: PolicyState,
    load: Callable[[ModelPlan], OnnxModel] = OnnxModel.load,
) -> tuple[FramePath, dict[str, float]]:
    """Build a pipeline.

    Args:
        engine: Of this thread, which will judge, too.
        plan: What it is made of.
        policy: Where its policy goes on.
        load: Loads a model.

    Returns:
        The path, and milliseconds of each part of building it.

    Raises:
        DeploymentError: It cannot stand here.
    """
    began = time.perf_counter()
    modules = load_modules(engine, plan)
    guests_done = time.perf_counter()
    model, second = load_models(plan, load)
    model_done = time.perf_counter()
    path = FramePath(plan, modules, model, policy, second)
    return path, {
        "guests": round((guests_done - began) * 1e3, 1),
        "model": round((model_done - guests_done) * 1e3, 1),
        "bind": round((time.perf_counter() - model_done) * 1e3, 1),
    }
