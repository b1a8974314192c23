"""What a pair may look like on a line: other defects, other poses, other cameras.

Pure functions on one pair, uint8 [2, H, W] (channel 0 the frame, channel 1 its reference) with its
boxes, float32 [n, 5] (x0, y0, x1, y1 in pixels, class). Arguments are never written to. All chance
comes from the generator that is passed, so that one seed gives one training run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Images = NDArray[np.uint8]
    Boxes = NDArray[np.float32]
    Pair = tuple[Images, Boxes]

ERASE_MARGIN_PX = 4
"""Annotations are tight to a pixel or two; the data set's README erases with this margin."""


def erase(images: Images, boxes: Boxes, chosen: NDArray[np.bool_]) -> Pair:
    """The same board without the chosen defects: reference pixels pasted over them.

    Defects that are kept keep every pixel inside their box, also where a neighbour's margin
    reaches into it.

    Args:
        images: uint8 [2, H, W].
        boxes: float32 [n, 5].
        chosen: bool [n], true for a defect that vanishes.
    """
    frame = images[0].copy()
    for box in boxes[chosen]:
        window = _window(box, ERASE_MARGIN_PX)
        frame[window] = images[1][window]
    for box in boxes[~chosen]:
        window = _window(box, 0)
        frame[window] = images[0][window]
    return np.stack([frame, images[1]]), boxes[~chosen]


def graft(pair: Pair, donor: Pair, count: int, rng: np.random.Generator) -> Pair:
    """Copies up to `count` defects of another board here, with the reference under them.

    Frame and reference receive the same surroundings, so that the seam is no difference between
    them: only the defect is. A donor defect with a neighbour in its surroundings is left out, and
    none is put over a defect that is already there.
    """
    images, boxes = pair[0].copy(), pair[1]
    side_y, side_x = images.shape[1:]
    for index in rng.permutation(len(donor[1]))[:count]:
        box = donor[1][index]
        margin = int(rng.integers(6, 17))
        rows, columns = _window(box, margin)
        y0, y1 = rows.start, min(rows.stop, side_y)
        x0, x1 = columns.start, min(columns.stop, side_x)
        if _touching(donor[1], (x0, y0, x1, y1)).sum() > 1:
            continue
        left = int(rng.integers(0, side_x - (x1 - x0) + 1))
        top = int(rng.integers(0, side_y - (y1 - y0) + 1))
        target = (left, top, left + x1 - x0, top + y1 - y0)
        if _touching(boxes, target).any():
            continue
        images[:, target[1] : target[3], target[0] : target[2]] = donor[0][:, y0:y1, x0:x1]
        shift = np.array([left - x0, top - y0, left - x0, top - y0, 0], np.float32)
        boxes = np.concatenate([boxes, (box + shift)[None]])
    return images, boxes


def reorient(images: Images, boxes: Boxes, symmetry: int) -> Pair:
    """One of the eight symmetries of a square image, 0..7; 0 leaves it as it is.

    Bit 0 mirrors left and right, bit 1 top and bottom, bit 2 then swaps rows and columns. The
    annotation counts pixels from their middles: a mirror maps column x to side - 1 - x. (Mapped to
    side - x, every predicted side came out half a pixel too far right and down.)
    """
    side = images.shape[-1] - 1
    boxes = boxes.copy()
    if symmetry & 1:
        images = images[:, :, ::-1]
        boxes[:, [0, 2]] = side - boxes[:, [2, 0]]
    if symmetry & 2:
        images = images[:, ::-1]
        boxes[:, [1, 3]] = side - boxes[:, [3, 1]]
    if symmetry & 4:
        images = images.transpose(0, 2, 1)
        boxes[:, :4] = boxes[:, [1, 0, 3, 2]]
    return np.ascontiguousarray(images), boxes


def misregister(images: Images, dx_px: float, dy_px: float, degrees: float = 0.0) -> Images:
    """The reference moved and turned about its centre; the frame and its boxes stay."""
    height, width = images.shape[1:]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    matrix[:, 2] += np.array([dx_px, dy_px])
    moved = cv2.warpAffine(images[1], matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return np.stack([images[0], np.asarray(moved, np.uint8)])


def zoom(images: Images, boxes: Boxes, scale: float, dx_px: float, dy_px: float) -> Pair:
    """Both images scaled about their centre and shifted; half outside the image is no box."""
    side = images.shape[-1]
    shift = np.array([dx_px, dy_px]) + (1 - scale) * side / 2
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    moved = [cv2.warpAffine(image, matrix, (side, side)) for image in images]
    corners = boxes[:, :4] * scale + np.tile(shift, 2)
    inside = corners.clip(0, side)
    visible = _area(inside) > 0.5 * _area(corners)
    kept = np.concatenate([inside, boxes[:, 4:]], axis=1)[visible]
    return np.asarray(np.stack(moved), np.uint8), kept.astype(np.float32)


def jpeg(image: Images, quality: int) -> Images:
    """Compressed and decoded again, as a camera sends it; quality 1..100."""
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE), np.uint8)


