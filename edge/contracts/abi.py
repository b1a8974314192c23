"""The guest ABI, version 1: the structs that host and guest share, defined once.

These classes are the schema. The host reads and writes guest memory through them in place; the
bindings of every guest language are generated from them (`edge.wasm.bindings`), and
`guests/ABI.md` explains them. Everything is little-endian, naturally aligned, free of implicit
padding. Addresses are byte offsets into the guest's one memory; 0 means absent.
"""

import ctypes
from ctypes import c_char, c_double, c_float, c_int32, c_int64, c_uint32, c_uint64
from typing import Final

ABI_MAJOR: Final = 1
ABI_MINOR: Final = 1
"""The host's version. A guest's major must be equal, its minor at most this."""

MAX_RANK: Final = 8
MAX_ACTIONS: Final = 4
REASON_BYTES: Final = 32
MAX_DEFECTS: Final = 300
"""Findings that one `postprocess` call may return; the strongest stay."""

FORMAT_NONE: Final = 0
FORMAT_GRAY8: Final = 1
FORMAT_BGR8: Final = 2
FORMAT_RGB8: Final = 3

# Tensor element types: the numbers of ONNX TensorProto.DataType.
DTYPES: Final[dict[str, int]] = {
    "float32": 1,
    "uint8": 2,
    "int8": 3,
    "int32": 6,
    "int64": 7,
    "float16": 10,
}

VERDICT_PASS: Final = 0
VERDICT_REJECT: Final = 1
VERDICT_REVIEW: Final = 2

SIGNAL_ABSENT: Final = 0
SIGNAL_FRESH: Final = 1
SIGNAL_STALE: Final = 2

OK: Final = 0
ERROR_PARAMETERS: Final = -1
ERROR_INPUT: Final = -2
ERROR_MEMORY: Final = -3
ERROR_INTERNAL: Final = -4
ERRORS: Final[dict[int, str]] = {
    ERROR_PARAMETERS: "parameters are missing, of the wrong type or out of range",
    ERROR_INPUT: "the input is of a shape, type or format that the guest does not take",
    ERROR_MEMORY: "the guest's memory does not suffice",
    ERROR_INTERNAL: "the guest failed for a reason of its own",
}
"""What a negative result of a guest function says."""


class Struct(ctypes.LittleEndianStructure):
    """Base of all ABI structs: fixed layout, mapped onto guest memory by `from_address`."""


class Image(Struct):
    """A decoded image in guest memory, owned by the host, valid during the call."""

    data: int
    width: int
    height: int
    stride: int
    format: int
    reserved: int
    _fields_ = (
        ("data", c_uint32),  # address of the first pixel; 0: there is no image
        ("width", c_uint32),  # pixels
        ("height", c_uint32),  # pixels
        ("stride", c_uint32),  # bytes from one row to the next
        ("format", c_uint32),  # FORMAT_*
        ("reserved", c_uint32),  # 0
    )


class Tensor(Struct):
    """A dense row-major tensor in guest memory, as ONNX Runtime reads or writes it."""

    data: int
    dtype: int
    rank: int
    bytes: int
    dims: "ctypes.Array[c_uint32]"
    _fields_ = (
        ("data", c_uint32),  # address, aligned to 64 bytes
        ("dtype", c_uint32),  # ONNX TensorProto.DataType
        ("rank", c_uint32),  # 1..MAX_RANK
        ("bytes", c_uint32),  # size of the whole tensor
        ("dims", c_uint32 * MAX_RANK),  # unused ones are 0
    )


class Transform(Struct):
    """From model input to frame, in pixels: frame = (input - offset) * scale, on each axis."""

    scale_x: float
    scale_y: float
    offset_x: float
    offset_y: float
    _fields_ = (
        ("scale_x", c_float),
        ("scale_y", c_float),
        ("offset_x", c_float),
        ("offset_y", c_float),
    )


class Defect(Struct):
    """One finding, in pixels of the frame."""

    x0: float
    y0: float
    x1: float
    y1: float
    score: float
    label: int
    _fields_ = (
        ("x0", c_float),
        ("y0", c_float),
        ("x1", c_float),
        ("y1", c_float),
        ("score", c_float),  # 0..1
        ("label", c_int32),  # index into the model card's classes
    )


class Signal(Struct):
    """A signal's value as of the frame's capture."""

    value: float
    age_ns: int
    state: int
    reserved: int
    _fields_ = (
        ("value", c_double),  # 0 where absent
        ("age_ns", c_int64),  # capture time minus the value's time; never negative
        ("state", c_uint32),  # SIGNAL_*
        ("reserved", c_uint32),  # 0
    )


class Action(Struct):
    """A wish: the host carries it out where the deployment grants it, and counts it otherwise."""

    index: int
    ttl_ms: int
    value: float
    _fields_ = (
        ("index", c_uint32),  # into the granted actions, in the manifest's order
        ("ttl_ms", c_uint32),  # how long it holds; cut to the grant's maximum
        ("value", c_double),
    )


