"""Codes: the latent stays standard normal, the network gets their values, and pairs agree where they should."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

import orthogan
from orthogan.models.codes import Codes, CodesConfig, add_codes, codes_of, name_codes
from orthogan.models.families.eigengan import EigenGANGenerator
from orthogan.models.families.stylegan2 import StyleGAN2Generator
from orthogan.models.protocol import as_generator

MIXED = Codes(8, continuous=2, categorical=(3, 2), noise="uniform")


class Echo(nn.Module):
    """Images whose pixels are the numbers that the network gets."""

    latent_dim = 8

    def forward(self, z: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        return z[:, None, None]


def test_values_have_the_priors_of_the_codes() -> None:
    z = torch.from_numpy(np.random.default_rng(0).standard_normal((20_000, 8))).float()
    values = MIXED(z).numpy()
    # of a standard normal number, 2 F - 1 with the normal distribution function F is uniform on [-1, 1]
    np.testing.assert_allclose(values[:, :2], 2 * scipy.stats.norm.cdf(z[:, :2]) - 1, atol=1e-6)
    np.testing.assert_allclose(values[:, 7:], 2 * scipy.stats.norm.cdf(z[:, 7:]) - 1, atol=1e-6)
    for block in (slice(2, 5), slice(5, 7)):
        assert np.array_equal(values[:, block], np.eye(block.stop - block.start)[z[:, block].argmax(1)])
        shares = values[:, block].mean(0)
        assert np.abs(shares - 1 / len(shares)).max() < 0.02
    plain = Codes(8, continuous=2, distribution="normal")
    assert torch.equal(plain(z), z)


@pytest.mark.parametrize("gap", [0.0, 1.9])
def test_pairs_agree_in_one_code_and_the_noise(gap: float) -> None:
    rng = torch.Generator().manual_seed(0)
    shared = torch.arange(4).repeat(3000)
    first, second = MIXED.pairs(shared, gap, rng)
    a, b = MIXED(first), MIXED(second)
    assert torch.equal(a[:, 7:], b[:, 7:])
    blocks = [slice(0, 1), slice(1, 2), slice(2, 5), slice(5, 7)]
    for code, block in enumerate(blocks):
        mine = shared == code
        assert torch.equal(a[mine, block], b[mine, block])
        apart = (a[~mine, block] - b[~mine, block]).abs().amax(1)
        if code < 2:
            assert apart.min() >= gap - 1e-4
            if not gap:  # the difference of two uniform numbers has mean 2/3
                assert abs(float(apart.mean()) - 2 / 3) < 0.02
        else:
            size = block.stop - block.start
            expected = 1.0 if gap else 1 - 1 / size
            assert abs(float((apart > 0).float().mean()) - expected) < 0.02
    # without a gap, each latent alone has the prior of the codes
    if not gap:
        for value in (first, second):
            assert scipy.stats.kstest(MIXED(value)[:, 0].numpy(), "uniform", (-1, 2)).pvalue > 1e-3


def test_any_generator_gets_the_values_and_names_its_axes() -> None:
    net = as_generator(Echo())
    add_codes(net, MIXED)
    z = net.sample_latent(5, seed=0)
    assert torch.equal(net(z)[:, 0, 0], MIXED(z))
    again = copy.deepcopy(net)
    assert torch.equal(again(z), net(z))
    assert codes_of(again) == MIXED
    found = orthogan.native_directions(net)
    assert found.names == ("c1", "c2", "d1=0", "d1=1", "d1=2", "d2=0", "d2=1")
    assert np.array_equal(found.matrix, np.eye(7, 8, dtype=np.float32))
    assert codes_of(Echo()) is None


def test_a_family_with_axes_of_its_own_gets_those_of_its_codes() -> None:
    net = EigenGANGenerator(resolution=32, image_channels=1, channels=2, latent_dim=7, dims=2)
    plain = copy.deepcopy(net)
    add_codes(net, Codes(7, continuous=6))
    z = net.sample_latent(3, seed=1)
    assert torch.equal(net(z), plain(torch.cat([torch.erf(z[:, :6] / 2**0.5), z[:, 6:]], 1)))
    assert orthogan.native_directions(net).names == ("c1", "c2", "c3", "c4", "c5", "c6")
    assert net.state_dict().keys() == plain.state_dict().keys()


def test_a_mapping_network_gets_the_values_whoever_calls_it() -> None:
    net = StyleGAN2Generator(resolution=32, image_channels=1, channels=2, latent_dim=4).eval()
    z = net.sample_latent(2, seed=0)
    before = net.mapping(Codes(4, continuous=4)(z))
    add_codes(net, Codes(4, continuous=4))
    assert torch.equal(net.mapping(z), before)


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="9 coordinates of codes: z has 8"):
        Codes(8, continuous=9)
    with pytest.raises(ValueError, match="has latent_dim 8"):
        add_codes(as_generator(Echo()), Codes(6, continuous=2))
    assert CodesConfig().of(8) is None
    assert CodesConfig(continuous=1, categorical=[4]).of(8) == Codes(8, 1, (4,))


def test_codes_have_the_names_that_the_config_gives_them() -> None:
    section = CodesConfig(continuous=2, categorical=[3], names=["hair", "skin", "hat"])
    codes = section.of(8)
    assert codes is not None
    assert codes.names == ("hair", "skin", "hat=0", "hat=1", "hat=2")
    plain, named = EigenGANGenerator(resolution=32, image_channels=1, channels=2, latent_dim=8, dims=1), None
    add_codes(plain, Codes(8, continuous=2))
    named = copy.deepcopy(plain)
    name_codes(named, ["hair", "skin"])
    assert orthogan.native_directions(named).names == ("hair", "skin")
    assert orthogan.native_directions(plain).names == ("c1", "c2")
    z = plain.sample_latent(2, seed=0)
    assert torch.equal(named(z), plain(z))  # names change nothing else


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["hair"], "1 name for 2 codes"),
        (["hair", "hair"], "the same name"),
        (["a,b", "c"], "pattern"),
        (["", "c"], "1 character"),
    ],
)
def test_names_that_do_not_fit_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CodesConfig(continuous=2, names=names)


def test_only_codes_can_be_named() -> None:
    with pytest.raises(ValueError, match="no latent codes"):
        name_codes(as_generator(Echo()), ["hair"])
