"""The operations and bytes of a net are counted."""

from __future__ import annotations

import torch
from torch import nn

from orthogan.models.work import Work, forward_flops


def test_the_operations_of_a_forward_are_counted_and_nothing_moves() -> None:
    net = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(5 * 16, 7))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    assert forward_flops(net, torch.ones(2, 3, 4, 4)) == 2 * (2 * 16 * 27 * 5 + 2 * 80 * 7)
    assert net.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_forward_and_backward_are_counted_with_what_they_read_and_write() -> None:
    a = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    b = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    with Work() as work:
        (a @ b).sum().backward()
    # the product, and its two gradients of the same size
    assert work.flops == 3 * 2 * 2 * 3 * 5
    assert work.bytes == 3 * 8 * (6 + 15 + 10)


def test_a_parameter_that_is_an_input_is_no_trouble() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.start, self.inner = nn.Parameter(torch.ones(1, 4)), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(self.start.view(1, 4)) * x

    assert forward_flops(Constant(), torch.ones(1, 2)) == 2 * 4 * 2
