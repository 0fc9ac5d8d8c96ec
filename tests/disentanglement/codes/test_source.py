"""Grids in memory and drawn sprites as sources of observations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from orthogan.data.sprites import FACTOR_SIZES, render
from orthogan.disentanglement import GridSource, SpriteSource, beta_vae, factor_vae
from tests.fixtures import toy


def test_a_grid_in_any_order_gives_back_the_row_asked_for() -> None:
    sizes = (3, 1, 4, 2)
    grid = np.stack(np.unravel_index(np.random.default_rng(0).permutation(24), sizes), axis=1)
    source = GridSource(grid, grid * 10)
    assert source.factor_sizes == sizes
    wanted = toy.some(sizes, 50)
    np.testing.assert_array_equal(source.sample(wanted), wanted * 10)


def test_a_grid_with_holes_or_doubles_is_refused() -> None:
    grid = np.stack(np.unravel_index(np.arange(12), (3, 4)), axis=1)
    double = grid.copy()
    double[0] = grid[1]
    for wrong, text in (
        (grid[:-1], r"11 rows; expected each of the 12 combinations of \(3, 4\)"),
        (double, "12 rows; expected each of the 12"),
        (grid - 1, "factor 0 has a negative value"),
        (grid.astype(float), "must be integers"),
        (grid[:, 0], "must be integers"),
    ):
        with pytest.raises(ValueError, match=text):
            GridSource(wrong, wrong)
    with pytest.raises(ValueError, match="each of the 5 observations"):
        GridSource(grid, grid[:5])
    with pytest.raises(ValueError):
        GridSource(grid, grid).sample(np.array([[3, 0]]))


def test_a_sparse_grid_of_astronomic_size_is_refused_without_memory() -> None:
    wide = np.array([[10**9, 10**9, 10**9, 0]])
    with pytest.raises(ValueError, match="1 row; expected each of the"):
        GridSource(wide, wide)


def test_sprites_are_drawn_as_asked() -> None:
    wanted = toy.some(FACTOR_SIZES, 5)
    assert SpriteSource().factor_sizes == FACTOR_SIZES
    np.testing.assert_array_equal(SpriteSource().sample(wanted), render(wanted))


@pytest.mark.parametrize("metric", [beta_vae, factor_vae])
def test_codes_in_place_of_a_source_are_refused(metric: Any) -> None:
    with pytest.raises(TypeError, match=r"the first argument must be a source of observations .*, not ndarray"):
        metric(np.ones((10, 3)), np.ones((10, 2), int))
