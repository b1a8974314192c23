"""A frame's way through two models: bounds, deadline, merge, and what goes wrong on the way."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from cascades import (
    CASCADE,
    ROOMY,
    TRAPS_IN_THE_LIGHT,
    fixed_batch,
    nan_where_there_is_light,
    with_guest,
    with_second_model,
)
from daemons import part_jpeg, reference_jpeg
from deployments import copy_of
from guest_wat import assemble, guest
from path_bench import JPEG, Bench, plan_of
from programs import BOARDS

from edge.contracts.messages import Judged
from edge.contracts.verdict import Kind
from edge.deployment.pin import pin
from edge.errors import DecodeError, GuestError, IncompatibleError
from edge.pipeline import path
from edge.pipeline.path import DeadlinePassedError
from edge.wasm.engine import GuestEngine

ALL = ("open", "short", "mousebite", "spur", "copper", "pin-hole")
CLAIMS_TOO_MUCH = '(func (export "postprocess") (param i32) (result i32) (i32.const 100000))'


@pytest.fixture(scope="module")
def shared_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuestEngine]:
    with GuestEngine(tmp_path_factory.mktemp("cache") / "guests") as engine:
        yield engine


@pytest.fixture
def bench_of(shared_engine: GuestEngine) -> Callable[[Path], Bench]:
    def made(folder: Path) -> Bench:
        bench = Bench(plan_of(folder), shared_engine)
        bench.teach(3)
        return bench

    return made


@pytest.fixture
def cascade(bench_of: Callable[[Path], Bench]) -> Bench:
    """The reference cascade as it is."""
    return bench_of(CASCADE)


def labels(judged: Judged) -> list[str]:
    return [defect.label for defect in judged.defects]


def test_stages_of_the_second_model_are_timed_where_it_had_something_to_look_at(
    cascade: Bench,
) -> None:
    good, bad = cascade.judge(0), cascade.judge(1, *ALL)
    assert (good.verdict, good.crops) == (Kind.PASS, 0)
    assert list(good.stage_ms) == ["decode", "preprocess", "infer", "postprocess", "decide"]
    assert (bad.verdict, bad.crops, bad.crops_beyond) == (Kind.REJECT, 6, 0)
    assert list(bad.stage_ms) == [
        *("decode", "preprocess", "infer", "postprocess"),
        *("refine_preprocess", "refine_infer", "refine_postprocess"),
        "decide",
    ]


def test_the_same_frame_gets_the_same_judgement_bit_for_bit_whatever_was_between(
    cascade: Bench,
) -> None:
    first = cascade.judge(1, "short", "spur")
    cascade.judge(2, *ALL)
    again = cascade.judge(1, "short", "spur")
    assert (again.findings, again.score) == (first.findings, first.score)


def test_findings_beyond_the_bound_keep_the_detectors_word(
    bench_of: Callable[[Path], Bench], cascade: Bench, tmp_path: Path
) -> None:
    bounded = bench_of(
        copy_of(
            CASCADE,
            tmp_path / "bounded",
            (r"^max_crops = 32", "max_crops = 2"),
            (r'^score = "product"', 'score = "classifier"'),
        )
    )
    judged, whole = bounded.judge(1, *ALL), cascade.judge(1, *ALL)
    assert (judged.crops, judged.crops_beyond) == (2, 4)
    assert sorted(labels(judged)) == sorted(labels(whole))
    scores = [defect.score for defect in judged.defects]
    assert scores == sorted(scores, reverse=True)
    assert (whole.crops, whole.crops_beyond) == (6, 0)


def test_a_model_of_one_fixed_batch_is_padded_with_nothing_and_says_the_same(
    bench_of: Callable[[Path], Bench], cascade: Bench, tmp_path: Path
) -> None:
    fixed = bench_of(with_second_model(tmp_path / "fixed", fixed_batch()))
    crowded = fixed.judge(1, *ALL)
    alone = [fixed.judge(1, "short"), fixed.judge(1, "short")]
    assert labels(crowded) == labels(cascade.judge(1, *ALL))
    fresh = bench_of(tmp_path / "fixed").judge(1, "short")
    assert {each.findings for each in alone} == {fresh.findings}, "rows of an earlier frame count"


@pytest.mark.parametrize("square", ["true", "false"])
def test_a_crop_may_be_as_large_as_the_frame(
    bench_of: Callable[[Path], Bench], tmp_path: Path, square: str
) -> None:
    whole = bench_of(
        copy_of(
            CASCADE,
            tmp_path / "whole",
            (r"^margin = 0\.25.*", "margin = 16.0"),
            (r"^min_side_px = 64.*", "min_side_px = 4000"),
            (r"^square = true", f"square = {square}"),
        )
    )
    assert whole.judge(1, *ALL).crops == 6


def test_a_second_model_that_answers_nan_costs_the_frame_and_not_the_next(
    bench_of: Callable[[Path], Bench], tmp_path: Path
) -> None:
    blind = bench_of(with_second_model(tmp_path / "blind", nan_where_there_is_light()))
    for _ in range(2):
        with pytest.raises(GuestError, match="not finite"):
            blind.judge(1, "short")
        assert blind.judge(0).verdict is Kind.PASS


def test_a_second_model_that_fails_on_an_empty_crop_never_becomes_ready(
    bench_of: Callable[[Path], Bench], tmp_path: Path
) -> None:
    folder = with_second_model(tmp_path / "blind", nan_where_there_is_light(always=True))
    with pytest.raises(IncompatibleError, match=r"refine, on an empty crop: .*not finite"):
        bench_of(folder)


def test_a_crop_guest_that_traps_costs_the_frame_and_the_next_is_judged(
    bench_of: Callable[[Path], Bench], tmp_path: Path
) -> None:
    wasm = assemble(guest(memory=ROOMY, preprocess=TRAPS_IN_THE_LIGHT))
    trapping = bench_of(with_guest(tmp_path / "trapping", "preprocess", wasm))
    for _ in range(3):
        with pytest.raises(GuestError, match="unreachable"):
            trapping.judge(1, "short")
        trapping.path.mend()
        assert trapping.judge(0).verdict is Kind.PASS


def test_a_guest_that_claims_more_findings_than_it_has_room_for_is_refused(
    bench_of: Callable[[Path], Bench], tmp_path: Path
) -> None:
    wasm = assemble(guest(memory=ROOMY, postprocess=CLAIMS_TOO_MUCH))
    folder = with_guest(tmp_path / "claiming", "postprocess", wasm)
    with pytest.raises(IncompatibleError, match="claims 100000 defects"):
        bench_of(folder)


def test_a_guest_without_room_for_the_largest_crop_is_refused(
    bench_of: Callable[[Path], Bench], tmp_path: Path
) -> None:
    wasm = assemble(guest(memory='(memory (export "memory") 16 16)'))
    with pytest.raises(IncompatibleError, match="memory"):
        bench_of(with_guest(tmp_path / "small", "preprocess", wasm))


def test_a_cascade_that_runs_out_of_time_is_an_overrun_and_no_half_answer(
    cascade: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = cascade.judge(1, *ALL)
    # Decoding, judging and two crops begin in time; when the third is due, the deadline is over.
    instants = iter([0, 0, 0, 0, 2_000_100])
    clock = SimpleNamespace(
        monotonic_ns=lambda: next(instants), perf_counter_ns=time.perf_counter_ns
    )
    with monkeypatch.context() as patched:
        patched.setattr(path, "time", clock)
        frame = cascade.decode(part_jpeg(3, 1, ALL), deadline_ns=100)
        with pytest.raises(DeadlinePassedError, match=r"2\.0 ms ago, after 2 of 6 crops") as over:
            cascade.path.judge(frame)
    assert over.value.reason == "overrun"
    assert cascade.judge(1, *ALL).findings == expected.findings


def test_a_reference_of_another_size_cannot_be_cropped_alongside(cascade: Bench) -> None:
    image = cv2.imdecode(np.frombuffer(reference_jpeg(3), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert image is not None
    half = cv2.imencode(".jpg", cv2.resize(image, None, fx=0.5, fy=0.5))[1].tobytes()
    cascade.path.encoded.keep("4", JPEG, half)
    with pytest.raises(DecodeError, match="320x320, the frame 640x640: crops of both"):
        cascade.path.judge(cascade.decode(part_jpeg(3, 1, ("short",)), 4))
    assert labels(cascade.judge(1, "short")) == ["short"]


def test_a_program_may_find_what_a_second_model_looks_at(
    bench_of: Callable[[Path], Bench], tmp_path: Path
) -> None:
    """Its pictures lie outside of guest memory; crops of them are the same."""
    native = copy_of(CASCADE, tmp_path / "native", (r"^score = 0\.2.*", "score = 0.5"))
    program = tmp_path / "program"
    shutil.copytree(native, program)
    (program / "guests" / "program.wasm").write_bytes(BOARDS.read_bytes())
    manifest = program / "manifest.toml"
    text = manifest.read_text().replace("= 1280", "= 640")  # all that `boards` takes
    before, after = (
        text.index("[pipelines.pcb.preprocess]"),
        text.index("[pipelines.pcb.refine]"),
    )
    grant = 'path = "guests/program.wasm"\nsha256 = ""\ngraph = "boards"\nmemory_mib = 16\n'
    manifest.write_text(
        f"{text[:before]}[pipelines.pcb.program]\n{grant}call_ms = 150\n\n{text[after:]}"
    )
    pin(program)
    one, other = bench_of(native).judge(1, *ALL), bench_of(program).judge(1, *ALL)
    assert other.findings == one.findings
    assert list(other.stage_ms)[1:3] == ["program", "refine_preprocess"]


def test_the_second_models_guests_may_be_new_for_each_frame(
    bench_of: Callable[[Path], Bench], cascade: Bench, tmp_path: Path
) -> None:
    fresh = bench_of(
        copy_of(
            CASCADE,
            tmp_path / "fresh",
            (r"^call_ms = 5$", 'call_ms = 5\ninstance = "frame"'),
        )
    )
    for _ in range(2):
        assert fresh.judge(1, *ALL).findings == cascade.judge(1, *ALL).findings
        fresh.path.mend()
