"""The guests' part of `edge bench` measures what it says, on the real engine."""

from pathlib import Path

from edge.bench import guests


def test_every_figure_is_taken(tmp_path: Path) -> None:
    found = guests.measure(tmp_path, 2)
    assert found.cold_bytes > 4_096
    assert min(found.call_us, found.frame_us, found.cold_ms, found.fresh_us, found.fuel_ratio) > 0
    assert [each.case for each in found.pixels] == [
        "640x480 to 640x640",
        "1920x1080 to 640x640",
    ]
    for each in found.pixels:
        assert min(each.ours_ms, each.cv2_ms, each.ratio) > 0
        # Where Extism is installed it computed the same tensor, or `measure` would have raised.
        assert (each.extism_ms is None) == (each.extism_ratio is None)
