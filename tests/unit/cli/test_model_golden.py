"""`edge model golden`: what it writes is a card again."""

import shutil
from pathlib import Path

import pytest

from edge.cli.main import main

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("seed", ["-1", "1" * 19, "x", "", "1.5"])
def test_a_seed_that_no_card_takes_leaves_the_card_as_it_was(
    tmp_path: Path, seed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(ROOT / "models" / "pcb" / "model.toml", tmp_path)
    before = (tmp_path / "model.toml").read_bytes()
    with pytest.raises(SystemExit) as ended:
        main(["model", "golden", str(tmp_path), "--write", f"--seed={seed}"])
    assert ended.value.code == 2
    assert "expected a whole number" in capsys.readouterr().err
    assert (tmp_path / "model.toml").read_bytes() == before
