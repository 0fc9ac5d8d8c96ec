"""The operations and bytes of a step are counted."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.floor import Least, Work


def test_forward_and_backward_are_counted_with_what_they_read_and_write() -> None:
    a = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    b = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    with Work() as work:
        (a @ b).sum().backward()
    # the product, and its two gradients of the same size
    assert work.flops == 3 * 2 * 2 * 3 * 5
    assert work.bytes == 3 * 8 * (6 + 15 + 10)


def test_convolutions_and_their_transposes_are_counted() -> None:
    x = torch.randn(2, 3, 4, 4)
    with Work() as work, torch.no_grad():
        nn.Conv2d(3, 5, 3, padding=1)(x)
    assert work.flops == 2 * 2 * 16 * 27 * 5
    with Work() as work, torch.no_grad():
        nn.ConvTranspose2d(3, 5, 4, stride=2, padding=1)(x)
    assert work.flops == 2 * 2 * 16 * 16 * 3 * 5


def test_the_floor_is_the_longer_of_arithmetic_and_traffic() -> None:
    ceilings = {"bf16": 100.0, "copy": 10.0}
    assert Least(200.0, 5.0).seconds(ceilings, "bf16") == pytest.approx(2.0)
    assert (Least(200.0, 5.0) + Least(0.0, 45.0)).seconds(ceilings, "bf16") == pytest.approx(5.0)
