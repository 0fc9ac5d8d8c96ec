"""Empirical Lipschitz constants: closed forms of linear discriminators, brute force, and pairs of one class."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from orthogan import weights
from orthogan.data import ArraySource
from orthogan.errors import UserError
from orthogan.evaluation.critic.lipschitz import KINDS, lipschitz
from orthogan.evaluation.result import MetricResult
from tests.fixtures.scored import Patches, source

PIXELS = 3 * 16 * 16


class Linear(nn.Module):
    """<w, x>."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return x.flatten(1) @ self.weight


class Curved(nn.Module):
    """A discriminator that keeps what it was shown; with classes each has a sign and a size of its own."""

    def __init__(self, num_classes: int = 0) -> None:
        super().__init__()
        self.num_classes = num_classes
        rng = torch.Generator().manual_seed(2)
        self.register_buffer("weight", torch.randn(PIXELS, 4, generator=rng) / 20)
        self.norm = nn.BatchNorm1d(4)
        self.shown: list[Tensor] = []
        self.labels: list[Tensor] = []

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        assert not self.norm.training
        self.shown.append(x.detach())
        values = self.norm(x.flatten(1) @ self.weight).square().sum(1)
        if y is None:
            return values
        self.labels.append(y)
        return values * (y + 1)


def measured(
    net: nn.Module, generator: nn.Module, reals: ArraySource, **options: object
) -> tuple[MetricResult, dict[str, np.ndarray]]:
    return lipschitz(net, generator, reals, progress=False, **options)


def labelled(count: int, classes: int) -> ArraySource:
    plain = source(count)
    labels = np.random.default_rng(1).integers(0, classes, count)
    return ArraySource("labelled", plain.images, labels=labels, class_names=[str(i) for i in range(classes)])


@given(st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_of_a_linear_discriminator_every_gradient_is_its_weight_and_no_quotient_is_above(seed: int) -> None:
    weight = torch.randn(PIXELS, generator=torch.Generator().manual_seed(seed))
    result, found = measured(Linear(weight), Patches(), source(20), gradients=True, seed=seed)
    assert list(found) == [name for kind in KINDS for name in (kind, f"gradient {kind}")]
    norm = float(weight.norm())
    for kind in KINDS:
        np.testing.assert_allclose(found[f"gradient {kind}"], norm, rtol=1e-5)
        assert found[kind].max() <= norm * (1 + 1e-5)
        assert result.parts[f"gradient {kind} max"] == pytest.approx(norm, rel=1e-5)


def test_along_one_line_every_quotient_is_the_slope() -> None:
    greys = np.arange(40, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 16, 16), np.uint8)
    weight = torch.randn(PIXELS, generator=torch.Generator().manual_seed(0))
    _, found = measured(Linear(weight), Patches(), ArraySource("greys", greys))
    slope = abs(float(weight.sum())) / math.sqrt(PIXELS)
    np.testing.assert_allclose(found["real-real"], slope, rtol=1e-3)
    assert len(found["real-real"]) == 39


def test_quotients_are_those_of_brute_force() -> None:
    net = Curved()
    result, found = measured(net, Patches(), source(24), batch_size=24)
    assert len(net.shown) == 2
    reals, fakes = (part.double().flatten(1).numpy() for part in net.shown)
    fresh = Curved().eval()

    def quotient(a: np.ndarray, b: np.ndarray) -> float:
        with torch.no_grad():
            values = [float(fresh(torch.from_numpy(x).float().view(1, 3, 16, 16))) for x in (a, b)]
        return abs(values[0] - values[1]) / float(np.linalg.norm(a - b))

    expected = {
        "real-real": [quotient(a, b) for a, b in pairwise(reals)],
        "real-fake": [quotient(a, b) for a, b in zip(reals, fakes, strict=True)],
        "fake-fake": [quotient(a, b) for a, b in pairwise(fakes)],
    }
    for kind in KINDS:
        np.testing.assert_allclose(found[kind], expected[kind], rtol=1e-3, atol=1e-6)
        assert result.parts[f"{kind} mean"] == pytest.approx(np.mean(found[kind]))
        assert result.parts[f"{kind} median"] == pytest.approx(np.median(found[kind]))
        assert result.parts[f"{kind} 99%"] == pytest.approx(np.percentile(found[kind], 99))
        assert result.parts[f"{kind} max"] == pytest.approx(max(found[kind]))
    assert result.value == result.parts["real-fake mean"]
    assert result.std == pytest.approx(np.std(found["real-fake"], ddof=1) / math.sqrt(24))


