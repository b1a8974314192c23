"""wasi-nn (`wasi_ephemeral_nn`) for one run of a program: handles, pointers and checks.

The one graph there is is the deployment's model, which runs natively, outside of this room. Every
function answers an error number and never raises, whatever it is handed; numbers and layouts are
those of wasi-nn's WITX as wasmtime serves it.
"""

import hashlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from edge.contracts.plan import TensorSpec
from edge.errors import InferenceError

SUCCESS: Final = 0
INVALID_ARGUMENT: Final = 1
INVALID_ENCODING: Final = 2
RUNTIME_ERROR: Final = 5
UNSUPPORTED_OPERATION: Final = 6
TOO_LARGE: Final = 7
NOT_FOUND: Final = 8

_ENCODINGS: Final = (1, 5)
"""ONNX, and `autodetect`."""
_CPU: Final = 0
_GPU: Final = 1
_TYPES: Final = {"float16": 0, "float32": 1, "uint8": 3, "int32": 4, "int64": 5}
_MAX_NAME_BYTES: Final = 256
_MAX_HANDLES: Final = 16
"""Graphs, and contexts, that one run may hold."""
_TENSOR: Final = struct.Struct("<IIBxxxII")
"""Dimensions, their number, element type, data, its bytes."""
_WORD: Final = struct.Struct("<I")


class GuestMemory(Protocol):
    """The program's memory, as it is now."""

    def view(self, address: int, count: int) -> memoryview | None:
        """That stretch, writable; `None` where it does not lie inside."""


@dataclass(frozen=True)
class Network:
    """The deployment's model, tied to arrays; one run at a time.

    Attributes:
        name: Under which it is granted to the program.
        sha256: Digest of the model file, in hex.
        model_bytes: Size of that file.
        on_host: Whether it runs on the CPU.
        run: Once, from inputs to outputs; raises `InferenceError`.
    """

    name: str
    sha256: str
    model_bytes: int
    on_host: bool
    input_specs: Sequence[TensorSpec]
    output_specs: Sequence[TensorSpec]
    inputs: Sequence[npt.NDArray[Any]]
    outputs: Sequence[npt.NDArray[Any]]
    run: Callable[[], None]


class NeuralCalls:
    """The six functions of wasi-nn over one network, for one run of a program.

    Attributes:
        failure: Why the model could not be run; the run is then lost, whatever the program says.
    """

    def __init__(self, memory: GuestMemory, network: Network) -> None:
        self._memory = memory
        self._network = network
        self._graphs = 0
        self._contexts: list[_Context] = []
        self.failure: InferenceError | None = None

    def load(self, builders: int, count: int, encoding: int, target: int, graph: int) -> int:
        """Take the model's own bytes for the model; any others are refused."""
        if encoding not in _ENCODINGS:
            return INVALID_ENCODING
        if target != _CPU and not (target == _GPU and not self._network.on_host):
            return UNSUPPORTED_OPERATION
        listed = self._memory.view(builders, 8) if count == 1 else None
        if listed is None:
            return INVALID_ARGUMENT
        address, size = struct.unpack("<II", listed)
        content = self._memory.view(address, size)
        if content is None:
            return INVALID_ARGUMENT
        known = size == self._network.model_bytes
        if not known or hashlib.sha256(content).hexdigest() != self._network.sha256:
            return UNSUPPORTED_OPERATION
        return self._new_graph(graph)

    def load_by_name(self, name: int, size: int, graph: int) -> int:
        """The granted name, and no other."""
        if size > _MAX_NAME_BYTES:
            return TOO_LARGE
        text = self._memory.view(name, size)
        if text is None:
            return INVALID_ARGUMENT
        if bytes(text) != self._network.name.encode():
            return NOT_FOUND
        return self._new_graph(graph)

    def _new_graph(self, out: int) -> int:
        if self._graphs == _MAX_HANDLES:
            return TOO_LARGE
        if not self._put(out, self._graphs):
            return INVALID_ARGUMENT
        self._graphs += 1
        return SUCCESS

    def init_execution_context(self, graph: int, out: int) -> int:
        """A context keeps the inputs that were set in it."""
        if not 0 <= graph < self._graphs:
            return INVALID_ARGUMENT
        if len(self._contexts) == _MAX_HANDLES:
            return TOO_LARGE
        if not self._put(out, len(self._contexts)):
            return INVALID_ARGUMENT
        self._contexts.append(_Context(len(self._network.inputs)))
        return SUCCESS

    def set_input(self, context: int, index: int, tensor: int) -> int:
        """Copy a tensor of exactly the model's type and shape."""
        chosen = self._context(context)
        described = self._memory.view(tensor, _TENSOR.size)
        if chosen is None or described is None or index >= len(self._network.inputs):
            return INVALID_ARGUMENT
        spec, held = self._network.input_specs[index], self._network.inputs[index]
        dims_at, rank, kind, data_at, size = _TENSOR.unpack(described)
        if rank != len(spec.shape) or kind != _TYPES.get(spec.dtype):
            return INVALID_ARGUMENT
        dims = self._memory.view(dims_at, 4 * rank)
        if dims is None or struct.unpack(f"<{rank}I", dims) != spec.shape:
            return INVALID_ARGUMENT
        if size > held.nbytes:
            return TOO_LARGE
        content = self._memory.view(data_at, size)
        if content is None or size != held.nbytes:
            return INVALID_ARGUMENT
        chosen.inputs[index] = np.frombuffer(bytes(content), held.dtype).reshape(held.shape)
        return SUCCESS

    def compute(self, context: int) -> int:
        """Run the model natively, once every input is set."""
        chosen = self._context(context)
        if chosen is None or any(each is None for each in chosen.inputs):
            return INVALID_ARGUMENT
        for held, given in zip(self._network.inputs, chosen.inputs, strict=True):
            held[...] = given
        try:
            self._network.run()
        except InferenceError as failed:
            self.failure = failed
            return RUNTIME_ERROR
        chosen.outputs = [array.tobytes() for array in self._network.outputs]
        return SUCCESS

    def get_output(self, context: int, index: int, out: int, room: int, written: int) -> int:
        """Copy an output of the last `compute` of this context."""
        chosen = self._context(context)
        if chosen is None or index >= len(chosen.outputs):
            return INVALID_ARGUMENT
        content = chosen.outputs[index]
        if len(content) > room:
            return TOO_LARGE
        place = self._memory.view(out, len(content))
        if place is None or self._memory.view(written, _WORD.size) is None:
            return INVALID_ARGUMENT
        place[:] = content
        self._put(written, len(content))
        return SUCCESS

    def _context(self, handle: int) -> "_Context | None":
        return self._contexts[handle] if 0 <= handle < len(self._contexts) else None

    def _put(self, address: int, word: int) -> bool:
        place = self._memory.view(address, _WORD.size)
        if place is None:
            return False
        place[:] = _WORD.pack(word)
        return True


class _Context:
    """What was set, and what came of it."""

    def __init__(self, inputs: int) -> None:
        self.inputs: list[npt.NDArray[Any] | None] = [None] * inputs
        self.outputs: list[bytes] = []
