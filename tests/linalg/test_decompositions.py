"""Decompositions that do not give up: float64 where float32 fails, NaN where the matrix is not finite."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from orthogan.linalg import inverse_sqrt, polar_factor
from orthogan.linalg.decompositions import eigh, failures, thin_svd
from orthogan.rng import generator


def failing(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """LAPACK gives up in float32, as it does on some rotations; returns the types that it was asked for."""
    whole, asked = torch.linalg.svd, []

    def svd(matrix: torch.Tensor, **options: Any) -> Any:
        asked.append(matrix.dtype)
        if matrix.dtype == torch.float32:
            raise torch.linalg.LinAlgError("linalg.svd: (Batch element 0): The algorithm failed to converge")
        return whole(matrix, **options)

    monkeypatch.setattr(torch.linalg, "svd", svd)
    return asked


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (2, 4, 4), (1, 7)])
def test_what_fails_in_float32_is_done_in_float64(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = torch.randn(shape, generator=generator("cpu", 0, "svd"))
    expected = torch.linalg.svd(matrix.double(), full_matrices=False)
    asked = failing(monkeypatch)
    with failures() as found:
        left, values, right = thin_svd(matrix)
    assert found == [f"svd {shape[-2]} x {shape[-1]}"]
    assert asked == [torch.float32, torch.float64]
    assert (left.dtype, values.dtype, right.dtype) == (torch.float32,) * 3
    assert [part.shape for part in (left, values, right)] == [part.shape for part in expected]
    torch.testing.assert_close((left * values.unsqueeze(-2)) @ right, matrix)
    torch.testing.assert_close(values, expected[1].float())


def test_a_polar_factor_and_its_gradient_survive_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = torch.randn(6, 6, generator=generator("cpu", 1, "svd"), requires_grad=True)
    polar_factor(matrix).square().mul(torch.arange(36.0).view(6, 6)).sum().backward()
    assert matrix.grad is not None
    wanted, matrix.grad = matrix.grad.clone(), None
    failing(monkeypatch)
    polar_factor(matrix).square().mul(torch.arange(36.0).view(6, 6)).sum().backward()
    torch.testing.assert_close(matrix.grad, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 4)])
def test_a_matrix_that_is_not_finite_has_a_product_that_is_not(bad: float, shape: tuple[int, ...]) -> None:
    matrix = torch.ones(shape)
    matrix[..., 0, 0] = bad
    parts = thin_svd(matrix)
    assert [part.shape for part in parts] == [p.shape for p in torch.linalg.svd(torch.ones(shape), full_matrices=False)]
    left, values, right = parts
    assert not bool(((left * values.unsqueeze(-2)) @ right).isfinite().all())


def test_where_all_fails_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def svd(matrix: torch.Tensor, **_: Any) -> Any:
        raise torch.linalg.LinAlgError("failed to converge")

    monkeypatch.setattr(torch.linalg, "svd", svd)
    with pytest.raises(torch.linalg.LinAlgError, match="converge"):
        thin_svd(torch.eye(3))


def test_an_eigendecomposition_that_fails_is_done_in_float64_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = torch.randn(5, 7, generator=generator("cpu", 2, "eigh"))
    matrix = matrix @ matrix.mT
    wanted, root = torch.linalg.eigvalsh(matrix.double()), inverse_sqrt(matrix)
    whole = torch.linalg.eigh

    def broken(matrix: torch.Tensor) -> Any:
        if matrix.dtype == torch.float32:
            raise torch.linalg.LinAlgError("failed to converge")
        return whole(matrix)

    monkeypatch.setattr(torch.linalg, "eigh", broken)
    with failures() as outer:
        with failures() as inner:
            values, vectors = eigh(matrix)
        torch.testing.assert_close(inverse_sqrt(matrix), root, rtol=1e-4, atol=1e-5)
    assert (len(inner), len(outer)) == (1, 2)
    torch.testing.assert_close(values.double(), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close((vectors * values) @ vectors.mT, matrix, rtol=1e-4, atol=1e-5)


def test_nothing_is_counted_where_nothing_fails() -> None:
    with failures() as found:
        thin_svd(torch.eye(3))
        eigh(torch.eye(3))
    assert found == []
