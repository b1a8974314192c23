"""docs/guests.md: its commands are run as they stand, as a new user would."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_documents_commands_lead_to_a_checked_deployment(tmp_path: Path) -> None:
    for folder in ("models/pcb/deployment", "device_configs"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    text = (ROOT / "docs" / "guests.md").read_text()
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-eu", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "strict/strict.wasm: usable" in done.stdout
    assert "pcb revision 2" in done.stdout
    assert (tmp_path / "line/guests/strict.wasm").is_file()
