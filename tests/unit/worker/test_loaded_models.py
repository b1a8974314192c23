"""Equal models are loaded once in a worker, and no two that differ are taken for one."""

import msgspec
from daemons import DEPLOYMENT
from path_bench import plan_of

from edge.worker.loading import LoadedModels


def test_a_model_is_loaded_once_for_each_way_to_run_it() -> None:
    models, plan = LoadedModels(), plan_of(DEPLOYMENT).model
    first = models.load(plan)
    assert models.load(msgspec.structs.replace(plan)) is first
    other = models.load(msgspec.structs.replace(plan, threads=plan.threads + 1))
    assert other is not first
    assert models.load(msgspec.structs.replace(plan, threads=plan.threads + 1)) is other
