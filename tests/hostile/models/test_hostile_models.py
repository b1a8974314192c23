"""Models that mean harm, or mean nothing: each is refused before ONNX Runtime parses it.

Where the screen must decide, `screen` is asked alone, so that no later check can hide its failure;
the controls show that the same models without the harm are let through.
"""

import contextlib
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edge.errors import IncompatibleError
from edge.inference.model import OnnxModel
from edge.inference.screen import MAX_DEPTH, screen

sys.path.insert(0, str(Path(__file__).parents[2] / "unit/inference"))
import onnx_samples as samples

SMALL = numpy_helper.from_array(np.ones((1, 4), np.float32), "w")


def add_weight(weight: Any) -> Any:
    return samples.model(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        [samples.value("x", "float32", (1, 4))],
        [samples.value("y", "float32", (1, 4))],
        initializer=[weight],
    )


def external(tensor: Any, location: str = "../../etc/passwd") -> Any:
    """The tensor with its bytes said to lie in another file."""
    made = onnx.TensorProto()
    made.CopyFrom(tensor)
    made.ClearField("raw_data")
    made.data_location = TensorProto.EXTERNAL
    made.external_data.add(key="location", value=location)
    return made


def custom(outputs: str = "t") -> Any:
    return helper.make_node("Shell", ["x"], [outputs], domain="evil.example")


def constant(tensor: Any) -> Any:
    return helper.make_node("Constant", [], ["t"], value=tensor)


def identity_of(name: str) -> Any:
    return helper.make_node("Identity", [name], ["t"])


def in_function(node: Any) -> Any:
    """A model whose local function holds the node."""
    made = samples.model(
        [helper.make_node("F", ["x"], ["y"], domain="")],
        [samples.value("x", "float32", (1, 4))],
        [samples.value("y", "float32", (1, 4))],
    )
    made.functions.append(helper.make_function("", "F", ["x"], ["t"], [node], samples.OPSETS))
    return made


def in_function_default(tensor: Any) -> Any:
    """A model whose local function has an attribute with that tensor as its default."""
    made = in_function(identity_of("x"))
    made.functions[0].attribute_proto.append(helper.make_attribute("weight", tensor))
    return made


def in_training(node: Any) -> Any:
    made = samples.identity()
    graph = helper.make_graph([node], "init", [], [samples.value("t", "float32", (1, 4))])
    made.training_info.add().initialization.CopyFrom(graph)
    return made


def sparse(values: Any) -> Any:
    indices = numpy_helper.from_array(np.asarray([0], np.int64), "")
    return helper.make_sparse_tensor(values, indices, [4])


def with_sparse_initializer(values: Any) -> Any:
    made = samples.identity()
    made.graph.sparse_initializer.append(sparse(values))
    return made


def nested(levels: int, node: Any) -> Any:
    graph = helper.make_graph([node], "g", [], [samples.value("t", "float32", (1, 4))])
    for _ in range(levels):
        inner = helper.make_node("If", ["flag"], ["t"], then_branch=graph, else_branch=graph)
        graph = helper.make_graph([inner], "g", [], [samples.value("t", "float32", (1, 4))])
    return helper.make_model(graph, opset_imports=samples.OPSETS)


ONE = numpy_helper.from_array(np.ones(1, np.float32), "s")
EXTERNAL: dict[str, Callable[[Callable[[Any], Any]], Any]] = {
    "initializer": lambda f: add_weight(f(SMALL)),
    "constant": lambda f: samples.model(
        [constant(f(SMALL)), helper.make_node("Add", ["x", "t"], ["y"])],
        [samples.value("x", "float32", (1, 4))],
        [samples.value("y", "float32", (1, 4))],
    ),
    "branch initializer": lambda f: samples.inside_if([identity_of("w")], initializer=[f(SMALL)]),
    "branch constant": lambda f: samples.inside_if([constant(f(SMALL))]),
    "function": lambda f: in_function(constant(f(SMALL))),
    "function default": lambda f: in_function_default(f(SMALL)),
    "training": lambda f: in_training(constant(f(SMALL))),
    "sparse initializer": lambda f: with_sparse_initializer(f(ONE)),
    "sparse attribute": lambda f: samples.inside_if(
        [helper.make_node("Constant", [], ["t"], sparse_value=sparse(f(ONE)))]
    ),
    "deep": lambda f: nested(8, constant(f(SMALL))),
}


@pytest.mark.parametrize("place", EXTERNAL)
def test_weights_in_another_file_are_refused_wherever_they_are_named(place: str) -> None:
    screen(EXTERNAL[place](lambda tensor: tensor).SerializeToString(), "m")
    with pytest.raises(IncompatibleError, match="m: keeps weights in another file"):
        screen(EXTERNAL[place](external).SerializeToString(), "m")


