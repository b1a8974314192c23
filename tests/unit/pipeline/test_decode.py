"""Payload bytes to pixels in guest memory: what is right, what is refused, and nothing beyond."""

import random
import struct
import zlib
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from edge.contracts.frame import ContentType, Encoding, PixelFormat
from edge.contracts.plan import ImagePlan
from edge.errors import DecodeError
from edge.pipeline.decode import MAX_CHUNKS, MAX_SCANS, bare_png, decode

Pixels = npt.NDArray[np.uint8]
SIDE = 96
GUARD = 4_096
MARK = 0xA5
WANTED = (PixelFormat.GRAY8, PixelFormat.BGR, PixelFormat.RGB)


class Slot:
    """Room for an image with guards on both sides, as its neighbours in guest memory."""

    def __init__(self, wanted: PixelFormat = PixelFormat.GRAY8) -> None:
        self.image = ImagePlan(wanted, SIDE, SIDE)
        self._room = np.full(self.image.max_bytes + 2 * GUARD, MARK, np.uint8)

    def decode(self, payload: bytes, content: ContentType) -> Pixels:
        """Decode, hold it to its bounds, and return the image."""
        inside = self._room[GUARD : GUARD + self.image.max_bytes]
        width, height = decode(payload, content, self.image, inside)
        channels = self.image.pixel_format.channels
        size = width * height * channels
        assert (inside[size:] == MARK).all(), "it wrote behind the image"
        self.expect_untouched_guards()
        shape = (height, width) if channels == 1 else (height, width, channels)
        return np.array(inside[:size].reshape(shape))

    def refuse(self, payload: bytes, content: ContentType) -> str:
        """Expect a refusal, and nothing written outside of the slot."""
        inside = self._room[GUARD : GUARD + self.image.max_bytes]
        with pytest.raises(DecodeError) as refused:
            decode(payload, content, self.image, inside)
        self.expect_untouched_guards()
        return str(refused.value)

    def expect_untouched_guards(self) -> None:
        assert (self._room[:GUARD] == MARK).all()
        assert (self._room[-GUARD:] == MARK).all()


