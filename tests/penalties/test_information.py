"""The loss and the bound of InfoGAN against distributions of scipy and known mutual information."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch

from orthogan.penalties import code_losses, information_bound


def test_losses_are_those_of_a_normal_and_a_softmax() -> None:
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(50, 7))
    values = np.concatenate(
        [rng.uniform(-1, 1, (50, 2)), np.eye(3)[rng.integers(3, size=50)], rng.normal(size=(50, 4))], 1
    )
    found = code_losses(torch.from_numpy(outputs), torch.from_numpy(values), continuous=2, categorical=(3,)).numpy()
    normal = -scipy.stats.norm.logpdf(values[:, :2], outputs[:, :2]).mean(0)
    logits = outputs[:, 2:5] - np.log(np.exp(outputs[:, 2:5]).sum(1, keepdims=True))
    np.testing.assert_allclose(found, [*normal, -(logits * values[:, 2:5]).sum(1).mean()], rtol=1e-6)


def test_the_bound_is_tight_for_a_gaussian_channel() -> None:
    """For code and noise both normal, I = log(1 + signal / noise) / 2, and the best output is the shrunk image."""
    rng = np.random.default_rng(1)
    code, noise = rng.normal(size=100_000), rng.normal(size=100_000)
    for level in (0.1, 1.0):
        best = (code + level * noise) / (1 + level**2)
        found = information_bound(
            torch.from_numpy(best)[:, None], torch.from_numpy(code)[:, None], continuous=1, uniform=False
        )
        assert abs(float(found) - 0.5 * math.log(1 + 1 / level**2)) < 0.01


def test_nothing_known_is_nothing_and_a_known_category_is_its_entropy() -> None:
    code = torch.linspace(-1, 1, 10_001)[:, None]
    blind = information_bound(torch.zeros_like(code), code, continuous=1)
    # the entropy of a uniform code, below that of a normal one of the same variance
    assert abs(float(blind) - (math.log(2) - 0.5 * math.log(2 * math.pi * math.e / 3))) < 1e-3
    category = torch.eye(4).repeat(3, 1)
    sure, unsure = (
        information_bound(scale * category, category, continuous=0, categorical=(4,)) for scale in (100.0, 0.0)
    )
    assert abs(float(sure) - math.log(4)) < 1e-6
    assert abs(float(unsure)) < 1e-6


@pytest.mark.parametrize("n", [1, 2, 3, 8, 1000])
@pytest.mark.parametrize("uniform", [True, False])
def test_a_few_images_do_not_raise_the_bound(n: int, uniform: bool) -> None:
    """Outputs that tell nothing: 0 for a normal code on average; for a uniform one at most that of many images."""
    rng = np.random.default_rng(n)
    draws = rng.uniform(-1, 1, (4000, n, 1)) if uniform else rng.normal(size=(4000, n, 1))
    found = [
        float(information_bound(torch.zeros(n, 1), torch.from_numpy(one), continuous=1, uniform=uniform))
        for one in draws
    ]
    mean, error = np.mean(found), np.std(found) / math.sqrt(len(found))
    if uniform:
        assert mean < math.log(2) - 0.5 * math.log(2 * math.pi * math.e / 3) + 4 * error
    else:
        assert abs(mean) < 4 * error