def test_external_weights_beside_the_model_are_refused_too(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(SMALL.raw_data)
    plan = samples.planned(tmp_path / "m.onnx", add_weight(external(SMALL, "w.bin")))
    with pytest.raises(IncompatibleError, match="keeps weights in another file"):
        OnnxModel.load(plan)


def field(number: int, payload: bytes) -> bytes:
    assert number < 16
    assert len(payload) < 128
    return bytes([number << 3 | 2, len(payload)]) + payload


@pytest.mark.parametrize("location", [b"\x01", b"\x81\x00", b"\x81\x80\x80\x00", b"\x82\x80\x00"])
def test_an_external_location_cannot_hide_in_an_overlong_number(location: bytes) -> None:
    tensor = b"\x70" + location
    with pytest.raises(IncompatibleError, match="keeps weights in another file"):
        screen(field(7, field(5, tensor)), "m")


def test_a_file_name_without_a_location_is_refused_all_the_same() -> None:
    with pytest.raises(IncompatibleError, match="keeps weights in another file"):
        screen(field(7, field(5, field(13, b"")) + field(2, b"g")), "m")


@pytest.mark.parametrize("location", [b"\x00", b"\x80\x00"])
def test_a_location_that_says_here_is_no_harm(location: bytes) -> None:
    screen(field(7, field(5, b"\x70" + location)), "m")


CUSTOM: dict[str, Callable[[Any], Any]] = {
    "graph": lambda node: samples.model(
        [node, helper.make_node("Identity", ["t"], ["y"])],
        [samples.value("x", "float32", (1, 4))],
        [samples.value("y", "float32", (1, 4))],
    ),
    "branch": lambda node: samples.inside_if([node]),
    "function": in_function,
    "training": in_training,
    "deep": lambda node: nested(8, node),
}


@pytest.mark.parametrize("place", CUSTOM)
def test_an_operator_of_a_foreign_domain_is_refused_wherever_it_stands(place: str) -> None:
    screen(CUSTOM[place](identity_of("x")).SerializeToString(), "m")
    with pytest.raises(IncompatibleError, match=r"m: has an operator of domain 'evil\.example'"):
        screen(CUSTOM[place](custom()).SerializeToString(), "m")


@pytest.mark.parametrize("place", CUSTOM)
def test_an_operator_that_carries_compiled_code_is_refused(place: str) -> None:
    node = helper.make_node("EPContext", ["x"], ["t"], domain="com.microsoft", embed_mode=0)
    with pytest.raises(IncompatibleError, match="'EPContext', which carries compiled code"):
        screen(CUSTOM[place](node).SerializeToString(), "m")


def test_the_last_of_two_domains_is_not_the_only_one_looked_at() -> None:
    node = field(4, b"Relu") + field(7, b"evil.example") + field(7, b"")
    for fields in (node, field(7, b"") + field(7, b"evil.example")):
        with pytest.raises(IncompatibleError, match="evil"):
            screen(field(7, field(1, fields)), "m")


def test_a_second_graph_is_looked_into_as_protobuf_would_merge_it() -> None:
    harmless = samples.identity().SerializeToString()
    harmful = field(7, field(1, field(7, b"evil.example")))
    for content in (harmless + harmful, harmful + harmless):
        with pytest.raises(IncompatibleError, match="evil"):
            screen(content, "m")


def test_the_operators_of_quantised_models_are_let_through(tmp_path: Path) -> None:
    """`QLinearAdd` is in com.microsoft: ONNX Runtime's own quantiser writes it."""
    one = numpy_helper.from_array(np.asarray(1, np.float32), "one")
    zero = numpy_helper.from_array(np.asarray(0, np.uint8), "zero")
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["q"]),
        helper.make_node(
            "QLinearAdd",
            ["q", "one", "zero", "q", "one", "zero", "one", "zero"],
            ["sum"],
            domain="com.microsoft",
        ),
        helper.make_node("DequantizeLinear", ["sum", "one", "zero"], ["y"]),
    ]
    made = samples.model(
        nodes,
        [samples.value("x", "float32", (1, 4))],
        [samples.value("y", "float32", (1, 4))],
        initializer=[one, zero],
    )
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    x, y = np.asarray([[1, 2, 3, 4]], np.float32), np.zeros((1, 4), np.float32)
    OnnxModel.load(samples.planned(tmp_path / "m.onnx", made)).bind([x], [y]).run()
    assert y.tolist() == [[2, 4, 6, 8]]


