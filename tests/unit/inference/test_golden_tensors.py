"""Golden tensors, kept engines and placement: real models in the real process of a trial."""

import hashlib
from pathlib import Path

import msgspec
import numpy as np
import pytest
from onnx_samples import (
    CONVOLUTION_INPUTS,
    CONVOLUTION_OUTPUTS,
    convolution,
    identity,
    planned,
)

from edge.contracts.plan import ModelPlan, PluginPlan, TensorSpec
from edge.deployment.golden import ExpectedOutput, GoldenTensors, Tolerance, compare
from edge.errors import IncompatibleError, TrialError
from edge.inference.contest import Contest, Entry, contest
from edge.inference.engines import MAX_KEPT, prepare
from edge.inference.pattern import pattern
from edge.inference.provider import NAMES, PlacedNode, actual
from edge.inference.trial import Distance, GoldenFile, GoldenInput, GoldenOutput, Request, trial

SPEC = TensorSpec("x", "uint8", (1, 2, 20, 20))


def expected(outputs: tuple[GoldenOutput, ...], **tolerance: Tolerance) -> GoldenTensors:
    """A card's golden run with these outputs."""
    return GoldenTensors(
        variant="fp32",
        seed=7,
        provider="cpu",
        runtime="1",
        machine="here",
        outputs=tuple(
            ExpectedOutput(
                name=each.name, sha256=each.sha256, sample=each.sample, tolerance=tolerance
            )
            for each in outputs
        ),
    )


def test_a_pattern_is_the_same_for_ever() -> None:
    made = pattern(SPEC, 7)
    assert hashlib.sha256(made.tobytes()).hexdigest() == PATTERN_7
    assert (made[..., :8, :8] == made[..., :1, :1]).all()
    assert not np.array_equal(made, pattern(SPEC, 8))


PATTERN_7 = "2d2f1c324576f404840a14f1c39c9d55496c3ff610eed633b350dceb814da0ed"


def test_golden_outputs_come_again_bit_for_bit_and_another_seed_does_not(tmp_path: Path) -> None:
    plan = planned(tmp_path / "m", convolution(), CONVOLUTION_INPUTS, CONVOLUTION_OUTPUTS)
    request = Request(plan, 1, golden=(GoldenInput(7), GoldenInput(8)))
    seven, eight = trial(request).golden
    again, _ = trial(request).golden
    card = expected(seven, cpu=Tolerance(max_abs=1e-6, mean_abs=1e-6))
    parities, findings = compare(card, again, "cpu")
    assert [each.identical for each in parities] == [True, True]
    assert findings == []
    _, findings = compare(card, eight, "cpu")
    assert len(findings) == 2
    assert "differs from the card by" in findings[0]
    assert "allowed on cpu is 1e-06 at most" in findings[0]


def test_a_provider_that_the_card_does_not_speak_of_is_a_finding(tmp_path: Path) -> None:
    plan = planned(tmp_path / "m", convolution(), CONVOLUTION_INPUTS, CONVOLUTION_OUTPUTS)
    seven, eight = trial(Request(plan, 1, golden=(GoldenInput(7), GoldenInput(8)))).golden
    _, findings = compare(expected(seven), eight, "cuda")
    assert "the card has no tolerance for cuda" in findings[0]


def test_a_model_that_misses_the_samples_is_told_by_its_distance_from_the_cpu(
    tmp_path: Path,
) -> None:
    """All sampled elements agree, and one between them is far off: what only the CPU here shows."""
    plan = planned(tmp_path / "m", convolution(), CONVOLUTION_INPUTS, CONVOLUTION_OUTPUTS)
    (seven,) = trial(Request(plan, 1, golden=(GoldenInput(7),))).golden
    off = tuple(
        msgspec.structs.replace(each, sha256="0" * 64, from_cpu=Distance(9.0, 0.001))
        for each in seven
    )
    _, findings = compare(expected(seven, cuda=Tolerance(max_abs=1.0, mean_abs=1.0)), off, "cuda")
    assert "from this box's CPU by 9 at most" in findings[0]


