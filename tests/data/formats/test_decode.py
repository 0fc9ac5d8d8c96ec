from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orthogan.data.formats.decode import Decoded, UnreadableImage, decode

Image.init()
WRITES_AVIF = "AVIF" in Image.SAVE  # from Pillow 11.3 on, which also writes XMP into JPEG
GRADIENT = np.arange(256, dtype=np.uint8).reshape(16, 16)


def encoded(picture: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def decoded(picture: Image.Image, form: str = "PNG", *, channels: int = 3, **options: Any) -> np.ndarray:
    return decode(encoded(picture, form, **options), resolution=picture.size[0], channels=channels).array


def test_rgb_and_grey_come_back_exactly() -> None:
    rgb = np.stack([GRADIENT, GRADIENT.T, 255 - GRADIENT], axis=2)
    np.testing.assert_array_equal(decoded(Image.fromarray(rgb)), rgb.transpose(2, 0, 1))
    np.testing.assert_array_equal(decoded(Image.fromarray(GRADIENT), channels=1), GRADIENT[None])
    np.testing.assert_array_equal(decoded(Image.fromarray(GRADIENT)), GRADIENT[None].repeat(3, 0))


def test_grey_of_rgb_is_luma() -> None:
    array = decoded(Image.new("RGB", (4, 4), (200, 100, 50)), channels=1)
    assert array.shape == (1, 4, 4)
    assert (array == round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)).all()


def test_one_bit() -> None:
    bits = Image.fromarray(((GRADIENT > 100) * 255).astype(np.uint8)).convert("1")
    np.testing.assert_array_equal(decoded(bits, channels=1)[0], (GRADIENT > 100) * 255)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(form: str) -> None:
    deep = Image.fromarray(GRADIENT.astype(np.uint16) * 257)
    assert deep.mode == "I;16"
    np.testing.assert_array_equal(decoded(deep, form, channels=1)[0], GRADIENT)


def test_big_endian_sixteen_bit_tiff_and_pgm() -> None:
    deep = GRADIENT.astype(np.uint16) * 257
    big = Image.frombytes("I;16B", (16, 16), deep.astype(">u2").tobytes())
    np.testing.assert_array_equal(decoded(big, "TIFF", channels=1)[0], GRADIENT)
    pgm = b"P5 16 16 65535\n" + deep.astype(">u2").tobytes()
    np.testing.assert_array_equal(decode(pgm, resolution=16, channels=1).array[0], GRADIENT)


def test_sixteen_bits_round_to_nearest() -> None:
    values = np.array([[0, 128, 129, 65535]] * 4, np.uint16)
    assert decoded(Image.fromarray(values), channels=1)[0, 0].tolist() == [0, 0, 1, 255]


