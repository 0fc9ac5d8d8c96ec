"""Power iteration on many matrices at once, against one after the other."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from orthogan.linalg import normalize, power_iteration
from orthogan.linalg.power import power_iterations

shapes = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=6)


def starts(matrices: list[Tensor], seed: int) -> list[Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [normalize(torch.randn(len(m), generator=rng, dtype=m.dtype)) for m in matrices]


@given(shapes, st.lists(st.sampled_from(["random", "zero", "rank 1"]), min_size=6, max_size=6), st.booleans())
@settings(max_examples=60, deadline=None)
def test_many_at_once_are_as_one_after_the_other(sizes: list[tuple[int, int]], kinds: list[str], stacked: bool) -> None:
    rng = torch.Generator().manual_seed(len(sizes))
    sizes = sorted(sizes)
    made = [torch.randn(*size, generator=rng, dtype=torch.float64) for size in sizes]
    for matrix, kind in zip(made, kinds, strict=False):
        if kind != "random":
            matrix.copy_(torch.zeros(()) if kind == "zero" else torch.outer(matrix[:, 0].clone(), matrix[0].clone()))
    us = starts(made, 1)
    for iterations in (1, 3):
        u, v, sigma = power_iterations(made, us, iterations, stacked=stacked)
        for i, (matrix, start) in enumerate(zip(made, us, strict=True)):
            m, n = matrix.shape
            one_u, one_v = power_iteration(matrix, start, iterations)
            torch.testing.assert_close(u[i, :m], one_u)
            torch.testing.assert_close(v[i, :n], one_v)
            torch.testing.assert_close(sigma[i], one_u @ matrix @ one_v)
            assert not u[i, m:].any()
            assert not v[i, n:].any()


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_float32_at_any_scale(scale: float) -> None:
    matrices = [scale * torch.randn(8, 6, generator=torch.Generator().manual_seed(s)) for s in range(3)]
    u, v, sigma = power_iterations(matrices, starts(matrices, 0), 500, stacked=True)
    for i, matrix in enumerate(matrices):
        top = torch.linalg.svdvals(matrix.double())[0]
        assert float(sigma[i]) == pytest.approx(float(top), rel=1e-5)
        assert float(u[i].double() @ matrix.double() @ v[i].double()) == pytest.approx(float(top), rel=1e-5)
