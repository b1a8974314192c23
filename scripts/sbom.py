"""The bill of materials of what runs on a device: `python scripts/sbom.py OUT [--machine aarch64]`.

CycloneDX 1.6 as JSON, made of what is here: names, versions and hashes of the lock, licences and
dependencies of the packages' own metadata. Nothing is fetched, and of when and where it was made
nothing stands in it but SOURCE_DATE_EPOCH: the same lock gives the same bytes.

The hashes are those of the files that the lock allows, one of which was installed. Debian's own
packages (Python, libc, Mosquitto) are not in it: dpkg says which of them a box has. Some wheels
carry libraries of others; those that list them do so in a bill of their own, `*.dist-info/sboms/`.
"""

import argparse
import json
import os
import re
import sys
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from email.message import Message
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any, Final

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.markers import Marker
from packaging.utils import canonicalize_name
from runtime_lock import DISTRIBUTION, ROOT, closure, environment, runtime_lock

from edge import __version__

_PIN: Final = re.compile(r"^([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?==([^\s;\\]+)(?: *; *([^\\\n]+))?")
_BLOCK: Final = re.compile(r"^(?=[A-Za-z0-9])", re.MULTILINE)
_HASH: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "urn:edge-verdict:sbom")
_BY_CLASSIFIER: Final = {
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: ISC License (ISCL)": "ISC",
    "License :: OSI Approved :: MIT License": "MIT",
}
"""Those that name one licence; "BSD License" may be any of several."""


def sbom(lock: str, machine: str, site: Path | None = None) -> str:
    """Write the bill.

    Args:
        lock: The text of requirements.lock.
        machine: `x86_64` or `aarch64`.
        site: The folder that the packages were laid out in; None: those of this interpreter.

    Raises:
        SystemExit: Something of the lock has no metadata here.
    """
    installed: dict[str, Distribution] = {
        canonicalize_name(found.metadata["Name"]): found
        for found in (distributions() if site is None else distributions(path=[str(site)]))
    }
    pinned = _pins(runtime_lock(lock, machine), environment(machine))
    if absent := sorted(pinned.keys() - installed.keys()):
        raise SystemExit(f"no metadata of {', '.join(absent)}: make setup")
    refs = {DISTRIBUTION: f"{DISTRIBUTION}@{__version__}"}
    refs |= {name: f"pkg:pypi/{name}@{version}" for name, (version, _) in pinned.items()}
    bill: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            **_when(),
            "component": {
                "type": "application",
                "bom-ref": refs[DISTRIBUTION],
                "name": DISTRIBUTION,
                "version": __version__,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            },
            "properties": [{"name": "edge:machine", "value": machine}],
        },
        "components": [
            {
                "type": "library",
                "bom-ref": refs[name],
                "name": name,
                "version": version,
                "purl": refs[name],
                "licenses": licences(installed[name]),
                "externalReferences": [
                    {
                        "type": "distribution",
                        "url": refs[name],
                        "hashes": [{"alg": "SHA-256", "content": each} for each in hashes],
                    }
                ],
            }
            for name, (version, hashes) in sorted(pinned.items())
        ],
        "dependencies": [
            {"ref": refs[name], "dependsOn": sorted(refs[each] for each in needed)}
            for name, needed in sorted(closure(machine).items())
        ],
    }
    content = json.dumps(bill, sort_keys=True)
    bill["serialNumber"] = f"urn:uuid:{uuid.uuid5(_NAMESPACE, content)}"
    return json.dumps(bill, indent=1, sort_keys=True) + "\n"


def licences(found: Distribution) -> list[dict[str, Any]]:
    """A package's licences, by SPDX where its metadata allow to say so, else in its own words."""
    told: Message = found.metadata  # type: ignore[assignment] # it is one, says the standard library
    for field in ("License-Expression", "License"):
        text = str(told.get(field, ""))
        if "\n" not in text and (spdx := _spdx(text)):
            simple = " " not in spdx
            return [{"license": {"id": spdx}}] if simple else [{"expression": spdx}]
    classifiers = told.get_all("Classifier", [])
    named = sorted({_BY_CLASSIFIER[each] for each in classifiers if each in _BY_CLASSIFIER})
    if named:
        return [{"license": {"id": each}} for each in named]
    return [{"license": {"name": (told.get("License") or "not said").splitlines()[0]}}]


def _spdx(text: str) -> str:
    try:
        return canonicalize_license_expression(text)
    except InvalidLicenseExpression:
        return ""


def _pins(lock: str, where: Mapping[str, str]) -> dict[str, tuple[str, list[str]]]:
    """Version and allowed hashes of each package, by name, where a marker holds if there is one."""
    found: dict[str, tuple[str, list[str]]] = {}
    for block in _BLOCK.split(lock):
        pin = _PIN.match(block)
        if pin is None or (pin[3] and not Marker(pin[3]).evaluate(dict(where))):
            continue
        found[canonicalize_name(pin[1])] = (pin[2], sorted(_HASH.findall(block)))
    return found


def _when() -> dict[str, str]:
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not given.isdecimal():
        return {}
    return {"timestamp": datetime.fromtimestamp(int(given), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}


def main(arguments: list[str]) -> int:
    """Write the bill of one machine."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="the file to write")
    parser.add_argument("--machine", default="x86_64", choices=("x86_64", "aarch64"))
    parsed = parser.parse_args(arguments)
    text = sbom((ROOT / "requirements.lock").read_text(), parsed.machine)
    parsed.out.parent.mkdir(parents=True, exist_ok=True)
    parsed.out.write_text(text)
    print(f"{parsed.out}: {len(json.loads(text)['components'])} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
