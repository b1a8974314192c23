"""The bill of materials: whole, closed, with licences and hashes, and the same bytes each time."""

import json
import re
import sys
from email.message import Message
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any, Final

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))

from runtime_lock import ROOT, runtime_lock
from sbom import licences, sbom

LOCK: Final = (ROOT / "requirements.lock").read_text()
MACHINES: Final = ("x86_64", "aarch64")

pytestmark = pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="the bill is of Debian 12's"
)


@pytest.fixture(params=MACHINES)
def bill(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(sbom(LOCK, request.param))
    return found


def test_every_package_has_version_purl_licence_and_hashes(bill: dict[str, Any]) -> None:
    assert {"wasmtime", "onnxruntime", "numpy"} <= {each["name"] for each in bill["components"]}
    for each in bill["components"]:
        assert each["purl"] == f"pkg:pypi/{each['name']}@{each['version']}"
        assert each["licenses"] != [{"license": {"name": "not said"}}], each["name"]
        (source,) = each["externalReferences"]
        assert source["hashes"], each["name"]
        for found in source["hashes"]:
            assert found["content"] in LOCK


@pytest.mark.parametrize("machine", MACHINES)
def test_the_bill_and_the_lock_of_a_device_name_the_same_packages(machine: str) -> None:
    bill = json.loads(sbom(LOCK, machine))
    told = {(each["name"], each["version"]) for each in bill["components"]}
    pins = set(
        re.findall(
            r"^([a-z0-9._-]+)(?:\[.*\])?==([^ ;]+)", runtime_lock(LOCK, machine), re.MULTILINE
        )
    )
    assert told <= pins  # of numpy the lock has two, by the version of Python
    assert {name for name, _ in told} == {name for name, _ in pins}
    assert len(told) == len(bill["components"]) == len({name for name, _ in told})


def test_every_dependency_is_in_the_bill(bill: dict[str, Any]) -> None:
    known = {each["bom-ref"] for each in bill["components"]}
    root = bill["metadata"]["component"]["bom-ref"]
    assert {each["ref"] for each in bill["dependencies"]} == known | {root}
    reached, waiting = set(), [root]
    graph = {each["ref"]: each["dependsOn"] for each in bill["dependencies"]}
    while waiting:
        reached.add(ref := waiting.pop())
        waiting += [each for each in graph[ref] if each not in reached]
    assert reached == known | {root}


def test_the_same_lock_and_epoch_give_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    first = sbom(LOCK, "x86_64")
    assert first == sbom(LOCK, "x86_64")
    assert json.loads(first)["metadata"]["timestamp"] == "2023-11-14T22:13:20Z"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000001")
    other = json.loads(sbom(LOCK, "x86_64"))
    assert other["serialNumber"] != json.loads(first)["serialNumber"]


class _Told(Distribution):
    """A package of which only these lines are known."""

    def __init__(self, *lines: str) -> None:
        self.lines = ("Metadata-Version: 2.4", "Name: x", "Version: 1", *lines)

    def read_text(self, filename: str) -> str | None:
        return "\n".join(self.lines) + "\n" if filename == "METADATA" else None

    def locate_file(self, path: object) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["License-Expression: MIT OR Apache-2.0"], {"expression": "MIT OR Apache-2.0"}),
        (["License-Expression: mit"], {"license": {"id": "MIT"}}),
        (["License: BSD-3-Clause"], {"license": {"id": "BSD-3-Clause"}}),
        (
            ["License: Apache 2.0", "Classifier: License :: OSI Approved :: MIT License"],
            {"license": {"id": "MIT"}},
        ),
        (["License: 3-Clause BSD License"], {"license": {"name": "3-Clause BSD License"}}),
        (
            ["Classifier: License :: OSI Approved :: BSD License"],
            {"license": {"name": "not said"}},
        ),
    ],
)
def test_a_licence_is_named_by_spdx_only_where_that_is_certain(
    lines: list[str], expected: dict[str, Any]
) -> None:
    told = _Told(*lines)
    assert isinstance(told.metadata, Message)
    assert licences(told) == [expected]
