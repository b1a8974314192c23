"""Births, data and deaths of Sparkplug edge nodes, and what a frame sees of them."""

from collections.abc import Callable
from typing import Any

import pytest
from incoming import incoming
from sparkplug_nodes import INT8, STRING, Payload, bd_seq, double, payload

from edge.config import Binding, BrokerSection
from edge.config.reading import parse
from edge.contracts.signal import SignalState, SignalValue
from edge.daemon.edge_nodes import REBIRTH_EVERY_NS, EdgeNodes
from edge.daemon.signals import SignalHistory
from edge.mqtt.messages import Incoming, Receipt
from edge.mqtt.session import Session
from edge.mqtt.topics import matches
from edge.observability.counters import Counters

MS = 1_000_000
NOW = 1_790_000_000_000 * MS
ABSENT = SignalValue()


class Offline(Session):
    """A session without a connection, that keeps what it was asked for."""

    def __init__(self) -> None:
        super().__init__(BrokerSection(), "box1")
        self.routes: list[tuple[str, Callable[[Incoming], None]]] = []
        self.sent: list[tuple[str, bytes, int]] = []

    def subscribe(self, topic_filter: str, qos: int, receive: Callable[[Incoming], None]) -> None:
        self.routes.append((topic_filter, receive))

    def publish(self, topic: str, payload: bytes, **said: Any) -> bool:
        self.sent.append((topic, payload, said["qos"]))
        return True


class Plant:
    """One edge node, `line3` of `plant7`, and a box that binds metrics of it.

    Attributes:
        now: UTC ns of the next message; a step of 10 ms after each.
    """

    def __init__(self, rebirth: bool = False, **bindings: str) -> None:
        self.session, self.counters, self.now = Offline(), Counters(), NOW
        self.complaints: list[str] = []
        config = parse({}, "test")
        nodes = EdgeNodes(
            config, self.session, self.counters, lambda *said: self.complaints.append(said[2])
        )
        self.histories: dict[str, SignalHistory] = {}
        for name, bound in bindings.items():
            topic, _, metric = bound.partition("=")
            binding = Binding(topic=f"spBv1.0/plant7/+/{topic}", metric=metric, rebirth=rebirth)
            history = self.histories[name] = SignalHistory(100)
            nodes.want(f"signal.{name}", binding, history)

    def say(self, kind: str, data: bytes, device: str = "", **changes: Any) -> None:
        topic = f"spBv1.0/plant7/{kind}/line3" + f"/{device}" * bool(device)
        message = incoming(
            topic=topic,
            payload=data,
            qos=0,
            arrived_ns=self.now,
            arrived_at_ns=self.now,
            receipt=Receipt(0, 0),
            **changes,
        )
        for topic_filter, receive in self.session.routes:
            if matches(topic_filter, topic):
                receive(message)
        self.now += 10 * MS

    def born(self, value: float = 20.0, bd: int = 0, **fields: Any) -> None:
        self.say(
            "NBIRTH", payload(bd_seq(bd), double(value, name="heat", alias=1, **fields), seq=0)
        )

    def heat(self, value: float, seq: int, alias: int = 1, **fields: Any) -> None:
        self.say("NDATA", payload({"double_value": value, "alias": alias, **fields}, seq=seq))

    def died(self, bd: int = 0) -> None:
        self.say("NDEATH", payload(bd_seq(bd)))

    def sees(self, name: str = "heat", at_ns: int = 0) -> SignalValue:
        return self.histories[name].as_of(at_ns or self.now, 1_000)

    def count(self, counter: str) -> int:
        return sum(
            count for name, count in self.counters.snapshot().items() if name.startswith(counter)
        )


@pytest.fixture
def plant() -> Plant:
    return Plant(heat="line3=heat")


def test_after_the_clock_was_set_back_a_node_that_lives_on_is_heard(plant: Plant) -> None:
    plant.born(20.0)
    plant.died()
    plant.born(21.0, bd=1)
    plant.now -= 3_600_000 * MS
    plant.heat(22.0, seq=1)
    assert plant.sees() == SignalValue(22.0, 10 * MS, SignalState.FRESH)


def test_only_what_the_node_says_is_subscribed_to_and_once(plant: Plant) -> None:
    both = Plant(heat="line3=heat", oven="line3/oven=temperature")
    kinds = [f"spBv1.0/plant7/{kind}/line3" for kind in ("NBIRTH", "NDATA", "NDEATH")]
    kinds += [f"spBv1.0/plant7/{kind}/line3/+" for kind in ("DBIRTH", "DDATA", "DDEATH")]
    assert [topic for topic, _ in plant.session.routes] == kinds
    assert [topic for topic, _ in both.session.routes] == kinds


