"""Coordinates along directions: they come back, one moves alone, and the rest of the latent stays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from orthogan.disentanglement.codes.coordinates import get_coordinates, subject
from orthogan.errors import UserError
from orthogan.latent import Directions, random_control
from orthogan.models.protocol import Generator
from tests.fixtures.quadrants import Quadrants


class Plane(Generator):
    """Seven dimensions, of which nothing is drawn."""

    latent_dim = 7


def oblique(k: int, seed: int) -> Directions:
    rows = np.random.default_rng(seed).standard_normal((k, 7)) + 2 * np.eye(k, 7)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assume(np.linalg.svd(unit, compute_uv=False)[-1] > 0.05)  # nearly dependent ones are refused, another test's matter
    return Directions(rows, method="test")


@given(st.integers(1, 7), st.integers(0, 50))
@settings(max_examples=30, deadline=None)
def test_what_is_put_is_read_and_the_rest_stays(k: int, seed: int) -> None:
    lines = get_coordinates(Plane(), oblique(k, seed))
    z = torch.randn(5, 7, generator=torch.Generator().manual_seed(seed))
    values = torch.rand(5, k, generator=torch.Generator().manual_seed(seed)) * 4 - 2
    put = lines.put(z, values)
    torch.testing.assert_close(lines.of(put), values, atol=2e-3, rtol=1e-3)
    # what no direction reaches: the residue of least squares
    rows = lines.rows.double().numpy()
    rest = [x - np.linalg.lstsq(rows.T, x, rcond=None)[0] @ rows for x in (z.numpy(), put.numpy()) for x in x]
    np.testing.assert_allclose(rest[:5], rest[5:], atol=2e-3)


@given(st.integers(0, 50), st.integers(0, 3))
@settings(max_examples=20, deadline=None)
def test_one_coordinate_changes_alone(seed: int, index: int) -> None:
    lines = get_coordinates(Plane(), oblique(4, seed))
    z = torch.randn(3, 7, generator=torch.Generator().manual_seed(seed))
    before = lines.of(z)
    after = lines.of(lines.put_one(z, torch.full((3,), index), torch.tensor([1.5, -2, 0.25])))
    expected = before.clone()
    expected[:, index] = torch.tensor([1.5, -2, 0.25])
    torch.testing.assert_close(after, expected, atol=2e-3, rtol=1e-3)


def test_orthonormal_rows_give_inner_products() -> None:
    directions = random_control(7, 3, 0)
    z = torch.randn(4, 7, generator=torch.Generator().manual_seed(0))
    found = get_coordinates(Plane(), directions).of(z)
    torch.testing.assert_close(found, z @ torch.from_numpy(directions.matrix.copy()).T, atol=1e-5, rtol=1e-5)
    longer = Directions(directions.matrix * 3, method="test")
    torch.testing.assert_close(get_coordinates(Plane(), longer).of(z), found, atol=1e-5, rtol=1e-5)


def test_the_rest_is_scaled_and_the_coordinates_are_not() -> None:
    lines = get_coordinates(Plane(), random_control(7, 3, 1))
    z = torch.randn(4, 7, generator=torch.Generator().manual_seed(0))
    half = lines.scaled_rest(z, 0.5)
    torch.testing.assert_close(lines.of(half), lines.of(z), atol=1e-5, rtol=1e-5)
    rest = [x - lines.of(x) @ lines.rows for x in (z, half)]
    torch.testing.assert_close(rest[1], rest[0] / 2, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(lines.scaled_rest(z, 1.0), z, atol=1e-6, rtol=1e-6)


def test_directions_that_repeat_others_are_refused() -> None:
    rows = np.array([[1.0, 0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0]])
    with pytest.raises(ValueError, match="3 directions are linearly dependent"):
        get_coordinates(Plane(), Directions(rows, method="test"))


def test_a_space_of_unknown_prior_is_measured_in_its_own_spread() -> None:
    class Scaled(Generator):
        latent_dim = 2

        def sample_latent(self, n: int, *, seed: int) -> torch.Tensor:
            return super().sample_latent(n, seed=seed) * torch.tensor([3.0, 0.5]) + torch.tensor([1.0, 0.0])

    lines = get_coordinates(Scaled(), Directions(np.eye(2), method="test", space="w"))
    torch.testing.assert_close(lines.spread, torch.tensor([3.0, 0.5]), rtol=0.05, atol=0)
    put = lines.put(torch.zeros(1, 2), torch.tensor([[2.0, -1.0]]))
    torch.testing.assert_close(put, torch.tensor([[7.0, -0.5]]), rtol=0.05, atol=0.02)


def test_a_conditional_generator_is_drawn_class_by_class_or_with_one_class() -> None:
    net = Quadrants(num_classes=3)
    with subject(net) as seen:
        assert seen.draw(5, 0)[1].tolist() == [0, 1, 2, 0, 1]
        z, labels = seen.draw(4, 0)
        assert seen.images(z, labels, batch_size=3).shape == (4, 1, 4, 4)
    with subject(net, y=2) as seen:
        assert seen.draw(3, 0)[1].tolist() == [2, 2, 2]
    with pytest.raises(UserError, match="class 3"), subject(net, y=3):
        pass


def test_directions_of_another_latent_are_refused() -> None:
    with pytest.raises(UserError, match="made for a latent of 7"), subject(Quadrants(), random_control(7, 2, 0)):
        pass