def blur(image: Images, sigma_px: float) -> Images:
    """Soft edges, as of a lens or of anti-aliased rendering."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma_px), np.uint8)


def relight(image: Images, black: int, white: int) -> Images:
    """Greys 0..255 mapped linearly to black..white."""
    levels = np.linspace(black, white, 256).round().astype(np.uint8)
    return levels[image]


def grain(image: Images, sigma: float, rng: np.random.Generator) -> Images:
    """Sensor noise of the given standard deviation in greys, drawn on a tile that is repeated."""
    tile = rng.normal(0, sigma, (128, 128)).round().astype(np.int16)
    height, width = image.shape
    noise = np.tile(tile, (-(-height // 128), -(-width // 128)))[:height, :width]
    return np.asarray(cv2.add(image, noise, dtype=cv2.CV_8U), np.uint8)


def augment(
    pair: Pair,
    donor: Callable[[], Pair],
    rng: np.random.Generator,
    symmetry: int | None = None,
    planes: int = 2,
) -> Pair:
    """One training sample from one pair; probabilities as used for the published weights.

    Args:
        pair: images uint8 [2, 640, 640] and boxes float32 [n, 5].
        donor: another pair, fetched only when defects are grafted.
        rng: all chance of this sample.
        symmetry: of `reorient`; None draws one, all eight alike.
        planes: that the network is shown, 2 or 1. One that does not see the reference is given no
            grafts: it would have to learn that their seams, cut traces, are no defects.

    Returns:
        Images uint8 [planes, 640, 640] and boxes.
    """
    images, boxes = _vary_defects(pair, donor if planes > 1 else None, rng)
    drawn = int(rng.integers(8))
    images, boxes = reorient(images, boxes, drawn if symmetry is None else symmetry)
    images, boxes = _vary_pose(images, boxes, rng)
    if rng.random() < 0.45:
        images = _vary_camera(images, rng)
    return images[:planes], boxes


def _vary_defects(pair: Pair, donor: Callable[[], Pair] | None, rng: np.random.Generator) -> Pair:
    """Boards with no defect, with one, with most of theirs, and with some of another's."""
    images, boxes = pair
    fate = rng.random()
    if fate < 0.06:
        chosen = np.ones(len(boxes), np.bool_)
    elif fate < 0.12:
        chosen = np.arange(len(boxes)) != rng.integers(max(len(boxes), 1))
    else:
        chosen = rng.random(len(boxes)) < 0.1
    if chosen.any():
        images, boxes = erase(images, boxes, chosen)
    if fate > 0.4 and donor is not None:
        images, boxes = graft((images, boxes), donor(), int(rng.integers(1, 8)), rng)
    return images, boxes


def _vary_pose(images: Images, boxes: Boxes, rng: np.random.Generator) -> Pair:
    if rng.random() < 0.4:
        dx_px, dy_px = rng.integers(-2, 3, 2)
        images = misregister(images, float(dx_px), float(dy_px))
    elif rng.random() < 0.2:
        dx_px, dy_px = rng.uniform(-2, 2, 2)
        images = misregister(images, dx_px, dy_px, rng.uniform(-0.2, 0.2))
    if rng.random() < 0.35:
        dx_px, dy_px = rng.uniform(-60, 60, 2)
        # Wide: the next board's traces may be thinner or broader than any of the training boards'.
        images, boxes = zoom(images, boxes, rng.uniform(0.75, 1.35), dx_px, dy_px)
        if rng.random() < 0.5:  # a binarising camera has no greys, whatever its magnification
            images = np.where(images > 127, np.uint8(255), np.uint8(0))
    return images, boxes


def _vary_camera(images: Images, rng: np.random.Generator) -> Images:
    """Optics and codec; drawn for each of the two images, since they need not share a camera."""
    varied = []
    for source in images:
        image = source
        if rng.random() < 0.5:
            image = blur(image, rng.uniform(0.4, 1.1))
        if rng.random() < 0.4:
            image = relight(image, int(rng.integers(0, 50)), int(rng.integers(190, 256)))
        if rng.random() < 0.2:
            image = grain(image, rng.uniform(1, 8), rng)
        if rng.random() < 0.6:
            image = jpeg(image, int(rng.integers(50, 97)))
        varied.append(image)
    return np.stack(varied)


def _window(box: Boxes, margin: int) -> tuple[slice, slice]:
    x0, y0, x1, y1 = box[:4].astype(int)
    return (
        slice(max(y0 - margin, 0), y1 + margin),
        slice(max(x0 - margin, 0), x1 + margin),
    )


def _touching(boxes: Boxes, area: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    x0, y0, x1, y1 = area
    apart = (boxes[:, 2] <= x0) | (boxes[:, 0] >= x1) | (boxes[:, 3] <= y0) | (boxes[:, 1] >= y1)
    return np.asarray(~apart, np.bool_)


def _area(corners: NDArray[np.floating]) -> NDArray[np.floating]:
    return (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