def test_nesting_beyond_protobufs_own_limit_is_refused_without_recursion() -> None:
    content = b""
    for level in range(399):
        number = (6, 5, 1)[level % 3]  # from within: subgraph, attribute, node
        content = bytes([number << 3 | 2]) + varint(len(content)) + content
    with pytest.raises(IncompatibleError, match=f"nested deeper than {MAX_DEPTH}"):
        screen(b"\x3a" + varint(len(content)) + content, "m")


def varint(number: int) -> bytes:
    made = bytearray()
    while number > 127:
        made.append(number & 127 | 128)
        number >>= 7
    return bytes([*made, number])


def test_a_million_empty_fields_are_refused_in_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("edge.inference.screen.MAX_FIELDS", 10_000)
    body = b"\x0a\x00" * 10_001
    with pytest.raises(IncompatibleError, match="has more than 10000 fields"):
        screen(b"\x3a" + varint(len(body)) + body, "m")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it holds no graph"),
        (b"\x08\x09", "it holds no graph"),
        (b"\x00asm\x01\x00\x00\x00", "field number 0"),
        (b"ORTM" + bytes(64), "is no ONNX model"),
        (b"\x3a\xff\xff\xff\xff\x07abc", "a field that ends behind its message"),
        (b"\x3a" + b"\xff" * 12, "an unfinished number"),
        (b"\x80", "an unfinished number"),
        (b"\x3b", "wire type 3"),
        (b"\x3f", "wire type 7"),
        (b"\x09abc", "a field that ends behind its message"),
        (b"%PDF-1.7\n" + b"x" * 100, "is no ONNX model"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is no ONNX model"),
    ],
)
def test_what_is_no_model_is_said_to_be_none(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(IncompatibleError, match=words) as raised:
        OnnxModel.load(samples.planned(tmp_path / "m.onnx", content))
    assert "m.onnx" in str(raised.value)


def test_every_truncation_of_a_model_is_refused() -> None:
    content = samples.convolution().SerializeToString()
    screen(content, "m")
    for length in range(content.rindex(b"B")):  # the tag of opset_import, which comes last
        with pytest.raises(IncompatibleError):
            screen(content[:length], "m")


def test_flipped_bits_end_in_an_error_of_our_own_or_in_a_model_that_fits(tmp_path: Path) -> None:
    """Nothing else may come out of loading: no other exception, and no crash."""
    content = samples.quantised().SerializeToString()
    rng = random.Random(7)
    refusals = []
    for _ in range(150):
        spoilt = bytearray(content)
        for _ in range(rng.randint(1, 4)):
            spoilt[rng.randrange(len(spoilt))] ^= 1 << rng.randrange(8)
        plan = samples.planned(tmp_path / "m.onnx", bytes(spoilt))
        try:
            OnnxModel.load(plan)
        except IncompatibleError as error:
            refusals.append(str(error))
    assert refusals
    assert max(map(len, refusals)) < 2_000


@settings(max_examples=300)
@given(content=st.binary(max_size=300))
def test_random_bytes_never_raise_anything_else(content: bytes) -> None:
    with contextlib.suppress(IncompatibleError):
        screen(content, "m")


@pytest.mark.parametrize(
    "shape", [[1 << 40], [1 << 62, 4], [-1, 4], [(1 << 63) - 1, (1 << 63) - 1], [1 << 16] * 4]
)
def test_a_weight_of_huge_or_negative_shape_without_its_bytes_is_refused(
    tmp_path: Path, shape: list[int]
) -> None:
    weight = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=shape, raw_data=b"1234")
    with pytest.raises(IncompatibleError, match="does not load it"):
        OnnxModel.load(samples.planned(tmp_path / "m.onnx", add_weight(weight)))


def test_a_model_of_a_future_version_is_refused_in_the_engines_words(tmp_path: Path) -> None:
    made = samples.identity()
    made.ir_version = 99
    with pytest.raises(IncompatibleError, match="IR version"):
        OnnxModel.load(samples.planned(tmp_path / "m.onnx", made))


def test_an_unknown_operator_of_the_standard_domain_is_refused(tmp_path: Path) -> None:
    made = samples.identity()
    made.graph.node[0].op_type = "Shell"
    with pytest.raises(IncompatibleError, match="Shell"):
        OnnxModel.load(samples.planned(tmp_path / "m.onnx", made))


def test_a_model_does_not_configure_its_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metadata that asks for profiling writes no file."""
    monkeypatch.chdir(tmp_path)
    made = samples.identity()
    made.metadata_props.add(
        key="ort_config", value='{"session_options": {"enable_profiling": true}}'
    )
    x, y = np.ones((1, 4), np.float32), np.zeros((1, 4), np.float32)
    OnnxModel.load(samples.planned(tmp_path / "m.onnx", made)).bind([x], [y]).run()
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