def scene(channels: int = 3, width: int = 90, height: int = 70) -> Pixels:
    """A colourful picture, smooth enough for JPEG; BGR or grey."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [(x * 2 + y) % 256, (x + y * 2 + 60) % 256, (255 - x - y) % 256]
    coloured = cv2.GaussianBlur(np.dstack(planes).astype(np.uint8), (7, 7), 2)
    return np.asarray(coloured if channels == 3 else coloured[:, :, 0].copy(), np.uint8)


def encoded(suffix: str, image: Pixels, *parameters: int) -> bytes:
    done, made = cv2.imencode(suffix, image, parameters)
    assert done
    return bytes(made)


def as_wanted(bgr: Pixels, wanted: PixelFormat) -> Pixels:
    """The independent answer, by plain NumPy and the ITU-R 601 weights that JPEG uses."""
    if wanted is PixelFormat.BGR:
        return bgr
    if wanted is PixelFormat.RGB:
        return bgr[:, :, ::-1]
    weights = np.array([0.114, 0.587, 0.299])
    return np.asarray(np.rint(bgr @ weights), np.uint8)


def distance(found: Pixels, expected: Pixels) -> int:
    assert found.shape == expected.shape
    return int(np.abs(found.astype(int) - expected.astype(int)).max())


JPEG = ContentType()
PNG = ContentType(Encoding.PNG)


@pytest.mark.parametrize("wanted", WANTED)
def test_a_colour_jpeg_becomes_what_another_decoder_makes_of_it(wanted: PixelFormat) -> None:
    jpeg = encoded(".jpg", scene())
    reference = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    found = Slot(wanted).decode(jpeg, JPEG)
    # Grey is the JPEG's own luminance, before rounding to colours and back.
    assert distance(found, as_wanted(np.asarray(reference, np.uint8), wanted)) <= 2


@pytest.mark.parametrize("wanted", WANTED)
def test_a_grey_jpeg_is_grey_in_every_format(wanted: PixelFormat) -> None:
    grey = scene(1)
    found = Slot(wanted).decode(encoded(".jpg", grey, cv2.IMWRITE_JPEG_QUALITY, 100), JPEG)
    expected = grey if wanted is PixelFormat.GRAY8 else np.dstack([grey] * 3)
    assert distance(found, expected) <= 3


@pytest.mark.parametrize("wanted", WANTED)
def test_a_png_is_exact(wanted: PixelFormat) -> None:
    found = Slot(wanted).decode(encoded(".png", scene()), PNG)
    assert distance(found, as_wanted(scene(), wanted)) <= (1 if wanted is PixelFormat.GRAY8 else 0)
    grey = Slot(wanted).decode(encoded(".png", scene(1)), PNG)
    assert distance(grey if grey.ndim == 2 else grey[:, :, 0], scene(1)) == 0


def raw(pixel_format: PixelFormat, image: Pixels) -> tuple[bytes, ContentType]:
    height, width = image.shape[:2]
    return image.tobytes(), ContentType(Encoding.RAW, pixel_format, width, height)


@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("sent", [PixelFormat.BGR, PixelFormat.RGB])
def test_raw_colour_keeps_its_channels(sent: PixelFormat, wanted: PixelFormat) -> None:
    payload = scene() if sent is PixelFormat.BGR else np.ascontiguousarray(scene()[:, :, ::-1])
    found = Slot(wanted).decode(*raw(sent, payload))
    assert distance(found, as_wanted(scene(), wanted)) <= (1 if wanted is PixelFormat.GRAY8 else 0)


@pytest.mark.parametrize("wanted", WANTED)
def test_raw_grey_is_copied(wanted: PixelFormat) -> None:
    found = Slot(wanted).decode(*raw(PixelFormat.GRAY8, scene(1)))
    assert distance(found if found.ndim == 2 else found[:, :, 2], scene(1)) == 0


def bayer_rg(red: int, green: int, blue: int, width: int = 32, height: int = 24) -> Pixels:
    """The mosaic of one colour as GenICam's BayerRG8 lays it: R G in even rows, G B in odd ones."""
    mosaic = np.full((height, width), green, np.uint8)
    mosaic[0::2, 0::2] = red
    mosaic[1::2, 1::2] = blue
    return mosaic


@pytest.mark.parametrize("colour", [(200, 100, 50), (255, 0, 0), (0, 255, 0), (0, 0, 255)])
def test_a_bayer_mosaic_of_one_colour_becomes_that_colour(colour: tuple[int, int, int]) -> None:
    payload, content = raw(PixelFormat.BAYER_RG8, bayer_rg(*colour))
    red, green, blue = colour
    assert (Slot(PixelFormat.RGB).decode(payload, content) == (red, green, blue)).all()
    assert (Slot(PixelFormat.BGR).decode(payload, content) == (blue, green, red)).all()
    luminance = 0.299 * red + 0.587 * green + 0.114 * blue
    assert np.abs(Slot().decode(payload, content).astype(float) - luminance).max() <= 1


def huge_png(width: int, height: int) -> bytes:
    """A PNG whose header claims a size; the rest is sound."""
    png = bytearray(encoded(".png", scene(1)))
    png[16:24] = struct.pack(">II", width, height)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    return bytes(png)


def huge_jpeg(width: int, height: int) -> bytes:
    jpeg = bytearray(encoded(".jpg", scene(1)))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(jpeg)


@pytest.mark.parametrize(
    ("make", "content"), [(huge_png, PNG), (huge_jpeg, JPEG)], ids=["png", "jpeg"]
)
@pytest.mark.parametrize("size", [(SIDE + 1, 1), (1, SIDE + 1), (65_535, 65_535), (0, 5), (5, 0)])
def test_a_size_that_the_pipeline_does_not_take_is_refused_by_the_header(
    make: Callable[[int, int], bytes], content: ContentType, size: tuple[int, int]
) -> None:
    Slot().refuse(make(*size), content)


