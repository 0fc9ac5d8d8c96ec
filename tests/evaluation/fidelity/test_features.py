"""Streamed metrics: torch-fidelity's numbers from a part of the features, whatever the batches were."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from orthogan.errors import UserError
from orthogan.evaluation import evaluate
from orthogan.evaluation.extractors.extractor import Extractor
from orthogan.evaluation.fidelity import kid, neighbors, precision_recall, statistics
from orthogan.evaluation.fidelity.features import Features, extract
from orthogan.evaluation.fidelity.inception_score import InceptionScore
from orthogan.evaluation.fidelity.kid import Subsets, kernel_distance
from orthogan.evaluation.fidelity.reference import reference_of
from orthogan.evaluation.fidelity.statistics import Gaussian, Moments
from tests.fixtures.scored import Classifying, Patches, source

CPU = torch.device("cpu")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def streamed(x: Tensor, batch: int) -> Gaussian:
    moments = Moments()
    for part in x.split(batch):
        moments.add(part)
    return moments.gaussian()


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([0.0, 1.0, 1e4]))
@settings(deadline=None, max_examples=30)
def test_batches_leave_no_trace_in_the_moments(a: int, b: int, offset: float) -> None:
    x = normal(250, 5) + offset
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "BLOCK", 64)
        one, other = streamed(x, a), streamed(x, b)
    assert np.array_equal(one.mean, other.mean)
    assert np.array_equal(one.covariance, other.covariance)
    np.testing.assert_allclose(one.mean, x.double().numpy().mean(0), rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(one.covariance, np.cov(x.double().numpy(), rowvar=False), rtol=1e-11, atol=1e-11)


def test_features_a_billion_from_zero_keep_their_covariance() -> None:
    x = np.random.default_rng(0).standard_normal((3000, 3)) + 1e9
    x = np.round(x * 2**20) / 2**20  # of which float64 holds differences exactly
    found = streamed(torch.from_numpy(x), 100)
    np.testing.assert_allclose(found.covariance, np.cov(x - x[0], rowvar=False), rtol=1e-6, atol=1e-6)


def test_moments_go_on_after_they_were_read() -> None:
    x = normal(90, 4)
    moments = Moments()
    moments.add(x[:40])
    early = moments.gaussian()
    kept = early.mean.copy()
    moments.add(x[40:])
    np.testing.assert_allclose(moments.gaussian().covariance, np.cov(x.double().numpy(), rowvar=False), rtol=1e-9)
    assert np.array_equal(early.mean, kept)


@pytest.mark.parametrize(("images", "batch"), [(10, 3), (57, 57), (1003, 64)])
@pytest.mark.parametrize("sharpness", [1.0, 30.0])
def test_inception_score_is_torch_fidelitys(images: int, batch: int, sharpness: float) -> None:
    logits = normal(images, 11) * sharpness
    running = InceptionScore(images)
    for start in range(0, images, batch):
        running.add(logits[start : start + batch], start)
    mean, std = running.result()
    theirs = isc_features_to_metric(logits, 10, shuffle=True, rng_seed=2020)
    assert mean == pytest.approx(theirs["inception_score_mean"], rel=1e-12)
    assert std == pytest.approx(theirs["inception_score_std"], rel=1e-9, abs=1e-12)


def test_a_class_that_no_image_can_have_is_no_nan() -> None:
    running = InceptionScore(10)
    running.add(torch.tensor([[0.0, -1e4]]).expand(10, 2), 0)
    assert running.result() == (1.0, 0.0)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """KID of few and small subsets: most images are in none."""
    monkeypatch.setattr(kid, "SUBSETS", 4)
    monkeypatch.setattr(kid, "SUBSET_SIZE", 6)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("fakes", "reals"), [(300, 200), (6, 500), (200, 300)])
def test_kid_of_the_rows_it_asks_for_is_torch_fidelitys_of_all(fakes: int, reals: int) -> None:
    a, b = normal(fakes, 9), normal(reals, 9, seed=1) + 0.3
    subsets = Subsets.of(fakes, reals)
    few = [np.unique(side) for side in (subsets.generated, subsets.reference)]
    assert max(len(rows) for rows in few) <= 24
    found = kernel_distance(subsets, (few[0], a[few[0]]), (few[1], b[few[1]]))
    theirs = kid_features_to_metric(a, b, kid_subsets=4, kid_subset_size=6, rng_seed=2020, verbose=False)
    assert found == (theirs["kernel_inception_distance_mean"], theirs["kernel_inception_distance_std"])
    with pytest.raises(UserError, match="subsets of 6"):
        Subsets.of(5, 300)


def linear() -> Extractor:
    net = Classifying()
    return Extractor("linear", "none", "none", net, lambda net, x: net(x))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_only_chosen_rows_are_kept(batch: int) -> None:
    images = torch.from_numpy(source().read(np.arange(64))[0])
    keep = np.array([0, 5, 6, 20, 63])
    options = {"device": CPU, "total": 64, "what": "", "progress": False}
    found = extract(images.split(batch), linear(), keep=keep, **options)
    assert found.rows is not None
    assert np.array_equal(found.numbers, keep)
    torch.testing.assert_close(found.rows, linear()(images)[0][torch.from_numpy(keep)], rtol=1e-5, atol=1e-6)
    assert extract(images.split(batch), linear(), keep=None, **options).rows is None


@pytest.mark.usefixtures("small")
def test_kid_keeps_few_rows_of_many_images_and_a_whole_reference_serves_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORTHOGAN_CACHE", str(tmp_path))
    seen: list[Features] = []

    def spying(*args: object, **options: object) -> Features:
        seen.append(extract(*args, **options))
        return seen[-1]

    for module in ("measure", "fidelity.reference"):
        monkeypatch.setattr(sys.modules[f"orthogan.evaluation.{module}"], "extract", spying)
    options = {"samples": 90, "extractor": "tests.fixtures.scored:Classifying", "progress": False}
    (few,) = evaluate(Patches(), source(70), metrics=["kid"], **options)
    assert [len(found.rows) <= 24 for found in seen if found.rows is not None] == [True, True]
    (again,) = evaluate(Patches(), source(70), metrics=["kid"], **options)
    assert len(seen) == 3  # the part of the reference came from the cache
    both = evaluate(Patches(), source(70), metrics=["prc", "kid"], **options)
    assert [len(found.rows) for found in seen[3:] if found.rows is not None] == [70, 90]
    (whole,) = evaluate(Patches(), source(70), metrics=["kid"], **options)
    assert len(seen) == 6  # the whole reference of prc serves kid
    for other in (again, both[1], whole):
        assert (other.value, other.std) == pytest.approx((few.value, few.std), rel=1e-6)


def test_a_part_of_a_reference_is_not_taken_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORTHOGAN_CACHE", str(tmp_path))
    options = {"samples": None, "device": CPU, "batch_size": 16, "progress": False}
    for keep in (np.array([1, 2]), np.array([1, 3]), np.arange(64), np.array([2, 60])):
        found = reference_of(source(), linear(), keep=keep, **options).features.rows
        images = torch.from_numpy(source().read(keep)[0])
        assert found is not None
        torch.testing.assert_close(found, linear()(images)[0], rtol=1e-5, atol=1e-6)


def integers(rows: int, seed: int) -> Tensor:
    """Of which float32 distances are exact, and many of them equal."""
    return torch.randint(0, 3, (rows, 4), generator=torch.Generator().manual_seed(seed)).float()


@pytest.mark.parametrize("chunk", [2, 5, 7, 1000])
@pytest.mark.parametrize("tied", [False, True])
def test_precision_and_recall_are_torch_fidelitys_also_in_ties(
    chunk: int, tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbors, "CHUNK", chunk)
    for rows in ((60, 45), (4, 33), (31, 4)):
        a, b = (integers(n, s) if tied else normal(n, 4, seed=s) for s, n in enumerate(rows))
        found = precision_recall.precision_recall(a, b)
        theirs = prc_features_to_metric(
            a, b, prc_neighborhood=3, prc_batch_size=chunk, save_cpu_ram=False, verbose=False
        )
        assert found == theirs


def test_a_point_on_the_rim_is_inside() -> None:
    # balls of radius 3 around 0..3 on a line; 6 is on the rim of 3's, 6.5 is not
    line = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    for place, inside in ((6.0, 0.25), (6.5, 0.0)):
        other = torch.tensor([[place], [100.0], [200.0], [300.0]])
        assert precision_recall.precision_recall(other, line)["precision"] == inside
