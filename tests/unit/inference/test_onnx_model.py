"""Loading, binding and running real models on the CPU."""

import gc
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import onnx_samples as samples
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge.contracts.plan import TensorSpec
from edge.errors import IncompatibleError, InferenceError, UntrustedError
from edge.inference.model import OnnxModel

X = (TensorSpec("x", "float32", (1, 4)),)
Y = (TensorSpec("y", "float32", (1, 4)),)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "m.onnx"


def arrays(specs: tuple[TensorSpec, ...], seed: int = 0) -> list[np.ndarray[Any, Any]]:
    """Arrays inside of larger buffers, as they lie in guest memory: aligned to 64 bytes."""
    made = []
    rng = np.random.default_rng(seed)
    for spec in specs:
        size = int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize
        memory = np.zeros(size + 128, np.uint8)
        start = -memory.ctypes.data % 64 + 64
        array = memory[start : start + size].view(spec.dtype).reshape(spec.shape)
        array[...] = rng.integers(0, 100, spec.shape)
        made.append(array)
    return made


def test_bound_memory_gets_what_an_ordinary_run_returns(file: Path) -> None:
    plan = samples.planned(
        file, samples.convolution(), samples.CONVOLUTION_INPUTS, samples.CONVOLUTION_OUTPUTS
    )
    loaded = OnnxModel.load(plan)
    inputs, outputs = arrays(plan.inputs), arrays(plan.outputs)
    bound = loaded.bind(inputs, outputs)
    session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for seed in range(3):  # bound once, run for each frame
        inputs[0][...] = np.random.default_rng(seed).standard_normal(inputs[0].shape)
        bound.run()
        for expected, found in zip(session.run(None, {"x": inputs[0]}), outputs, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_a_quantised_model_runs_on_bytes(file: Path) -> None:
    specs = (
        (TensorSpec("x", "uint8", (1, 2, 16, 16)),),
        (TensorSpec("y", "float32", (1, 4, 16, 16)),),
    )
    plan = samples.planned(file, samples.quantised(), *specs)
    inputs, outputs = arrays(plan.inputs), arrays(plan.outputs)
    OnnxModel.load(plan).bind(inputs, outputs).run()
    session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(outputs[0], session.run(None, {"x": inputs[0]})[0])
    assert outputs[0].any()


@pytest.mark.parametrize("dtype", sorted(samples.DTYPES))
def test_every_element_type_of_the_guest_abi_is_carried(file: Path, dtype: str) -> None:
    plan = samples.planned(
        file,
        samples.identity(dtype),
        (TensorSpec("x", dtype, (1, 4)),),
        (TensorSpec("y", dtype, (1, 4)),),
    )
    (x,), (y,) = arrays(plan.inputs, 1), arrays(plan.outputs, 2)
    OnnxModel.load(plan).bind([x], [y]).run()
    np.testing.assert_array_equal(y, x)


def test_the_arrays_live_as_long_as_the_binding_and_no_longer(file: Path) -> None:
    """A view keeps its store alive; were it dropped, the engine would write to freed memory."""
    loaded = OnnxModel.load(samples.planned(file, samples.identity()))
    given = [*arrays(X), *arrays(Y)]
    references = [weakref.ref(array) for array in given]
    bound = loaded.bind(given[:1], given[1:])
    del given
    gc.collect()
    assert all(reference() is not None for reference in references)
    bound.run()
    del bound
    gc.collect()
    assert all(reference() is None for reference in references)


def test_infinities_and_nan_pass_through(file: Path) -> None:
    (x,), (y,) = arrays(X), arrays(Y)
    x[...] = [[np.nan, np.inf, -np.inf, 0]]
    OnnxModel.load(samples.planned(file, samples.identity())).bind([x], [y]).run()
    np.testing.assert_array_equal(y, x)


def test_a_dynamic_dimension_takes_the_planned_size(file: Path) -> None:
    plan = samples.planned(file, samples.identity(shape=("batch", None)))
    (x,), (y,) = arrays(X), arrays(Y, 1)
    OnnxModel.load(plan).bind([x], [y]).run()
    np.testing.assert_array_equal(y, x)


def test_the_plans_order_of_tensors_holds_not_the_files(file: Path) -> None:
    reversed_outputs = tuple(reversed(samples.CONVOLUTION_OUTPUTS))
    plan = samples.planned(
        file, samples.convolution(), samples.CONVOLUTION_INPUTS, reversed_outputs
    )
    z, y = outputs = arrays(reversed_outputs)
    OnnxModel.load(plan).bind(arrays(plan.inputs), outputs).run()
    np.testing.assert_allclose(z[0, :, 0, 0], y[0].mean(axis=(1, 2)), rtol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "outputs", "words"),
    [
        ((TensorSpec("x", "float32", (1, 5)),), Y, ["x: float32[1, 5]", "x: tensor(float)[1, 4]"]),
        ((TensorSpec("x", "float32", (4,)),), Y, ["x: float32[4]", "x: tensor(float)[1, 4]"]),
        ((TensorSpec("x", "uint8", (1, 4)),), Y, ["x: uint8[1, 4]", "x: tensor(float)[1, 4]"]),
        ((TensorSpec("q", "float32", (1, 4)),), Y, ["q: float32", "x: tensor(float)[1, 4]"]),
        (X, (TensorSpec("y", "int32", (1, 4)),), ["outputs y: int32", "y: tensor(float)"]),
        (X, (), ["outputs y: tensor(float)[1, 4]"]),
        ((*X, TensorSpec("x2", "float32", (1, 4))), Y, ["inputs x2: float32", "x: tensor(float)"]),
    ],
)
def test_a_file_that_is_not_what_its_card_says_is_refused(
    file: Path, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], words: list[str]
) -> None:
    with pytest.raises(IncompatibleError) as raised:
        OnnxModel.load(samples.planned(file, samples.identity(), inputs, outputs))
    for word in words:
        assert word in str(raised.value)


