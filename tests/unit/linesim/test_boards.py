"""Boards and scans: reproducible, plausible, and never a false difference between two scans."""

import hashlib

import cv2
import numpy as np
import pytest

from edge.linesim import SIDE, Board, Camera, encode_jpeg, render_part
from edge.linesim.scan import scan
from edge.linesim.shapes import Artwork, block, disc


def test_a_seed_is_the_same_board_on_every_machine() -> None:
    # The digest was taken once; another one means that released seeds show other boards.
    copper = hashlib.sha256(Board(7).copper.tobytes()).hexdigest()
    reference = hashlib.sha256(Board(7).reference().tobytes()).hexdigest()
    assert (copper[:16], reference[:16]) == ("694f179c031a70a6", "efb2e8990b4059be")


def test_seeds_are_different_boards() -> None:
    digests = {Board(seed).copper.tobytes() for seed in range(12)}
    assert len(digests) == 12


@pytest.mark.parametrize("seed", range(12))
def test_a_board_has_copper_and_room(seed: int) -> None:
    copper = Board(seed).copper
    assert copper.shape == (SIDE, SIDE)
    assert 0.08 < copper.mean() < 0.6


def test_a_board_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        Board(1).copper[0, 0] = 1


def test_a_scan_is_almost_binary_with_dark_copper() -> None:
    board = Board(3)
    reference = board.reference(Camera(soften=False))
    assert set(np.unique(reference)) == {0, 255}
    assert reference[board.copper == 1].mean() < 10
    assert reference[board.copper == 0].mean() > 245


def test_two_scans_of_a_good_board_differ_at_edges_alone() -> None:
    board = Board(5)
    first, second = (render_part(board, index).image > 127 for index in (0, 1))
    differs = (first != second).astype(np.uint8)
    assert 0 < differs.mean() < 0.02
    assert not cv2.morphologyEx(differs, cv2.MORPH_OPEN, np.ones((4, 4), np.uint8)).any()


def test_noise_and_shift_stay_within_what_was_asked_for() -> None:
    copper = np.zeros((SIDE, SIDE), np.uint8)
    copper[100:200, 100:200] = 1
    picture = scan(copper, np.random.default_rng(1), Camera(noise=20, shift_px=2, soften=False))
    assert picture[:90].min() >= 235
    assert picture[110:190, 110:190].max() <= 20


def test_a_jpeg_shows_what_was_scanned() -> None:
    reference = Board(2).reference()
    decoded = cv2.imdecode(np.frombuffer(encode_jpeg(reference), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert decoded is not None
    assert np.abs(decoded.astype(int) - reference).mean() < 3


def test_copper_keeps_its_clearance_or_is_left_out() -> None:
    art = Artwork()
    assert art.place(disc(100, 100, 20, hole=8), 10)
    assert not art.place(block(125, 90, 160, 110), 10)
    assert art.place(block(140, 90, 160, 110), 10)
    assert art.copper[100, 100] == 0
    assert art.copper[100, 115] == 1
