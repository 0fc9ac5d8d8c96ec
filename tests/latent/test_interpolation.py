"""Interpolation of latents: ends, lengths and angles, on the line and on the sphere."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from orthogan.latent.interpolation import between, lerp, slerp_any, slerp_even, slerp_unit


@given(st.integers(0, 10_000), st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_arcs_begin_and_end_where_they_should(seed: int, t: float) -> None:
    rng = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, 3, 6, generator=rng, dtype=torch.float64)
    at = torch.full((3, 1), t, dtype=torch.float64)
    zero, one = torch.zeros_like(at), torch.ones_like(at)
    for walk in (lerp, slerp_any, slerp_even):
        torch.testing.assert_close(walk(a, b, zero), a)
        torch.testing.assert_close(walk(a, b, one), b)
        torch.testing.assert_close(walk(a, b, at), walk(b, a, 1 - at))
    unit = slerp_unit(a, b, at)
    torch.testing.assert_close(unit.norm(dim=1), one[:, 0])
    torch.testing.assert_close(unit, slerp_unit(3 * a, 0.1 * b, at))
    # the angle walked is the share t of the whole
    u, v = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
    whole = torch.acos((u * v).sum(1))
    torch.testing.assert_close(torch.acos(((u * unit).sum(1)).clamp(-1, 1)), t * whole, atol=1e-6, rtol=1e-6)


def test_vectors_in_line_are_joined_by_a_line() -> None:
    a = torch.tensor([[1.0, 2.0], [1.0, 2.0]], dtype=torch.float64)
    b = torch.tensor([[2.0, 4.0], [-1.0, -2.0]], dtype=torch.float64)
    half = torch.full((2, 1), 0.25, dtype=torch.float64)
    for walk in (slerp_any, slerp_even):
        torch.testing.assert_close(walk(a, b, half), lerp(a, b, half))
    torch.testing.assert_close(slerp_even(0 * a, b, half), half * b)  # zero has no direction


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), mix=st.floats(0, 1))
def test_even_arcs_keep_the_length_of_normal_latents(seed: int, mix: float) -> None:
    a, b = torch.randn(2, 50, generator=torch.Generator().manual_seed(seed))
    found = between(a, b, mix, sphere=True)
    assert float(found.norm()) == pytest.approx(float((1 - mix) * a.norm() + mix * b.norm()), rel=1e-5)
    turned = [float(torch.arccos(((found @ end) / found.norm() / end.norm()).clamp(-1, 1))) for end in (a, b)]
    whole = float(torch.arccos((a @ b) / a.norm() / b.norm()))
    assert turned == pytest.approx([mix * whole, (1 - mix) * whole], abs=2e-3)
    assert torch.allclose(between(a, b, mix, sphere=False), (1 - mix) * a + mix * b, atol=1e-6)
    assert torch.allclose(between(a, 2 * a, mix, sphere=True), (1 + mix) * a, atol=1e-5)  # no circle: the line
