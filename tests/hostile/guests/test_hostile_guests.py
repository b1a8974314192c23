"""The corpus of hostile guests: each comes to its named end in time, and the next frame is judged.

Every case goes through the real frame path: bytes to engine, engine to `FramePath`, frames through
it, with a real model. `hostile_case` says what a case is; the `corpus_*` modules hold them.
"""

import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import corpus_modules
import corpus_roles
import corpus_setup
import pytest
from frame_line import Line, write_model
from guest_wat import GuestFiles, assemble, guest
from hostile_case import CALL_MS, MEMORY_MIB, Case, exported

from edge.contracts.verdict import Kind
from edge.errors import DeploymentError, FrameError, GuestBudgetError
from edge.wasm.engine import GuestEngine

pytest_plugins = ["guest_fixtures"]

CORPUS = (*corpus_modules.CASES, *corpus_setup.CASES, *corpus_roles.CASES)
ALLOWANCE_MS = 100.0
"""What may come on top of the budgets: the alarm, the scheduler, the rest of the frame."""
TRIES = 4
"""A busy machine delays any call; a guest that escaped its budget would do so each time."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "one_defect.onnx"
    write_model(path)
    return path


@pytest.fixture(scope="module")
def standing(cache_dir: Path) -> Iterator[GuestEngine]:
    """One engine for all cases: what one guest leaves behind, the next would meet."""
    with GuestEngine(cache_dir) as opened:
        yield opened


@pytest.fixture(scope="module")
def good(standing: GuestEngine, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Line:
    """The line that was there before each attack, and must go on after it."""
    files = GuestFiles(tmp_path_factory.mktemp("good"))
    wasm = assemble(guest())
    return Line(standing, model, files, wasm, memory_mib=MEMORY_MIB, call_ms=2_000)


@pytest.fixture(scope="module")
def took_ms() -> Iterator[dict[str, float]]:
    """Milliseconds of each attack over its limit; the worst are told by `pytest -s`."""
    found: dict[str, float] = {}
    yield found
    if found:
        worst = sorted(found.items(), key=lambda item: -item[1])[:5]
        told = ", ".join(f"{name} {ms:.1f}" for name, ms in worst)
        middle = statistics.median(found.values())
        sys.stderr.write(f"\n{len(found)} attacks, ms over limit: median {middle:.1f}; {told}\n")


def test_corpus_is_large_and_its_names_are_unique() -> None:
    assert len(CORPUS) >= 60
    assert not [name for name, count in Counter(case.name for case in CORPUS).items() if count > 1]


@pytest.mark.parametrize(
    "case", [c for c in CORPUS if c.end == "refused"], ids=lambda case: case.name
)
def test_guest_is_refused_by_name_and_the_next_frame_is_judged(
    standing: GuestEngine,
    model: Path,
    good: Line,
    files: GuestFiles,
    cache_dir: Path,
    case: Case,
) -> None:
    engine = standing
    if case.compile is not None:
        engine = GuestEngine(cache_dir, limits=case.compile)
    began = time.monotonic()
    with pytest.raises(DeploymentError) as refusal:
        Line(engine, model, files, case.make(), memory_mib=case.memory_mib, call_ms=CALL_MS)
    sentence = str(refusal.value)
    assert re.search(case.says, sentence), sentence
    assert sentence.isprintable()
    assert time.monotonic() - began < 60
    if engine is not standing:
        engine.close()
    assert good.judge().verdict is Kind.REJECT


@pytest.mark.parametrize(
    "case", [c for c in CORPUS if c.end not in {"refused", "harmless"}], ids=lambda case: case.name
)
def test_attack_costs_its_frame_in_time_and_the_next_frame_is_judged(
    standing: GuestEngine,
    model: Path,
    good: Line,
    files: GuestFiles,
    took_ms: dict[str, float],
    case: Case,
) -> None:
    line = Line(standing, model, files, case.make(), memory_mib=case.memory_mib, call_ms=CALL_MS)
    limit_ms = CALL_MS * case.calls if "did not return" in case.says or case.calls > 1 else 0.0
    assert line.judge().verdict is Kind.REJECT
    over: list[float] = []
    for _ in range(TRIES):
        began = time.perf_counter()
        with pytest.raises(FrameError) as failure:
            line.judge()
        over.append((time.perf_counter() - began) * 1e3 - limit_ms)
        sentence = str(failure.value)
        assert re.search(case.says, sentence), sentence
        assert sentence.isprintable()
        assert failure.value.reason == case.end
        assert line.judge().verdict is Kind.REJECT
        assert good.judge().verdict is Kind.REJECT
        if over[-1] <= ALLOWANCE_MS:
            break
    took_ms[case.name] = min(over)
    assert min(over) <= ALLOWANCE_MS, over


@pytest.mark.parametrize(
    "case", [c for c in CORPUS if c.end == "harmless"], ids=lambda case: case.name
)
def test_attack_gains_nothing_and_every_frame_is_judged(
    standing: GuestEngine, model: Path, good: Line, files: GuestFiles, case: Case
) -> None:
    line = Line(standing, model, files, case.make(), memory_mib=case.memory_mib, call_ms=CALL_MS)
    first = line.judge()
    assert first.defects == good.judge().defects
    for _ in range(2):
        attacked = line.judge()
        assert len(attacked.defects) == 1
        assert len(attacked.actions) <= 4
        after = line.judge()
        assert after.defects == first.defects
        assert after.verdict is Kind.REJECT
        assert good.judge().defects == first.defects


def test_control_a_guest_that_does_not_attack_is_judged_each_time(
    standing: GuestEngine, model: Path, files: GuestFiles
) -> None:
    """The corpus' frame path can tell: without the attack all frames are judged."""
    wasm = assemble(guest())
    line = Line(standing, model, files, wasm, memory_mib=MEMORY_MIB, call_ms=2_000)
    for _ in range(4):
        judged = line.judge()
        assert (judged.verdict, len(judged.defects)) == (Kind.REJECT, 1)


@pytest.mark.parametrize("mebibytes", [16, 64])
def test_one_bulk_instruction_ends_late_by_its_bytes_and_no_more(
    standing: GuestEngine, model: Path, files: GuestFiles, mebibytes: int
) -> None:
    """The epoch is looked at before each; the pages are touched for the first time, the worst case.

    Measured up to 2.3 ms for each MiB; twice that is allowed here.
    """
    fill = f"(memory.fill (i32.const 0) (i32.const 0) (i32.const {mebibytes << 20}))"
    pages = mebibytes * 16
    text = guest(
        memory=f'(memory (export "memory") {pages} {pages})',
        # So many that no machine is through with them in time.
        decide=exported("decide", f"{fill * 100} (i32.const 0)", 1),
    )
    written = files.write(text)
    module = standing.load(written.path, written.sha256, mebibytes)
    taken: list[float] = []
    for _ in range(TRIES):
        instance = module.instantiate(1)
        began = time.perf_counter()
        with pytest.raises(GuestBudgetError, match="decide did not return within 1 ms"):
            instance.call("decide", 4096)
        taken.append((time.perf_counter() - began) * 1e3)
    assert min(taken) <= 1 + mebibytes * 4.6 + ALLOWANCE_MS, taken