def deep_png(values: np.ndarray, kind: int) -> bytes:
    """A 16-bit PNG file of ``values`` (h, w, channels), written by hand."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def deep_tiff(values: np.ndarray, order: str, *, compressed: bool, planes: int = 1) -> bytes:
    """A 16-bit TIFF file of ``values`` (h, w, channels), written by hand; ``planes``: 2 stores each channel alone."""
    height, width, channels = values.shape
    strips = [values.transpose(2, 0, 1)[c] for c in range(channels)] if planes == 2 else [values]
    stored = [strip.astype(f"{order}u2").tobytes() for strip in strips]
    stored = [zlib.compress(strip) for strip in stored] if compressed else stored
    start = 8
    places = [start + sum(map(len, stored[:i])) for i in range(len(stored))]
    tags = {
        256: [width],
        257: [height],
        258: [16] * channels,
        259: [8 if compressed else 1],
        262: [2],
        273: places,
        277: [channels],
        278: [height],
        279: [len(strip) for strip in stored],
        284: [planes],
        **({338: [2]} if channels == 4 else {}),
    }
    end = start + sum(map(len, stored)) + 2 + 12 * len(tags) + 4
    entries, extra = b"", b""
    for tag, numbers in tags.items():
        body = struct.pack(f"{order}{len(numbers)}I", *numbers)
        place = body if len(numbers) == 1 else struct.pack(f"{order}I", end + len(extra))
        extra += b"" if len(numbers) == 1 else body
        entries += struct.pack(f"{order}HHI", tag, 4, len(numbers)) + place
    magic = b"II*\0" if order == "<" else b"MM\0*"
    directory = struct.pack(f"{order}H", len(tags)) + entries + bytes(4)
    return magic + struct.pack(f"{order}I", start + sum(map(len, stored))) + b"".join(stored) + directory + extra


EDGES = [0, 1, 128, 129, 255, 256, 257, 385, 386, 32767, 32768, 65278, 65279, 65406, 65407, 65535]


def deep_values(channels: int) -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 65536, (20, 20, channels)).astype(np.uint16)
    values[0, : len(EDGES)] = np.array(EDGES)[:, None]
    return values


def nearest_levels(values: np.ndarray) -> np.ndarray:
    return np.round(values / 257).astype(np.uint8).transpose(2, 0, 1)


@pytest.mark.parametrize(("channels", "kind"), [(3, 2), (4, 6), (2, 4)])
def test_sixteen_bit_colours_of_png_round_to_nearest(channels: int, kind: int) -> None:
    values = deep_values(channels)
    array = decode(deep_png(values, kind), resolution=20, channels=channels).array
    np.testing.assert_array_equal(array, nearest_levels(values))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bit_colours_of_tiff_round_to_nearest(order: str, compressed: bool, channels: int) -> None:
    values = deep_values(channels)
    data = deep_tiff(values, order, compressed=compressed)
    np.testing.assert_array_equal(decode(data, resolution=20, channels=channels).array, nearest_levels(values))


def test_sixteen_bit_tiff_with_separate_planes() -> None:
    values = deep_values(3)
    data = deep_tiff(values, "<", compressed=True, planes=2)
    np.testing.assert_array_equal(decode(data, resolution=20, channels=3).array, (values >> 8).transpose(2, 0, 1))
    with pytest.raises(UnreadableImage, match="separate planes"):
        decode(deep_tiff(values, "<", compressed=False, planes=2), resolution=20, channels=3)


def test_sixteen_bit_colours_are_turned_upright() -> None:
    values = deep_values(3)
    file = deep_png(values, 2)
    exif = Image.Exif()
    exif[0x0112] = 3
    body = exif.tobytes()[6:]
    chunk = struct.pack(">I", len(body)) + b"eXIf" + body + struct.pack(">I", zlib.crc32(b"eXIf" + body))
    turned = decode(file[:33] + chunk + file[33:], resolution=20, channels=3).array
    np.testing.assert_array_equal(turned, nearest_levels(values)[:, ::-1, ::-1])


def test_float_tiff_from_zero_to_one() -> None:
    floats = Image.fromarray((GRADIENT / 255).astype(np.float32))
    np.testing.assert_array_equal(decoded(floats, "TIFF", channels=1)[0], GRADIENT)


def test_white_levels_that_nobody_knows_are_refused() -> None:
    for values in (np.full((4, 4), 3.0, np.float32), np.full((4, 4), np.nan, np.float32)):
        with pytest.raises(UnreadableImage, match="expected 0 to 1"):
            decoded(Image.fromarray(values), "TIFF")
    with pytest.raises(UnreadableImage, match="expected 16 bits"):
        decoded(Image.fromarray(np.full((4, 4), 1 << 20, np.int32)), "TIFF")


def test_palette() -> None:
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([9, 9, 9, 10, 200, 30])
    assert (decoded(picture) == np.array([10, 200, 30])[:, None, None]).all()


def test_transparency_is_laid_on_white() -> None:
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([9, 9, 9, 10, 200, 30])
    assert (decoded(palette, transparency=1) == 255).all()
    half = decoded(Image.new("RGBA", (4, 4), (0, 100, 200, 128)))
    np.testing.assert_allclose(half[:, 0, 0], [127, 177, 227], atol=1)
    assert (decoded(Image.new("LA", (4, 4), (77, 0)), channels=1) == 255).all()
    assert (decoded(Image.new("LA", (4, 4), (77, 255)), channels=1) == 77).all()
    # A grey and an RGB file whose one colour is declared transparent.
    assert (decoded(Image.new("L", (4, 4), 40), transparency=40) == 255).all()
    assert (decoded(Image.new("RGB", (4, 4), (1, 2, 3)), transparency=(1, 2, 3)) == 255).all()
    assert (decoded(Image.new("RGB", (4, 4), (1, 2, 3)), transparency=(9, 9, 9))[:, 0, 0] == [1, 2, 3]).all()


def _png(depth: int, kind: int, row: bytes, key: bytes) -> bytes:
    """A PNG of 4 x 4 pixels with equal rows, and a transparent color."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 4, 4, depth, kind, 0, 0, 0)
    parts = [(b"IHDR", head), (b"tRNS", key), (b"IDAT", zlib.compress((b"\0" + row) * 4)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


GRAYS = {
    1: b"\x50",
    2: b"\x1b",
    4: b"\x05\xaf",
    8: bytes([0, 85, 170, 255]),
    16: struct.pack(">4H", *range(0, 65536, 21845)),
}


@pytest.mark.parametrize("depth", GRAYS)
def test_the_transparent_gray_of_a_png_is_found_at_every_depth(depth: int) -> None:
    levels = [0, 255, 0, 255] if depth == 1 else [0, 85, 170, 255]
    second = 1 if depth == 1 else (2**depth - 1) // 3
    data = _png(depth, 0, GRAYS[depth], struct.pack(">H", second))
    alpha = decode(data, resolution=4, channels=2).array[:, 0]
    assert alpha.tolist() == [levels, [255, 0, 255, 0] if depth == 1 else [255, 0, 255, 255]]
    shown = decode(data, resolution=4, channels=1).array[0, 0]
    assert shown.tolist() == [0, 255, *levels[2:]]


def test_the_transparent_color_of_a_16_bit_png_is_compared_with_all_bits() -> None:
    # of the transparent color, the third pixel has the upper bytes, and the fourth the lower ones as its upper ones
    row = struct.pack(">12H", 0, 0, 0, 0x1234, 0x2345, 0x3456, 0x12FF, 0x23FF, 0x34FF, 0x3400, 0x4500, 0x5600)
    data = _png(16, 2, row, struct.pack(">3H", 0x1234, 0x2345, 0x3456))
    assert decode(data, resolution=4, channels=4).array[3, 0].tolist() == [255, 0, 255, 255]
    shown = decode(data, resolution=4, channels=3).array[:, 0]
    assert shown.T.tolist() == [[0, 0, 0], [255, 255, 255], [0x13, 0x24, 0x35], [0x34, 0x45, 0x56]]


def test_cmyk_jpeg_and_tiff() -> None:
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    for form in ("JPEG", "TIFF"):
        np.testing.assert_allclose(decoded(cmyk, form)[:, 0, 0], [255, 0, 0], atol=3)


def test_exif_orientation() -> None:
    stored = np.zeros((8, 8), np.uint8)
    stored[:, :4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    turned = decoded(Image.fromarray(stored), exif=exif, channels=1)[0]
    np.testing.assert_array_equal(turned, np.rot90(stored, -1))
    assert (turned[:4] == 255).all()


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_animation_gives_its_first_frame(form: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    result = decode(data, resolution=8, channels=3)
    assert result.animated
    assert (result.array == np.array([255, 0, 0])[:, None, None]).all()


def test_still_pictures_are_not_animated() -> None:
    assert not any(
        decode(encoded(Image.new("RGB", (8, 8)), form), resolution=8, channels=3).animated
        for form in ("GIF", "PNG", "WEBP", "TIFF", "JPEG")
    )


@pytest.mark.parametrize("size", [(30, 10), (10, 30)])
def test_centre_is_cut_out(size: tuple[int, int]) -> None:
    wide = np.zeros((size[1], size[0]), np.uint8)
    wide[(slice(None), slice(10, 20)) if size[0] == 30 else slice(10, 20)] = 200
    result: Decoded = decode(encoded(Image.fromarray(wide)), resolution=10, channels=1)
    assert (result.array == 200).all()


def test_reduction_does_not_alias() -> None:
    """A checkerboard of single pixels has no detail left at a quarter of its size."""
    board = Image.fromarray((np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8))
    array = decode(encoded(board), resolution=16, channels=1).array
    np.testing.assert_allclose(array, 127.5, atol=6)


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"these are words, not pixels", "not an image"),
        (encoded(NOISE, "JPEG")[:800], "truncated"),
        (encoded(NOISE)[:1500], "truncated"),
        (b"\x89PNG\r\n\x1a\n" + bytes(200), "not an image|Error"),
    ],
)
def test_unreadable_data_has_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImage, match=reason):
        decode(data, resolution=8, channels=3)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunk(extra: bytes) -> bytes:
    """A PNG with one more chunk after its header."""
    data = encoded(NOISE)
    return data[:33] + extra + data[33:]


