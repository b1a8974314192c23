"""Failures of deployments are told before there is one, by every reason that the document has."""

import re
import time
from pathlib import Path

from daemons import CONFIG

from edge import config
from edge.config import BrokerSection
from edge.daemon.lineup import Lineup
from edge.daemon.rollout import Rollout
from edge.deployment.installed import Installed
from edge.deployment.rollout import FAILURES
from edge.mqtt.session import Session
from edge.observability.counters import Counters

DOCUMENT = Path(__file__).parents[3] / "docs" / "updates.md"


def test_a_deployment_that_fails_is_a_rise_from_nothing(tmp_path: Path) -> None:
    counters = Counters()
    Rollout(
        config.load(CONFIG),
        Installed(tmp_path, 1 << 30, time.time_ns),
        Lineup.__new__(Lineup),  # no pipeline is asked for here
        Session(BrokerSection(), "edge-box1"),
        counters,
        tmp_path,
        lambda: None,
    )
    (told,) = [series for name, _, series in counters.series() if name == "deployments_failed"]
    assert told == [({"reason": reason}, 0) for reason in FAILURES]
    assert counters.snapshot() == {}, "the status message stays as short as it was"


def test_the_reasons_are_those_of_the_document() -> None:
    table = DOCUMENT.read_text().partition("| it fails by |")[2].partition("\n\n")[0]
    named = {code for row in table.splitlines() for code in re.findall("`([a-z-]+)`", row)[1:]}
    assert named == set(FAILURES)