def test_a_metric_counts_from_its_birth_by_the_alias_learnt_there(plant: Plant) -> None:
    plant.born(20.5)
    assert plant.sees().value == 20.5
    plant.heat(21.5, seq=1)
    plant.heat(99.0, seq=2, alias=2)  # another metric
    assert plant.sees().value == 21.5
    plant.say("NDATA", payload({"double_value": 22.5, "name": "heat"}, seq=3))
    assert plant.sees().value == 22.5
    assert plant.count("signals_received") == 3
    assert plant.count("signals_refused") == 0


def test_a_death_takes_the_value_from_its_instant_on_and_not_before(plant: Plant) -> None:
    plant.born(20.0)
    before = plant.now
    plant.now += 10 * MS
    plant.died()
    assert plant.sees() == ABSENT
    assert plant.sees(at_ns=before).value == 20.0


def test_a_value_said_to_be_of_after_the_death_dies_with_it(plant: Plant) -> None:
    plant.born(20.0)
    plant.heat(21.0, seq=1, timestamp=plant.now // MS + 40)  # its clock is ahead
    plant.died()
    plant.now += 100 * MS
    assert plant.sees() == ABSENT


def test_a_node_born_again_behind_the_clock_is_seen_with_its_own_age(plant: Plant) -> None:
    plant.born(20.0)
    plant.died(bd=0)
    dead = plant.now - 1
    plant.now += 100 * MS
    plant.born(30.0, bd=1, timestamp=plant.now // MS - 500)
    seen = plant.sees()
    assert (seen.value, seen.age_ns, seen.state) == (30.0, 510 * MS, SignalState.FRESH)
    assert plant.sees(at_ns=dead) == ABSENT


def test_the_will_of_an_older_connection_kills_no_new_birth(plant: Plant) -> None:
    plant.born(20.0, bd=4)
    plant.born(30.0, bd=5)
    plant.died(bd=4)
    assert plant.sees().value == 30.0
    plant.died(bd=5)
    assert plant.sees() == ABSENT


def test_data_before_a_birth_is_refused_and_no_rebirth_is_asked_unallowed(plant: Plant) -> None:
    plant.heat(20.0, seq=7)
    plant.say("NDATA", payload(double(20.0, name="heat"), seq=8))
    assert plant.sees() == ABSENT
    assert plant.count("signals_refused") == 2
    assert plant.session.sent == []
    plant.born()
    plant.died()
    plant.heat(20.0, seq=1)
    assert plant.sees() == ABSENT


def test_a_rebirth_is_asked_for_where_it_is_allowed_and_not_all_the_time() -> None:
    plant = Plant(rebirth=True, heat="line3=heat")
    for seq in range(5):
        plant.heat(20.0, seq=seq)
    ((topic, command, qos),) = plant.session.sent
    assert (topic, qos) == ("spBv1.0/plant7/NCMD/line3", 0)
    assert Payload.FromString(command).metrics[0].name == "Node Control/Rebirth"
    plant.now += REBIRTH_EVERY_NS
    plant.heat(20.0, seq=5)
    assert len(plant.session.sent) == plant.count("sparkplug_rebirths_asked") == 2


def test_after_a_missed_message_no_alias_is_believed_until_a_birth() -> None:
    plant = Plant(rebirth=True, heat="line3=heat")
    plant.born(20.0)
    plant.heat(21.0, seq=1)
    plant.heat(66.0, seq=3)
    assert plant.sees().value == 21.0
    assert (plant.count("sparkplug_gaps"), plant.count("signals_refused")) == (1, 1)
    assert len(plant.session.sent) == 1
    plant.say("NDATA", payload({"double_value": 22.0, "name": "heat"}, seq=4))
    assert plant.sees().value == 22.0
    plant.say("NBIRTH", payload(bd_seq(0), double(23.0, name="heat", alias=9), seq=0))
    plant.heat(24.0, seq=1, alias=9)
    assert plant.sees().value == 24.0


def test_numbers_go_round_and_a_duplicate_is_no_gap(plant: Plant) -> None:
    plant.born(20.0)
    for turn in range(1, 300):
        plant.heat(float(turn), seq=turn % 256)
    plant.say("NDATA", payload({"double_value": 5.0, "alias": 7}, seq=299 % 256), duplicate=True)
    assert plant.count("sparkplug_gaps") == 0
    assert plant.sees().value == 299.0


def test_a_device_has_a_life_of_its_own_within_its_node() -> None:
    plant = Plant(heat="line3=heat", oven="line3/oven=heat", fan="line3/fan=on")
    plant.born(20.0)
    plant.say("DBIRTH", payload(double(200.0, name="heat", alias=2), seq=1), device="oven")
    fan = {"name": "on", "alias": 3, "datatype": 11, "boolean_value": True}
    plant.say("DBIRTH", payload(fan, seq=2), device="fan")
    plant.say("DDATA", payload({"double_value": 210.0, "alias": 2}, seq=3), device="oven")
    seen = [plant.sees(name).value for name in ("heat", "oven", "fan")]
    assert seen == [20.0, 210.0, 1.0]
    plant.say("DDEATH", payload(seq=4), device="oven")
    assert plant.sees("oven") == ABSENT
    assert plant.sees("fan").value == 1.0
    plant.died()
    assert plant.sees("heat") == plant.sees("fan") == ABSENT
    assert plant.count("sparkplug_gaps") == 0


def test_no_value_and_values_that_are_none_are_absent_and_recover(plant: Plant) -> None:
    plant.born(20.0)
    for seq, spoilt in enumerate((float("nan"), float("inf")), 1):
        plant.heat(spoilt, seq=seq)
        assert plant.sees() == ABSENT
    plant.heat(21.0, seq=3)
    plant.say("NDATA", payload({"alias": 1, "is_null": True}, seq=4))
    assert plant.sees() == ABSENT
    plant.heat(22.0, seq=5)
    assert plant.sees().value == 22.0


@pytest.mark.parametrize("ahead_ms", [51, -86_401_000])
def test_a_time_that_cannot_be_gives_way_to_the_arrival(plant: Plant, ahead_ms: int) -> None:
    plant.born(20.0)
    arrival = plant.now
    plant.heat(21.0, seq=1, timestamp=arrival // MS + ahead_ms)
    assert plant.sees(at_ns=arrival) == SignalValue(21.0, 0, SignalState.FRESH)


def test_the_time_is_the_metrics_or_else_the_payloads(plant: Plant) -> None:
    plant.born(20.0)
    at_ms = plant.now // MS - 3
    plant.say("NDATA", payload({"double_value": 21.0, "alias": 1}, seq=1, at_ms=at_ms))
    assert plant.sees(at_ns=at_ms * MS).value == 21.0
    plant.heat(22.0, seq=2, timestamp=at_ms + 1)
    assert plant.sees(at_ns=at_ms * MS).value == 21.0
    assert plant.sees(at_ns=(at_ms + 1) * MS).value == 22.0


def test_a_value_of_the_past_does_not_become_the_present_one(plant: Plant) -> None:
    plant.born(20.0)
    plant.died()
    plant.born(30.0, bd=1)
    plant.heat(25.0, seq=1, timestamp=plant.now // MS - 5_000, is_historical=True)
    assert plant.sees().value == 30.0
    plant.heat(26.0, seq=2, timestamp=1, is_historical=True)
    assert plant.sees().value == 30.0


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\xff" * 30, "does not end"),
        (b"\x12\x00" * 30_001, "fields"),
        (bytes(300_000), "300000 bytes"),
        (payload({"alias": 1, "datatype": STRING, "string_value": "hot"}, seq=1), "neither"),
        (payload({"alias": 1, "datatype": INT8, "int_value": 300}, seq=1), "does not fit"),
    ],
)
def test_what_cannot_be_read_is_counted_and_the_node_goes_on(
    plant: Plant, data: bytes, why: str
) -> None:
    plant.born(20.0)
    plant.say("NDATA", data)
    assert plant.count("signals_refused") == 1
    assert why in plant.complaints[0]
    assert plant.sees().value == 20.0
    plant.born(21.0)
    assert plant.sees().value == 21.0


def test_after_a_birth_that_cannot_be_read_no_alias_is_believed(plant: Plant) -> None:
    plant.born(20.0)
    plant.say("NBIRTH", bytes(300_000))
    plant.heat(66.0, seq=1)
    assert plant.sees().value == 20.0
    assert plant.count("signals_refused") == 2
    plant.born(21.0)
    assert plant.sees().value == 21.0


def test_what_the_broker_kept_is_no_birth(plant: Plant) -> None:
    plant.say("NBIRTH", payload(double(20.0, name="heat"), seq=0), retain=True)
    assert plant.sees() == ABSENT
    assert "retained" in plant.complaints[0]


def test_a_birth_without_the_metric_leaves_the_signal_absent_and_says_so(plant: Plant) -> None:
    plant.born(20.0)
    plant.say("NBIRTH", payload(bd_seq(0), double(1.0, name="cold", alias=1), seq=0))
    plant.heat(50.0, seq=1)
    assert plant.sees() == ABSENT
    assert "no metric 'heat'" in plant.complaints[0]
