"""Signals by Sparkplug B: the births, data and deaths of the edge nodes that bindings name.

A node numbers all that it says, its devices' words too, so all of it is subscribed to. Kept are the
bound metrics and their aliases, and nothing of the others: memory is bounded by the config.

A value counts from the birth to the death: after it the signal is absent. A message that was missed
may have been a birth, which may have given an alias to another metric: then aliases are not
believed until the next birth, since another metric's value is worse than none.
"""

from collections.abc import Callable
from typing import Final

from edge.config import Binding, DeviceConfig
from edge.daemon import sparkplug
from edge.daemon.signals import MalformedSignalError, SignalHistory, believed, latest_ns
from edge.mqtt.bound import filters
from edge.mqtt.messages import Incoming
from edge.mqtt.session import Session
from edge.observability.counters import Counters

REBIRTH_EVERY_NS: Final = 10 * 10**9
"""A node is asked at most so often; a birth of thousands of metrics is not cheap for it."""
_NS_PER_MS: Final = 1_000_000
_NUMBERS: Final = 256

Complain = Callable[[str, str, str], None]


class _Watch:
    """One bound metric. `lost`: its alias is not believed until the next birth."""

    def __init__(self, signal: str, metric: str, device: str, history: SignalHistory) -> None:
        self.signal, self.metric, self.device = signal, metric.encode(), device
        self.history = history
        self.born = self.lost = self.ended = False
        self.alias: int | None = None
        self.datatype = 0
        self.since_ns = 0

    def end(self, at_ns: int) -> None:
        self.history.end(at_ns)
        self.ended, self.born, self.alias = True, False, None

    def is_meant(self, metric: sparkplug.Metric) -> bool:
        if metric.name:
            return metric.name == self.metric
        return self.alias is not None and metric.alias == self.alias


class EdgeNodes:
    """The edge nodes that signals come from; used on the event loop only.

    Args:
        config: The device config.
        session: The one for signals; rebirths are asked for by it, where a binding allows it.
        counters: The daemon's counters.
        complain: Logs what was refused: event, topic, detail.
    """

    def __init__(
        self, config: DeviceConfig, session: Session, counters: Counters, complain: Complain
    ) -> None:
        self._config, self._session = config, session
        self._counters, self._complain = counters, complain
        self._nodes: dict[tuple[str, str], _Node] = {}

    def want(self, signal: str, binding: Binding, history: SignalHistory) -> None:
        """Fill a history from the metric that a binding names."""
        _, group, _, name, *device = binding.topic.split("/")
        node = self._nodes.get((group, name))
        if node is None:
            node = _Node(self._config, self._session, self._counters, self._complain, group, name)
            self._nodes[group, name] = node
            for topic_filter in filters(binding):
                self._session.subscribe(topic_filter, binding.qos, node.receive)
        node.may_ask = node.may_ask or binding.rebirth
        node.watches.append(_Watch(signal, binding.metric, "".join(device), history))


