"""What pip-audit says is told apart: clean, a finding, and nobody asked.

The outputs were recorded of pip-audit 2.10.1: of the finding and of what is clean against an OSV
server of our own, the others on a network that reaches no database.
"""

import json
import sys
from pathlib import Path
from typing import Final

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))

from audit import Answer, ask, judge, main, read

FOUND: Final = """{"dependencies": [{"name": "requests", "version": "2.19.0", "vulns": [{"id":
"PYSEC-2018-28", "fix_versions": ["2.20.0"], "aliases": ["GHSA-x84v-xcm2-53pg", "CVE-2018-18074"],
"description": "x"}]}, {"name": "certifi", "version": "2026.1.4", "vulns": []}], "fixes": []}"""
CLEAN: Final = (
    '{"dependencies": [{"name": "certifi", "version": "2026.1.4", "vulns": []}], "fixes": []}'
)
UNASKED: Final = """{"dependencies": [{"name": "requests", "skip_reason":
"Dependency not found on PyPI and could not be audited: requests (2.19.0)"}], "fixes": []}"""
NO_NAME: Final = """Traceback (most recent call last):
requests.exceptions.ConnectionError: HTTPSConnectionPool(host='api.osv.dev', port=443): Max"""

CONTROL: Final = read(FOUND, "Found 1 known vulnerability in 1 package")


def test_what_was_asked_about_and_is_clean_is_clean() -> None:
    assert judge(CONTROL, read(CLEAN, "No known vulnerabilities found"), offline_ok=False) == (
        0,
        "1 pins audited, 0 findings, 0 not audited",
    )


@pytest.mark.parametrize("offline_ok", [False, True])
def test_a_finding_fails_everywhere_and_names_its_remedy(offline_ok: bool) -> None:
    status, said = judge(CONTROL, read(FOUND, ""), offline_ok=offline_ok)
    assert status == 1
    assert said.splitlines() == [
        "finding: requests 2.19.0: PYSEC-2018-28, CVE-2018-18074, GHSA-x84v-xcm2-53pg;"
        " fixed in 2.20.0: make lock",
        "2 pins audited, 1 findings, 0 not audited",
    ]


def test_a_finding_without_a_fixed_version_says_so() -> None:
    pin = {"name": "x", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": []}]}
    (finding,) = read(json.dumps({"dependencies": [pin]}), "").findings
    assert finding == "x 1: PYSEC-1; no version fixes it yet"


@pytest.mark.parametrize(
    ("control", "why"),
    [
        (read(UNASKED, "No known vulnerabilities found"), "Dependency not found on PyPI"),
        (read("", NO_NAME), "requests.exceptions.ConnectionError"),
        (read("", ""), "pip-audit printed nothing"),
        (Answer(failure="no answer within 12 s"), "no answer within 12 s"),
        # A database that answers and knows nothing is as good as none.
        (read(CLEAN, "No known vulnerabilities found"), "an old advisory was not found"),
    ],
)
def test_where_nobody_was_asked_nothing_is_called_clean(control: Answer, why: str) -> None:
    clean = read(CLEAN, "No known vulnerabilities found")
    status, said = judge(control, clean, offline_ok=False)
    assert status == 1
    assert said.startswith(f"nothing was audited: {why}")
    assert judge(control, clean, offline_ok=True) == (0, said)


@pytest.mark.parametrize("offline_ok", [False, True])
def test_one_pin_that_nobody_knows_is_not_passed_over(offline_ok: bool) -> None:
    status, said = judge(CONTROL, read(UNASKED, ""), offline_ok=offline_ok)
    assert status == 1
    assert said.startswith("not audited: Dependency not found on PyPI")


def test_a_database_that_falls_silent_after_the_control_is_a_failure() -> None:
    status, said = judge(CONTROL, Answer(failure="no answer within 300 s"), offline_ok=True)
    assert (status, said) == (
        1,
        "nothing was audited, though the database answers: no answer within 300 s",
    )


def test_a_tool_that_does_not_answer_is_not_waited_for(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text("requests==2.19.0\n")
    assert ask([lock], 0.0, ()).failure == "no answer within 0 s"


def test_without_the_tool_nothing_is_audited(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path))
    assert main([]) == 1
    assert capsys.readouterr().out.startswith("audit: nothing was audited: ")
    assert main(["--offline-ok"]) == 0
