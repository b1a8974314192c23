"""docs/operations.md says all that there is to say, and nothing that there is not."""

import re
from pathlib import Path

from edge.contracts.verdict import Reason
from edge.mqtt.counting import COUNTERS
from edge.observability.counters import TABLE

PAGE = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()


def section(title: str) -> str:
    start = PAGE.index(f"\n## {title}\n")
    end = PAGE.find("\n## ", start + 1)
    return PAGE[start:] if end < 0 else PAGE[start:end]


def test_every_reason_code_has_its_meaning_and_its_remedy() -> None:
    rows = re.findall(
        r"^\| `([a-z-]+)` \| (.*?) \| (.*?) ?\|$", section("Reason codes"), re.MULTILINE
    )
    found = {code: (meaning, remedy) for code, meaning, remedy in rows}
    for reason in Reason:
        assert reason in found, f"docs/operations.md does not explain {reason}"
        meaning, remedy = found[reason]
        assert meaning
        assert remedy or reason is Reason.OK


def test_the_table_of_counters_is_the_programs_own() -> None:
    expected = [
        f"| `{name}` | {', '.join(labels)} | {text} |" for name, (text, labels) in TABLE.items()
    ]
    found = re.findall(r"^\| `\w+` \| .* \| .* \|$", section("Counters"), re.MULTILINE)
    assert found == expected, "docs/operations.md, Counters: write\n" + "\n".join(expected)


def test_every_count_of_the_session_is_explained() -> None:
    rest = section("Counters").split("under `mqtt`", 1)[1]
    assert set(re.findall(r"`(\w+)`(?=[^|]*\|[^|]*\|$)", rest, re.MULTILINE)) == set(COUNTERS)
