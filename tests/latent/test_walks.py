"""The paths of a traversal against their geometry: lengths, angles, planes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthogan.errors import UserError
from orthogan.latent.traverse import path


def draw(seed: int, dim: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=dim), rng.normal(size=(k, dim)) * 10.0 ** rng.uniform(-1, 1, size=(k, 1))


def along(rows: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The coordinate of each point along its row."""
    return (points * rows).sum(axis=1) / np.linalg.norm(rows, axis=1)


cases = given(seed=st.integers(0, 2000), dim=st.integers(2, 9), offset=st.floats(-4, 4), centred=st.booleans())


@settings(deadline=None)
@cases
def test_the_sphere_keeps_the_length_and_the_plane_and_walks_the_arc(
    seed: int, dim: int, offset: float, centred: bool
) -> None:
    z, rows = draw(seed, dim, 3)
    at = path(z, rows, "sphere", centred)
    start, end = at(0.0), at(offset)
    radius = float(np.linalg.norm(z))
    np.testing.assert_allclose(np.linalg.norm(start, axis=1), radius)
    np.testing.assert_allclose(np.linalg.norm(end, axis=1), radius)
    for row, before, after in zip(rows, start, end, strict=True):
        plane = np.linalg.qr(np.stack([z, row], axis=1))[0]
        np.testing.assert_allclose(plane @ (plane.T @ after), after, atol=1e-9 * radius)
        # The arc from the start, by its chord: an arc of length s has the chord 2 r sin(s / 2 r).
        arc = abs(offset) * np.linalg.norm(row)
        assert np.linalg.norm(after - before) == pytest.approx(2 * radius * abs(np.sin(arc / radius / 2)), abs=1e-7)


@settings(deadline=None)
@given(seed=st.integers(0, 2000), dim=st.integers(2, 9), centred=st.booleans())
def test_the_first_step_on_the_sphere_is_along_the_part_of_the_direction_across_the_base(
    seed: int, dim: int, centred: bool
) -> None:
    z, rows = draw(seed, dim, 3)
    at = path(z, rows, "sphere", centred)
    small = 1e-5 * np.linalg.norm(z) / np.linalg.norm(rows, axis=1).max()
    step = (at(small) - at(-small)) / (2 * small)
    for row, origin, moved in zip(rows, at(0.0), step, strict=True):
        across = row - row @ origin / (origin @ origin) * origin
        sine = np.linalg.norm(across) / np.linalg.norm(row)
        np.testing.assert_allclose(moved * sine, across, atol=1e-4 * float(np.linalg.norm(row)))


def test_a_direction_across_the_base_starts_on_both_walks_alike() -> None:
    z, rows = np.array([0.0, 2.0, 0.0]), np.array([[3.0, 0.0, 0.0]])
    straight, round_ = path(z, rows, "line", False), path(z, rows, "sphere", False)
    np.testing.assert_array_equal(straight(0.0), round_(0.0))
    np.testing.assert_allclose(straight(1e-4), round_(1e-4), atol=1e-6)
    # a quarter of a turn, an arc of pi, is at the direction itself, a whole one back at the start
    np.testing.assert_allclose(round_(np.pi / 3), [[2.0, 0.0, 0.0]], atol=1e-12)
    np.testing.assert_allclose(round_(4 * np.pi / 3), [z], atol=1e-12)


@settings(deadline=None)
@cases
def test_the_line_adds_and_centred_sets_the_coordinate(seed: int, dim: int, offset: float, centred: bool) -> None:
    z, rows = draw(seed, dim, 3)
    lengths = np.linalg.norm(rows, axis=1)
    moved = path(z, rows, "line", centred)(offset)
    before = 0 if centred else along(rows, np.broadcast_to(z, rows.shape))
    np.testing.assert_allclose(along(rows, moved), before + offset * lengths, atol=1e-8)
    for row, point in zip(rows, moved, strict=True):  # whatever is across the direction stays
        unit = row / np.linalg.norm(row)
        np.testing.assert_allclose(point - point @ unit * unit, z - z @ unit * unit, atol=1e-8)


def test_centred_on_the_sphere_starts_where_the_coordinate_is_zero() -> None:
    z, rows = draw(3, 6, 4)
    at = path(z, rows, "sphere", True)
    np.testing.assert_allclose(along(rows, at(0.0)), 0, atol=1e-12)
    radius, arcs = np.linalg.norm(z), 0.3 * np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(along(rows, at(0.3)), radius * np.sin(arcs / radius), atol=1e-9)


@pytest.mark.parametrize("centred", [False, True])
def test_where_there_is_no_circle_it_says_so(centred: bool) -> None:
    z = np.array([1.0, -2.0])
    with pytest.raises(UserError, match="direction 1 is parallel"):
        path(z, np.array([[1.0, 0.0], [-2.0, 4.0]]), "sphere", centred)
    with pytest.raises(UserError, match="length is zero"):
        path(0 * z, np.eye(2), "sphere", centred)
    with pytest.raises(UserError, match="walk='circle': choose line or sphere"):
        path(z, np.eye(2), "circle", centred)  # pyright: ignore[reportArgumentType]
