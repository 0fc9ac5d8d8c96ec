"""Metrics of features equal independent re-derivations, written from the papers with plain numpy and scipy."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import sqrtm
from scipy.stats import mannwhitneyu
from torch import nn

from orthogan.data import ArraySource
from orthogan.errors import UserError
from orthogan.evaluation import METRICS, Incomplete, evaluate
from orthogan.evaluation.extractors import extractor as extractors
from orthogan.evaluation.fidelity import neighbors
from orthogan.evaluation.fidelity.authenticity import authenticity
from orthogan.evaluation.fidelity.class_fid import class_frechet_distances
from orthogan.evaluation.fidelity.data_copying import data_copying
from orthogan.evaluation.fidelity.density_coverage import density_coverage
from orthogan.evaluation.fidelity.fid_infinity import fid_infinity
from orthogan.evaluation.fidelity.kid_full import full_kernel_distance
from orthogan.evaluation.fidelity.mmd import gaussian_mmd
from orthogan.evaluation.fidelity.statistics import Gaussian
from orthogan.models.protocol import Generator

rng = np.random.default_rng(3)
FAKES = (rng.normal(size=(61, 5)) - 0.7).astype(np.float32)
REALS = (rng.normal(size=(47, 5)) * 1.3 + 0.2).astype(np.float32)
EXTRACTOR = "tests.fixtures.extractor:Moments"


@pytest.fixture(params=[7, 2000])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors, "CHUNK", request.param)


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sqrt(((a[:, None].astype(np.float64) - b[None]) ** 2).sum(2))


def tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(array) for array in arrays]


def gaussian(rows: np.ndarray) -> Gaussian:
    return Gaussian(rows.mean(0), np.cov(rows.T), len(rows))


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    (c1, c2), apart = (np.cov(x.T.astype(np.float64)) for x in (a, b)), a.mean(0, dtype=float) - b.mean(0, dtype=float)
    return float(apart @ apart + np.trace(c1 + c2 - 2 * sqrtm(c1 @ c2).real))


@pytest.mark.usefixtures("chunk")
def test_density_and_coverage() -> None:
    balls = np.sort(distances(REALS, REALS), 1)[:, 5]
    inside = distances(REALS, FAKES) < balls[:, None]
    found = density_coverage(*tensors(FAKES, REALS))
    assert found["density"] == pytest.approx(inside.sum() / (5 * len(FAKES)), abs=1e-9)
    assert found["coverage"] == pytest.approx(inside.any(1).mean(), abs=1e-9)
    assert 0.1 < found["coverage"] < 1


@pytest.mark.usefixtures("chunk")
def test_mmd_and_kid_of_all_images() -> None:
    def gauss(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.exp(-(distances(a, b) ** 2) / 200)

    expected = 1000 * (gauss(FAKES, FAKES).mean() + gauss(REALS, REALS).mean() - 2 * gauss(FAKES, REALS).mean())
    assert gaussian_mmd(*tensors(FAKES, REALS)) == pytest.approx(expected, rel=1e-9)

    def cubic(a: np.ndarray, b: np.ndarray) -> float:
        return float((a.astype(np.float64) @ b / 5 + 1) ** 3)

    def within(x: np.ndarray) -> float:
        return float(np.mean([cubic(x[i], x[j]) for i, j in itertools.permutations(range(len(x)), 2)]))

    cross = np.mean([cubic(a, b) for a in FAKES for b in REALS])
    assert full_kernel_distance(*tensors(FAKES, REALS)) == pytest.approx(within(FAKES) + within(REALS) - 2 * cross)


def test_the_subsets_of_kid_estimate_the_same_as_all_images() -> None:
    from torch_fidelity.metric_kid import kernel_mmd

    n = min(len(FAKES), len(REALS))
    theirs = kernel_mmd(FAKES[:n].astype(float), REALS[:n].astype(float))
    assert full_kernel_distance(*tensors(FAKES[:n], REALS[:n])) == pytest.approx(float(theirs), rel=1e-6)


@pytest.mark.usefixtures("chunk")
def test_authenticity_and_copies() -> None:
    fakes = np.concatenate([FAKES, REALS[3:4]])
    near, apart = distances(fakes, REALS), distances(REALS, REALS)
    np.fill_diagonal(apart, np.inf)
    expected = np.mean([row.min() > apart[row.argmin()].min() for row in near])
    share, closest = authenticity(*tensors(fakes, REALS))
    assert share == pytest.approx(expected)
    assert 0 < share < 1
    assert closest[-1] == 0
    np.testing.assert_allclose(closest, near.min(1), rtol=1e-6, atol=1e-12)


def test_data_copying() -> None:
    generator = np.random.default_rng(0)
    train, held, own = (generator.normal(size=(n, 3)) + 9 * (np.arange(n) % 3)[:, None] for n in (300, 200, 250))
    copies = train[:250] + 0.01 * generator.normal(size=(250, 3))
    for fakes in (own, copies, own[np.arange(250) % 3 < 2], own + 0.5):
        scores, shares = [], []
        for cell in range(3):  # the clusters are 9 apart, so k-means finds them
            q, t, p = (x[np.abs(x.mean(1) - 9 * cell) < 4.5] for x in (fakes, train, held))
            if len(q) > 20:
                u = mannwhitneyu(distances(q, t).min(1), distances(p, t).min(1)).statistic
                spread = np.sqrt(len(q) * len(p) * (len(q) + len(p) + 1) / 12)
                scores.append((u - len(q) * len(p) / 2 + 0.5) / spread)
                shares.append(len(p))
        found = data_copying(*tensors(fakes, train, held))
        assert found == pytest.approx(np.average(scores, weights=shares), rel=1e-9)
    assert data_copying(*tensors(copies, train, held)) < -8
    assert abs(data_copying(*tensors(own, train, held))) < 3
    with pytest.raises(UserError, match="more than 20 generated"):
        data_copying(*tensors(own[:30], train, held))


def test_frechet_distance_of_each_class() -> None:
    fakes, reals = np.arange(len(FAKES)) % 3, np.arange(len(REALS)) % 3
    found = class_frechet_distances(*tensors(FAKES), fakes, *tensors(REALS), reals, ["a", "b", "c"])
    for index, name in enumerate(found):
        assert found[name] == pytest.approx(frechet(FAKES[fakes == index], REALS[reals == index]), rel=1e-6)
    with pytest.raises(UserError, match=r"'c' has 0 generated"):
        class_frechet_distances(*tensors(FAKES), fakes % 2, *tensors(REALS), reals, ["a", "b", "c"])


@pytest.mark.parametrize("features", [4, 150])  # fewer and more than images
def test_fid_infinity_is_the_intercept(features: int) -> None:
    generator = np.random.default_rng(1)
    fakes, reals = generator.normal(size=(400, features)), generator.normal(size=(300, features)) * 1.2
    value, slope, whole = fid_infinity(torch.from_numpy(fakes), gaussian(reals), fewest=100, seed=5)
    assert whole == pytest.approx(frechet(fakes, reals), rel=1e-4)
    sizes = np.linspace(100, 400, 15).astype(int)
    from orthogan.rng import derive

    chosen = [np.random.default_rng(derive(5, "fid_infinity", k)).permutation(400)[:n] for k, n in enumerate(sizes)]
    if features == 4:
        line = np.polyfit(1 / sizes, [frechet(fakes[subset], reals) for subset in chosen], 1)
        assert (slope, value) == (pytest.approx(line[0], rel=1e-6), pytest.approx(line[1], rel=1e-6))
    assert slope > 0
    assert value < whole


def pictures(count: int, seed: int, **options: object) -> ArraySource:
    images = np.random.default_rng(seed).integers(0, 256, (count, 3, 16, 16)).astype(np.uint8)
    images[:, :, :8] //= np.arange(1, count + 1)[:, None, None, None].astype(np.uint8)
    return ArraySource(f"noise {seed}", images, **options)  # pyright: ignore[reportArgumentType]


class Conditional(Generator):
    latent_dim, num_classes = 4, 2

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(6, 3 * 64)

    def forward(self, z: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        assert y is not None
        return self.net(torch.cat([z, nn.functional.one_hot(y, 2)], 1)).tanh().unflatten(1, (3, 8, 8))


def test_the_scorecard_runs_what_it_can_and_names_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(extractors, "find_weights", lambda *_: None)
    labels = np.arange(120) % 2
    images = np.random.default_rng(2).integers(0, 256, (120, 3, 8, 8)).astype(np.uint8)
    reals = ArraySource("reals", images, labels=labels, class_names=["cat", "dog"])
    results = evaluate(
        Conditional(),
        reals,
        metrics="scorecard",
        samples=100,
        held_out=images[::-1] // 2,
        nearest=tmp_path / "nearest.png",
        extractor=EXTRACTOR,
        progress=False,
    )
    found = {result.metric: result for result in results}
    said = capsys.readouterr().err
    gone = {"cmmd": "ViT-L-14-336px.pt", "fd_dinov2": "dinov2_vitl14_pretrain.pth", "fd_clip": "ViT-B-32.pt", "isc": ""}
    assert set(found) == {name for name, metric in METRICS.items() if metric.in_scorecard} - set(gone)
    for metric, file in gone.items():
        assert f"not in this scorecard: {metric} could not be computed" in said
        assert file in said
    assert list(found["class_fid"].parts) == ["cat", "dog"]
    assert found["fid_infinity"].label == "FD-infinity[Moments,from 50]"
    whole = next(value for name, value in found["fid_infinity"].parts.items() if name.startswith("at"))
    assert whole == pytest.approx(found["fid"].value, rel=1e-6)
    picture = Image.open(tmp_path / "nearest.png")
    assert picture.width > 7 * 64


def test_nearest_images_are_those_that_were_scored(tmp_path: Path) -> None:
    """The picture shows the copies among the images of a generator, drawn a second time."""
    net = Conditional()
    from orthogan.evaluation.images import generate_images, images_at

    options = {"seed": 3, "truncation": 0.7, "device": torch.device("cpu")}
    whole = torch.cat(list(generate_images(net, 20, batch_size=6, **options)))
    numbers = np.array([17, 2, 2, 9])
    assert torch.equal(images_at(net, numbers, 20, **options), whole[numbers])


def test_metrics_refuse_what_they_cannot_measure() -> None:
    fakes, reals = pictures(30, 0), pictures(30, 1)
    for metric, message in {
        "class_fid": "needs images with classes",
        "ct": r"held-out images.*held_out=",
        "prdc": "more than 5 images",
        "fid_infinity": "at least 20",
    }.items():
        few = 4 if metric in ("prdc", "fid_infinity") else 30
        with pytest.raises(UserError, match=message):
            evaluate(fakes, reals, metrics=metric, samples=few, extractor=EXTRACTOR, progress=False)
    with pytest.raises(UserError, match="authenticity"):
        evaluate(fakes, reals, metrics="fid", nearest="x.png", extractor=EXTRACTOR, progress=False)
    with pytest.raises(UserError, match="one metric at a time"):
        evaluate(fakes, reals, metrics="fd_clip,fd_dinov2", weights="x.pth", progress=False)


def test_a_metric_with_its_own_extractor_beside_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """FD-CLIP uses CLIP whatever ``extractor`` says, and the other metrics are not affected."""
    loaded = extractors.load_extractor

    def load(name: str, **options: object) -> extractors.Extractor:
        mine = "tests.fixtures.extractor:Moments" if name == "clip-vit-b-32" else name
        return loaded(mine, **options)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr("orthogan.evaluation.measure.load_extractor", load)
    fakes, reals = pictures(30, 0), pictures(30, 1)
    options = {"extractor": "efficientnet-lite0", "progress": False}
    both = evaluate(fakes, reals, metrics=["fd_clip", "fid"], **options)
    alone = evaluate(fakes, reals, metrics=["fid"], **options)
    assert [result.label for result in both] == ["FD-CLIP", "FD[efficientnet-lite0]"]
    assert both[1].value == alone[0].value
    assert both[0].value != alone[0].value


def test_unknown_names_stay_errors_in_a_scorecard() -> None:
    with pytest.raises(UserError, match="unknown metric"):
        evaluate(pictures(4, 0), pictures(4, 1), metrics="scorecard,nonsense", progress=False)
    with pytest.raises((UserError, Incomplete)):
        evaluate(pictures(4, 0), metrics="scorecard", progress=False)
    assert "scorecard" not in METRICS
