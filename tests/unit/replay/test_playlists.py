"""Playlists: variants show what their truth says, and nothing is rendered before it is played."""

from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge.errors import ConfigError
from edge.linesim import boards_of, encode_jpeg, line
from edge.linesim.folder import write_folder
from edge.replay.parts import Payload, ReplayPart, TrueBox
from edge.replay.playlists import (
    Variant,
    dataset_playlist,
    plain_playlist,
    simulated_playlist,
    time_lapse_playlist,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten parts of the simulated line, all defective, as a data set."""
    path = tmp_path_factory.mktemp("line")
    write_folder(path, islice(line(6, ok_share=0.0, boards=2), 10), boards_of(6, 2))
    return path


def pixels(payload: Payload) -> NDArray[np.int16]:
    image = cv2.imdecode(np.frombuffer(payload.image, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert image is not None
    return np.asarray(image, np.int16)


def thick_difference(one: Payload, other: Payload) -> NDArray[np.uint8]:
    differs = ((pixels(one) > 127) != (pixels(other) > 127)).astype(np.uint8)
    opened = cv2.morphologyEx(differs, cv2.MORPH_OPEN, np.ones((4, 4), np.uint8))
    return np.asarray(opened, np.uint8)


def by_id(parts: tuple[ReplayPart, ...] | list[ReplayPart]) -> dict[str, ReplayPart]:
    return {part.part_id: part for part in parts}


def test_an_ok_part_shows_no_defect(folder: Path) -> None:
    playlist = dataset_playlist(folder, [Variant.OK])
    assert len(playlist.parts) == 10
    for part in playlist.parts:
        assert part.truth is not None
        assert part.truth.is_good
        assert part.truth.boxes == ()
        reference = playlist.references[part.reference_id]()
        assert not thick_difference(part.picture(), reference).any()


def test_a_single_part_shows_its_one_defect_alone(folder: Path) -> None:
    playlist = dataset_playlist(folder, [Variant.NG_SINGLE])
    for part in playlist.parts:
        assert part.truth is not None
        assert not part.truth.is_good
        assert part.truth.boxes is not None
        (box,) = part.truth.boxes
        x0, y0, x1, y1 = (int(side) for side in box.box)
        reference = pixels(playlist.references[part.reference_id]())
        picture = pixels(part.picture())
        inside = np.abs(picture - reference)[y0:y1, x0:x1] > 127
        assert inside.sum() >= 25
        picture[y0:y1, x0:x1] = reference[y0:y1, x0:x1]
        outside = (np.abs(picture - reference) > 127).astype(np.uint8)
        assert not cv2.morphologyEx(outside, cv2.MORPH_OPEN, np.ones((4, 4), np.uint8)).any()


def test_a_part_as_it_is_keeps_its_bytes(folder: Path) -> None:
    part = by_id(list(dataset_playlist(folder, [Variant.AS_IS]).parts))["line6-000000"]
    assert part.picture().image == (folder / "images/line6-000000_test.jpg").read_bytes()


def test_the_kept_defect_is_chosen_by_the_seed(folder: Path) -> None:
    first, same, other = (
        by_id(list(dataset_playlist(folder, [Variant.NG_SINGLE], seed=seed).parts))
        for seed in (1, 1, 2)
    )
    assert {i: p.truth for i, p in first.items()} == {i: p.truth for i, p in same.items()}
    assert {i: p.truth for i, p in first.items()} != {i: p.truth for i, p in other.items()}


def test_the_order_is_seeded_and_the_limit_holds(folder: Path) -> None:
    orders = [
        [part.part_id for part in dataset_playlist(folder, seed=seed, limit=7).parts]
        for seed in (1, 1, 2)
    ]
    assert orders[0] == orders[1] != orders[2]
    assert len(orders[0]) == 7


def test_an_unexplained_difference_forbids_the_ok_variant(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "images").symlink_to(folder / "images")
    (tmp_path / "boxes.csv").write_text((folder / "boxes.csv").read_text())
    rows = (folder / "parts.csv").read_text().splitlines()
    spoilt = [rows[0], rows[1].removesuffix(",0") + ",7", *rows[2:]]
    (tmp_path / "parts.csv").write_text("\n".join(spoilt) + "\n")
    ids = set(by_id(list(dataset_playlist(tmp_path).parts)))
    assert "line6-000000-single" in ids
    assert "line6-000000-ok" not in ids
    assert "line6-000001-ok" in ids


def test_a_set_without_templates_cannot_be_repaired(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.jpg").write_bytes(encode_jpeg(np.zeros((8, 8), np.uint8)))
    (tmp_path / "parts.csv").write_text("part_id,image,verdict\nA,a.jpg,NG\n")
    with pytest.raises(ConfigError, match="no part can be played as ok, ng-single"):
        dataset_playlist(tmp_path)
    assert len(dataset_playlist(tmp_path, [Variant.AS_IS]).parts) == 1


def test_parts_are_compared_with_their_own_template_though_others_have_its_name(
    tmp_path: Path,
) -> None:
    images = tmp_path / "images"
    templates = {
        "left/golden.png": 10,
        "right/golden.png": 20,
        "right/golden.jpg": 30,
        "lid.png": 40,
    }
    rows = ["part_id,image,template,verdict,split"]
    for number, (name, grey) in enumerate(templates.items()):
        for path in (images / name, images / f"series{number}" / "000.png"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes([grey]))
        rows.append(f"part-{number},series{number}/000.png,{name},OK,s{number}")
    (tmp_path / "parts.csv").write_text("\n".join(rows) + "\n")
    for made in (dataset_playlist(tmp_path, [Variant.AS_IS]), time_lapse_playlist(tmp_path)):
        assert len(made.references) == len(templates)
        for part in made.parts:
            reference = made.references[part.reference_id]()
            assert reference.image == part.picture().image, part.reference_id
    named = {part.reference_id for part in dataset_playlist(tmp_path, [Variant.AS_IS]).parts}
    assert named == {"left/golden.png", "right/golden.png", "right/golden.jpg", "lid"}


def test_a_template_of_another_size_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name, side in (("a.jpg", 16), ("t.jpg", 8)):
        picture = encode_jpeg(np.zeros((side, side), np.uint8))
        (tmp_path / "images" / name).write_bytes(picture)
    (tmp_path / "parts.csv").write_text(
        "part_id,image,template,verdict,residual_px\nA,a.jpg,t.jpg,NG,0\n"
    )
    (tmp_path / "boxes.csv").write_text("image,x1,y1,x2,y2,class\na.jpg,1,1,4,4,open\n")
    (part,) = dataset_playlist(tmp_path, [Variant.OK]).parts
    with pytest.raises(ConfigError, match=r"is \(16, 16\), its template \(8, 8\)"):
        part.picture()


def test_the_simulator_plays_its_line_with_truth() -> None:
    playlist = simulated_playlist(3, 9, boards=2)
    expected = list(islice(line(3, boards=2), 9))
    assert [part.part_id for part in playlist.parts] == [part.part_id for part in expected]
    assert set(playlist.references) == {board.reference_id for board in boards_of(3, 2)}
    for part, simulated in zip(playlist.parts, expected, strict=True):
        assert part.truth is not None
        assert part.truth.boxes is not None
        expected_boxes = [TrueBox(b.label, (b.x0, b.y0, b.x1, b.y1)) for b in simulated.boxes]
        assert list(part.truth.boxes) == expected_boxes
        assert part.picture().image == encode_jpeg(simulated.image)


def test_a_plain_folder_is_played_by_name_without_truth(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"bytes of " + name.encode())
    playlist = plain_playlist(tmp_path, "golden")
    assert [part.part_id for part in playlist.parts] == ["a", "b"]
    assert [part.truth for part in playlist.parts] == [None, None]
    assert {part.reference_id for part in playlist.parts} == {"golden"}
    first = playlist.parts[0].picture()
    assert (first.image, first.content_type) == (b"bytes of a.png", "image/png")


@pytest.mark.parametrize(("name", "problem"), [("absent", "no such folder"), ("", "no picture")])
def test_a_folder_with_nothing_to_play_is_refused(tmp_path: Path, name: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        plain_playlist(tmp_path / name)


def table(folder: Path, *rows: str) -> Path:
    """A data set whose pictures are one byte each: playlists do not look into them."""
    (folder / "images").mkdir(parents=True)
    header = "part_id,image,template,split,verdict,label,group"
    (folder / "parts.csv").write_text("\n".join([header, *rows]) + "\n")
    for row in rows:
        (folder / "images" / row.split(",")[1]).write_bytes(row.encode())
    return folder


def test_frames_of_one_part_have_its_id_and_follow_each_other(tmp_path: Path) -> None:
    folder = table(
        tmp_path / "set",
        *(f"e{e}t{t},e{e}t{t}.png,,test,NG,crack,tile{t}" for e in range(3) for t in range(4)),
    )
    parts = dataset_playlist(folder, [Variant.AS_IS], seed=3).parts
    ids = [part.part_id for part in parts]
    assert sorted(set(ids)) == ["tile0", "tile1", "tile2", "tile3"]
    assert ids == [id_ for id_ in dict.fromkeys(ids) for _ in range(3)]
    assert all(part.grouped for part in parts)
    assert {part.truth.label for part in parts if part.truth} == {"crack"}
    assert len({part.picture().image for part in parts}) == 12


def test_a_time_lapse_is_in_order_and_compares_with_its_first_frame(tmp_path: Path) -> None:
    folder = table(
        tmp_path / "set",
        "t2,t2.png,,left,NG,pit,",
        "t0,t0.png,,left,OK,,",
        "u1,u1.png,,right,OK,,",
        "t1,t1.png,,left,OK,,",
        "u0,u0.png,,right,OK,,",
    )
    playlist = time_lapse_playlist(folder)
    played = [(p.part_id, p.series, p.reference_id) for p in playlist.parts]
    assert played == [
        ("t0", "left", "t0"),
        ("t1", "left", "t0"),
        ("t2", "left", "t0"),
        ("u0", "right", "u0"),
        ("u1", "right", "u0"),
    ]
    assert set(playlist.references) == {"t0", "u0"}
    assert playlist.references["u0"]().image.startswith(b"u0,")
