"""Batch norm: torch's on one process, that of the joined batch on two, a gain and bias for each class."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from orthogan.layers.batch_norm import EPS, BatchNorm2d, ConditionalBatchNorm2d
from tests.fixtures.two_processes import both_finish

TWO = """
import copy, os, sys, unittest.mock
import torch, torch.distributed as dist
from orthogan.layers.batch_norm import EPS, BatchNorm1d, BatchNorm2d
from orthogan.models import GENERATORS
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
# shares of different sizes, any momentum and number format, against torch on the whole batch
for dtype, momentum, first in ((torch.float64, 0.3, 5), (torch.float32, None, 7), (torch.bfloat16, 0.1, 8)):
    images = (x[:, :, :2, :3].double() * 2 + 1).to(dtype)
    rows = slice(0, first) if rank == 0 else slice(first, 8)
    for ours, theirs, batch in (
        (BatchNorm2d(3), torch.nn.BatchNorm2d(3, eps=EPS), images),
        (BatchNorm1d(18), torch.nn.BatchNorm1d(18), images.flatten(1)),
        (BatchNorm1d(3), torch.nn.BatchNorm1d(3), images.flatten(2)),
    ):
        ours.momentum = theirs.momentum = momentum
        ours.to(dtype), theirs.to(dtype)
        close = dict(rtol=2e-2, atol=2e-2) if dtype == torch.bfloat16 else {}
        for _ in range(2):
            torch.testing.assert_close(ours(batch[rows]), theirs(batch)[rows], **close)
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), **close)
# generators: the images and buffers of one process with the whole batch
for kind, more in (("infogan", {}), ("biggan", {"num_classes": 2})):
    torch.manual_seed(0)
    whole = GENERATORS.get(kind)(resolution=32, image_channels=1, channels=2, latent_dim=16 if more else 6, **more)
    z, y = whole.sample_latent(8, seed=1) * 2, (torch.arange(8) % 2 if more else None)
    part = copy.deepcopy(whole)
    with unittest.mock.patch("torch.distributed.get_world_size", lambda *_: 1):
        expected = whole(z, y)
    rows = slice(5 * rank, 5 + 3 * rank)
    torch.testing.assert_close(part(z[rows], None if y is None else y[rows]), expected[rows], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(part.state_dict(), whole.state_dict(), rtol=1e-3, atol=1e-4)
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