def test_a_file_that_changed_since_it_was_verified_is_untrusted(file: Path) -> None:
    plan = samples.planned(file, samples.identity())
    file.write_bytes(samples.identity("int32").SerializeToString())
    with pytest.raises(UntrustedError, match="changed since it was verified"):
        OnnxModel.load(plan)


def test_a_file_that_is_gone_is_named(file: Path) -> None:
    plan = samples.planned(file, samples.identity())
    file.unlink()
    with pytest.raises(IncompatibleError, match=r"m\.onnx: cannot be read: No such file"):
        OnnxModel.load(plan)


@pytest.mark.parametrize("provider", ["cuda", "tensorrt", "openvino"])
def test_a_required_provider_that_is_missing_is_an_error_and_never_the_cpu(
    file: Path, provider: str
) -> None:
    if provider in ort.get_available_providers():
        pytest.skip(f"this ONNX Runtime has {provider}")
    with pytest.raises(IncompatibleError) as raised:
        OnnxModel.load(samples.planned(file, samples.identity(), provider=provider, require=True))
    assert f"requires provider {provider}" in str(raised.value)
    assert "offers" in str(raised.value)
    assert "cpu" in str(raised.value)


def test_where_it_is_not_required_the_actual_provider_is_named(file: Path) -> None:
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has cuda")
    plan = samples.planned(file, samples.identity(), provider="cuda", require=False)
    loaded = OnnxModel.load(plan)
    assert loaded.provider == "cpu"
    assert set(loaded.placement) == {"cpu"}


def test_a_provider_that_nobody_knows_is_refused(file: Path) -> None:
    with pytest.raises(IncompatibleError, match="'abacus' is unknown; known are cpu, cuda"):
        OnnxModel.load(samples.planned(file, samples.identity(), provider="abacus"))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda x: x.astype(np.float64), "given float64"),
        (lambda x: x[:, :3], r"given float32\[1, 3\]"),
        (lambda x: np.repeat(x, 2, axis=1)[:, ::2], "C-contiguous"),
        (lambda _: np.zeros(17, np.uint8)[1:].view(np.float32).reshape(1, 4), "aligned"),
        (lambda x: x.astype(">f4"), "C-contiguous and aligned"),
    ],
)
def test_an_array_that_does_not_fit_is_refused_before_the_engine_has_its_address(
    file: Path, spoil: Any, words: str
) -> None:
    loaded = OnnxModel.load(samples.planned(file, samples.identity()))
    (x,), (y,) = arrays(X), arrays(Y)
    with pytest.raises(ValueError, match=words):
        loaded.bind([spoil(x)], [y])
    with pytest.raises(ValueError, match=words):
        loaded.bind([x], [spoil(y)])


def test_outputs_must_be_writable_and_apart(file: Path) -> None:
    loaded = OnnxModel.load(samples.planned(file, samples.identity()))
    (x,), (y,) = arrays(X), arrays(Y)
    with pytest.raises(ValueError, match="shares memory"):
        loaded.bind([x], [x])
    with pytest.raises(ValueError, match="1 outputs, 2 were given"):
        loaded.bind([x], [y, y])
    y.flags.writeable = False
    with pytest.raises(ValueError, match="not writable"):
        loaded.bind([x], [y])


def test_inputs_may_be_read_only(file: Path) -> None:
    (x,), (y,) = arrays(X), arrays(Y, 1)
    x.flags.writeable = False
    OnnxModel.load(samples.planned(file, samples.identity())).bind([x], [y]).run()
    np.testing.assert_array_equal(y, x)


