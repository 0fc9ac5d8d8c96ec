"""Batch norm: torch's on one process, that of the joined batch on two, a gain and bias for each class."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from orthogan.layers.batch_norm import EPS, BatchNorm2d, ConditionalBatchNorm2d
from tests.fixtures.two_processes import both_finish

TWO = """
import os, sys
import torch, torch.distributed as dist
from orthogan.layers.batch_norm import BatchNorm2d
dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(0)
x = torch.randn(8, 3, 4, 4, dtype=torch.float64).float() * 3 + 5
probe = torch.randn(8, 3, 4, 4)
whole, shared = BatchNorm2d(3), BatchNorm2d(3)
for layer in (whole, shared):
    torch.nn.init.uniform_(layer.weight, 0.5, 2)
    torch.nn.init.normal_(layer.bias)
shared.load_state_dict(whole.state_dict())
a = x.clone().requires_grad_(True)
expected = torch.nn.functional.batch_norm(
    a, whole.running_mean, whole.running_var, whole.weight, whole.bias, True, 0.1, whole.eps)
(expected * probe).sum().backward()
rows = slice(4 * rank, 4 * rank + 4)
b = x[rows].clone().requires_grad_(True)
got = shared(b)
(got * probe[rows]).sum().backward()
torch.testing.assert_close(got, expected[rows], rtol=1e-4, atol=1e-5)
torch.testing.assert_close(b.grad, a.grad[rows], rtol=1e-3, atol=1e-5)
for p, q in ((shared.weight, whole.weight), (shared.bias, whole.bias)):
    total = p.grad.clone()
    dist.all_reduce(total)
    torch.testing.assert_close(total, q.grad, rtol=1e-4, atol=1e-4)
torch.testing.assert_close(shared.running_mean, whole.running_mean)
torch.testing.assert_close(shared.running_var, whole.running_var)
shared.eval()
torch.testing.assert_close(shared(x), torch.nn.functional.batch_norm(
    x, shared.running_mean, shared.running_var, shared.weight, shared.bias, False, 0.1, shared.eps))
"""


@pytest.mark.slow
def test_two_processes_are_one_batch(tmp_path: Path) -> None:
    both_finish(TWO, tmp_path)


def test_one_process_is_torchs() -> None:
    ours, theirs = BatchNorm2d(3), nn.BatchNorm2d(3, eps=EPS, momentum=0.1)
    x = torch.randn(5, 3, 4, 4)
    for _ in range(2):
        torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_conditional_norm_starts_as_the_plain_one_and_learns_by_class() -> None:
    layer = ConditionalBatchNorm2d(3, 4)
    x, y = torch.randn(6, 3, 2, 2), torch.tensor([0, 1, 2, 3, 0, 1])
    plain = nn.functional.batch_norm(x, None, None, training=True, eps=EPS)
    torch.testing.assert_close(layer(x, y), plain)
    with torch.no_grad():
        layer.gain[1] = 2.0
        layer.bias[1] = -1.0
    out = layer(x, y)
    torch.testing.assert_close(out[[1, 5]], 2 * plain[[1, 5]] - 1)
    torch.testing.assert_close(out[[0, 2, 3, 4]], plain[[0, 2, 3, 4]])
