"""Nearest neighbors against all pairs of distances in float64."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from orthogan.evaluation.fidelity.authenticity import authenticity
from orthogan.evaluation.fidelity.density_coverage import density_coverage
from orthogan.evaluation.fidelity.neighbors import nearest


@pytest.mark.parametrize(("scale", "offset"), [(255.0, 0.0), (1.0, 100.0), (0.6, 0.0)])
def test_copies_are_found_among_pictures_that_are_nearly_equal(scale: float, offset: float) -> None:
    """Three versions of each picture, such as the same photograph saved again; fakes are copies of one of them."""
    rng = torch.Generator().manual_seed(0)
    base = functional.interpolate(torch.rand(40, 3, 4, 4, generator=rng), 24, mode="bilinear").flatten(1)
    again = [base + torch.randn(base.shape, generator=rng) * 1e-4 for _ in range(2)]
    training = torch.cat([base, *again]) * scale + offset
    chosen = torch.randperm(len(training), generator=rng)[:60]
    generated = training[chosen].clone()
    generated[::3] += 0.5 * scale
    pairs = (generated.double()[:, None] - training.double()).square().sum(2).sqrt()
    distances, indices = nearest(generated, training, 4)
    expected = pairs.topk(4, largest=False)
    torch.testing.assert_close(distances, expected.values)
    assert torch.equal(indices, expected.indices)
    value, closest = authenticity(generated, training)
    assert int((closest == 0).sum()) == 40
    own = (training.double()[:, None] - training.double()).square().sum(2).sqrt().fill_diagonal_(torch.inf)
    first = pairs.min(1)
    assert value == pytest.approx(float((first.values > own.min(1).values[first.indices]).double().mean()))


@pytest.mark.parametrize("chunk", [2000, 23])
@pytest.mark.parametrize("kind", ["near", "offset", "equal"])
def test_density_and_coverage_of_features_that_are_nearly_equal(
    kind: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orthogan.evaluation.fidelity.neighbors.CHUNK", chunk)
    rng = torch.Generator().manual_seed(0)
    reals, fakes = (torch.randn(n, 64, generator=rng) for n in (60, 50))
    if kind == "near":  # small differences between large feature vectors
        base = 3 * torch.rand(1, 64, generator=rng)
        reals, fakes = base + 1e-5 * reals, base + 1e-5 * fakes
    elif kind == "offset":
        reals, fakes = 50 + 0.01 * reals, 50 + 0.01 * fakes
    else:
        reals = fakes = reals[:1].repeat(60, 1)
    x, y = reals.double(), fakes.double()
    own, across = ((x[:, None] - side).square().sum(2).sqrt() for side in (x, y))
    inside = across < own.sort(1).values[:, 5:6]
    found = density_coverage(fakes, reals)
    assert found["density"] == pytest.approx(float(inside.sum()) / (5 * len(y)))
    assert found["coverage"] == pytest.approx(float(inside.any(1).double().mean()))
