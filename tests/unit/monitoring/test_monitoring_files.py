"""The files for Prometheus and Grafana name what there is, and the alerts say what to do."""

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
from promtool import judged_by_promtool

from edge.mqtt.counting import COUNTERS
from edge.observability.counters import TABLE

ROOT: Final = Path(__file__).parent.parent.parent.parent
FOLDER: Final = ROOT / "monitoring"
ALERTS: Final = (FOLDER / "alerts.yml").read_text()
FIGURES: Final = (ROOT / "edge" / "daemon" / "figures.py").read_text()
METRIC: Final = re.compile(r"\b(?:edge|process)_[a-z_]+\b")


def known() -> set[str]:
    """Every name that the daemon tells; those of its gauges are read out of their source."""
    gauges = {f"edge_{name}" for name in re.findall(r'"([a-z]+(?:_[a-z]+)*)"', FIGURES)}
    process = {f"process_{name}" for name in re.findall(r'"([a-z_]+)",\s+"(?:gauge|co)', FIGURES)}
    counters = {f"edge_{name}_total" for name in TABLE}
    session = {f"edge_mqtt_{name}_total" for name in COUNTERS}
    histograms = {
        f"edge_{name}latency_seconds_{part}"
        for name in ("", "stage_")
        for part in ("bucket", "sum", "count")
    }
    return gauges | process | counters | session | histograms


def expressions(node: Any) -> list[str]:
    """All queries of a dashboard."""
    if isinstance(node, dict):
        own = [node["expr"]] if "expr" in node else []
        return own + [each for inner in node.values() for each in expressions(inner)]
    if isinstance(node, list):
        return [each for inner in node for each in expressions(inner)]
    return []


def dashboard() -> Any:
    """Grafana's file."""
    return json.loads((FOLDER / "dashboard.json").read_text())


@pytest.mark.parametrize("said", [ALERTS, "\n".join(expressions(dashboard()))])
def test_every_metric_that_is_asked_for_exists(said: str) -> None:
    asked = set(METRIC.findall(said))
    assert len(asked) > 10
    assert asked <= known()


def test_control_a_metric_that_nobody_tells_is_found() -> None:
    assert "edge_frame_total" not in known()


def test_prometheus_takes_the_rules_and_its_configuration() -> None:
    assert not judged_by_promtool("check", "rules", str(FOLDER / "alerts.yml"))
    assert not judged_by_promtool("check", "config", str(FOLDER / "prometheus.yml"))


def test_prometheus_takes_every_query_of_the_dashboard(tmp_path: Path) -> None:
    queries = {
        re.sub(r"\$__rate_interval", "5m", each)
        .replace("$instance", ".*")
        .replace("$pipeline", ".*")
        for each in expressions(dashboard())
    }
    rules = [
        {"record": f"dashboard:query:{number}", "expr": query}
        for number, query in enumerate(sorted(queries))
    ]
    file = tmp_path / "queries.yml"  # YAML reads JSON
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert not judged_by_promtool("check", "rules", str(file))


def _alerts(tmp_path: Path, series: str, values: str, alert: str) -> bool:
    """Whether an alert stands, an hour and five minutes after these values began."""
    case = tmp_path / "case.yml"
    case.write_text(
        f"""
rule_files: [{FOLDER / "alerts.yml"}]
tests:
- interval: 1m
  input_series:
  - series: 'edge_{series}'
    values: '{values}'
  alert_rule_test:
  - eval_time: 65m
    alertname: {alert}
"""
    )
    found = judged_by_promtool("test", "rules", str(case))
    assert not found or "exp:[]" in found, found
    return bool(found)


@pytest.mark.parametrize(
    ("alert", "series", "after"),
    [
        ("EdgeDeploymentFailed", 'deployments_failed_total{reason="golden"}', 1),
        ("EdgeWorkerLost", 'workers_lost_total{pipeline="pcb",cause="WorkerGoneError"}', 3),
        ("EdgeGuestFails", 'frames_dropped_total{reason="guest-trap"}', 4),
    ],
)
def test_an_alert_sees_what_happens_at_once_where_its_series_began_at_zero(
    tmp_path: Path, alert: str, series: str, after: int
) -> None:
    """Prometheus sees no rise in a series that begins with its first event."""
    assert _alerts(tmp_path, series, f"0x60 {after}x20", alert)
    assert not _alerts(tmp_path, series, "0x80", alert)  # control
    assert not _alerts(tmp_path, series, f"_x60 {after}x20", alert), "else zeros are needless"


def test_every_alert_has_its_page_and_every_page_its_alert() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    headings = re.findall(r"^### (Edge[A-Za-z]+)\n\n(.+)$", page, re.MULTILINE)
    names = re.findall(r"- alert: (\w+)", ALERTS)
    assert [name for name, _ in headings] == names
    assert re.findall(r"runbook_url: docs/operations\.md#(\w+)", ALERTS) == [
        name.lower() for name in names
    ]
    assert all(len(text) > 60 for _, text in headings)
