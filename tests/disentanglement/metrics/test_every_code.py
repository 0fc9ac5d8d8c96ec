"""No size of the codes overflows, and codes and factors may be tensors of any kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from orthogan import disentanglement as metrics
from orthogan.disentanglement import Score
from tests.fixtures import toy

N = 600
FACTORS = toy.factors(N, count=3, size=3)
RNG = np.random.default_rng(1)
CODES = np.hstack([FACTORS @ RNG.normal(size=(3, 3)), FACTORS]) + 0.3 * RNG.normal(size=(N, 6))


def of_source(function: Callable[..., Score], scale: float, **options: Any) -> Score:
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), -1).reshape(-1, 3)
    observations = grid @ np.random.default_rng(0).normal(size=(3, 4)) + grid[:, [0, 1, 2, 0]]
    source = metrics.GridSource(grid, observations)
    return function(source, lambda x: x * scale, batch=8, **options)


VOTES = {"variance_samples": 200, "train_votes": 100, "test_votes": 50}
POINTS = {"train_points": 100, "test_points": 50}
# of codes and factors: every metric of arrays that does not depend on the scale
ARRAYS: dict[str, Callable[[Any, Any], Score]] = {
    "mig": lambda x, y: metrics.mig(x, y, max_bias=1),
    "modularity": lambda x, y: metrics.modularity(x, y, max_bias=1),
    "dci gbt": lambda x, y: metrics.dci(x, y, estimators=3),
    "dci forest": lambda x, y: metrics.dci(x, y, classifier="random_forest", estimators=3),
    "dci lasso": lambda x, y: metrics.dci(x, y, classifier="lasso"),
    "sap standardised": lambda x, y: metrics.sap(x, y, standardise=True),
    "sap correlation": metrics.sap_correlation,
    "explicitness": metrics.explicitness,
    "irs": metrics.irs,
    "jemmig": lambda x, y: metrics.jemmig(x, y, max_bias=1),
    "dci-mig": lambda x, y: metrics.dci_mig(x, y, max_bias=1),
    "z-min": lambda x, y: metrics.z_min(x, y, train_votes=60, test_votes=60, batch=20),
    "infom": metrics.infom,
    "infoe": metrics.infoe,
    "total correlation": lambda x, y: metrics.gaussian_total_correlation(x),
    "pairwise": lambda x, y: metrics.mean_pairwise_mutual_information(x, max_bias=1),
}
SCALED: dict[str, Callable[[float], Score]] = {
    **{name: (lambda c, of=of: of(CODES * c, FACTORS)) for name, of in ARRAYS.items()},
    "factor_vae": lambda c: of_source(metrics.factor_vae, c, **VOTES),
    "beta_vae": lambda c: of_source(metrics.beta_vae, c, standardise=True, **POINTS),
}


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("scale", [2.0**-1000, 1e-100, 1e-30, -1e-3, 1e30, 1e100, 2.0**1000])
def test_the_score_is_the_same_at_every_scale(name: str, scale: float) -> None:
    with np.errstate(all="raise", under="ignore"):
        plain, found = SCALED[name](1.0), SCALED[name](scale)
    assert np.isfinite(plain.value)
    if np.frexp(scale)[0] == 0.5:
        assert found.value == plain.value  # a power of two only moves the exponents
    # bins and trees are not symmetric under a change of sign, and a rounded code may fall into the next bin
    assert found.value == pytest.approx(plain.value, abs=0.05 if scale < 0 else 2e-3)


def test_the_wasserstein_correlation_grows_with_the_square_of_the_scale() -> None:
    plain, large = (metrics.gaussian_wasserstein_correlation(CODES * c) for c in (1.0, 2.0**400))
    assert large.value == plain.value * 2.0**800
    assert large.details["normalised"] == plain.details["normalised"]


@pytest.mark.parametrize("scale", [1e4, 1e20, 1e100, 1e300])
def test_raw_scores_of_large_codes_are_those_of_the_limit(scale: float) -> None:
    """The penalty on the slope fades as codes grow; the solver used to fail there, or not to end."""
    limit, found = (metrics.sap(CODES * c, FACTORS).details["accuracy"] for c in (1000.0, scale))
    np.testing.assert_allclose(found, limit, atol=0.05)  # 10 of 200 test rows
    limit, found = (of_source(metrics.beta_vae, c, **POINTS).value for c in (300.0, scale))
    assert found == pytest.approx(limit, abs=0.1)


def test_raw_scores_of_tiny_codes_are_chance() -> None:
    assert metrics.sap(CODES * 1e-100, FACTORS).details["accuracy"].max() < 0.45


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_tensors_and_lists_are_taken(name: str, dtype: str) -> None:
    given = torch.from_numpy(CODES).to(getattr(torch, dtype))
    plain = given.double().numpy()
    expected = ARRAYS[name](plain, FACTORS).value
    assert ARRAYS[name](given.requires_grad_(), torch.from_numpy(FACTORS)).value == expected
    assert ARRAYS[name](plain.tolist(), FACTORS.tolist()).value == expected


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", [name for name in ARRAYS if name not in ("total correlation", "pairwise")])
def test_factors_that_are_not_finite_are_refused(name: str, bad: float) -> None:
    factors = FACTORS.astype(float)
    factors[:2, 1] = bad
    with pytest.raises(ValueError, match=r"factors \[1\] contain NaN or infinite"):
        ARRAYS[name](CODES, factors)


@pytest.mark.parametrize("codes", [CODES.astype(complex), np.full((N, 3), "1"), CODES.astype("datetime64[s]"), None])
@pytest.mark.parametrize("name", ARRAYS)
def test_codes_that_are_no_numbers_are_refused(name: str, codes: Any) -> None:
    with pytest.raises(ValueError, match="codes must be numbers"):
        ARRAYS[name](codes, FACTORS)


@pytest.mark.parametrize("name", [name for name in ARRAYS if name not in ("total correlation", "pairwise")])
def test_masks_of_missing_values_are_not_ignored(name: str) -> None:
    masked = np.ma.masked_array(CODES, np.quantile(CODES, 0.9) < CODES)
    with pytest.raises(ValueError, match="masked array with missing values"):
        ARRAYS[name](masked, FACTORS)
    with pytest.raises(ValueError, match="masked array with missing values"):
        ARRAYS[name](CODES, np.ma.masked_array(FACTORS, FACTORS == 1))
    assert ARRAYS[name](np.ma.masked_array(CODES), FACTORS).value == ARRAYS[name](CODES, FACTORS).value


@pytest.mark.parametrize("name", [name for name in ARRAYS if name not in ("total correlation", "pairwise")])
def test_factors_count_by_their_differences_however_large_they_are(name: str) -> None:
    expected = ARRAYS[name](CODES, FACTORS).value
    for start, dtype in ((-(2**62), np.int64), (2**62, np.int64), (2**63, np.uint64)):
        shifted = FACTORS.astype(dtype) + dtype(start)
        assert ARRAYS[name](CODES, shifted).value == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", ARRAYS)
def test_codes_of_very_different_scales_give_a_number(name: str) -> None:
    assert np.isfinite(ARRAYS[name](CODES * np.resize([1e-200, 1.0, 1e200], CODES.shape[1]), FACTORS).value)


@pytest.mark.parametrize("bias", [np.nan, 0.0, -1.0])
@pytest.mark.parametrize("metric", [metrics.mig, metrics.modularity])
def test_the_allowed_bias_is_a_share_above_0(metric: Any, bias: float) -> None:
    with pytest.raises(ValueError, match="max_bias"):
        metric(CODES, FACTORS, max_bias=bias)
