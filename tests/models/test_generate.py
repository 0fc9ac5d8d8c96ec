"""Truncation is the normal truncated at the stated threshold, a function of z alone; the hash is of the weights."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from orthogan.errors import UserError
from orthogan.models.generate import model_hash, threshold, truncate


def test_one_is_the_latent_itself_and_zero_the_mode() -> None:
    z = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    assert truncate(z, 1.0) is z
    assert torch.equal(truncate(z, 0.0).abs(), torch.zeros(4, 5))


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9, 0.999])
def test_distribution_is_the_truncated_normal(share: float) -> None:
    z = torch.randn(20_000, generator=torch.Generator().manual_seed(1))
    bound = threshold(share)
    assert bound == pytest.approx(stats.norm.ppf((1 + share) / 2), rel=1e-9)
    out = truncate(z, share)
    assert out.dtype == torch.float32
    assert float(out.abs().max()) <= bound * (1 + 1e-6)
    assert stats.kstest(out.double().numpy(), stats.truncnorm(-bound, bound).cdf).pvalue > 1e-3


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.floats(-9, 9, width=32), min_size=1, max_size=8).map(lambda v: sorted(set(v))),
    st.floats(0.01, 0.999),
)
def test_odd_monotone_and_inward(values: list[float], share: float) -> None:
    z = torch.tensor(values, dtype=torch.float64)
    out = truncate(z, share)
    assert torch.equal(truncate(-z, share), -out)
    assert bool((out.diff() >= 0).all())
    assert bool((out.abs() <= z.abs() * (1 + 1e-9)).all())
    for i, value in enumerate(values):  # no entry sees another
        assert float(truncate(torch.tensor([value], dtype=torch.float64), share)) == float(out[i])


def test_matches_the_formula_in_scipy() -> None:
    z = torch.linspace(-4, 4, 41, dtype=torch.float64)
    expected = stats.norm.ppf(0.5 + 0.7 * (stats.norm.cdf(z.numpy()) - 0.5))
    assert truncate(z, 0.7).numpy() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("share", [-0.1, 1.5, math.nan])
def test_out_of_range_is_refused(share: float) -> None:
    for call in (lambda: truncate(torch.zeros(1), share), lambda: threshold(share)):
        with pytest.raises(UserError, match="truncation="):
            call()
    assert threshold(1.0) == math.inf


def test_hash_follows_every_bit_of_the_weights_and_nothing_else() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 4).to(torch.bfloat16))
    first = model_hash(net)
    assert len(first) == 64
    assert model_hash(net.to(memory_format=torch.channels_last)) == first
    assert model_hash(nn.ModuleDict({"wrapped": net})) == first
    net.eval()
    assert model_hash(net) == first
    with torch.no_grad():
        net[1].num_batches_tracked += 1
    changed = model_hash(net)
    assert changed != first
    with torch.no_grad():
        net[2].weight[0, 0] = -net[2].weight[0, 0]
    assert model_hash(net) not in (first, changed)
    counter, shape = nn.Module(), nn.Module()
    hashes = set()
    for value in (2**60, 2**60 + 1):  # the same number in float32 and float64
        counter.register_buffer("steps", torch.tensor(value))
        hashes.add(model_hash(counter))
    for size in ((2, 3), (3, 2)):
        shape.register_buffer("w", torch.zeros(size))
        hashes.add(model_hash(shape))
    assert len(hashes) == 4
