from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orthogan.data.decode import Decoded, UnreadableImage, decode

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
