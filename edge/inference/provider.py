"""Execution providers: which one was asked for, which one there is, and which one truly runs.

ONNX Runtime answers an unavailable provider with a warning and the CPU. Here it is an error where
the device config requires the provider, and the truth in `actual` where it does not.
"""

from dataclasses import dataclass
from typing import Final

import onnxruntime as ort

from edge.contracts.plan import ModelPlan
from edge.errors import IncompatibleError

NAMES: Final = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
"""Short names, as device configs and verdicts use them, to ONNX Runtime's."""
_SHORT: Final = {long: short for short, long in NAMES.items()}

_PRECEDENCE: Final = {
    "cpu": ("cpu",),
    "cuda": ("cuda", "cpu"),
    "tensorrt": ("tensorrt", "cuda", "cpu"),
    "openvino": ("openvino", "cpu"),
}
"""What may run the nodes that the preferred provider leaves, where none is required."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What a session is created with.

    Attributes:
        providers: Short names, the preferred one first.
        exclusive: Whether no other provider, the CPU included, may run any node.
    """

    providers: tuple[str, ...]
    exclusive: bool

    def arguments(self, options: dict[str, str]) -> list[tuple[str, dict[str, str]]]:
        """For `InferenceSession(providers=...)`; options go to the preferred provider."""
        return [
            (NAMES[name], dict(options) if position == 0 else {})
            for position, name in enumerate(self.providers)
        ]


def choose(plan: ModelPlan, where: str) -> Choice:
    """Decide on the providers to offer to a session.

    Raises:
        IncompatibleError: The required provider is not in this ONNX Runtime.
    """
    if plan.provider not in NAMES:
        raise IncompatibleError(
            f"{where}: provider {plan.provider!r} is unknown; known are {', '.join(NAMES)}"
        )
    offered = [short(name) for name in ort.get_available_providers()]
    if plan.require:
        if plan.provider not in offered:
            raise IncompatibleError(
                f"{where}: requires provider {plan.provider}; this ONNX Runtime "
                f"{ort.__version__} offers {', '.join(offered)} (install the onnxruntime wheel "
                f"that has {NAMES[plan.provider]}, or change inference.provider)"
            )
        return Choice((plan.provider,), exclusive=plan.provider != "cpu")
    found = tuple(name for name in _PRECEDENCE[plan.provider] if name in offered)
    return Choice(found, exclusive=False)


def actual(
    session: ort.InferenceSession, plan: ModelPlan, where: str
) -> tuple[str, dict[str, int]]:
    """Name the provider that truly runs a model, and count the nodes of each.

    Args:
        session: Made with `session.record_ep_graph_assignment_info` on.
        plan: What was asked for.
        where: Names the model in errors.

    Returns:
        The short name of the foremost provider that runs any node, and nodes by provider.

    Raises:
        IncompatibleError: A required provider is not the first, or not the only one.
    """
    registered = [short(name) for name in session.get_providers()]
    placement: dict[str, int] = {}
    for subgraph in session.get_provider_graph_assignment_info():
        name = short(subgraph.ep_name)
        placement[name] = placement.get(name, 0) + len(subgraph.get_nodes())
    if plan.require and (registered[0] != plan.provider or set(placement) - {plan.provider}):
        nodes = ", ".join(f"{count} on {name}" for name, count in placement.items()) or "none"
        raise IncompatibleError(
            f"{where}: requires provider {plan.provider}; registered are "
            f"{', '.join(registered)}, and nodes run: {nodes} (see the provider's own log above "
            "for what it lacks, or set inference.require = false)"
        )
    return next((name for name in registered if name in placement), registered[-1]), placement


def short(name: str) -> str:
    """Short name of an ONNX Runtime provider; unknown ones keep their own."""
    return _SHORT.get(name, name.removesuffix("ExecutionProvider"))
