"""Guests where the kernel lets no process make machine code: interpreted, with the same answers."""

import subprocess
import sys
from pathlib import Path

import pytest

from edge.wasm.sandbox import fingerprint, interpreted

ROOT = Path(__file__).parents[3]
FORBID = """
import ctypes, sys
PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1  # linux/prctl.h, since 6.3
if ctypes.CDLL(None).prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0):
    sys.exit(77)
"""
SKIPPED = 77


def _forbidden(code: str, *arguments: str) -> str:
    """Run Python in a process that may not make machine code, as under MemoryDenyWriteExecute=."""
    done = subprocess.run(
        [sys.executable, "-c", FORBID + code, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    if done.returncode == SKIPPED:
        pytest.skip("this kernel has no PR_SET_MDWE (Linux 6.3)")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_it_is_found_out_by_trying() -> None:
    assert not interpreted()
    said = _forbidden(
        "from edge.wasm.sandbox import fingerprint, interpreted\n"
        "print(interpreted(), fingerprint())"
    ).split()
    assert said[0] == "True"
    assert said[1] != fingerprint(), "the one's compiled code must not be taken for the other's"


@pytest.mark.parametrize("guest", ["letterbox", "boxes", "policy"])
def test_an_interpreted_guest_passes_its_vectors(guest: str) -> None:
    _forbidden(
        "from edge.cli.main import main; sys.exit(main(sys.argv[1:]))",
        *("guest", "test", f"guests/{guest}/{guest}.wasm", f"guests/{guest}/vectors"),
        *("--call-ms", "1000"),
    )