def exif_of(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "description " * 5
    return exif.tobytes()


def spoiled(data: bytes, part: bytes, *, replacement: bytes = b"\xff") -> bytes:
    """``data`` with every second byte of ``part`` overwritten."""
    assert data.count(part) == 1
    bad = bytearray(part)
    bad[::2] = replacement * len(bad[::2])
    return data.replace(part, bytes(bad))


def frames(form: str) -> bytes:
    return encoded(NOISE, form, save_all=True, append_images=[NOISE.rotate(90)])


JUNK = b"\0\x08\0\x02\x01\x12\0\x03"
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">tiff:Orientation="1"</x:xmpmeta>'
DAMAGED_METADATA = {
    "PNG EXIF without a TIFF header": with_chunk(chunk(b"eXIf", JUNK)),
    "PNG EXIF cut short": with_chunk(chunk(b"eXIf", b"II*\0")),
    "PNG EXIF with a wrong sum": with_chunk(chunk(b"eXIf", exif_of(1))[:-1] + b"\0"),
    "PNG EXIF as text": with_chunk(chunk(b"tEXt", b"Raw profile type exif\0\nexif\n      12\nzzzzzzzz\n")),
    "PNG text with a wrong sum": with_chunk(chunk(b"tEXt", b"note\0words")[:-1] + b"\0"),
    "PNG text of 2 MiB": with_chunk(chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(2 << 20)))),
    "PNG text that is not packed": with_chunk(chunk(b"zTXt", b"note\0\0words")),
    "PNG international text cut": with_chunk(chunk(b"iTXt", b"note\0\1")),
    "PNG text bomb": with_chunk(chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(80 << 20), 9))),
    "PNG profile of 2 MiB": with_chunk(chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(2 << 20)))),
    "PNG profile of junk": with_chunk(chunk(b"iCCP", b"profile\0\0junk")),
    "PNG gamma cut": with_chunk(chunk(b"gAMA", b"\0")),
    "PNG chromaticity cut": with_chunk(chunk(b"cHRM", b"\0\0\0")),
    "PNG density cut": with_chunk(chunk(b"pHYs", b"\0")),
    "PNG rendering intent cut": with_chunk(chunk(b"sRGB", b"")),
    "PNG time of junk": with_chunk(chunk(b"tIME", b"\xff")),
    "PNG animation control cut": with_chunk(chunk(b"acTL", b"\0\0")),
    "PNG animation of 0 frames": with_chunk(chunk(b"acTL", bytes(8))),
    "PNG frame control of junk": with_chunk(chunk(b"acTL", b"\0\0\0\2" + bytes(4)) + chunk(b"fcTL", b"\xff" * 26)),
    "JPEG EXIF of junk": encoded(NOISE, "JPEG", exif=b"Exif\0\0" + JUNK),
    "JPEG EXIF overwritten": spoiled(encoded(NOISE, "JPEG", exif=exif_of(1)), exif_of(1)[6:]),
    "JPEG profile overwritten": spoiled(encoded(NOISE, "JPEG", icc_profile=bytes(200) + b"end"), bytes(200) + b"end"),
    "JPEG density of junk": encoded(NOISE, "JPEG", dpi=(72, 72)).replace(b"JFIF\0\1\1", b"JFIF\0\xff\xff"),
    "MPO index overwritten": spoiled(frames("MPO"), b"MPF\0II*\0\x08\0\0\0"),
    "WebP EXIF of junk": encoded(NOISE, "WEBP", lossless=True, exif=JUNK),
    "WebP XMP overwritten": spoiled(encoded(NOISE, "WEBP", lossless=True, xmp=XMP), XMP),
    "WebP profile of junk": encoded(NOISE, "WEBP", lossless=True, icc_profile=JUNK),
    "TIFF XMP overwritten": spoiled(encoded(NOISE, "TIFF", tiffinfo={700: XMP}), XMP),
    "TIFF description of a strange type": encoded(NOISE, "TIFF", tiffinfo={270: "words" * 9}).replace(
        struct.pack("<HHI", 270, 2, 46), struct.pack("<HHI", 270, 12, 1 << 30)
    ),
    "TIFF second frame lost": encoded(NOISE, "TIFF", save_all=True, append_images=[NOISE])[:-200],
    "GIF second frame lost": frames("GIF")[:-300],
}