def test_a_png_of_the_largest_claim_is_refused_unread() -> None:
    assert "4294967295x4294967295" in Slot().refuse(huge_png(2**32 - 1, 2**32 - 1), PNG)


@pytest.mark.parametrize(("suffix", "content"), [(".jpg", JPEG), (".png", PNG)])
def test_a_truncated_image_is_refused_wherever_it_ends(suffix: str, content: ContentType) -> None:
    whole = encoded(suffix, np.random.default_rng(1).integers(0, 256, (SIDE, SIDE), np.uint8))
    slot = Slot()
    for end in [*range(0, len(whole) - 64, 64), len(whole) - 20, len(whole) - 12]:
        slot.refuse(whole[:end], content)
    slot.decode(whole, content)


@pytest.mark.parametrize(("suffix", "content"), [(".jpg", JPEG), (".png", PNG)])
@pytest.mark.parametrize("wanted", WANTED)
def test_flipped_bits_never_write_beyond_the_slot(
    suffix: str, content: ContentType, wanted: PixelFormat
) -> None:
    whole = encoded(suffix, scene())
    chance = random.Random(7)
    slot = Slot(wanted)
    inside = np.zeros(slot.image.max_bytes, np.uint8)
    refused = 0
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        try:
            decode(bytes(damaged), content, slot.image, slot._room[GUARD : GUARD + inside.size])
        except DecodeError:
            refused += 1
        slot.expect_untouched_guards()
    # Each flipped bit of a PNG is found; a JPEG has no checksum.
    assert refused == 400 if suffix == ".png" else refused > 0


def with_scans(jpeg: bytes, more: int) -> bytes:
    """A JPEG whose last scan is sent so many times more."""
    last = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    return jpeg[:-2] + last * more + jpeg[-2:]


def test_a_jpeg_of_as_many_scans_as_may_be_is_decoded_and_one_more_is_refused() -> None:
    progressive = encoded(".jpg", scene(), cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    more = MAX_SCANS - progressive.count(b"\xff\xda")
    assert 0 < more < MAX_SCANS
    slot = Slot(PixelFormat.BGR)
    slot.decode(progressive, JPEG)
    # The decoder finds fault with the repetition itself, once it has gone through all of it.
    assert "progression" in slot.refuse(with_scans(progressive, more), JPEG)
    assert f"of {MAX_SCANS + 1} scans" in slot.refuse(with_scans(progressive, more + 1), JPEG)


def test_scans_are_counted_where_the_first_one_has_not_all_of_the_image() -> None:
    baseline = encoded(".jpg", scene())
    at = baseline.index(b"\xff\xda")
    one_of_three = (
        baseline[:at] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00\x00" * 40 + b"\xff\xd9"
    )
    assert "of 40 scans" in Slot().refuse(one_of_three, JPEG)
    # Control: with all of it in the first scan the decoder stops there.
    assert "scans" not in Slot().refuse(with_scans(baseline, 100), JPEG)


@pytest.mark.parametrize("end", range(2, 40))
def test_a_jpeg_cut_off_within_its_markers_is_refused(end: int) -> None:
    Slot().refuse(encoded(".jpg", scene())[:end], JPEG)


def png_with(name: bytes, content: bytes, count: int) -> bytes:
    """A PNG with so many more chunks of a kind in front of its pixels."""
    png = encoded(".png", scene())
    at = png.index(b"IDAT") - 4
    body = name + content
    chunk = struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))
    return png[:at] + chunk * count + png[at:]


@pytest.mark.parametrize("name", [b"tEXt", b"zTXt", b"iTXt", b"acTL", b"fcTL", b"fdAT"])
def test_texts_and_further_pictures_of_a_png_are_never_unpacked(name: bytes) -> None:
    plain = encoded(".png", scene())
    bomb = b"Comment\0\0" + zlib.compress(bytes(16 << 20), 9)
    size, bare = bare_png(png_with(name, bomb, 40))
    assert (size, bare) == ((90, 70), plain)
    found = Slot(PixelFormat.BGR).decode(png_with(name, bomb, 40), PNG)
    assert distance(found, scene()) == 0


