"""docs/updates.md: its walk is played as it stands, and comes to what it says."""

import re
import sys
from pathlib import Path

import pytest
from brokers import require_mosquitto
from daemons import DEPLOYMENT, with_patience

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))

from demo_fleet import play


@pytest.mark.timeout(400)
def test_the_walk_ends_with_the_better_one_on_both_and_the_sabotaged_one_halted(
    tmp_path: Path,
) -> None:
    require_mosquitto()
    said = tmp_path / "said.txt"
    with said.open("w") as out:
        # What a busy machine makes late is not the walk's business.
        status = play(tmp_path, out.fileno(), with_patience(DEPLOYMENT, tmp_path / "patient"))
    text = said.read_text()
    assert status == 0, text
    assert "revision 2 of line-a: reached" in text
    assert "revision 3 of line-a: halted" in text
    assert re.search(r"reason +reject-rate", text)
    assert re.search(r"active +pcb revision 2 \([0-9a-f]{12}, signed\)", text)
