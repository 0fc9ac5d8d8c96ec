"""Projection against closed forms, pictures that the model made itself, and an interruption."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from orthogan.errors import Stopped, UserError
from orthogan.latent.invert import Projection, project
from orthogan.latent.invert.prior import find_prior
from orthogan.latent.invert.project import autocorrelation
from orthogan.models.families.stylegan2 import StyleGAN2Generator
from orthogan.models.generate import generate, in_space
from tests.fixtures.disc import Affine, Disc
from tests.fixtures.inverted import Grainy, noisy, stopping

QUIET = {"progress": False, "rate": 0.1}


def row_sums(targets: Tensor) -> Callable[[Tensor], Tensor]:
    """A distance of linear features."""
    return lambda images: (images - targets).sum(3).square().flatten(1).sum(1)


def test_a_linear_generator_has_the_least_squares_solution() -> None:
    net, pictures = Affine(), noisy(3)
    found = project(net, pictures, steps=200, starts=1, candidates=16, prior_weight=0, **QUIET)
    weight, bias = (one.detach().double().numpy() for one in (net.fc.weight, net.fc.bias))
    goals = pictures.reshape(3, -1) / 127.5 - 1 - bias
    expected = np.linalg.lstsq(weight, goals.T, rcond=None)[0].T
    np.testing.assert_allclose(found.latents.matrix, expected, atol=1e-3)
    rest = np.sqrt(((expected @ weight.T - goals) ** 2).mean(1)) * 127.5
    np.testing.assert_allclose(found.latents.scores["error"], rest, atol=0.3)  # pixels are rounded
    np.testing.assert_allclose(found.latents.scores["distance"], np.sqrt((expected**2).mean(1)), rtol=0.03)
    assert np.array_equal(found.missing, np.abs(pictures.astype(int) - found.images))


def test_features_count_with_their_weight() -> None:
    net, pictures = Affine(), noisy(1)
    found = project(
        net, pictures, steps=200, starts=1, candidates=16, prior_weight=0, against=row_sums, feature_weight=3.0, **QUIET
    )
    weight, bias = (one.detach().double().numpy() for one in (net.fc.weight, net.fc.bias))
    goal = pictures.reshape(-1) / 127.5 - 1 - bias
    pixels, features = found.scales[0]
    sums = np.kron(np.eye(4), np.ones((1, 4)))
    rows = np.concatenate([weight / np.sqrt(16 * pixels), np.sqrt(3 / features) * sums @ weight])
    goals = np.concatenate([goal / np.sqrt(16 * pixels), np.sqrt(3 / features) * sums @ goal])
    np.testing.assert_allclose(found.latents.matrix[0], np.linalg.lstsq(rows, goals, rcond=None)[0], atol=2e-3)


def test_pictures_of_the_model_are_found_again_with_their_classes() -> None:
    net = Disc(num_classes=3, dim=4)
    z = torch.tensor([[0.4, -0.6, 0.3, 0.2], [-0.8, 0.5, -0.4, -0.3], [0.1, 0.2, 0.9, 0.7]])
    pictures = generate(net, z, [2, 1, 0])
    found = project(net, pictures, steps=150, starts=3, candidates=64, **QUIET, labels=[None, 1, None])
    assert found.latents.labels is not None
    assert found.latents.labels[1] == 1
    assert max(found.latents.scores["error"]) < 1.5
    assert min(found.latents.scores["nearest"]) > 4
    assert np.abs(found.images.astype(int) - pictures).mean() < 1
    assert np.array_equal(found.latents.images(net), found.images)


def test_the_penalty_keeps_the_latent_within_the_prior() -> None:
    net = Affine()
    far = generate(net, 6 * torch.ones(1, 5))
    free, kept = (
        project(net, far, steps=200, starts=1, candidates=16, prior_weight=weight, **QUIET) for weight in (0.0, 10.0)
    )
    assert free.latents.scores["farther"][0] == 0
    assert free.latents.scores["distance"][0] > 4
    prior = find_prior(net)
    most = float(prior.sorted[int(0.99 * 4096)])
    assert kept.latents.scores["distance"][0] < 1.5 * most
    assert kept.latents.scores["error"][0] > free.latents.scores["error"][0]


def test_the_prior_of_w_is_whitened_and_that_of_z_is_exact() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = StyleGAN2Generator(resolution=32, image_channels=1, channels=2, latent_dim=6, mapping_layers=2)
    assert torch.equal(find_prior(net).whitener, torch.eye(6))
    for space, rows in (("w", 1), ("w+", 8)):
        seen = in_space(net, space)
        prior = find_prior(seen)
        assert prior.rows == rows
        drawn = seen.sample_latent(2000, seed=77)
        assert float(prior.distance(drawn).square().mean()) == pytest.approx(1, abs=0.05)
        assert float(prior.farther(drawn).mean()) == pytest.approx(0.5, abs=0.03)
        assert float(prior.excess(drawn).gt(0).float().mean()) == pytest.approx(0.01, abs=0.01)
    z = torch.randn(3, 6, dtype=torch.float64, requires_grad=True, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(lambda v: find_prior(in_space(net, "w")).excess(9 * v), z)


def test_w_plus_matches_what_w_cannot() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        net = StyleGAN2Generator(resolution=32, image_channels=1, channels=2, latent_dim=4, mapping_layers=1)
        with torch.no_grad():
            for one in net.parameters():
                one += 0.2 * torch.randn_like(one)
    plus = in_space(net.eval(), "w+")
    mixed = torch.cat([net.latent_space("w").sample_latent(1, seed=s) for s in range(8)], 1)
    picture = generate(plus, mixed)
    errors = {
        space: project(net, picture, space=space, steps=30, starts=1, candidates=16, prior_weight=0, **QUIET)
        for space in ("w", "w+")
    }
    assert errors["w+"].latents.matrix.shape == (1, 32)
    assert errors["w+"].latents.scores["error"][0] < 0.7 * errors["w"].latents.scores["error"][0]


def test_noise_maps_are_fitted_and_stay_noise() -> None:
    net = Grainy()
    picture = generate(net, torch.tensor([[0.5, 0.4]]))
    other = Grainy()
    other.noise_const.copy_(torch.randn(16, 16, generator=torch.Generator().manual_seed(9)))
    fixed, fitted = (
        project(other, picture, steps=120, starts=1, candidates=8, noise=noise, **QUIET) for noise in (False, True)
    )
    assert fitted.latents.scores["error"][0] < 0.5 * fixed.latents.scores["error"][0]
    maps = fitted.latents.noise["noise_const"]
    assert maps.mean() == pytest.approx(0, abs=1e-5)
    assert maps.std() == pytest.approx(1, abs=1e-4)
    with pytest.raises(UserError, match="no noise maps to fit"):
        project(Affine(), noisy(1), noise=True)


def test_autocorrelation_is_near_zero_for_noise_and_large_for_patterns() -> None:
    white = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    ramp = torch.linspace(-1.7, 1.7, 64).expand(1, 1, 64, 64)
    assert float(autocorrelation(white)) < 3
    assert float(autocorrelation(ramp)) > 100
    small = torch.randn(2, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(autocorrelation, small)


def run(net: Disc, pictures: np.ndarray, kept: Path | None, **more: object) -> Projection:
    options = {"steps": 12, "starts": 2, "candidates": 16, "batch_size": 4, "against": row_sums, **QUIET}
    return project(net, pictures, kept=kept, **{**options, **more})


def test_an_interrupted_projection_continues_to_the_same_bits(tmp_path: Path) -> None:
    net, pictures = Disc(dim=4), generate(Disc(dim=4), torch.randn(3, 4, generator=torch.Generator().manual_seed(3)))
    whole = run(net, pictures, None)  # two parts of 12 steps: 2 pictures and 1
    for after in (5, 17):
        file = tmp_path / f"{after}.safetensors"
        with pytest.raises(Stopped, match="the same command continues"):
            run(net, pictures, file, stopped=stopping(after))
        seen: list[int] = []
        again = run(net, pictures, file, after=seen.append)
        assert min(seen) > after
        assert np.array_equal(again.latents.matrix, whole.latents.matrix)
        assert again.latents.scores == whole.latents.scores
    file = tmp_path / "other.safetensors"
    with pytest.raises(Stopped):
        run(net, pictures, file, stopped=stopping(5))
    seen = []
    other = run(net, pictures, file, seed=1, after=seen.append)  # other work: it begins at the start
    assert min(seen) == 1
    assert not np.array_equal(other.latents.matrix, whole.latents.matrix)


def test_a_picture_does_not_depend_on_the_others() -> None:
    net, pictures = Disc(dim=4), generate(Disc(dim=4), torch.randn(2, 4, generator=torch.Generator().manual_seed(3)))
    both, one = run(net, pictures, None), run(net, pictures[1:], None)
    np.testing.assert_allclose(both.latents.matrix[1], one.latents.matrix[0], atol=1e-4)


def test_a_guess_is_one_more_start() -> None:
    net = Affine()
    z = torch.tensor([[2.0, -2.0, 2.0, 2.0, -2.0]])
    found = project(
        net,
        generate(net, z),
        steps=1,
        starts=1,
        candidates=4,
        rate=1e-6,
        prior_weight=0,
        guess=lambda pictures, space, label: z,
        progress=False,
    )
    np.testing.assert_allclose(found.latents.matrix, z, atol=1e-4)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"space": "w"}, "space 'w'"),
        ({"labels": [0, 0]}, "has no classes"),
        ({"steps": 0}, "steps=0"),
        ({"starts": 9, "candidates": 4}, "candidates=4"),
    ],
)
def test_what_cannot_be_projected_is_refused(more: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        project(Affine(), noisy(2), **{**QUIET, **more})
    with pytest.raises(UserError, match=r"expected uint8 \(n, 1, height, width\) at 4 pixels"):
        project(Affine(), noisy(2, side=5), **QUIET)