def test_a_golden_file_is_held_to_its_digest_and_its_shape(tmp_path: Path) -> None:
    plan = planned(tmp_path / "m", identity())
    file = tmp_path / "x.npy"
    np.save(file, np.ones((1, 4), np.float32))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    golden = GoldenInput(files=(GoldenFile("x", str(file), digest),))
    ((output,),) = trial(Request(plan, 1, golden=(golden,))).golden
    assert output.sample == (1.0, 1.0, 1.0, 1.0)
    np.save(file, np.ones((1, 5), np.float32))
    with pytest.raises(TrialError, match="is not the golden input of the card"):
        trial(Request(plan, 1, golden=(golden,)))


def test_a_node_elsewhere_than_allowed_is_refused_with_its_name() -> None:
    nodes = (PlacedNode("stem", "Conv", "cuda"), PlacedNode("odd", "NonZero", "cpu"))
    plan = planned_for("cuda")
    registered = [NAMES["cuda"], NAMES["cpu"]]
    with pytest.raises(IncompatibleError, match=r"1 on cuda, 1 on cpu: odd \(NonZero\) on cpu"):
        actual(registered, nodes, plan, "m")
    lenient = msgspec.structs.replace(plan, require=False)
    assert actual(registered, nodes, lenient, "m") == "cuda"


def planned_for(provider: str, **how: object) -> ModelPlan:
    return ModelPlan("/m", "0" * 64, (), (), (), provider=provider, **how)  # type: ignore[arg-type]  # of tests' own choice


def test_a_plugin_that_is_no_library_is_refused(tmp_path: Path) -> None:
    for library, words in ((tmp_path / "absent.so", "is no file"), (tmp_path / "m", "not take")):
        plan = planned(
            tmp_path / "m",
            identity(),
            provider="openvino",
            plugin=PluginPlan(str(library)),
        )
        with pytest.raises(TrialError, match=words):
            trial(Request(plan, 1))


def test_engines_lie_in_a_folder_for_each_model_provider_and_options(tmp_path: Path) -> None:
    engines = str(tmp_path / "engines")
    plan = planned_for("tensorrt", engines=engines)
    first = prepare(plan, "m")
    assert first.folder is not None
    assert first.options["trt_engine_cache_path"] == str(first.folder)
    assert not first.found
    (first.folder / "a.engine").write_bytes(b"code")
    assert first.outcome == "built"
    assert prepare(plan, "m").outcome == "reused"
    for changed in (
        msgspec.structs.replace(plan, sha256="1" * 64),
        msgspec.structs.replace(plan, options={"trt_fp16_enable": "1"}),
        msgspec.structs.replace(plan, provider="openvino"),
    ):
        assert prepare(changed, "m").folder != first.folder
    assert prepare(planned_for("cuda", engines=engines), "m").folder is None


def test_engines_longest_unused_go_first(tmp_path: Path) -> None:
    for number in range(MAX_KEPT + 4):
        plan = planned_for("openvino", engines=str(tmp_path), options={"n": str(number)})
        prepare(plan, "m")
    assert len(list(tmp_path.iterdir())) == MAX_KEPT


def test_options_that_place_engines_are_refused(tmp_path: Path) -> None:
    plan = planned_for("openvino", engines=str(tmp_path), options={"cache_dir": "/elsewhere"})
    with pytest.raises(IncompatibleError, match=r"inference\.options\.cache_dir is set by the"):
        prepare(plan, "m")


def test_engines_that_cannot_be_kept_are_no_reason_not_to_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    engines = prepare(planned_for("openvino", engines=str(tmp_path / "file" / "below")), "m")
    assert engines.folder is None
    assert "not kept" in engines.outcome


def test_entries_of_a_contest_are_measured_beside_the_first(tmp_path: Path) -> None:
    plan = planned(tmp_path / "m", convolution(), CONVOLUTION_INPUTS, CONVOLUTION_OUTPUTS)
    small = planned(tmp_path / "s", identity())
    found = contest(Contest((Entry("large", plan), Entry("small", small)), rounds=5))
    large, identical = found.entries
    assert large.ratio == 1.0
    assert identical.ratio < 1.0
    assert large.placement == {"cpu": sum(large.placement.values())}
