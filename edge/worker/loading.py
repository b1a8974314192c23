"""Building the frame path of a plan: guests compiled or taken from the cache, models loaded."""

import time

from edge.contracts.messages import PolicyState
from edge.contracts.plan import PipelinePlan
from edge.pipeline.path import FramePath
from edge.pipeline.stages import load_models, load_modules
from edge.wasm.engine import GuestEngine


def build(
    engine: GuestEngine, plan: PipelinePlan, policy: PolicyState
) -> tuple[FramePath, dict[str, float]]:
    """Build a pipeline.

    Args:
        engine: Of this thread, which will judge, too.
        plan: What it is made of.
        policy: Where its policy goes on.

    Returns:
        The path, and milliseconds of each part of building it.

    Raises:
        DeploymentError: It cannot stand here.
    """
    began = time.perf_counter()
    modules = load_modules(engine, plan)
    guests_done = time.perf_counter()
    model, second = load_models(plan)
    model_done = time.perf_counter()
    path = FramePath(plan, modules, model, policy, second)
    return path, {
        "guests": round((guests_done - began) * 1e3, 1),
        "model": round((model_done - guests_done) * 1e3, 1),
        "bind": round((time.perf_counter() - model_done) * 1e3, 1),
    }
