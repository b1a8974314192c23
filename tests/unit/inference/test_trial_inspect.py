"""What is read from a model file, held to what the onnx package reads from it."""

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from onnx_samples import convolution, identity, inside_if, model, quantised, value

from edge.contracts.plan import TensorSpec
from edge.errors import IncompatibleError
from edge.inference.inspect import differences, inspect

ROOT = Path(__file__).parents[3]


def written(path: Path, made: Any) -> Path:
    path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    return path


@pytest.mark.parametrize("name", ["model.onnx", "model.int8.onnx"])
def test_the_reference_models_facts_are_those_that_onnx_reads(name: str) -> None:
    path = ROOT / "models" / "pcb" / name
    facts, loaded = inspect(path), onnx.load(path)
    assert facts.operators == dict(Counter(n.op_type for n in loaded.graph.node).most_common())
    assert facts.nodes == len(loaded.graph.node)
    assert facts.parameters == sum(int(np.prod(i.dims)) for i in loaded.graph.initializer)
    assert facts.opsets == {(o.domain or "ai.onnx"): o.version for o in loaded.opset_import}
    assert facts.ir_version == loaded.ir_version
    assert [str(port) for port in facts.inputs] == ["input: uint8[1, 2, 640, 640]"]
    assert [port.name for port in facts.outputs] == ["boxes", "scores"]


def test_operators_of_branches_are_counted(tmp_path: Path) -> None:
    nested = inside_if([helper.make_node("Relu", ["x"], ["t"])])
    assert inspect(written(tmp_path / "m", nested)).operators == {"If": 1, "Relu": 1, "Identity": 1}


def test_dynamic_dimensions_keep_their_names(tmp_path: Path) -> None:
    path = written(tmp_path / "m", identity(shape=("batch", None, 4)))
    assert inspect(path).inputs[0].shape == ("batch", "?", 4)


def test_weights_that_are_listed_as_inputs_are_no_inputs(tmp_path: Path) -> None:
    made = convolution()
    made.graph.input.append(value("w", "float32", (8, 2, 3, 3)))
    assert [port.name for port in inspect(written(tmp_path / "m", made)).inputs] == ["x"]


def external() -> Any:
    made = convolution()
    weights = made.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="../../etc/passwd")
    return made


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (external(), "keeps weights in another file"),
        (
            model(
                [helper.make_node("Magic", ["x"], ["y"], domain="evil.corp")],
                [value("x", "float32", (1, 4))],
                [value("y", "float32", (1, 4))],
            ),
            "domain 'evil.corp'",
        ),
        (np.random.default_rng(1).bytes(5_000), "no ONNX model"),
        (quantised().SerializeToString()[:-20], "cut off"),
        (b"", "no ONNX model"),
    ],
    ids=["external data", "custom domain", "random bytes", "truncated", "empty"],
)
def test_a_refused_model_has_no_facts(tmp_path: Path, made: Any, reason: str) -> None:
    with pytest.raises(IncompatibleError, match=reason):
        inspect(written(tmp_path / "m", made))


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(IncompatibleError, match="No such file"):
        inspect(tmp_path / "absent.onnx")


def test_names_cannot_move_the_cursor(tmp_path: Path) -> None:
    made = model(
        [helper.make_node("Identity", ["x"], ["y\x1b[2J"])],
        [value("x", "float32", (1, 4))],
        [value("y\x1b[2J", "float32", (1, 4))],
    )
    assert inspect(written(tmp_path / "m", made)).outputs[0].name.isprintable()


def test_each_difference_from_the_card_is_named(tmp_path: Path) -> None:
    facts = inspect(written(tmp_path / "m", convolution()))
    right = TensorSpec("x", "float32", (1, 2, 32, 32))
    y = TensorSpec("y", "float32", (1, 8, 32, 32))
    z = TensorSpec("z", "float32", (1, 8, 1, 1))
    assert differences(facts, (right,), (y, z)) == []
    found = differences(facts, (TensorSpec("x", "uint8", (1, 2, 32, 32)),), (y,))
    assert len(found) == 2
    assert "the card says uint8[1, 2, 32, 32], the file float32[1, 2, 32, 32]" in found[0]
    assert "an output z: float32[1, 8, 1, 1], which the card has not" in found[1]
    assert "has an input q" in differences(facts, (right, TensorSpec("q", "int8", (1,))), (y, z))[0]


SOUND = convolution().SerializeToString()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_model_is_refused_or_read_but_never_raises_otherwise(data: st.DataObject) -> None:
    import tempfile

    damaged = bytearray(SOUND)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(SOUND) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.NamedTemporaryFile() as file:
        file.write(damaged)
        file.flush()
        try:
            facts = inspect(Path(file.name))
        except IncompatibleError:
            return
        assert facts.nodes >= 0
        assert len(str(facts)) < 1 << 20


def test_a_huge_dimension_does_not_make_the_sum_costly(tmp_path: Path) -> None:
    made = convolution()
    made.graph.initializer[0].dims.extend([2**62] * 50)
    with_many = written(tmp_path / "m", made)
    facts = inspect(with_many)
    assert facts.parameters == 2**63 - 1
    assert b"9223372036854775807" in msgspec.json.encode(facts)


def test_values_are_not_unpacked(tmp_path: Path) -> None:
    """Weights of any size cost one field; a screen's bound on fields covers the second reading."""
    big = numpy_helper.from_array(np.zeros((1 << 20,), np.float32), "unused")
    made = convolution()
    made.graph.initializer.append(big)
    assert inspect(written(tmp_path / "m", made)).parameters == (1 << 20) + 8 * 2 * 3 * 3
