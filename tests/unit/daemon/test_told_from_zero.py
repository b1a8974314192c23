"""Failures of deployments are told before there is one, by every reason that the document has."""

import re
import time
from pathlib import Path

import pytest
from daemons import CONFIG

from edge import config
from edge.config import BrokerSection
from edge.daemon.lineup import Lineup
from edge.daemon.rollout import Rollout
from edge.deployment.installed import Installed
from edge.deployment.rollout import FAILURES, Deployed, Event
from edge.errors import DeploymentError
from edge.mqtt.session import Session
from edge.observability.counters import Counters

DOCUMENT = Path(__file__).parents[3] / "docs" / "updates.md"


def rollout(installed: Installed, folder: Path) -> Counters:
    """The counters of a daemon that has what is installed."""
    counters = Counters()
    Rollout(
        config.load(CONFIG),
        installed,
        Lineup.__new__(Lineup),  # no pipeline is asked for here
        Session(BrokerSection(), "edge-box1"),
        counters,
        folder,
        lambda: None,
    )
    return counters


def test_a_deployment_that_fails_is_a_rise_from_nothing(tmp_path: Path) -> None:
    counters = rollout(Installed(tmp_path, 1 << 30, time.time_ns), tmp_path)
    (told,) = [series for name, _, series in counters.series() if name == "deployments_failed"]
    assert told == [({"reason": reason}, 0) for reason in FAILURES]
    assert counters.snapshot() == {}, "the status message stays as short as it was"


def test_a_deployment_that_a_start_undoes_is_counted_by_that_start(tmp_path: Path) -> None:
    before = Installed(tmp_path, 1 << 30, time.time_ns)
    before.advance(Event.OFFERED, offered=Deployed("pcb", 1, "1" * 64))
    for event in (Event.BEGAN, Event.PROVED, Event.AGREED):
        before.advance(event)
    installed = Installed(tmp_path, 1 << 30, time.time_ns)
    with pytest.raises(DeploymentError):  # its folder is gone, and nothing is left
        installed.start()
    assert rollout(installed, tmp_path).value("deployments_failed", reason="unreadable") == 1
    again = Installed(tmp_path, 1 << 30, time.time_ns)
    assert again.start() is None
    assert rollout(again, tmp_path).value("deployments_failed", reason="unreadable") == 0


def test_the_reasons_are_those_of_the_document() -> None:
    table = DOCUMENT.read_text().partition("| it fails by |")[2].partition("\n\n")[0]
    named = {code for row in table.splitlines() for code in re.findall("`([a-z-]+)`", row)[1:]}
    assert named == set(FAILURES)
