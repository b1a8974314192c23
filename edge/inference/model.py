"""An ONNX model, ready to run on memory that its user owns.

One thread loads, binds and runs; `Bound.terminate` alone may come from another. Nothing is copied:
ONNX Runtime reads inputs and writes outputs where they lie (with an accelerator it carries them
there and back itself). Values are not judged here: a NaN is the business of `postprocess`.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as native

from edge.contracts.plan import MAX_MODEL_BYTES, ModelPlan, TensorSpec
from edge.errors import IncompatibleError, InferenceError, UntrustedError
from edge.inference.engines import Engines, prepare
from edge.inference.provider import actual, choose, placed
from edge.inference.screen import screen

Array = npt.NDArray[Any]

_ENGINE_ERRORS: Final[tuple[type[Exception], ...]] = (
    *(
        found
        for found in vars(native).values()
        if isinstance(found, type) and issubclass(found, Exception)
    ),
    RuntimeError,  # IO binding raises it in place of the engine's own classes
    ValueError,  # UnicodeDecodeError among them: names in a corrupt model
    TypeError,  # an option of the wrong type
    MemoryError,  # std::bad_alloc
)
"""All that ONNX Runtime's binding was seen to raise, or declares."""

_TENSOR_TYPES: Final = {
    "float32": "tensor(float)",
    "uint8": "tensor(uint8)",
    "int8": "tensor(int8)",
    "int32": "tensor(int32)",
    "int64": "tensor(int64)",
    "float16": "tensor(float16)",
}
_LOG_FATAL: Final = 4
"""Every lesser one is raised as well, and logging it once a frame would flood the journal."""


