"""A frame path around one guest that serves all three roles, and a small model that is its own."""

import hashlib
from pathlib import Path
from typing import Final

import numpy as np
from guest_wat import GuestFiles
from onnx import TensorProto, helper, numpy_helper

from edge.contracts.frame import ContentType, Encoding, PixelFormat
from edge.contracts.messages import Judge, Judged, PolicyState
from edge.contracts.plan import (
    ActionGrant,
    GuestPlan,
    ImagePlan,
    ModelPlan,
    Overflow,
    PipelinePlan,
    SignalGrant,
    TensorSpec,
)
from edge.contracts.signal import SignalState, SignalValue
from edge.contracts.verdict import DeploymentRef, Kind
from edge.errors import FrameError
from edge.inference.model import OnnxModel
from edge.pipeline.path import FramePath
from edge.pipeline.stages import Modules
from edge.wasm.engine import GuestEngine

IMAGE: Final = ImagePlan(PixelFormat.BGR, 16, 8)
INPUTS: Final = (TensorSpec("x", "float32", (1, 3, 4, 4)),)
OUTPUTS: Final = (TensorSpec("y", "float32", (10, 6)),)
FRAME: Final = ContentType(Encoding.RAW, PixelFormat.BGR, 16, 8)
PIXELS: Final = bytes(range(256)) + bytes(128)
_FOR_EVER: Final = (1 << 63) - 1


def write_model(path: Path) -> None:
    """A model that finds one defect, [1, 1, 2, 2] of label 1, and hands on what is no number."""
    rows = np.zeros((10, 6), np.float32)
    rows[0] = (1, 1, 2, 2, 0.5, 1)
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
        helper.make_node("Add", ["rows", "nothing"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "one_defect",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [10, 6])],
        initializer=[
            numpy_helper.from_array(rows, "rows"),
            numpy_helper.from_array(np.asarray(0, np.float32), "zero"),
        ],
    )
    opset = [helper.make_opsetid("", 17)]
    path.write_bytes(
        helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()
    )


class Line:
    """A frame path of one guest; a frame is sent and judged with one call.

    Args:
        engine: Loads the guest.
        model: File that `write_model` wrote.
        files: Where the guest is written.
        wasm: The guest.
        memory_mib: Its grant.
        call_ms: Budget of each of its calls.

    Raises:
        DeploymentError: The guest is refused.
    """

    def __init__(
        self,
        engine: GuestEngine,
        model: Path,
        files: GuestFiles,
        wasm: bytes,
        *,
        memory_mib: int,
        call_ms: int,
    ) -> None:
        written = files.write(wasm)
        guest = GuestPlan(str(written.path), written.sha256, memory_mib, call_ms)
        plan = _plan(guest, model)
        module = engine.load(written.path, written.sha256, memory_mib)
        modules = Modules(module, module, module)
        self.path = FramePath(plan, modules, OnnxModel.load(plan.model), PolicyState())
        self._ticket = 0

    def judge(self) -> Judged:
        """Send a frame the whole way.

        Raises:
            FrameError: It was not judged.
        """
        self._ticket += 1
        signals = (SignalValue(1.0, 0, SignalState.FRESH),)
        request = Judge(self._ticket, FRAME, _FOR_EVER, 1_000, signals=signals)
        frame = self.path.decode(request, PIXELS)
        try:
            return self.path.judge(frame)
        except FrameError:
            self.path.mend()
            raise


def _plan(guest: GuestPlan, model: Path) -> PipelinePlan:
    return PipelinePlan(
        name="hostile",
        deployment=DeploymentRef("hostile", 1, ""),
        source="camera.top",
        reference="",
        reference_slots=0,
        budget_ms=200,
        fail_safe=Kind.REVIEW,
        overflow=Overflow.LATEST,
        queue_frames=2,
        image=IMAGE,
        model=ModelPlan(
            str(model),
            hashlib.sha256(model.read_bytes()).hexdigest(),
            ("open", "short"),
            INPUTS,
            OUTPUTS,
        ),
        preprocess=guest,
        postprocess=guest,
        decide=guest,
        signals=(SignalGrant("signal.lamp", 1_000),),
        actions=(
            ActionGrant("action.reject", 600, 1_000),
            ActionGrant("action.stop", 600, 1_000),
        ),
    )
