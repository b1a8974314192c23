"""Execution providers: which one was asked for, which one there is, and which one truly runs.

ONNX Runtime answers an unavailable provider with a warning and the CPU. Here it is an error where
the device config requires the provider, and the truth in `actual` where it does not. A provider is
either part of the installed ONNX Runtime or a plug-in: a library that is registered with it.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import onnxruntime as ort

from edge.contracts.plan import ModelPlan, PluginPlan
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

_SHOWN_NODES: Final = 8
_SHOWN_CHARS: Final = 60

_registered: set[str] = set()
"""Plug-in libraries of this process: ONNX Runtime takes none twice, and keeps each to the end."""


class PlacedNode(NamedTuple):
    """A node of the graph as it runs, after optimisation, and the provider that runs it."""

    name: str
    operator: str
    provider: str

    def __str__(self) -> str:
        return f"{self.name[:_SHOWN_CHARS] or 'unnamed'} ({self.operator}) on {self.provider}"


@dataclass(frozen=True, slots=True)
class Choice:
    """What a session is created with.

    Attributes:
        providers: Short names of those inside ONNX Runtime, the preferred one first.
        exclusive: Whether no other provider, the CPU included, may run any node.
        devices: Of the plug-in, which comes before them; empty: there is none.
    """

    providers: tuple[str, ...]
    exclusive: bool
    devices: tuple[Any, ...] = ()

    def offers(self, provider: str) -> bool:
        """Whether the provider that was asked for is offered, and not only a substitute."""
        return bool(self.devices) or provider in self.providers

    def apply(
        self, session: ort.SessionOptions, provider: str, options: dict[str, str]
    ) -> dict[str, Any]:
        """Add the plug-in to a session's options.

        Args:
            session: Changed where the provider is a plug-in.
            provider: The one that was asked for.
            options: Of that provider.

        Returns:
            Keyword arguments for `InferenceSession`.
        """
        if self.devices:
            session.add_provider_for_devices(list(self.devices), dict(options))
            return {}  # whoever names providers as well takes this one out again
        return {
            "providers": [
                (NAMES[name], dict(options) if name == provider else {}) for name in self.providers
            ]
        }


def choose(plan: ModelPlan, where: str) -> Choice:
    """Decide on the providers to offer to a session; registers the plug-in, where there is one.

    Raises:
        IncompatibleError: The required provider is not in this ONNX Runtime, or the plug-in does
            not load.
    """
    if plan.plugin is not None:
        return _choose_plugin(plan, plan.plugin, where)
    if plan.provider not in NAMES:
        raise IncompatibleError(
            f"{where}: provider {plan.provider!r} is unknown; known are {', '.join(NAMES)}, and "
            "any plug-in that inference.plugin names"
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


def _choose_plugin(plan: ModelPlan, plugin: PluginPlan, where: str) -> Choice:
    if not Path(plugin.library).is_file():
        raise IncompatibleError(
            f"{where}: inference.plugin.library {plugin.library} is no file (install the "
            "package that has it, or correct the path)"
        )
    if plugin.library not in _registered:
        try:
            ort.register_execution_provider_library(f"edge-{len(_registered)}", plugin.library)
        except Exception as failed:  # whatever class its binding picks
            raise IncompatibleError(
                f"{where}: ONNX Runtime {ort.__version__} does not take the plug-in "
                f"{plugin.library}: {' '.join(str(failed).split())[:500]}"
            ) from failed
        _registered.add(plugin.library)
    known = [(short(each.ep_name), _kind(each), each) for each in ort.get_ep_devices()]
    devices = tuple(
        device
        for name, kind, device in known
        if name == plan.provider and plugin.device in ("", kind)
    )
    if devices:
        return Choice((), exclusive=plan.require, devices=devices[:1])
    if plan.require:
        offered = ", ".join(f"{name} on {kind}" for name, kind, _ in known)
        raise IncompatibleError(
            f"{where}: requires provider {plan.provider}"
            f"{f' on {plugin.device}' if plugin.device else ''}; with {plugin.library} there are "
            f"{offered} (a driver may be missing; or set inference.provider to one of these)"
        )
    return Choice(("cpu",), exclusive=False)


def _kind(device: Any) -> str:
    return str(device.device.type).rpartition(".")[2].lower()


def placed(session: ort.InferenceSession) -> tuple[PlacedNode, ...]:
    """Every node of a session's graph with its provider.

    Args:
        session: Made with `session.record_ep_graph_assignment_info` on.
    """
    return tuple(
        PlacedNode(node.name, node.op_type, short(subgraph.ep_name))
        for subgraph in session.get_provider_graph_assignment_info()
        for node in subgraph.get_nodes()
    )


def actual(
    registered: list[str], nodes: tuple[PlacedNode, ...], plan: ModelPlan, where: str
) -> str:
    """Name the provider that truly runs a model.

    Args:
        registered: Long names of the session's providers, the preferred one first.
        nodes: Where its nodes run.
        plan: What was asked for.
        where: Names the model in errors.

    Returns:
        The short name of the foremost provider that runs any node.

    Raises:
        IncompatibleError: A required provider is not the first, or not the only one; with the list.
    """
    names = [short(name) for name in registered]
    elsewhere = [node for node in nodes if node.provider != plan.provider]
    if plan.require and (names[0] != plan.provider or elsewhere):
        counts = Counter(node.provider for node in nodes)
        summary = ", ".join(f"{count} on {name}" for name, count in counts.items()) or "none"
        shown = "; ".join(map(str, elsewhere[:_SHOWN_NODES]))
        more = f"; {len(elsewhere) - _SHOWN_NODES} more" if len(elsewhere) > _SHOWN_NODES else ""
        raise IncompatibleError(
            f"{where}: requires provider {plan.provider}; registered are "
            f"{', '.join(names)}, and nodes run: {summary}{f': {shown}{more}' if shown else ''} "
            "(export the model without what the provider lacks, or set inference.require = false)"
        )
    used = {node.provider for node in nodes}
    return next((name for name in names if name in used), names[-1])


def short(name: str) -> str:
    """Short name of an ONNX Runtime provider; unknown ones keep their own, in small letters."""
    return _SHORT.get(name, name.removesuffix("ExecutionProvider").lower())
