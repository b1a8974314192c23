"""The frame path on arm64, by emulation: are its verdicts those of this machine?

Asked for by EDGE_TEST_ARM, which is the number of boards; `make arm` is the longer form.
"""

import os

import pytest
import verdicts

BOARDS = os.environ.get("EDGE_TEST_ARM", "")


@pytest.mark.timeout(600)
@pytest.mark.skipif(not BOARDS, reason="a minute and a Debian mirror: make arm")
def test_arm64_gives_the_same_verdicts(capfd: pytest.CaptureFixture[str]) -> None:
    if missing := verdicts.lacking():
        if os.environ.get("CI") == "true" and os.geteuid() == 0:
            pytest.fail(f"needs {missing}")
        pytest.skip(f"needs {missing}")
    status = verdicts.main(["--boards", BOARDS])
    assert status == 0, capfd.readouterr().out[-3000:]


def test_another_verdict_on_the_other_machine_is_told() -> None:
    def line(machine: str, verdict: str) -> dict[str, object]:
        return {"machine": machine, "verdict": verdict, "reason": "ok", "defects": []}

    here = {"000": line("x86_64", "pass"), "001": line("x86_64", "pass")}
    there = {"000": line("aarch64", "pass"), "001": line("aarch64", "reject")}
    found = verdicts.compare(here, there)
    assert [pair["there"]["verdict"] for pair in found["different"]] == ["reject"]
    assert verdicts.compare(here, {"000": there["000"]})["different"], "a board that is missing"
