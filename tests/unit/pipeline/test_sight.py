"""What a picture is like: seven numbers, beside values worked out by hand."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from daemons import DEPLOYMENT, part_jpeg
from deployments import with_policy
from evil_guests import counting_policy
from path_bench import EVIL, Bench, plan_of

from edge.contracts.plan import DriftPlan
from edge.contracts.sight import Sight
from edge.pipeline.sight import look
from edge.wasm.engine import GuestEngine

Pixels = npt.NDArray[np.uint8]
EACH = DriftPlan(learn_frames=1, every_ms=0)
HOURLY = DriftPlan(learn_frames=1, every_ms=3_600_000)


def board(part: int = 0) -> Pixels:
    decoded = cv2.imdecode(np.frombuffer(part_jpeg(3, part), np.uint8), cv2.IMREAD_GRAYSCALE)
    return np.asarray(decoded, np.uint8)


def test_a_picture_that_is_black_on_the_left_and_white_on_the_right() -> None:
    pixels = np.zeros((12, 12), np.uint8)
    pixels[:, 6:] = 255
    pixels.flags.writeable = False
    sight = look(pixels)
    assert sight is not None
    # The outermost pixels have no four neighbours: ten by ten count.
    assert (sight.brightness, sight.contrast) == (127.5, 127.5)
    assert (sight.dark, sight.bright) == (50.0, 50.0)
    assert (sight.across, sight.down) == (75.0, 50.0)
    # The Laplacian is -255 and 255 in the two columns at the edge, else 0: (20 / 100)^0.5 * 255.
    assert sight.sharpness == pytest.approx(0.2**0.5 * 255 / 127.5, abs=1e-4)


def test_a_look_can_be_sent_and_comes_within_its_bounds() -> None:
    draw = np.random.default_rng(3)
    for shape in ((480, 640), (481, 641, 3)):
        for pixels in (draw.integers(0, 256, shape), np.zeros(shape), np.full(shape, 255)):
            sight = look(pixels.astype(np.uint8))
            assert msgspec.msgpack.decode(msgspec.msgpack.encode(sight), type=Sight) == sight


def test_an_even_picture_has_no_contrast_and_no_sharpness() -> None:
    sight = look(np.full((480, 640, 3), 200, np.uint8))
    assert sight is not None
    assert msgspec.structs.astuple(sight) == (200, 0, 0, 0, 0, 50, 50)


def test_a_lamp_that_dims_changes_brightness_and_not_sharpness() -> None:
    bright, dim = look(board()), look((board() * 0.5).astype(np.uint8))
    assert bright is not None
    assert dim is not None
    assert dim.brightness == pytest.approx(bright.brightness / 2, abs=1)
    assert dim.sharpness == pytest.approx(bright.sharpness, rel=0.05)
    assert (dim.across, dim.down) == pytest.approx((bright.across, bright.down), abs=0.1)


def test_a_lens_out_of_focus_changes_sharpness_and_not_brightness() -> None:
    sharp, soft = look(board()), look(np.asarray(cv2.GaussianBlur(board(), (0, 0), 1), np.uint8))
    assert sharp is not None
    assert soft is not None
    assert soft.sharpness < 0.5 * sharp.sharpness
    assert soft.brightness == pytest.approx(sharp.brightness, abs=2)


def test_colours_are_weighed_alike_in_both_orders() -> None:
    pixels = np.empty((40, 40, 3), np.uint8)
    pixels[:] = (100, 200, 40)
    for order in (pixels, pixels[..., ::-1]):
        sight = look(order)
        assert sight is not None
        assert sight.brightness == (100 + 2 * 200 + 40) // 4
    grey = board()
    assert look(np.ascontiguousarray(np.stack([grey] * 3, axis=2))) == look(grey)


@pytest.mark.parametrize("shape", [(3, 3), (3, 4_000), (4_000, 3), (1_081, 1_921), (3, 5, 3)])
def test_a_picture_of_any_size_can_be_looked_at(shape: tuple[int, ...]) -> None:
    assert look(np.full(shape, 7, np.uint8)) is not None
    assert look(np.zeros((2, *shape[1:]), np.uint8)) is None


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuestEngine]:
    with GuestEngine(tmp_path_factory.mktemp("cache") / "guests") as started:
        yield started


def bench(engine: GuestEngine, drift: DriftPlan, folder: Path = DEPLOYMENT) -> Bench:
    made = Bench(msgspec.structs.replace(plan_of(folder), drift=drift), engine)
    made.teach(3)
    return made


def test_a_frame_is_looked_at_where_it_is_time_for_that(engine: GuestEngine) -> None:
    each, hourly, never = (bench(engine, plan) for plan in (EACH, HOURLY, DriftPlan()))
    found = [each.judge(part) for part in range(3)]
    assert [judged.sight for judged in found] == [look(board(part)) for part in range(3)]
    assert [hourly.judge(part).sight is None for part in range(3)] == [False, True, True]
    assert [never.judge(part).sight for part in range(3)] == [None] * 3


def test_a_look_changes_no_judgement(engine: GuestEngine) -> None:
    each, never = bench(engine, EACH), bench(engine, DriftPlan())
    for part, defects in ((0, ()), (1, ("short",)), (2, ("open", "spur"))):
        watched, unwatched = each.judge(part, *defects), never.judge(part, *defects)
        assert watched.findings == unwatched.findings
        assert (watched.verdict, watched.score) == (unwatched.verdict, unwatched.score)


def test_a_probe_is_not_looked_at_and_does_not_put_a_look_off(engine: GuestEngine) -> None:
    made = bench(engine, HOURLY)
    probe = made.path.judge(made.decode(part_jpeg(3, 0), probe=True))
    assert probe.sight is None
    assert made.judge().sight is not None


def test_a_frame_that_outlives_a_trap_keeps_its_look(engine: GuestEngine, tmp_path: Path) -> None:
    made = bench(engine, HOURLY, with_policy(DEPLOYMENT, tmp_path / "trap", counting_policy()))
    ahead = made.decode(part_jpeg(3, 0), lamp=EVIL)
    made.path._look_again_ns = 0  # as if the first had been looked at an hour ago
    behind = made.decode(part_jpeg(3, 1))
    with pytest.raises(Exception, match="unreachable"):
        made.path.judge(ahead)
    assert made.path.judge(behind).sight is not None
