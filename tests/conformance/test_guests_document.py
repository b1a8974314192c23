"""docs/guests.md: its commands are run as they stand, as a new user would."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from guest_toolchains import need

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/guests.md").read_text()
WALK, _, LANGUAGES = TEXT.partition("## Languages")


def run_commands(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run every `sh` block of a text, one after another, in one shell."""
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    assert script
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["sh", "-eu", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def test_the_documents_commands_lead_to_a_checked_deployment(tmp_path: Path) -> None:
    for folder in ("models/pcb/deployment", "device_configs"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    done = run_commands(WALK, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "strict/strict.wasm: usable" in done.stdout
    assert "pcb revision 10" in done.stdout
    assert (tmp_path / "line/guests/strict.wasm").is_file()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["rust", "go", "zig", "assemblyscript", "javascript"])
def test_each_languages_walk_leads_to_a_changed_guest(name: str, tmp_path: Path) -> None:
    title = need(name).title
    section = LANGUAGES.partition(f"\n### {title}\n")[2].partition("\n### ")[0]
    done = run_commands(section, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    tested = re.findall(r"(\d+) passed, 0 failed", done.stdout)
    assert len(tested) == 2
    assert ".wasm: usable" in done.stdout
    assert 'verdict = "review"' in next(tmp_path.glob("*/vectors/series.toml")).read_text()
