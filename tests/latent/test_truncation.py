"""Truncation is the normal truncated at the stated threshold, a function of z alone."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from orthogan.errors import UserError
from orthogan.latent.truncation import threshold, truncate


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
