"""The data format: what is right is read, what is wrong is named with file, line and column."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.errors import ConfigError
from edge.replay.dataset import read_dataset
from edge.replay.parts import TrueBox

PARTS = "part_id,image,template,split,verdict,residual_px\n"
BOXES = "image,x1,y1,x2,y2,class\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    (tmp_path / "splits").mkdir()
    for name in ("a.jpg", "b.jpg", "t.jpg"):
        cv2.imwrite(str(tmp_path / "images" / name), np.zeros((8, 8), np.uint8))
    write(tmp_path, PARTS + "A,a.jpg,t.jpg,test,NG,0\nB,b.jpg,t.jpg,train,OK,\n")
    (tmp_path / "boxes.csv").write_text(BOXES + "a.jpg,1,2,5,6,open\n")
    (tmp_path / "splits" / "mine.txt").write_text("B\nabsent\n")
    return tmp_path


def write(folder: Path, text: str, name: str = "parts.csv") -> None:
    (folder / name).write_text(text)


def test_a_folder_is_read_in_order(folder: Path) -> None:
    bad, good = read_dataset(folder)
    assert (bad.part_id, bad.is_good, bad.residual_px) == ("A", False, 0)
    assert bad.boxes == (TrueBox("open", (1, 2, 5, 6)),)
    assert (bad.image, bad.template) == (folder / "images/a.jpg", folder / "images/t.jpg")
    assert (good.part_id, good.is_good, good.boxes, good.residual_px) == ("B", True, (), -1)


@pytest.mark.parametrize(("split", "ids"), [("mine", ["B"]), ("test", ["A"])])
def test_a_split_is_a_list_or_a_value_of_the_column(
    folder: Path, split: str, ids: list[str]
) -> None:
    assert [row.part_id for row in read_dataset(folder, split)] == ids


def test_without_verdicts_the_boxes_say_what_is_good(folder: Path) -> None:
    write(folder, "part_id,image\nA,a.jpg\nB,b.jpg\n")
    assert [row.is_good for row in read_dataset(folder)] == [False, True]


def test_without_a_box_table_defects_are_unknown(folder: Path) -> None:
    (folder / "boxes.csv").unlink()
    assert [row.boxes for row in read_dataset(folder)] == [None, None]


@pytest.mark.parametrize(
    ("text", "where", "problem"),
    [
        ("part_id,template\n", "line 1", "the column image is missing"),
        (PARTS + "A,a.jpg\n", "line 2", "expected 6 cells"),
        (PARTS + ",a.jpg,,,,\n", "line 2, column part_id", "is empty"),
        (PARTS + "A,no.jpg,,,NG,\n", "line 2, column image", "there is no file"),
        (PARTS + "A,../a.jpg,,,NG,\n", "line 2, column image", "a path below images/"),
        (PARTS + "A,a.jpg,/t.jpg,,NG,\n", "line 2, column template", "a path below images/"),
        (PARTS + "A,a.jpg,,,BAD,\n", "line 2, column verdict", "expected OK or NG, found 'BAD'"),
        (PARTS + "A,a.jpg,,,OK,\n", "line 2, column verdict", "OK, but boxes.csv has 1 defects"),
        (PARTS + "A,a.jpg,,,NG,-1\n", "line 2, column residual_px", "a whole number from 0"),
        (PARTS + "A,a.jpg,,,NG,\nA,b.jpg,,,OK,\n", "line 3, column part_id", "is also in line 2"),
        (PARTS + 'A,"a.jpg,,,NG,\n', "line ", "is not CSV"),
        (PARTS + "B,b.jpg,,,OK,\n", "boxes.csv, line 2, column image", "is not in parts.csv"),
        (PARTS, "parts.csv", "is empty"),
    ],
)
def test_a_wrong_part_is_named(folder: Path, text: str, where: str, problem: str) -> None:
    write(folder, text)
    with pytest.raises(ConfigError) as raised:
        read_dataset(folder)
    assert where in raised.value.where or where in str(raised.value)
    assert problem in raised.value.problem


@pytest.mark.parametrize(
    ("row", "column", "problem"),
    [
        ("a.jpg,1,2,x,6,open", "x2", "a whole number from 0, found 'x'"),
        ("a.jpg,5,2,5,6,open", "x2", "expected more than x1 = 5, found 5"),
        ("a.jpg,1,6,5,2,open", "y2", "expected more than y1 = 6, found 2"),
        ("a.jpg,1,2,5,6,", "class", "is empty"),
    ],
)
def test_a_wrong_box_is_named(folder: Path, row: str, column: str, problem: str) -> None:
    write(folder, BOXES + row + "\n", "boxes.csv")
    with pytest.raises(ConfigError) as raised:
        read_dataset(folder)
    assert raised.value.where == f"{folder / 'boxes.csv'}, line 2, column {column}"
    assert problem in raised.value.problem


def test_an_unknown_split_names_the_known_ones(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"no split 'nope' \(known are: mine, test, train\)"):
        read_dataset(folder, "nope")


def test_an_empty_split_is_refused(folder: Path) -> None:
    (folder / "splits" / "none.txt").write_text("absent\n")
    with pytest.raises(ConfigError, match="holds no part of the split 'none'"):
        read_dataset(folder, "none")


def test_a_folder_without_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"parts\.csv: cannot be read: No such file"):
        read_dataset(tmp_path)


def test_bytes_that_are_not_text_are_refused(folder: Path) -> None:
    (folder / "parts.csv").write_bytes(b"part_id,image\n\xff\xfe\n")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        read_dataset(folder)


def data_folder() -> Path:
    root = Path(os.environ.get("EDGE_DATA") or Path(__file__).parents[4] / "shared" / "data")
    if not root.is_dir():
        reason = f"no real defect data in {root}: set EDGE_DATA"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return root


@pytest.mark.parametrize(
    ("name", "rows", "good"),
    [("deeppcb", 440, 0), ("deeppcb/trainval", 1000, 0), ("xsdd", 1279, 0), ("mt", 780, 411)],
)
def test_the_published_sets_are_read_whole(name: str, rows: int, good: int) -> None:
    read = read_dataset(data_folder() / name)
    assert (len(read), sum(row.is_good for row in read)) == (rows, good)
