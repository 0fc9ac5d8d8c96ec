"""Moments, distances and references against numpy, scipy and closed forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from orthogan.errors import UserError
from orthogan.evaluation import evaluate
from orthogan.evaluation.extractors.extractor import load_extractor
from orthogan.evaluation.fidelity.frechet import frechet_distance
from orthogan.evaluation.fidelity.reference import reference_of
from orthogan.evaluation.fidelity.statistics import Gaussian, Moments, load_gaussian, save_gaussian
from tests.fixtures.scored import EXTRACTOR, Patches, source


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(1, 5), st.integers(0, 10**6), st.floats(0, 1e6))
@settings(deadline=None)
def test_streamed_moments_are_numpys(sizes: list[int], d: int, seed: int, offset: float) -> None:
    if sum(sizes) < 2:
        sizes = [*sizes, 1]
    x = np.random.default_rng(seed).standard_normal((sum(sizes), d)) + offset
    moments = Moments()
    for part in np.split(x, np.cumsum(sizes)[:-1]):
        moments.add(torch.from_numpy(part))
    found = moments.gaussian()
    np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(found.covariance, np.cov(x, rowvar=False).reshape(d, d), rtol=1e-6, atol=1e-9)
    assert found.count == len(x)


def test_float32_features_far_from_zero_do_not_cancel() -> None:
    x = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0)) + 1000
    moments = Moments()
    for part in x.split(100):
        moments.add(part)
    np.testing.assert_allclose(moments.gaussian().covariance, np.cov(x.double().numpy(), rowvar=False), rtol=1e-9)


def test_moments_refuse_what_has_no_covariance() -> None:
    moments = Moments()
    moments.add(torch.zeros(1, 2))
    with pytest.raises(UserError, match="at least 2"):
        moments.gaussian()
    moments.add(torch.tensor([[float("nan"), 0.0]]))
    with pytest.raises(UserError, match="NaN"):
        moments.gaussian()


def random_gaussian(seed: int, d: int = 5) -> Gaussian:
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((d, d + 3))
    return Gaussian(rng.standard_normal(d), root @ root.T, 100)


def test_frechet_of_diagonal_gaussians_is_the_closed_form() -> None:
    a = Gaussian(np.array([1.0, 2.0]), np.diag([4.0, 9.0]), 10)
    b = Gaussian(np.array([0.0, 4.0]), np.diag([1.0, 16.0]), 10)
    assert frechet_distance(a, b) == pytest.approx(1 + 4 + (2 - 1) ** 2 + (3 - 4) ** 2, rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_frechet_is_scipys_matrix_square_root(seed: int) -> None:
    a, b = random_gaussian(seed), random_gaussian(seed + 100)
    root = np.real(scipy.linalg.sqrtm(a.covariance @ b.covariance))
    expected = ((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance + b.covariance - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-8)


def test_frechet_survives_rank_deficient_covariances() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((4, 10)), rng.standard_normal((4, 10)) + 1
    a, b = (Gaussian(z.mean(0), np.cov(z, rowvar=False), 4) for z in (x, y))
    assert np.isfinite(frechet_distance(a, b))
    assert frechet_distance(a, b) > 0
    with pytest.raises(UserError, match="another extractor"):
        frechet_distance(a, random_gaussian(0))


def test_statistics_files_round_trip_and_npz_of_other_tools(tmp_path: Path) -> None:
    gaussian = random_gaussian(1)
    save_gaussian(tmp_path / "a.safetensors", gaussian, {"extractor": "x"})
    again, metadata = load_gaussian(tmp_path / "a.safetensors")
    assert np.array_equal(again.mean, gaussian.mean)
    assert np.array_equal(again.covariance, gaussian.covariance)
    assert (again.count, metadata) == (100, {"extractor": "x"})
    np.savez(tmp_path / "b.npz", mu=gaussian.mean.astype(np.float32), sigma=gaussian.covariance)
    other, metadata = load_gaussian(tmp_path / "b.npz")
    np.testing.assert_allclose(other.mean, gaussian.mean, rtol=1e-6)
    assert metadata == {}


def test_files_that_are_no_statistics(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_gaussian(tmp_path / "absent.npz")
    (tmp_path / "junk.npz").write_bytes(b"junk")
    with pytest.raises(UserError, match=r"junk\.npz"):
        load_gaussian(tmp_path / "junk.npz")
    np.savez(tmp_path / "object.npz", mu=np.array([{}], dtype=object), sigma=np.eye(1))
    with pytest.raises(UserError, match=r"object\.npz"):
        load_gaussian(tmp_path / "object.npz")
    np.savez(tmp_path / "shape.npz", mu=np.zeros(3), sigma=np.eye(2))
    with pytest.raises(UserError, match="do not match"):
        load_gaussian(tmp_path / "shape.npz")
    np.savez(tmp_path / "nan.npz", mu=np.array([np.nan]), sigma=np.eye(1))
    with pytest.raises(UserError, match="NaN"):
        load_gaussian(tmp_path / "nan.npz")
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    with pytest.raises(UserError, match="not a safetensors file"):
        load_gaussian(tmp_path / "junk.safetensors")


def test_references_are_computed_once_and_anew_when_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ORTHOGAN_CACHE", str(tmp_path))
    extractor = load_extractor(EXTRACTOR)
    reads = []

    def reference(seed: int = 0, samples: int | None = None, keep: bool = False) -> np.ndarray:
        images = source(seed=seed)
        original = images.read
        monkeypatch.setattr(images, "read", lambda indices: (reads.append(len(indices)), original(indices))[1])
        return reference_of(
            images,
            extractor,
            samples=samples,
            keep=np.arange(64 if samples is None else samples) if keep else None,
            device=torch.device("cpu"),
            batch_size=32,
            progress=False,
        ).features.gaussian.mean

    first = reference()
    count = len(reads)
    assert np.array_equal(reference(), first)
    assert len(reads) == count  # from the cache
    assert not np.array_equal(reference(seed=1), first)
    assert not np.array_equal(reference(samples=10), first)
    count = len(reads)
    reference(keep=True)
    assert len(reads) > count  # statistics alone are not enough for the neighbours
    count = len(reads)
    reference(keep=True)
    assert len(reads) == count
    for file in tmp_path.glob("*.safetensors"):
        file.write_bytes(b"damaged")
    assert np.array_equal(reference(), first)
    assert "computing the features of the reference again, " in capsys.readouterr().err


def test_a_saved_reference_serves_its_own_extractor_only(tmp_path: Path) -> None:
    file = tmp_path / "r.safetensors"
    options = {"samples": 32, "progress": False}
    (first,) = evaluate(Patches(), source(), extractor=EXTRACTOR, save_reference_to=file, **options)
    (second,) = evaluate(Patches(), file, extractor=EXTRACTOR, **options)
    assert second.value == pytest.approx(first.value, rel=1e-12)
    with pytest.raises(UserError, match="made with extractor 'Moments'"):
        evaluate(Patches(), file, extractor="tests.fixtures.scored:Classifying", **options)