def test_an_engine_failure_is_an_inference_error_and_the_next_frame_runs(file: Path) -> None:
    """`Gather` with an index out of bounds fails; with another one it does not."""
    table = numpy_helper.from_array(np.arange(8, dtype=np.float32).reshape(2, 4), "table")
    made = samples.model(
        [helper.make_node("Gather", ["table", "x"], ["y"], axis=0)],
        [samples.value("x", "int64", (1,))],
        [samples.value("y", "float32", (1, 4))],
        initializer=[table],
    )
    specs = (TensorSpec("x", "int64", (1,)),)
    (x,), (y,) = arrays(specs), arrays(Y)
    bound = OnnxModel.load(samples.planned(file, made, specs)).bind([x], [y])
    x[0] = 7
    with pytest.raises(InferenceError, match="out of data bounds") as raised:
        bound.run()
    assert raised.value.reason == "inference-error"
    assert "\n" not in str(raised.value)
    x[0] = 1
    bound.run()
    assert y.tolist() == [[4, 5, 6, 7]]


def test_an_output_of_another_shape_than_bound_does_not_overrun_it(file: Path) -> None:
    """A model that says [1, 4] and computes more: the engine compares before it writes."""
    made = samples.model(
        [helper.make_node("ConstantOfShape", ["x"], ["y"])],
        [samples.value("x", "int64", (2,))],
        [samples.value("y", "float32", (None, None))],
    )
    specs = (TensorSpec("x", "int64", (2,)),)
    (x,) = arrays(specs)
    room = np.full((4, 4), 7, np.float32)
    bound = OnnxModel.load(samples.planned(file, made, specs)).bind([x], [room[:1]])
    x[...] = [4, 4]
    with pytest.raises(InferenceError):
        bound.run()
    assert (room[1:] == 7).all()


def test_more_memory_than_there_is_is_an_inference_error(file: Path) -> None:
    made = samples.model(
        [
            helper.make_node("ConstantOfShape", ["x"], ["huge"]),
            helper.make_node("ReduceSum", ["huge"], ["y"], keepdims=1),
        ],
        [samples.value("x", "int64", (2,))],
        [samples.value("y", "float32", (1, 1))],
    )
    specs = (TensorSpec("x", "int64", (2,)),), (TensorSpec("y", "float32", (1, 1)),)
    (x,), (y,) = arrays(specs[0]), arrays(specs[1])
    bound = OnnxModel.load(samples.planned(file, made, *specs)).bind([x], [y])
    x[...] = [1 << 30, 1 << 30]
    with pytest.raises(InferenceError):
        bound.run()
    x[...] = [2, 2]
    bound.run()


def test_an_endless_run_is_terminated_from_another_thread_and_the_model_goes_on(
    file: Path,
) -> None:
    (x,), (y,) = arrays(X), arrays(Y)
    bound = OnnxModel.load(samples.planned(file, samples.endless())).bind([x], [y])
    ended = threading.Event()
    errors: list[InferenceError] = []

    def run() -> None:
        try:
            bound.run()
        except InferenceError as failed:
            errors.append(failed)
        ended.set()

    for round_ in range(2):  # a second run is not affected by the end of the first
        ended.clear()
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        assert not ended.wait(0.2), "an endless loop came to an end"
        deadline = time.monotonic() + 30
        while not ended.is_set() and time.monotonic() < deadline:
            bound.terminate()
            ended.wait(0.05)
        thread.join(60)
        assert len(errors) == round_ + 1
    assert "terminate" in str(errors[0])


def test_terminating_between_runs_spoils_no_run(file: Path) -> None:
    (x,), (y,) = arrays(X), arrays(Y, 1)
    bound = OnnxModel.load(samples.planned(file, samples.identity())).bind([x], [y])
    bound.terminate()
    bound.run()
    bound.terminate()
    bound.run()
    np.testing.assert_array_equal(y, x)


def test_the_same_frame_gives_the_same_bits(file: Path) -> None:
    plan = samples.planned(
        file, samples.convolution(), samples.CONVOLUTION_INPUTS, samples.CONVOLUTION_OUTPUTS
    )
    answers = []
    for _ in range(3):
        inputs, outputs = arrays(plan.inputs, 5), arrays(plan.outputs)
        OnnxModel.load(plan).bind(inputs, outputs).run()
        answers.append([output.tobytes() for output in outputs])
    assert answers[0] == answers[1] == answers[2]


def test_a_name_that_is_not_text_is_an_error_like_any_other(file: Path) -> None:
    content = samples.identity().SerializeToString().replace(b"\x0a\x01x", b"\x0a\x01\xff")
    assert b"\xff" in content
    with pytest.raises(IncompatibleError):
        OnnxModel.load(samples.planned(file, content))


def test_a_bool_tensor_is_no_part_of_the_abi(file: Path) -> None:
    made = samples.identity()
    for each in (made.graph.input[0], made.graph.output[0]):
        each.type.tensor_type.elem_type = TensorProto.BOOL
    with pytest.raises(IncompatibleError, match=r"tensor\(bool\)"):
        OnnxModel.load(samples.planned(file, made))
