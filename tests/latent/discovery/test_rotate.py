"""The directions that minimize the Hessian penalty and OroJaR."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from orthogan.errors import UserError
from orthogan.latent.discovery import hessian, jacobian, orojar
from tests.fixtures.latent_nets import Factors, Linear, assert_same_frame


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("method", [hessian, orojar])
def test_the_factors_are_found_from_a_random_start(method, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orthogan.latent.discovery.rotate.START", 100.0)
    net = Factors(3, curve=lambda u: u + 0.4 * u**2)
    with pytest.warns(UserWarning, match="arbitrary"):
        start = method(net, steps=1, lr=1e-9, seed=2)
    assert np.abs(start.matrix @ net.v.T).max(axis=1).min() < 0.8
    found = method(net, steps=150, seed=2)
    assert_same_frame(found.matrix, net.v, 0.99)
    assert np.allclose(found.matrix @ found.matrix.T, np.eye(3), atol=1e-5)
    assert list(found.scores["sigma"]) == sorted(found.scores["sigma"], reverse=True)
    assert np.array_equal(found.matrix, method(net, steps=150, seed=2).matrix)


class Mixed(Factors):
    """Every pixel sums curves of all factors: the Hessians are diagonal in V, the Jacobian's columns not orthogonal."""

    def forward(self, z: Tensor) -> Tensor:
        weight = torch.randn(3, 6, generator=source(3)) + 1
        return (super().forward(z).flatten(1) @ weight)[:, None, None]


def test_the_hessian_finds_factors_that_the_mean_jacobian_mixes() -> None:
    net = Mixed(3, curve=lambda u: u + 0.4 * u**2)
    assert_same_frame(hessian(net, steps=150, seed=1).matrix, net.v, 0.99)
    assert np.abs(jacobian(net, samples=100).matrix @ net.v.T).max(axis=1).min() < 0.9


def test_orojar_of_a_linear_generator_are_its_singular_vectors() -> None:
    net = Linear([4.0, 2.0, 1.0])
    found = orojar(net, steps=200)
    assert_same_frame(found.matrix, net.v, 0.98)
    assert found.scores["sigma"] == pytest.approx([4, 2, 1], rel=0.1)


def test_a_generator_without_curvature_warns() -> None:
    with pytest.warns(UserWarning, match="not smaller than that of random directions"):
        hessian(Linear([4.0, 2.0, 1.0]), steps=3)


def test_fewer_directions_leave_out_those_that_change_least() -> None:
    scale = torch.tensor([3.0, 2.0, 1e-3, 1e-3])
    net = Factors(4, curve=lambda u: scale * (u + 0.4 * u**2))
    found = hessian(net, components=2, steps=100)
    assert_same_frame(found.matrix, net.v[:2], 0.98)


@pytest.mark.parametrize("method", [hessian, orojar])
def test_unfit_arguments_of_the_search(method) -> None:
    net = Factors(3)
    for wrong in ({"components": 1}, {"components": 4}, {"steps": 0}, {"batch_size": 0}, {"lr": 0.0}):
        with pytest.raises(UserError):
            method(net, **{"steps": 2, **wrong})
