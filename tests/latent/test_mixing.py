"""Mixed pictures take the chosen parts of the latent from the column, and the rest from the row."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from orthogan.errors import UserError
from orthogan.latent.latents import Latents
from orthogan.latent.mixing import latent_parts, mix
from orthogan.models.families.eigengan import EigenGANGenerator
from orthogan.models.families.stylegan2 import StyleGAN2Generator
from orthogan.models.generate import generate, in_space, sample_latents
from tests.fixtures.disc import Disc


def test_layers_of_w_plus_are_mixed() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = StyleGAN2Generator(resolution=32, image_channels=1, channels=2, latent_dim=4, mapping_layers=1).eval()
    mixed = mix(net, [1, 2], [3, 4, 5], layers=[0, 6])
    w, plus = in_space(net, "w"), in_space(net, "w+")
    rows, columns = sample_latents(w, [1, 2]), sample_latents(w, [3, 4, 5])
    for i in range(2):
        for j in range(3):
            ws = rows[i].repeat(8, 1)
            ws[[0, 6]] = columns[j]
            assert np.abs(mixed.images[i, j].astype(int) - generate(plus, ws.view(1, -1))[0]).max() <= 1
    assert np.abs(mixed.rows.astype(int) - generate(net, sample_latents(net, [1, 2]))).max() <= 1
    assert (mixed.count, mixed.parts, mixed.metadata["layers"]) == (8, "layers", "0,6 of 8 layers")


def test_subspaces_and_coordinates_are_mixed_where_there_are_no_layers() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = EigenGANGenerator(resolution=32, image_channels=1, channels=2, latent_dim=10, dims=2).eval()
    space, parts, blocks = latent_parts(net)
    assert (space, blocks) == ("z", [[0, 1], [2, 3], [4, 5], [6, 7, 8, 9]])
    assert "subspaces" in parts
    disc, z = Disc(num_classes=3), torch.arange(12.0).view(2, 6) / 10
    mixed = mix(disc, Latents(z[:1].numpy(), labels=[2]), Latents(z[1:].numpy(), labels=[0]), layers=[1, 3])
    expected = z[:1].clone()
    expected[0, [1, 3]] = z[1, [1, 3]]
    assert np.array_equal(mixed.images[0], generate(disc, expected, [2]))  # the class is that of the row
    assert mixed.parts == "coordinates of z"
    assert mix(disc, [0], [1]).layers == [3, 4, 5]
    picture = mixed.draw()
    assert picture.width > 2 * 64
    with pytest.raises(UserError, match=r"layers \[6\]: this generator has 6 coordinates of z, 0 to 5"):
        mix(disc, [0], [1], layers=[6])
