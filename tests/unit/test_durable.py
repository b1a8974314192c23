"""What a writer that was killed leaves aside: found, removed, and nothing else."""

from pathlib import Path

import pytest
from crashes import killed_aside

from edge import durable


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    target, near = tmp_path / "journal.json", tmp_path / ".journal.json.yours"
    durable.replace(target, b"old")
    near.write_bytes(b"no concern of ours")
    left = killed_aside(target)
    assert target.read_bytes() == b"old"
    durable.clear(tmp_path)
    assert not left.exists()
    assert sorted(tmp_path.iterdir()) == [near, target]


def test_a_writer_whose_file_was_taken_away_fails_and_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "journal.json"
    durable.replace(target, b"old")
    monkeypatch.setattr("os.fsync", lambda _: durable.clear(tmp_path))
    with pytest.raises(FileNotFoundError):
        durable.replace(target, b"new")
    monkeypatch.undo()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]