def test_the_gradient_is_that_at_a_point_between_the_images() -> None:
    class Bowl(nn.Module):
        """|x|^2 / 2, whose gradient at x is x."""

        def __init__(self) -> None:
            super().__init__()
            self.shown: list[Tensor] = []

        def forward(self, x: Tensor) -> Tensor:
            self.shown.append(x.detach().double().flatten(1))
            return x.square().flatten(1).sum(1) / 2

    net = Bowl()
    _, found = measured(net, Patches(), source(12), gradients=True)
    reals, fakes, *points = net.shown
    pairs = [(reals[:-1], reals[1:]), (reals, fakes), (fakes[:-1], fakes[1:])]
    for kind, point, (a, b) in zip(KINDS, points, pairs, strict=True):
        torch.testing.assert_close(
            (point - a).norm(dim=1) + (b - point).norm(dim=1), (b - a).norm(dim=1), rtol=1e-5, atol=0
        )
        np.testing.assert_allclose(found[f"gradient {kind}"], point.norm(dim=1).numpy(), rtol=1e-5)
        places = (point - a).norm(dim=1) / (b - a).norm(dim=1)
        assert places.std() > 0.1


def test_batches_do_not_matter() -> None:
    reals = labelled(50, 3)
    wholes = [
        measured(Curved(num_classes=3), Patches(num_classes=3), reals, batch_size=size, gradients=True)[1]
        for size in (50, 7)
    ]
    assert list(wholes[0]) == list(wholes[1])
    for kind, values in wholes[0].items():
        assert len(values) == len(wholes[1][kind])
        np.testing.assert_allclose(values, wholes[1][kind], rtol=1e-4)


def test_both_images_of_a_pair_are_of_one_class_and_the_discriminator_knows_it() -> None:
    reals = labelled(40, 3)
    net = Curved(num_classes=3)
    result, found = measured(net, Patches(num_classes=3), reals, batch_size=40)
    present = len(np.unique(reals.labels))
    assert [len(found[kind]) for kind in KINDS] == [40 - present, 40, 40 - present]
    assert torch.equal(net.labels[0], net.labels[1])
    assert torch.equal(net.labels[0], net.labels[0].sort().values)
    pixels = {image.tobytes(): label for image, label in zip(reals.images, reals.labels, strict=True)}
    shown = ((net.shown[0] + 1) * 127.5).round().to(torch.uint8).numpy()
    assert [pixels[image.tobytes()] for image in shown] == net.labels[0].tolist()
    assert result.protocol["classes"] == "both images of a pair of one class"


def test_an_unconditional_discriminator_of_a_conditional_generator_is_told_nothing() -> None:
    net = Curved()
    _, found = measured(net, Patches(num_classes=2), labelled(20, 2), batch_size=20, gradients=True)
    assert net.labels == []
    assert len(found["real-fake"]) == 20


def test_a_subset_is_drawn_and_the_same_one_again() -> None:
    reals = source(64)
    first, again, other = (
        measured(Curved(), Patches(), reals, pairs=10, seed=seed)[1]["real-fake"] for seed in (0, 0, 1)
    )
    assert len(first) == 10
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_equal_images_are_left_out() -> None:
    images = np.concatenate([source(4).images] * 2)
    images[:] = images[0]
    images[5] = source(1, seed=9).images[0]
    _, found = measured(Curved(), Patches(), ArraySource("few", images))
    assert 1 <= len(found["real-real"]) <= 2
    assert np.isfinite(found["real-real"]).all()


def test_power_iterations_stand_still_and_modes_come_back() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 4), nn.ReLU(), nn.Linear(4, 1), nn.Flatten(0))
    weights.apply(net, "stable_rank", c=0.5)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    net.train()
    generator = Patches().train()
    measured(net, generator, source(10), gradients=True)
    assert net.training
    assert generator.training
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


class Pairs(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :2]


class Damaged(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.full((len(x),), math.nan)


@pytest.mark.parametrize(
    ("net", "generator", "reals", "options", "parts"),
    [
        (Curved(3), Patches(), source(8), {}, ["3 classes", "noise 0"]),
        (Curved(3), Patches(2), labelled(8, 3), {}, ["3 classes", "the generator 2"]),
        (Curved(), Patches(channels=1), source(8), {}, ["(1, 16, 16)", "(3, 16, 16)"]),
        (Curved(), Patches(), source(8), {"pairs": 1}, ["pairs=1"]),
        (Curved(), Patches(), source(1), {}, ["1 reals"]),
        (Curved(), Patches(), source(8), {"batch_size": 0}, ["batch_size=0"]),
        (Pairs(), Patches(), source(8), {}, ["Pairs", "(8, 2)"]),
        (Damaged(), Patches(), source(8), {}, ["NaN"]),
        (
            Curved(),
            Patches(),
            ArraySource("one", np.zeros((8, 3, 16, 16), np.uint8)),
            {},
            ["all images are equal", "real-real"],
        ),
    ],
)
def test_what_does_not_fit_is_named(
    net: nn.Module, generator: Patches, reals: ArraySource, options: dict[str, object], parts: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        measured(net, generator, reals, **options)
    assert all(part in str(caught.value) for part in parts)