if WRITES_AVIF:
    DAMAGED_METADATA |= {
        "JPEG XMP overwritten": spoiled(encoded(NOISE, "JPEG", xmp=XMP), XMP),
        "AVIF EXIF overwritten": spoiled(encoded(NOISE, "AVIF", exif=exif_of(1)), b"MM\0*\0\0\0\x08"),
        "AVIF XMP overwritten": spoiled(encoded(NOISE, "AVIF", xmp=XMP), XMP),
    }


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about the damage
@pytest.mark.parametrize("kind", DAMAGED_METADATA)
def test_damaged_metadata_never_costs_the_picture(kind: str) -> None:
    form = kind.split(" ", maxsplit=1)[0].upper()
    expected = decode(
        encoded(NOISE, "JPEG" if form == "MPO" else form, **({"lossless": True} if form == "WEBP" else {})),
        resolution=32,
        channels=3,
    )
    np.testing.assert_array_equal(decode(DAMAGED_METADATA[kind], resolution=32, channels=3).array, expected.array)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", *(["AVIF"] if WRITES_AVIF else [])])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright(form: str, orientation: int) -> None:
    stored = np.kron(np.array([[0, 80, 160], [40, 200, 250]], np.uint8), np.ones((16, 16), np.uint8))
    picture = Image.fromarray(stored).convert("RGB")
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100}, "AVIF": {"quality": 100}}.get(form, {})
    found = decode(encoded(picture, form, exif=exif_of(orientation), **options), resolution=32, channels=1).array[0]
    upright = {
        1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1],
        5: stored.T, 6: np.rot90(stored, -1), 7: stored[::-1, ::-1].T, 8: np.rot90(stored),
    }[orientation]  # fmt: skip
    side = min(upright.shape)
    top, left = (length - side >> 1 for length in upright.shape)
    np.testing.assert_allclose(found, upright[top : top + side, left : left + side], atol=6)


