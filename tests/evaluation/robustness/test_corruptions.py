"""Each corruption against somebody else's arithmetic; chance is a function of seed, kind, severity and image."""

from __future__ import annotations

import colorsys
import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from orthogan.data import ArraySource
from orthogan.errors import UserError
from orthogan.evaluation.robustness.corruptions import CORRUPTIONS, LEVELS, NOISES, SEVERITIES, Corrupted, corrupt


def smooth(count: int = 6, channels: int = 3, side: int = 32, seed: int = 0) -> Tensor:
    """Pictures with large shapes and some grain, uint8."""
    rng = np.random.default_rng(seed)
    shapes = gaussian_filter(rng.normal(size=(count, channels, side, side)), (0, 0, 3, 3))
    floats = 127 + 400 * shapes + rng.normal(scale=4, size=shapes.shape)
    return torch.from_numpy(floats.clip(0, 255).astype(np.uint8))


def grey(count: int = 40, level: int = 128, side: int = 32) -> Tensor:
    return torch.full((count, 3, side, side), level, dtype=torch.uint8)


def made(images: Tensor, name: str, severity: int, seed: int = 0) -> Tensor:
    return corrupt(images, name, severity, indices=range(len(images)), seed=seed)


def unit(images: Tensor) -> np.ndarray:
    return images.numpy().astype(np.float64) / 255


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(CORRUPTIONS),
    severity=st.sampled_from(SEVERITIES),
    channels=st.sampled_from([1, 3]),
    side=st.sampled_from([28, 32]),
    seed=st.integers(0, 99),
)
def test_an_image_is_corrupted_alike_whatever_is_beside_it(
    name: str, severity: int, channels: int, side: int, seed: int
) -> None:
    images = smooth(5, channels, side, seed)
    whole = corrupt(images, name, severity, indices=[3, 14, 15, 92, 65], seed=seed)
    assert whole.shape == images.shape
    assert whole.dtype == torch.uint8
    part = corrupt(images[[4, 1]], name, severity, indices=[65, 14], seed=seed)
    assert torch.equal(part, whole[[4, 1]])
    assert not torch.equal(whole, images)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_five_is_worse_than_one(name: str) -> None:
    images = smooth(20)
    moved = [float((made(images, name, s).float() - images.float()).abs().mean()) for s in SEVERITIES]
    assert moved[0] > 0.05
    assert moved[-1] > 1.2 * moved[0]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_only_noise_is_chance(name: str) -> None:
    images = smooth(2)
    same = torch.equal(made(images, name, 3, seed=0), made(images, name, 3, seed=1))
    assert same == (name not in NOISES)
    twins = images[[0, 0]]
    assert torch.equal(*made(twins, name, 3)) == (name not in NOISES)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_the_noises_have_the_moments_that_they_should(severity: int) -> None:
    image = grey()
    half = 128 / 255
    gaussian = unit(made(image, "gaussian_noise", severity))
    assert gaussian.std() == pytest.approx(LEVELS["gaussian_noise"][severity - 1], rel=0.02)
    assert gaussian.mean() == pytest.approx(half, abs=1e-3)
    shot = unit(made(image, "shot_noise", severity))
    # photons and bytes are two lattices: rounding from one to the other widens it by up to 4 %
    assert shot.var() == pytest.approx(half / LEVELS["shot_noise"][severity - 1], rel=0.06)
    assert shot.mean() == pytest.approx(half, abs=2e-3)
    impulse = made(image, "impulse_noise", severity)
    share, values = LEVELS["impulse_noise"][severity - 1], impulse.numpy()
    tolerance = 5 * (share / values.size) ** 0.5
    assert float((values == 0).mean()) == pytest.approx(share / 2, abs=tolerance)
    assert float((values == 255).mean()) == pytest.approx(share / 2, abs=tolerance)
    assert set(np.unique(values)) == {0, 128, 255}


def test_there_is_no_shot_noise_in_the_dark() -> None:
    assert int(made(grey(2, level=0), "shot_noise", 5).count_nonzero()) == 0


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("channels", [1, 3])
def test_blur_is_scipys(severity: int, channels: int) -> None:
    images = smooth(2, channels)
    sigma = LEVELS["gaussian_blur"][severity - 1]
    wanted = gaussian_filter(unit(images), (0, 0, sigma, sigma), mode="mirror", truncate=4.0)
    assert np.abs(unit(made(images, "gaussian_blur", severity)) - wanted).max() < 0.51 / 255


