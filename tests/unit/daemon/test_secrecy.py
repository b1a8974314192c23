"""A process of the same user, such as a worker that was taken over, cannot read the supervisor."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import edge.daemon.secrecy

NOBODY = 65_534
OWNER = "import sys; print('up', flush=True); sys.stdin.read()"
# The parent: Yama (ptrace_scope 1) lets it read its child, so that what is seen is our own doing.
SNOOP = """
import subprocess, sys
owner = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=-1, stdout=-1)
owner.stdout.readline()
try:
    open(f"/proc/{owner.pid}/mem", "rb").close()
    print("read")
except PermissionError:
    print("denied")
owner.communicate()
"""


@pytest.mark.parametrize(("private", "expected"), [(True, "denied"), (False, "read")])
def test_memory_is_denied_to_the_same_user_and_read_where_nothing_was_done(
    private: bool, expected: str
) -> None:
    source = Path(edge.daemon.secrecy.__file__).read_text()
    owner = f"{source}\nassert keep_memory_private()\n{OWNER}" if private else OWNER
    root = os.getuid() == 0
    # Root reads everything; a user that is nobody needs an interpreter outside root's folders.
    python = (
        (shutil.which("python3", path="/usr/bin") or sys.executable) if root else sys.executable
    )
    done = subprocess.run(
        [python, "-I", "-c", SNOOP, owner],
        user=NOBODY if root else None,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout.strip() == expected, done.stderr