@pytest.mark.parametrize("pieces", [1, 16])
def test_a_png_of_more_packed_bytes_than_its_pixels_can_need_is_refused_unread(pieces: int) -> None:
    assert "needs no more than" in Slot().refuse(
        png_with(b"IDAT", bytes(99_000 // pieces), pieces), PNG
    )


def test_a_png_of_innumerable_chunks_is_refused() -> None:
    said = Slot().refuse(png_with(b"IDAT", b"", 10 * MAX_CHUNKS), PNG)
    assert f"more than {MAX_CHUNKS} chunks" in said


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("depth", [8, 16])
def test_a_png_of_noise_that_is_not_packed_at_all_is_whole(channels: int, depth: int) -> None:
    shape = (70, 90, channels)
    drawn = np.random.default_rng(5).integers(0, 1 << depth, shape, np.dtype(f"uint{depth}"))
    _, plain = cv2.imencode(".png", drawn, [cv2.IMWRITE_PNG_COMPRESSION, 0])
    assert Slot().decode(plain.tobytes(), PNG).shape == (70, 90)


@pytest.mark.parametrize("name", [b"gAMA", b"iCCP", b"tRNS", b"prVt"])
def test_what_may_say_something_of_a_pngs_pixels_stays(name: bytes) -> None:
    whole = png_with(name, b"\0\0\xb1\x8f", 1)
    assert bare_png(whole) == ((90, 70), whole)


@pytest.mark.parametrize(
    ("payload", "content"),
    [
        (b"", JPEG),
        (b"", PNG),
        (b"\xff\xd8\xff", JPEG),
        (b"\x89PNG\r\n\x1a\n", PNG),
        (b"GIF89a" + bytes(50), JPEG),
        (bytes(8 << 20), JPEG),
        (bytes(8 << 20), PNG),
    ],
    ids=["no jpeg", "no png", "magic alone", "png magic alone", "gif", "zeros", "png of zeros"],
)
def test_what_is_no_image_is_refused(payload: bytes, content: ContentType) -> None:
    assert len(Slot().refuse(payload, content)) < 400


def test_the_wrong_content_type_is_named_with_its_remedy() -> None:
    said = Slot().refuse(encoded(".png", scene()), JPEG)
    assert "not JPEG" in said
    assert "content type" in said
    assert "not PNG" in Slot().refuse(encoded(".jpg", scene()), PNG)


@pytest.mark.parametrize("difference", [-1, 1, 100])
def test_a_raw_frame_of_another_size_is_refused(difference: int) -> None:
    payload, content = raw(PixelFormat.GRAY8, scene(1))
    wrong = payload[:difference] if difference < 0 else payload + bytes(difference)
    assert "bytes, found" in Slot().refuse(wrong, content)


@pytest.mark.parametrize("size", [(SIDE + 1, 1), (1, SIDE + 1)])
def test_a_raw_frame_larger_than_the_plan_is_refused(size: tuple[int, int]) -> None:
    content = ContentType(Encoding.RAW, PixelFormat.GRAY8, *size)
    Slot().refuse(bytes(size[0] * size[1]), content)


def test_the_smallest_bayer_frames_are_judged_or_refused_and_never_out_of_bounds() -> None:
    for width in range(1, 5):
        for height in range(1, 5):
            slot = Slot(PixelFormat.BGR)
            content = ContentType(Encoding.RAW, PixelFormat.BAYER_RG8, width, height)
            try:
                slot.decode(bytes(width * height), content)
            except DecodeError:
                slot.expect_untouched_guards()


def test_the_largest_image_fills_the_slot() -> None:
    whole = np.random.default_rng(2).integers(0, 256, (SIDE, SIDE), np.uint8)
    assert distance(Slot().decode(encoded(".png", whole), PNG), whole) == 0
