"""What a worker says when it cannot load: a sentence for each cause, and never a bare end."""

import asyncio
import hashlib
import struct
from pathlib import Path

import msgspec
import pytest
from daemons import DEPLOYMENT, ROOT
from deployments import with_policy
from evil_guests import deciding, hidden_count_policy
from path_bench import plan_of

from edge.contracts.messages import Loaded, PolicyState
from edge.contracts.plan import PipelinePlan
from edge.daemon.worker_process import WorkerProcess
from edge.errors import DeploymentError

START_S = 120.0
OLD = ROOT / "tests" / "conformance" / "abi-1.0" / "policy.wasm"


def load(plan: PipelinePlan, cache_dir: Path, state: PolicyState | None = None) -> Loaded:
    async def scenario() -> Loaded:
        worker = (await WorkerProcess.spawn(4_096)).seat(plan, 1 << 20)
        try:
            return await worker.load(cache_dir, state or PolicyState(), START_S)
        finally:
            await worker.end(grace_s=0)

    return asyncio.run(scenario())


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeploymentError, match=r"StorageError: .*file/guests: cannot make"):
        load(plan_of(DEPLOYMENT), tmp_path / "file" / "guests")


def test_a_cache_that_others_may_write_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "guests").mkdir()
    (tmp_path / "guests").chmod(0o777)
    with pytest.raises(DeploymentError, match=r"UntrustedError: .*chmod go-w"):
        load(plan_of(DEPLOYMENT), tmp_path / "guests")


def test_a_state_beyond_its_grant_is_named(tmp_path: Path) -> None:
    plan = plan_of(with_policy(DEPLOYMENT, tmp_path / "d", hidden_count_policy(with_state=True)))
    tight = msgspec.structs.replace(plan.decide, state_bytes=3)
    with pytest.raises(DeploymentError, match=r"IncompatibleError: .*3 bytes of state_bytes"):
        load(msgspec.structs.replace(plan, decide=tight), tmp_path / "guests")


def test_a_guest_whose_restoring_traps_starts_empty_and_says_so(tmp_path: Path) -> None:
    state = """
      (func (export "edge_state_restore") (param i32 i32) (result i32) unreachable)
    """
    plan = plan_of(with_policy(DEPLOYMENT, tmp_path / "d", deciding("", state=state)))
    loaded = load(plan, tmp_path / "guests", PolicyState(5, b"of another guest"))
    assert "edge_state_restore trapped: unreachable" in loaded.state_refused


def with_old_policy(plan: PipelinePlan) -> PipelinePlan:
    digest = hashlib.sha256(OLD.read_bytes()).hexdigest()
    decide = msgspec.structs.replace(plan.decide, path=str(OLD), sha256=digest)
    return msgspec.structs.replace(plan, decide=decide)


def test_a_newer_version_takes_over_a_window_and_an_older_one_says_that_it_cannot(
    tmp_path: Path,
) -> None:
    plan = plan_of(DEPLOYMENT)
    old, cache = with_old_policy(plan), tmp_path / "guests"
    version_1 = PolicyState(40, struct.pack("<II", 1, 2))
    assert load(plan, cache, version_1).state_refused == ""
    version_2 = PolicyState(41, struct.pack("<II", 2, 3) + bytes(160))
    refused = load(old, cache, version_2).state_refused
    assert "the state is not of this policy's version 1" in refused
    assert load(old, cache, version_1).state_refused == ""