def test_an_intact_orientation_survives_other_damage() -> None:
    picture = encoded(NOISE, exif=exif_of(6))
    damaged = picture[:33] + chunk(b"gAMA", b"\0") + picture[33:]
    found = decode(damaged, resolution=32, channels=3).array
    np.testing.assert_array_equal(found, np.rot90(np.asarray(NOISE), -1).transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("size", "reason"),
    [((9000, 8000), "9000 x 8000 pixels exceed the limit of 64 Mi"), ((3001, 3), "more than 1000 times")],
)
@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "PPM"])
def test_too_many_pixels_are_refused_before_they_are_decoded(form: str, size: tuple[int, int], reason: str) -> None:
    """The files say that they are larger than they are."""
    data = encoded(Image.new("RGB", (19, 17)), form)
    if form == "PPM":
        data = data.replace(b"19 17", b"%d %d" % size)
    else:
        place, layout = {"PNG": (16, ">II"), "BMP": (18, "<II"), "JPEG": (163, ">HH")}[form]
        width, height = size[::-1] if form == "JPEG" else size
        data = data[:place] + struct.pack(layout, width, height) + data[place + struct.calcsize(layout) :]
    if form == "PNG":
        data = data[:29] + struct.pack(">I", zlib.crc32(data[12:29])) + data[33:]
    tracemalloc.start()
    with pytest.raises(UnreadableImage, match=reason):
        decode(data, resolution=8, channels=3)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_formats_that_start_programs_are_not_opened() -> None:
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    assert Image.open(io.BytesIO(postscript)).format == "EPS"
    with pytest.raises(UnreadableImage, match="not an image in a format that orthogan reads"):
        decode(postscript, resolution=8, channels=3)


def test_decompression_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UnreadableImage, match="too many pixels"):
        decode(encoded(Image.new("L", (64, 64))), resolution=8, channels=3)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about the damage
def test_damaged_bytes_never_raise_anything_else() -> None:
    rng = np.random.default_rng(1)
    for form in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        good = np.frombuffer(encoded(Image.fromarray(GRADIENT).convert("RGB"), form), np.uint8)
        for _ in range(60):
            bad = good.copy()
            places = rng.integers(0, len(bad), 6)
            bad[places] = rng.integers(0, 256, 6)
            try:
                result = decode(bad[: rng.integers(1, len(bad) + 1)].tobytes(), resolution=8, channels=3)
            except UnreadableImage:
                continue
            assert result.array.shape == (3, 8, 8)