class PreprocessCall(Struct):
    """Argument of `preprocess`: read the images, fill the tensors, set the transform."""

    frame: Image
    reference: Image
    inputs: int
    input_count: int
    transform: Transform
    _fields_ = (
        ("frame", Image),
        ("reference", Image),
        ("inputs", c_uint32),  # address of input_count Tensor structs
        ("input_count", c_uint32),
        ("transform", Transform),  # out
    )


class PostprocessCall(Struct):
    """Argument of `postprocess`: read the model's outputs, write findings, return their number."""

    frame_width: int
    frame_height: int
    outputs: int
    output_count: int
    transform: Transform
    defects: int
    defect_capacity: int
    _fields_ = (
        ("frame_width", c_uint32),  # pixels
        ("frame_height", c_uint32),
        ("outputs", c_uint32),  # address of output_count Tensor structs
        ("output_count", c_uint32),
        ("transform", Transform),
        ("defects", c_uint32),  # address of defect_capacity Defect structs, to be written
        ("defect_capacity", c_uint32),
    )


class DecideCall(Struct):
    """Argument of `decide`: read findings and signals, write the decision."""

    frame_index: int
    captured_at_ns: int
    frame_width: int
    frame_height: int
    defects: int
    defect_count: int
    signals: int
    signal_count: int
    verdict: int
    score: float
    reason: bytes
    action_count: int
    part: int
    actions: "ctypes.Array[Action]"
    _fields_ = (
        ("frame_index", c_uint64),  # frames decided since the guest's state began, from 0
        ("captured_at_ns", c_int64),  # UTC
        ("frame_width", c_uint32),  # pixels
        ("frame_height", c_uint32),
        ("defects", c_uint32),  # address of defect_count Defect structs, strongest first
        ("defect_count", c_uint32),
        ("signals", c_uint32),  # address of signal_count Signal structs, in the manifest's order
        ("signal_count", c_uint32),
        ("verdict", c_uint32),  # out: VERDICT_*
        ("score", c_float),  # out: 0..1
        ("reason", c_char * REASON_BYTES),  # out: [a-z0-9-], NUL-padded
        ("action_count", c_uint32),  # out: 0..MAX_ACTIONS
        ("part", c_uint32),  # equal for the frames of one part; 0: none is known (since 1.1)
        ("actions", Action * MAX_ACTIONS),  # out
    )


STRUCTS: Final[tuple[type[Struct], ...]] = (
    Image,
    Tensor,
    Transform,
    Defect,
    Signal,
    Action,
    PreprocessCall,
    PostprocessCall,
    DecideCall,
)


class Export:
    """A function that guests export.

    Attributes:
        name: Export name.
        parameters: Number of i32 parameters.
        result: Whether it returns an i32.
        required: Whether every guest has it (roles have their own rule).
        meaning: One sentence for the bindings and for error messages.
    """

    def __init__(
        self,
        name: str,
        parameters: int,
        *,
        result: bool = True,
        required: bool = False,
        meaning: str,
    ) -> None:
        self.name = name
        self.parameters = parameters
        self.result = result
        self.required = required
        self.meaning = meaning


EXPORTS: Final[tuple[Export, ...]] = (
    Export("edge_abi", 0, required=True, meaning="the minimum host version: major << 16 | minor"),
    Export(
        "edge_alloc",
        2,
        required=True,
        meaning="(bytes, alignment) -> address, 0 if there is no room; called at set-up only",
    ),
    Export(
        "edge_configure",
        2,
        required=True,
        meaning="(address, bytes) of a JSON document, before the first frame; 0 or an error",
    ),
    Export(
        "edge_error",
        0,
        meaning="-> address of a NUL-terminated UTF-8 sentence (at most 255 bytes) on the error",
    ),
    Export("preprocess", 1, meaning="(PreprocessCall) -> 0 or an error"),
    Export("postprocess", 1, meaning="(PostprocessCall) -> number of defects or an error"),
    Export("decide", 1, meaning="(DecideCall) -> 0 or an error"),
    Export(
        "edge_state_save",
        2,
        meaning="(address, capacity) -> bytes of state written, 0 if there is none, or an error",
    ),
    Export(
        "edge_state_restore",
        2,
        meaning="(address, bytes) of a forerunner's state -> 0, or an error: then it starts empty",
    ),
    Export(
        "edge_log",
        0,
        meaning="-> address of NUL-terminated UTF-8 lines that the last call logged, 0 for none",
    ),
)

ROLES: Final = ("preprocess", "postprocess", "decide")
MAX_STATE_BYTES: Final = 4096
MAX_ERROR_BYTES: Final = 255
MAX_LOG_BYTES: Final = 2048
"""All that one call may log; the rest is cut off."""
MAX_LOG_LINES: Final = 8
"""Of one call; the others are dropped."""
MAX_LOG_LINE_BYTES: Final = 255
PARAMETERS_SECTION: Final = "edge.parameters"
"""Custom section with the JSON Schema of the guest's parameters."""
MAX_PARAMETERS_SECTION_BYTES: Final = 65_536
TENSOR_ALIGNMENT: Final = 64
"""One cache line; also the widest vector that ONNX Runtime's kernels load."""
IMAGE_SLACK_BYTES: Final = 16
"""Readable bytes behind every image, so that a guest's vector loads may overhang the last row."""