class _Node:
    def __init__(
        self,
        config: DeviceConfig,
        session: Session,
        counters: Counters,
        complain: Complain,
        group: str,
        name: str,
    ) -> None:
        self.watches: list[_Watch] = []
        self.may_ask = False
        self._config, self._session = config, session
        self._counters, self._complain = counters, complain
        self._commands = f"spBv1.0/{group}/NCMD/{name}"
        self._label = f"{group}/{name}"
        self._bd_seq: int | None = None
        self._seq: int | None = None
        self._asked_ns: int | None = None

    def receive(self, message: Incoming) -> None:
        """Take a message of the node or one of its devices; it is acknowledged in any case."""
        _, _, kind, _, *device = message.topic.split("/")
        concerned = [watch for watch in self.watches if watch.device == "".join(device)]
        try:
            payload = self._read(message)
            if kind == "NDEATH":
                self._node_died(payload, message)
            else:
                self._follow(kind, payload, message)
                if kind == "NBIRTH":
                    self._node_born(payload, message)
                if kind == "DDEATH":
                    for watch in concerned:
                        watch.end(message.arrived_at_ns)
                elif kind in ("NBIRTH", "DBIRTH"):
                    self._learn(concerned, payload, message)
                else:
                    self._take(concerned, payload, message)
        except MalformedSignalError as wrong:
            for watch in concerned if device else self.watches:
                if kind in ("NBIRTH", "DBIRTH"):  # it may have given the alias to another metric
                    watch.lost, watch.alias = True, None
                self._counters.count("signals_refused", signal=watch.signal)
            self._complain("signal_refused", message.topic, str(wrong))
        self._session.acknowledge(message)

    def _read(self, message: Incoming) -> sparkplug.Payload:
        limit = self._config.limits.sparkplug_payload_bytes
        if len(message.payload) > limit:
            raise MalformedSignalError(f"{len(message.payload)} bytes; the limit is {limit}")
        if message.retain:  # Sparkplug forbids it: an old birth would come again at each connection
            raise MalformedSignalError("retained, which Sparkplug forbids")
        return sparkplug.read(message.payload)

    def _follow(self, kind: str, payload: sparkplug.Payload, message: Incoming) -> None:
        """Look whether a message was lost before this one."""
        seq, before = payload.seq, self._seq
        if seq is None or (message.duplicate and seq == before):
            return
        self._seq = seq
        if kind == "NBIRTH" or before is None or seq == (before + 1) % _NUMBERS:
            return
        self._counters.count("sparkplug_gaps", node=self._label)
        for watch in self.watches:
            watch.lost, watch.alias = True, None
        self._ask(message)

    def _node_born(self, payload: sparkplug.Payload, message: Incoming) -> None:
        again = self._bd_seq is not None and payload.bd_seq == self._bd_seq
        self._bd_seq = payload.bd_seq
        for watch in self.watches:
            if not again and watch.born:  # the death of the one before was not heard
                watch.end(message.arrived_at_ns)
            watch.born, watch.alias = False, None  # a device is born anew after its node

    def _node_died(self, payload: sparkplug.Payload, message: Incoming) -> None:
        died = payload.bd_seq
        if died is not None and self._bd_seq is not None and died != self._bd_seq:
            return  # the will of a connection before this one
        # The arrival, since the broker was given the will when the node connected.
        for watch in self.watches:
            watch.end(message.arrived_at_ns)
        self._bd_seq = self._seq = None

    def _learn(
        self, concerned: list[_Watch], payload: sparkplug.Payload, message: Incoming
    ) -> None:
        by_name = {metric.name: metric for metric in payload.metrics if metric.name}
        for watch in concerned:
            metric = by_name.get(watch.metric)
            if metric is None:
                watch.end(message.arrived_at_ns)
                watch.born, watch.lost = True, False
                self._refuse(watch, message, f"the birth has no metric {watch.metric.decode()!r}")
                continue
            if watch.ended:
                watch.ended, watch.since_ns = False, message.arrived_at_ns
            watch.born, watch.lost = True, False
            watch.alias, watch.datatype = metric.alias, metric.datatype
            self._add(watch, metric, payload, message)

    def _take(self, concerned: list[_Watch], payload: sparkplug.Payload, message: Incoming) -> None:
        for watch in concerned:
            if not watch.born:
                self._refuse(watch, message, "data before a birth")
                self._ask(message)
                continue
            if watch.lost and any(not metric.name for metric in payload.metrics):
                self._refuse(watch, message, "an alias, and messages were lost since the birth")
                self._ask(message)
            for metric in payload.metrics:
                if watch.is_meant(metric):
                    self._add(watch, metric, payload, message)

    def _add(
        self, watch: _Watch, metric: sparkplug.Metric, payload: sparkplug.Payload, message: Incoming
    ) -> None:
        try:
            value = metric.number(metric.datatype or watch.datatype)
        except MalformedSignalError as wrong:
            self._refuse(watch, message, str(wrong))
            return
        time_ms = payload.time_ms if metric.time_ms is None else metric.time_ms
        sent_ns = message.arrived_at_ns - message.waited_ns
        time_ns = sent_ns if time_ms is None else time_ms * _NS_PER_MS
        if not believed(time_ns, self._config.clock, message.arrived_at_ns):
            if metric.historical:
                self._refuse(watch, message, "a value of the past without a time to believe")
                return
            time_ns = sent_ns
        watch.history.set_back(latest_ns(self._config.clock, message.arrived_at_ns))
        watch.since_ns = min(watch.since_ns, message.arrived_at_ns)
        since_ns = 0 if metric.historical else watch.since_ns
        watch.history.add(time_ns, value, since_ns, message.arrived_ns)
        self._counters.count("signals_received", signal=watch.signal)

    def _refuse(self, watch: _Watch, message: Incoming, detail: str) -> None:
        self._counters.count("signals_refused", signal=watch.signal)
        self._complain("signal_refused", message.topic, detail)

    def _ask(self, message: Incoming) -> None:
        """Ask the node for its births, where a binding allows it, and not all the time."""
        asked_ns = self._asked_ns
        if not self.may_ask or (
            asked_ns is not None and message.arrived_ns - asked_ns < REBIRTH_EVERY_NS
        ):
            return
        self._asked_ns = message.arrived_ns
        # Sparkplug 3.0, NCMD: QoS 0, not retained.
        command = sparkplug.rebirth(message.arrived_at_ns // _NS_PER_MS)
        if self._session.publish(self._commands, command, qos=0):
            self._counters.count("sparkplug_rebirths_asked", node=self._label)
