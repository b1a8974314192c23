"""guests/PROGRAMS.md: its command builds the checked-in program, and its numbers are the host's."""

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from edge.contracts.program import ProgramAnswer
from edge.wasm import neural
from edge.wasm.program_link import HOSTED, NN_MODULE, imports_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "guests/PROGRAMS.md").read_text()
CHECKED_IN = ROOT / "guests/programs/boards/boards.wasm"


@pytest.mark.timeout(300)  # the first program of a machine has Zig compile a C library
def test_the_pages_command_builds_the_checked_in_program(tmp_path: Path) -> None:
    command = re.search(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert command is not None
    words = command[1].replace("\\\n", " ").split()
    assert words[:3] == ["python", "-m", "ziglang"]
    words[0] = sys.executable
    words[words.index("boards.wasm")] = str(tmp_path / "boards.wasm")
    subprocess.run(words, cwd=ROOT, check=True, timeout=280)
    assert (tmp_path / "boards.wasm").read_bytes() == CHECKED_IN.read_bytes()


def test_the_program_knows_wasi_and_wasi_nn_alone() -> None:
    wishes = imports_of(CHECKED_IN.read_bytes())
    assert {module for module, _ in wishes} == {"wasi_snapshot_preview1", NN_MODULE}
    assert "edge" not in (ROOT / "guests/programs/boards/boards.c").read_text().partition("*/")[2]


def test_the_pages_answer_is_one_and_its_functions_are_served() -> None:
    answer = re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert answer is not None
    assert len(msgspec.json.decode(answer[1], type=ProgramAnswer).defects) == 1
    for module, name in HOSTED:
        if module == NN_MODULE:
            assert f"| `{name}` |" in PAGE
    for number, meaning in (
        (neural.INVALID_ARGUMENT, "invalid argument"),
        (neural.INVALID_ENCODING, "invalid\nencoding"),
        (neural.RUNTIME_ERROR, "runtime error"),
        (neural.UNSUPPORTED_OPERATION, "unsupported operation"),
        (neural.TOO_LARGE, "too large"),
        (neural.NOT_FOUND, "not found"),
    ):
        assert f"{number} {meaning}" in PAGE