class OnnxModel:
    """A loaded model: `load`, then `bind` once, then run for each frame.

    Attributes:
        inputs: As planned, in the order that `bind` takes.
        outputs: Likewise.
        provider: Short name of the provider that truly runs it.
        nodes: The graph as it runs, after optimisation by layout, each with its provider.
        placement: How many nodes each provider runs.
        engines: Where compiled engines are kept, and whether they lay there already.
        file_bytes: Size of its file.
        any_batch: Whether the file leaves the first dimension of every tensor open, so that fewer
            rows than planned may be bound, too.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        plan: ModelPlan,
        where: str,
        file_bytes: int,
        engines: Engines,
    ) -> None:
        self.file_bytes = file_bytes
        self.any_batch = all(
            each.shape and not isinstance(each.shape[0], int)
            for each in (*session.get_inputs(), *session.get_outputs())
        )
        self.inputs = plan.inputs
        self.outputs = plan.outputs
        self.engines = engines
        self.nodes = placed(session)
        self.placement = dict(Counter(node.provider for node in self.nodes))
        self.provider = actual(session.get_providers(), self.nodes, plan, where)
        self._session = session

    @classmethod
    def load(cls, plan: ModelPlan) -> Self:
        """Screen the file, load it, and hold it to its plan.

        Raises:
            UntrustedError: The file is not the one that was pinned.
            IncompatibleError: The model is refused, broken, not what its card says, or the
                required provider does not run all of it.
        """
        where = plan.path
        content = _read(plan)
        screen(content, where)
        choice = choose(plan, where)
        engines = prepare(plan, where) if choice.offers(plan.provider) else Engines({})
        try:
            options = _session_options(plan, exclusive=choice.exclusive)
            session = ort.InferenceSession(
                content,
                options,
                **choice.apply(options, plan.provider, engines.options),
                enable_fallback=0,  # by default it prints and goes on with the CPU
                read_config_from_model=0,  # a model does not configure its host
            )
            inputs, outputs = _found(session.get_inputs()), _found(session.get_outputs())
        except _ENGINE_ERRORS as failed:
            raise IncompatibleError(
                f"{where}: ONNX Runtime {ort.__version__} does not load it with "
                f"{plan.provider}: {_sentence(failed)}"
            ) from failed
        # It keeps the bytes only to rebuild itself with other providers, which is never asked.
        session._model_bytes = None
        _check("inputs", inputs, plan.inputs, where)
        _check("outputs", outputs, plan.outputs, where)
        return cls(session, plan, where, len(content), engines)

    def bind(
        self, inputs: Sequence[Array], outputs: Sequence[Array], rows: int | None = None
    ) -> "Bound":
        """Tie the model to memory, for any number of runs.

        Args:
            inputs: C-contiguous and aligned, of the planned dtypes and shapes, in their order.
            outputs: Likewise, and writable; they overlap neither each other nor an input.
            rows: Of every array, in place of the planned first dimension; needs `any_batch`.

        Raises:
            ValueError: An array is not as described: a mistake of the caller.
        """
        if rows is not None and not self.any_batch:
            raise ValueError("the model's file fixes how many rows it takes")
        taken, given = (
            specs if rows is None else tuple(spec.rows(rows) for spec in specs)
            for specs in (self.inputs, self.outputs)
        )
        _check_arrays("input", taken, inputs)
        _check_arrays("output", given, outputs)
        _refuse_overlap(inputs, outputs)
        return Bound(
            self,
            tuple(zip(taken, inputs, strict=True)),
            tuple(zip(given, outputs, strict=True)),
        )


class Bound:
    """A model tied to memory. It keeps the arrays, and through them the memory, alive."""

    def __init__(
        self,
        model: OnnxModel,
        inputs: tuple[tuple[TensorSpec, Array], ...],
        outputs: tuple[tuple[TensorSpec, Array], ...],
    ) -> None:
        self._inputs, self._outputs = inputs, outputs
        self._session = model._session
        self._on_host = model.provider == "cpu"
        self._options = ort.RunOptions()
        self._binding = self._session.io_binding()
        self._bind_inputs()
        for spec, array in self._outputs:
            self._binding.bind_output(
                spec.name, "cpu", 0, array.dtype.type, spec.shape, array.ctypes.data
            )

    def run(self) -> None:
        """Run the model once, from the bound inputs to the bound outputs.

        Raises:
            InferenceError: ONNX Runtime failed or was terminated; outputs may be half written.
        """
        self._options = options = ort.RunOptions()  # 0.4 us; a used one may still say "terminate"
        options.log_severity_level = _LOG_FATAL
        try:
            if not self._on_host:
                # Binding copies an input to where the provider keeps its memory, then and never
                # again: bound once, every frame would be judged by the first one's pixels.
                self._bind_inputs()
            self._session.run_with_iobinding(self._binding, options)
            if not self._on_host:
                self._binding.synchronize_outputs()
        except _ENGINE_ERRORS as failed:
            raise InferenceError(f"ONNX Runtime: {_sentence(failed)}") from failed

    def _bind_inputs(self) -> None:
        for spec, array in self._inputs:
            self._binding.bind_input(
                spec.name, "cpu", 0, array.dtype.type, spec.shape, array.ctypes.data
            )

    def terminate(self) -> None:
        """From any thread: end the run under way at its next node; a later run is not affected."""
        self._options.terminate = True


def _read(plan: ModelPlan) -> bytes:
    """Read the file once, so that the bytes that are checked are the bytes that are loaded."""
    try:
        with Path(plan.path).open("rb") as file:
            content = file.read(MAX_MODEL_BYTES + 1)
    except OSError as failed:
        raise IncompatibleError(f"{plan.path}: cannot be read: {failed.strerror}") from failed
    if len(content) > MAX_MODEL_BYTES:
        raise IncompatibleError(f"{plan.path}: is larger than {MAX_MODEL_BYTES} bytes")
    found = hashlib.sha256(content).hexdigest()
    if found != plan.sha256:
        raise UntrustedError(
            f"{plan.path}: changed since it was verified: expected sha256 {plan.sha256}, "
            f"found {found}"
        )
    return content


def _session_options(plan: ModelPlan, *, exclusive: bool) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = plan.threads
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True  # a verdict replays bit for bit
    options.log_severity_level = _LOG_FATAL
    # The arena with its memory pattern stays: without it the reference model took 20 MB more
    # resident memory (35 instead of 16 beside its weights) and no less time.
    for key, value in (
        ("session.load_model_format", "ONNX"),  # the format that was screened, and no other
        # Frames leave gaps: spinning threads burn a core meanwhile (101 % of one, against 23 %),
        # and are awake at once (7.5 ms against 11 for the board model on two threads).
        ("session.intra_op.allow_spinning", "1" if plan.spinning else "0"),
        ("session.record_ep_graph_assignment_info", "1"),
        ("session.disable_cpu_ep_fallback", "1" if exclusive else "0"),
    ):
        options.add_session_config_entry(key, value)
    return options


class _Found(NamedTuple):
    """An input or output as ONNX Runtime describes it; dynamic dimensions are names or None."""

    name: str
    type: str
    shape: list[int | str | None]

    def __str__(self) -> str:
        return f"{self.name}: {self.type}{self.shape}"[:200]


def _found(args: Sequence[ort.NodeArg]) -> dict[str, _Found]:
    return {each.name: _Found(each.name, each.type, each.shape) for each in args}


def _check(side: str, found: dict[str, _Found], planned: Sequence[TensorSpec], where: str) -> None:
    """Hold the file to its card."""
    for spec in planned:
        each = found.get(spec.name)
        if each is None or not _fits(each, spec):
            raise IncompatibleError(
                f"{where}: its card says {side} {spec.name}: {spec.dtype}{list(spec.shape)}; "
                f"the file has {each or ', '.join(map(str, found.values())) or 'none'}"
            )
    for name in set(found) - {spec.name for spec in planned}:
        raise IncompatibleError(
            f"{where}: the file has {side} {found[name]}; its card has only "
            f"{', '.join(spec.name for spec in planned)}"
        )


def _fits(found: _Found, spec: TensorSpec) -> bool:
    """Same type and rank, and each dimension equal or dynamic."""
    return (
        found.type == _TENSOR_TYPES.get(spec.dtype)
        and len(found.shape) == len(spec.shape)
        and all(
            not isinstance(has, int) or has == wants
            for has, wants in zip(found.shape, spec.shape, strict=True)
        )
    )


def _check_arrays(side: str, specs: Sequence[TensorSpec], arrays: Sequence[Array]) -> None:
    if len(specs) != len(arrays):
        raise ValueError(f"the model has {len(specs)} {side}s, {len(arrays)} were given")
    for spec, array in zip(specs, arrays, strict=True):
        if array.dtype.name != spec.dtype or array.shape != spec.shape:
            raise ValueError(
                f"{side} {spec.name} is {spec.dtype}{list(spec.shape)}, "
                f"given {array.dtype.name}{list(array.shape)}"
            )
        if not (array.flags.c_contiguous and array.flags.aligned and array.dtype.isnative):
            raise ValueError(f"{side} {spec.name} is not C-contiguous and aligned")
        if side == "output" and not array.flags.writeable:
            raise ValueError(f"output {spec.name} is not writable")


def _refuse_overlap(inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
    """Compare address ranges: contiguous arrays overlap exactly where those do."""
    for position, output in enumerate(outputs):
        for other in (*inputs, *outputs[:position]):
            if np.may_share_memory(output, other):
                raise ValueError("an output shares memory with an input or another output")


def _sentence(failed: Exception) -> str:
    """The engine's words, on one line and bounded: they may quote the model."""
    return " ".join(str(failed).split())[:500] or type(failed).__name__
