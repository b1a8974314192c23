"""Figures that recipes report: right on hand-made cases, and held to a report digit by digit."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from models.recipe.card import lines, tables
from models.recipe.figures import auroc, confusion, macro_f1, ranks, rate, spearman
from models.recipe.folder import dataset_folder, of_split
from models.recipe.report import add_report_arguments, differences, finish


def test_auroc_is_the_chance_that_bad_scores_above_good() -> None:
    assert auroc([0.9, 0.8], [0.1, 0.2]) == 1.0
    assert auroc([0.1, 0.2], [0.9, 0.8]) == 0.0
    assert auroc([0.5, 0.5], [0.5]) == 0.5
    assert auroc([0.3, 0.9], [0.5]) == 0.5
    assert auroc([0.4, 0.6, 0.8], [0.5, 0.4]) == pytest.approx(4.5 / 6)


def test_equal_values_share_the_mean_of_their_ranks() -> None:
    assert ranks([10, 30, 20, 20]).tolist() == [1, 4, 2.5, 2.5]


def test_spearman_sees_order_alone() -> None:
    assert spearman([1, 10, 100, 1000], [1, 2, 3, 4]) == pytest.approx(1)
    assert spearman([4, 3, 2, 1], [1, 2, 3, 4]) == pytest.approx(-1)
    assert spearman([1, 3, 2, 4], [1, 2, 3, 4]) == pytest.approx(0.8)


def test_macro_f1_weighs_classes_alike_however_rare() -> None:
    truths, found = np.array([0] * 8 + [1] * 2), np.array([0] * 8 + [0, 1])
    counts = confusion(truths, found, 2)
    assert counts.tolist() == [[8, 0], [1, 1]]
    assert macro_f1(counts) == pytest.approx((16 / 17 + 2 / 3) / 2)


def test_a_rate_of_nothing_says_that_nothing_is_known() -> None:
    assert rate(np.zeros(0, np.bool_))["interval"] == [0.0, 1.0]
    none = rate(np.zeros(100, np.bool_))
    assert none["interval"][0] == 0
    assert none["interval"][1] == pytest.approx(0.037, abs=1e-3)


def checked(report: object, path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_report_arguments(parser)
    finish({"report": report}, parser.parse_args(["--check", str(path)]))


def test_a_report_is_written_and_agrees_with_itself(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_report_arguments(parser)
    path = tmp_path / "report.json"
    finish({"report": {"a": [1, 0.5]}}, parser.parse_args(["--report", str(path)]))
    assert json.loads(path.read_text()) == {"report": {"a": [1, 0.5]}}
    checked({"a": [1, 0.5]}, path)


@pytest.mark.parametrize("other", [{"a": [1, 0.5001]}, {"a": [1]}, {"a": [1, 0.5], "b": 0}, {}])
def test_a_figure_that_differs_fails_the_check(
    tmp_path: Path, other: object, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"report": {"a": [1, 0.5]}}))
    with pytest.raises(SystemExit):
        checked(other, path)
    assert "report.report" in capsys.readouterr().out


def test_latencies_are_not_compared() -> None:
    assert differences({"latency": 1, "a": 2}, {"latency": 9, "a": 2}) == []


def test_a_card_is_toml() -> None:
    assert lines({"name": 'a "quoted"', "per_class": {"open": 0.5}, "shape": [1, 2]}) == (
        'name = "a \\"quoted\\""\nper_class = { open = 0.5 }\nshape = [1, 2]\n'
    )
    assert tables("rows", [{"a": 1}, {"a": 2}]) == "\n[[rows]]\na = 1\n\n[[rows]]\na = 2\n"


def test_a_missing_data_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="EDGE_DATA"):
        dataset_folder("mt", tmp_path)


def test_a_split_takes_the_parts_that_it_lists(tmp_path: Path) -> None:
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "mine.txt").write_text("b\nc\nheld-back-elsewhere\n")
    parts = [{"part_id": name} for name in "abc"]
    assert [part["part_id"] for part in of_split(parts, tmp_path, "mine")] == ["b", "c"]
