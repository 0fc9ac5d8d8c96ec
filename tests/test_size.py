"""Rectangles and alpha from files to grids and scores; square images are as before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from orthogan.config.schema import Config
from orthogan.data import ArraySource, open_source
from orthogan.drawing.grid import image_grid, on_white, to_picture
from orthogan.errors import UserError
from orthogan.evaluation import evaluate
from orthogan.evaluation.images import rgb
from orthogan.models import (
    DCGANDiscriminator,
    DCGANGenerator,
    SNGANDiscriminator,
    SNGANGenerator,
    StyleGAN2Discriminator,
    StyleGAN2Generator,
)
from orthogan.models.build import build_generator
from orthogan.models.samples import sample_images, save_samples
from orthogan.size import as_resolution, sides, size_in_words

FAMILIES = [(DCGANGenerator, DCGANDiscriminator), (StyleGAN2Generator, StyleGAN2Discriminator)]


def test_sizes() -> None:
    assert (sides(8), sides((8, 12)), as_resolution(8, 8), as_resolution(8, 12)) == ((8, 8), (8, 12), 8, (8, 12))
    assert (size_in_words(8), size_in_words((8, 12))) == ("8", "8 x 12")


def test_the_config_reads_rectangles() -> None:
    data = {"source": "folder", "path": "x"}
    config = Config(data={**data, "resolution": [64, 96], "channels": 4})  # pyright: ignore
    assert config.data.resolution == (64, 96)
    assert config.model_dump(mode="json")["data"]["resolution"] == [64, 96]
    assert Config(**config.model_dump(mode="json")).data.resolution == (64, 96)
    assert Config(data={**data, "resolution": [64, 64]}).data.resolution == 64  # pyright: ignore
    for wrong in ([64, 4], [64, 64, 64], "wide"):
        with pytest.raises(Exception, match="resolution"):
            Config(data={**data, "resolution": wrong})  # pyright: ignore
    with pytest.raises(Exception, match="square images only"):
        Config(data={"source": "faces", "resolution": [64, 96]})  # pyright: ignore
    net = {"generator": {"kind": "eigengan"}}
    with pytest.raises(UserError, match=r"64 x 96.*square images only; choose dcgan, sngan or stylegan2"):
        build_generator(Config(data={**data, "resolution": [64, 96]}, model=net), num_classes=0)  # pyright: ignore


@pytest.mark.parametrize(("make_g", "make_d"), FAMILIES)
@pytest.mark.parametrize(("size", "channels"), [((16, 24), 4), (36, 2), ((12, 8), 5)])
def test_families_at_any_multiple_of_four(make_g: type, make_d: type, size: int, channels: int) -> None:
    torch.manual_seed(0)
    net = make_g(resolution=size, image_channels=channels, channels=16, latent_dim=4)
    critic = make_d(resolution=size, image_channels=channels, channels=2)
    for training in (True, False):
        images = net.train(training)(net.sample_latent(2, seed=0))
        assert images.shape == (2, channels, *sides(size))
        assert critic(images).shape == (2,)
    with pytest.raises(UserError, match="multiples of 4 pixels"):
        make_g(resolution=(16, 18), image_channels=3, channels=16, latent_dim=4)


@pytest.mark.parametrize(
    ("size", "bottom", "blocks"),
    [
        ((32, 48), (4, 6), 3),
        ((56, 40), (7, 5), 3),
        ((48, 64), (6, 8), 3),
        ((64, 96), (4, 6), 4),
        ((128, 160), (4, 5), 5),
    ],
)
def test_sngan_as_rectangles(size: tuple[int, int], bottom: tuple[int, int], blocks: int) -> None:
    torch.manual_seed(0)
    net = SNGANGenerator(resolution=size, image_channels=4, channels=2, latent_dim=4, num_classes=3)
    critic = SNGANDiscriminator(resolution=size, image_channels=4, channels=2, num_classes=3)
    labels = torch.tensor([0, 2])
    images = net(net.sample_latent(2, seed=0), labels)
    assert (images.shape, net.bottom, len(net.blocks)) == ((2, 4, *size), bottom, blocks)
    assert critic(images, labels).shape == (2,)
    halvings = sum(bool(block.down) for block in critic.blocks)
    assert tuple(side << halvings for side in critic.blocks(images).shape[2:]) == size  # no row or column is lost
    for wrong in ((32, 36), (24, 48), 40):
        with pytest.raises(UserError, match=r"sngan supports 32, 48, 64, 128 pixels, and rectangles .* multiples of 8"):
            SNGANGenerator(resolution=wrong, image_channels=3, channels=2, latent_dim=4)
        with pytest.raises(UserError, match="multiples of 8"):
            SNGANDiscriminator(resolution=wrong, image_channels=3, channels=2)


def test_a_folder_keeps_proportions_and_alpha(tmp_path: Path) -> None:
    picture = np.zeros((30, 60, 4), np.uint8)
    picture[:, 15:45] = (200, 100, 50, 255)  # the left and right quarters are transparent
    for name in "ab":
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    wide = open_source(str(tmp_path), resolution=(8, 16), channels=4)
    image = wide[0][0]
    assert (wide.resolution, image.shape) == ((8, 16), (4, 8, 16))
    assert image[:, 4, 8].tolist() == [200, 100, 50, 255]
    assert image[3, :, 0].max() == image[3, :, 15].max() == 0
    flat = open_source(str(tmp_path), resolution=(8, 16), channels=3)[0][0]
    assert flat[:, 4, 0].tolist() == [255, 255, 255]
    tall = open_source(str(tmp_path), resolution=(16, 8), channels=4)[0][0]  # the middle 15 of 60 columns
    assert tall[3].min() == 255


def test_arrays_of_more_channels(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 12, 20, 6)).astype(np.uint8)
    np.savez(tmp_path / "six.npz", images=images)
    source = open_source(str(tmp_path / "six.npz"), resolution=(12, 20), channels=6)
    assert np.array_equal(source.read(np.arange(3))[0], images.transpose(0, 3, 1, 2))
    half = open_source(str(tmp_path / "six.npz"), resolution=(6, 10), channels=6)[0][0]
    alone = Image.fromarray(images[0, ..., 5]).resize((10, 6), Image.Resampling.LANCZOS)
    assert np.array_equal(half[5], np.array(alone))
    with pytest.raises(UserError, match="channels to 6"):
        open_source(str(tmp_path / "six.npz"), resolution=(12, 20), channels=3)


def test_alpha_is_white_in_grids_and_features_and_kept_in_files(tmp_path: Path) -> None:
    image = np.zeros((4, 8, 12), np.uint8)
    image[0], image[3, :, :6] = 100, 128
    assert on_white(image)[:, 0, 0].tolist() == [177, 127, 127]
    assert on_white(image)[:, 0, 11].tolist() == [255, 255, 255]
    assert np.array_equal(rgb(torch.from_numpy(image)[None])[0].numpy(), on_white(image))
    assert image_grid(image[None], scale=1, pad=0).size == (12, 8)
    assert (to_picture(image).mode, to_picture(image[:2]).mode) == ("RGBA", "LA")
    net = DCGANGenerator(resolution=(8, 12), image_channels=4, channels=16, latent_dim=4)
    files = save_samples(sample_images(net, [0, 1]), tmp_path)
    assert {Image.open(file).mode for file in files} == {"RGBA"}
    assert {Image.open(file).size for file in files} == {(12, 8)}


def test_rectangles_are_scored() -> None:
    net = StyleGAN2Generator(resolution=(8, 12), image_channels=4, channels=2, latent_dim=4)
    reals = ArraySource("r", np.random.default_rng(0).integers(0, 256, (20, 4, 8, 12)).astype(np.uint8))
    options = {"samples": 20, "extractor": "tests.fixtures.extractor:Moments", "progress": False}
    fid, kid = evaluate(net, reals, metrics="fid,kid_full", **options)
    assert fid.protocol["reference"] == "r, 20 images of 8 x 12 px"
    assert fid.value > 0
    assert kid.value > 0
