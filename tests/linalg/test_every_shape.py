"""What is no matrix with rows and columns is refused in words, by every function on matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from orthogan import linalg
from orthogan.penalties.network import PENALTIES

ANY: dict[str, Callable[[Tensor], Any]] = {
    "coherence": linalg.coherence,
    "mean_coherence": linalg.mean_coherence,
    "correlations": linalg.correlations,
    "gram_residual": linalg.gram_residual,
    "orthogonality_error": linalg.orthogonality_error,
    "norm_deviation": linalg.norm_deviation,
    "hyperspherical_energy": linalg.hyperspherical_energy,
    "nearest_orthogonal eigh": linalg.nearest_orthogonal,
    "nearest_orthogonal svd": lambda m: linalg.nearest_orthogonal(m, "svd"),
    "nearest_orthogonal newton_schulz": lambda m: linalg.nearest_orthogonal(m, "newton_schulz"),
    "nearest_orthogonal polar_express": lambda m: linalg.nearest_orthogonal(m, "polar_express"),
    "polar_factor": linalg.polar_factor,
    "stable_rank": linalg.stable_rank,
    "stable_rank_projection": lambda m: linalg.stable_rank_projection(m, 2.0),
    "stable_rank_scale": lambda m: linalg.stable_rank_scale(m, torch.tensor(1.0), 2.0),
    "power_iteration": lambda m: linalg.power_iteration(m, torch.ones(m.shape[:-1]), 1),
    "block_power_iteration": lambda m: linalg.block_power_iteration(m, torch.ones(*m.shape[:-1], 1), 1),
    "optimal_learning_rate vector": lambda m: linalg.optimal_learning_rate(m, m),
    "optimal_learning_rate matrix": lambda m: linalg.optimal_learning_rate(m, m, "matrix"),
}
SQUARE: dict[str, Callable[[Tensor], Any]] = {
    "matrix_sqrt": linalg.matrix_sqrt,
    "inverse_sqrt": linalg.inverse_sqrt,
}


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (2, 0, 3), (2, 3, 0), (3,), ()], ids=str)
@pytest.mark.parametrize("name", [*ANY, *SQUARE])
def test_a_tensor_that_is_no_matrix_is_refused_with_its_shape(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"a tensor of shape \("):
        (ANY | SQUARE)[name](torch.zeros(shape))


@pytest.mark.parametrize("name", SQUARE)
def test_a_root_is_of_a_square_matrix(name: str) -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 3\): expected square matrices"):
        SQUARE[name](torch.zeros(2, 3))


@pytest.mark.parametrize("name", [n for n in (*ANY, *SQUARE) if "power" not in n])
def test_an_array_is_refused_with_the_way_to_a_tensor(name: str) -> None:
    with pytest.raises(TypeError, match=r"torch\.as_tensor"):
        (ANY | SQUARE)[name](np.eye(3))


@pytest.mark.parametrize("name", [n for n in ANY if n not in ("stable_rank_scale",)])
def test_a_batch_may_be_of_one_and_matrices_may_be_one_by_one(name: str) -> None:
    found = ANY[name](torch.full((1, 1, 1), 2.0))
    assert all(torch.isfinite(one).all() for one in (found if isinstance(found, tuple) else (found,)))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 3, 3, 3), (3, 0, 3, 3), (3,)], ids=str)
@pytest.mark.parametrize("name", PENALTIES)
def test_a_penalty_of_a_weight_without_numbers_is_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="the weight has shape"):
        PENALTIES.get(name).function(torch.zeros(shape))


@pytest.mark.parametrize("name", [name for name in [*ANY, *SQUARE] if "polar_express" not in name])
def test_autocast_changes_nothing(name: str) -> None:
    rng = torch.Generator().manual_seed(0)
    matrix = torch.randn(9, 6, generator=rng)
    function = ANY[name] if name in ANY else SQUARE[name]
    matrix = matrix if name in ANY else matrix.T @ matrix
    expected = function(matrix)
    with torch.autocast("cpu", torch.bfloat16):
        found = function(matrix)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