def test_a_larger_image_is_blurred_as_much_wider() -> None:
    images = smooth(2, side=64)
    wanted = gaussian_filter(unit(images), (0, 0, 2, 2), mode="mirror", truncate=4.0)
    assert np.abs(unit(made(images, "gaussian_blur", 5)) - wanted).max() < 0.51 / 255


@settings(max_examples=40, deadline=None)
@given(pixel=st.tuples(*[st.integers(0, 255)] * 3), severity=st.sampled_from(SEVERITIES))
def test_brightness_is_the_value_of_hsv(pixel: tuple[int, int, int], severity: int) -> None:
    image = torch.tensor(pixel, dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    hue, saturation, value = colorsys.rgb_to_hsv(*(p / 255 for p in pixel))
    wanted = colorsys.hsv_to_rgb(hue, saturation, min(1.0, value + LEVELS["brightness"][severity - 1]))
    found = unit(made(image, "brightness", severity))[0, :, 0, 0]
    assert np.abs(found - wanted).max() < 0.51 / 255


def test_contrast_draws_each_channel_to_its_mean() -> None:
    images = smooth(3)
    means = unit(images).mean((2, 3), keepdims=True)
    wanted = (unit(images) - means) * 0.4 + means
    assert np.abs(unit(made(images, "contrast", 3)) - wanted).max() < 0.51 / 255


@pytest.mark.parametrize("severity", SEVERITIES)
def test_a_pixelated_image_has_as_many_cells_as_it_should(severity: int) -> None:
    images = smooth(2)
    found = made(images, "pixelate", severity)[0, 0]
    cells = int(32 * LEVELS["pixelate"][severity - 1])
    for rows in (found, found.T):
        assert int((rows[1:] != rows[:-1]).any(1).sum()) == cells - 1  # borders between cells
    assert torch.equal(made(grey(1), "pixelate", severity), grey(1))
    assert float(found.float().mean()) == pytest.approx(float(images[0, 0].float().mean()), abs=3)


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("side", [28, 32, 40])
def test_pixelation_is_pillows_box(severity: int, side: int) -> None:
    images = smooth(2, 3, side)
    cells = int(side * LEVELS["pixelate"][severity - 1])
    for image, mine in zip(images, made(images, "pixelate", severity), strict=True):
        picture = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((cells, cells), Image.Resampling.BOX)
        theirs = np.asarray(picture.resize((side, side), Image.Resampling.BOX)).astype(int)
        assert np.abs(mine.permute(1, 2, 0).numpy() - theirs).max() <= 1  # Pillow rounds in between


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_pillows(channels: int) -> None:
    images = smooth(2, channels)
    found = made(images, "jpeg", 5)
    for image, mine in zip(images, found, strict=True):
        pixels = image.permute(1, 2, 0).numpy()
        stream = io.BytesIO()
        Image.fromarray(pixels if channels == 3 else pixels[:, :, 0]).save(stream, "JPEG", quality=40)
        with Image.open(stream) as picture:
            theirs = np.asarray(picture).reshape(32, 32, channels)
        assert np.abs(mine.permute(1, 2, 0).numpy().astype(int) - theirs).mean() < 1.0


def test_a_corrupted_source_keeps_labels_and_order() -> None:
    images = smooth(8).numpy()
    labels = np.arange(8) % 3
    source = ArraySource("set", images, labels=labels, class_names=["a", "b", "c"])
    view = Corrupted(source, "gaussian_noise", 2, seed=4)
    order = np.array([5, 0, 5])
    pixels, found = view.read(order)
    wanted = corrupt(torch.from_numpy(images[order]), "gaussian_noise", 2, indices=[5, 0, 5], seed=4)
    assert np.array_equal(pixels, wanted.numpy())
    assert np.array_equal(pixels[0], pixels[2])
    assert np.array_equal(found, labels[order])
    assert (len(view), view.num_classes, view.name) == (8, 3, "set, gaussian_noise 2")
    others = [
        Corrupted(source, "gaussian_noise", 3, 4),
        Corrupted(source, "jpeg", 2, 4),
        Corrupted(source, "jpeg", 2, 5),
    ]
    assert len({one.fingerprint() for one in [source, view, *others]}) == 5
    assert np.array_equal(source.images, images)


def test_what_there_is_not_is_refused() -> None:
    for name, severity, words in (("fog", 1, "'fog': choose one of gaussian_noise"), ("jpeg", 6, "severity 6 of jpeg")):
        with pytest.raises(UserError, match=words):
            made(grey(1), name, severity)
        with pytest.raises(UserError, match=words):
            Corrupted(ArraySource("set", grey(1).numpy()), name, severity)
