"""What comes in: cameras, reference images and signals, each by its binding, for whoever wants it.

Signals come by a session of their own, whose pace is limited: a sensor that floods delays no frame.
A frame has that session read first, so that a value published before it counts for it.

A topic is subscribed when the first plan names it, and stays so: a plan that comes and goes leaves
its shelves and histories filled for the one that comes next.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from edge.config import Binding, DeviceConfig
from edge.contracts.frame import parse_content_type
from edge.contracts.plan import PipelinePlan
from edge.contracts.verdict import Reason
from edge.daemon import signals
from edge.daemon.active_pipeline import ActivePipeline
from edge.daemon.edge_nodes import EdgeNodes
from edge.daemon.intake import MAX_ID_CHARS, Fault, identity
from edge.daemon.rate import Bucket
from edge.daemon.references import ReferenceShelf
from edge.daemon.throttle import Throttle
from edge.errors import DecodeError
from edge.mqtt.messages import Incoming
from edge.mqtt.session import Session
from edge.mqtt.topics import TopicTemplate
from edge.observability.counters import Counters

log = structlog.get_logger("edge.daemon")

_Take = Callable[[Binding, Incoming, dict[str, str]], None]


class Inputs:
    """The inputs of all pipelines.

    Args:
        config: The device config.
        session: The broker's session.
        sensors: The one for signals.
        counters: The daemon's counters.
        throttle: Of complaints.
        forget: Called with the key of a reference image that is no longer kept.

    Attributes:
        references: Reference images, by logical name.
        signals: Histories of signals, by logical name.
        signals_wanted: Set once a plan names one.
    """

    def __init__(
        self,
        config: DeviceConfig,
        session: Session,
        sensors: Session,
        counters: Counters,
        throttle: Throttle,
        forget: Callable[[str], None],
    ) -> None:
        self.references: dict[str, ReferenceShelf] = {}
        self.signals: dict[str, signals.SignalHistory] = {}
        self.signals_wanted = asyncio.Event()
        self._config = config
        self._session = session
        self._sensors = sensors
        self._counters = counters
        self._throttle = throttle
        self._forget = forget
        self._cameras: dict[str, list[ActivePipeline]] = {}
        self._edge_nodes = EdgeNodes(config, sensors, counters, self._complain)
        self._closed = False

    def want(self, plan: PipelinePlan) -> None:
        """Take in the reference images and signals that a plan names."""
        if plan.reference and plan.reference not in self.references:
            shelf = ReferenceShelf(self._config.limits.reference_bytes, self._dropped)
            self.references[plan.reference] = shelf
            self._listen(plan.reference, self._references_to(shelf))
        for grant in plan.signals:
            self.signals_wanted.set()
            if grant.name not in self.signals:
                history = signals.SignalHistory(self._config.limits.signal_history)
                self.signals[grant.name] = history
                binding = self._binding(grant.name)
                if binding.metric:
                    self._edge_nodes.want(grant.name, binding, history)
                else:
                    take = self._signals_to(grant.name, history)
                    self._listen(grant.name, take, self._sensors)

    def connect(self, pipeline: ActivePipeline) -> None:
        """Send a pipeline the frames of its camera, and of no other."""
        self.disconnect(pipeline)
        source = pipeline.plan.source
        if source not in self._cameras:
            self._cameras[source] = []
            self._listen(source, self._frames_to(source, self._cameras[source]))
        self._cameras[source].append(pipeline)

    def disconnect(self, pipeline: ActivePipeline) -> None:
        """Send a pipeline no more frames."""
        for pipelines in self._cameras.values():
            if pipeline in pipelines:
                pipelines.remove(pipeline)

    def close(self) -> None:
        """Take no more frames; the broker keeps them for the next start."""
        self._closed = True

    def status(self) -> dict[str, Any]:
        """Return what the status message says of the reference images."""
        return {
            name: {"bytes": shelf.bytes, "images": len(shelf)}
            for name, shelf in sorted(self.references.items())
        }

    def _listen(self, name: str, take: _Take, session: Session | None = None) -> None:
        binding = self._binding(name)
        template = TopicTemplate(binding.topic, binding.share)

        def receive(message: Incoming) -> None:
            take(binding, message, template.match(message.topic) or {})

        (session or self._session).subscribe(template.filter, binding.qos, receive)

    def _binding(self, name: str) -> Binding:
        binding = self._config.bindings.find(name)
        assert binding is not None, "the plan was resolved against these bindings"
        return binding

    def _frames_to(self, source: str, pipelines: list[ActivePipeline]) -> _Take:
        binding = self._binding(source)
        per_s = binding.frames_per_s or self._config.limits.frames_per_s
        bucket = Bucket(per_s)
        too_many = Fault(Reason.OVERLOAD, f"{source} sends more than its {per_s:g} frames a second")

        def take(_binding: Binding, message: Incoming, named: dict[str, str]) -> None:
            if self._closed:
                return  # not acknowledged
            receivers = tuple(pipelines)
            if not receivers:
                # The deployment that wanted this camera is gone: nobody owes it a verdict.
                self._counters.count("frames_unclaimed")
                self._session.acknowledge(message)
                return
            left = len(receivers)
            # It may wait long for the disk or the broker; its pixels shall not.
            bare = msgspec.structs.replace(message, payload=b"")

            def settle() -> None:
                nonlocal left
                left -= 1
                if left == 0:
                    self._session.acknowledge(bare)

            # Here, and not in each queue: one camera's flood costs another's pipeline nothing.
            fault = None
            if self.signals:
                self._sensors.look()
            if not bucket.admit(message.arrived_ns):
                self._counters.count("frames_over_rate", source=source)
                fault = too_many
            for pipeline in receivers:
                pipeline.receive(message, named, settle, fault)

        return take

    def _references_to(self, shelf: ReferenceShelf) -> _Take:
        def take(_binding: Binding, message: Incoming, named: dict[str, str]) -> None:
            reference_id = message.properties.get("reference-id") or named.get("reference_id", "")
            if reference_id != identity(reference_id):  # a name of 64 KB would be kept beside it
                self._counters.count("references_refused", cause="id")
                what = f"{MAX_ID_CHARS} printable characters name one, found {len(reference_id)}"
                self._complain("reference_refused", message.topic, f"at most {what}")
                self._session.acknowledge(message)
                return
            limit = self._config.limits.max_payload_bytes
            try:
                if not message.payload:
                    shelf.remove(reference_id)
                elif len(message.payload) > limit:
                    raise DecodeError(f"{len(message.payload)} bytes; the limit is {limit}")
                else:
                    content = parse_content_type(message.content_type)
                    shelf.put(reference_id, content, message.payload)
                    self._counters.count("references_received")
            except DecodeError as wrong:
                self._counters.count("references_refused", cause="not an image")
                self._complain("reference_refused", message.topic, str(wrong))
            self._session.acknowledge(message)

        return take

    def _signals_to(self, name: str, history: signals.SignalHistory) -> _Take:
        def take(binding: Binding, message: Incoming, _named: dict[str, str]) -> None:
            try:
                if len(message.payload) > self._config.limits.signal_payload_bytes:
                    raise signals.MalformedSignalError(f"{len(message.payload)} bytes")
                clock, arrived_at_ns = self._config.clock, message.arrived_at_ns
                history.set_back(signals.latest_ns(clock, arrived_at_ns))
                samples = signals.read(
                    message.payload, binding, clock, arrived_at_ns, message.waited_ns
                )
                for time_ns, value in samples:
                    history.add(time_ns, value, arrived_ns=message.arrived_ns)
                self._counters.count("signals_received", len(samples), signal=name)
            except signals.MalformedSignalError as wrong:
                self._counters.count("signals_refused", signal=name)
                self._complain("signal_refused", message.topic, str(wrong))
            self._sensors.acknowledge(message)

        return take

    def _dropped(self, key: str, evicted: bool) -> None:
        if evicted:
            self._counters.count("references_evicted")
        self._forget(key)

    def _complain(self, event: str, topic: str, detail: str) -> None:
        unsaid = self._throttle.admit(event)
        if unsaid is not None:
            log.warning(event, topic=topic, detail=detail, not_logged=unsaid)
