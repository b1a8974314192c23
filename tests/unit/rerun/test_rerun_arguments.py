"""Which records `edge ledger replay` is asked for."""

from pathlib import Path

import pytest
from ledgers import entry

from edge.cli.main import main
from edge.ledger.store import Prepared, Retention, Store


@pytest.fixture
def state(tmp_path: Path) -> str:
    """A state directory whose ledger has one record, without a frame."""
    store = Store(tmp_path / "ledger", "box1", Retention())
    store.append([Prepared(entry(1), bytes(32))])
    store.close()
    return str(tmp_path)


@pytest.mark.parametrize(
    ("times", "count"),
    [
        (("--since", "1h"), 1),
        (("--since", "1h", "--until", "9999-12-31"), 1),
        (("--since", "0001-01-01"), 1),
        (("--since", "999999w"), 1),
        (("--since", "9999-12-31"), 0),
        (("--since", "1970-01-01", "--until", "1970-01-01"), 0),
    ],
)
def test_any_time_that_can_be_said_is_one_to_look_from(
    state: str, times: tuple[str, ...], count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ledger", "replay", *times, state]) == 1  # nothing of it can be computed
    printed = capsys.readouterr()
    assert ("1 record: " in printed.out) == bool(count)
    assert ("no such record" in printed.err) == (not count)


def test_an_end_without_a_beginning_is_refused_and_not_passed_over(
    state: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ledger", "replay", "--last", "1", "--until", "2020-01-01", state]) == 2
    assert "--until needs --since" in capsys.readouterr().err
