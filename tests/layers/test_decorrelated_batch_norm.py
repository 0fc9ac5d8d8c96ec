"""Decorrelated batch norm: whitening by numpy's decomposition, batch norm where a group is one channel."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from orthogan.layers import DecorrelatedBatchNorm2d, decorrelate
from orthogan.layers.batch_norm import ConditionalBatchNorm2d
from tests.fixtures.two_processes import both_finish

METHODS = ["eigh", "newton_schulz", "pade", "eigh_autograd"]


def whitened(x: Tensor, groups: int, eps: float) -> np.ndarray:
    """By numpy, in float64, a group after the other."""
    n, c, h, w = x.shape
    rows = x.detach().double().permute(1, 0, 2, 3).reshape(groups, c // groups, -1).numpy()
    out = []
    for group in rows:
        values, q = np.linalg.eigh(np.cov(group, bias=True).reshape(len(group), -1))
        centred = group - group.mean(1, keepdims=True)
        out.append((q / np.sqrt(np.maximum(values, 0) + eps)) @ q.T @ centred)
    return np.concatenate(out).reshape(c, n, h, w).transpose(1, 0, 2, 3)


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_whitens_each_group_for_any_shape(n: int, groups: int, size: int, side: int, seed: int) -> None:
    torch.manual_seed(seed)
    x = torch.randn(n, groups * size, side, side + 1, dtype=torch.float64)
    x = x + 2 * x.roll(1, 1)
    layer = DecorrelatedBatchNorm2d(groups * size, groups=groups, eps=0.1).double()
    torch.testing.assert_close(layer(x), torch.from_numpy(whitened(x, groups, 0.1).copy()))


def test_the_output_is_white_and_nearest_to_the_input() -> None:
    torch.manual_seed(0)
    x = torch.einsum("dc,nchw->ndhw", torch.randn(4, 4), torch.randn(8, 4, 6, 6))
    rows = DecorrelatedBatchNorm2d(4, eps=1e-6)(x).detach().transpose(0, 1).flatten(1)
    torch.testing.assert_close(torch.cov(rows, correction=0), torch.eye(4), rtol=1e-3, atol=1e-3)
    centred = x.transpose(0, 1).flatten(1)
    cross = rows @ centred.T  # ZCA, not PCA: symmetric positive against the input
    torch.testing.assert_close(cross, cross.T, rtol=1e-3, atol=1e-1)
    assert float(torch.linalg.eigvalsh(cross)[0]) > 0


@pytest.mark.parametrize("method", METHODS)
def test_groups_of_one_channel_are_batch_norm(method: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 3, 4, 4) * 2 + 1
    ours = DecorrelatedBatchNorm2d(3, groups=3, method=method, iterations=30)
    theirs = nn.BatchNorm2d(3, eps=1e-2)
    probe = torch.randn(x.shape)
    grads = []
    for layer in (ours, theirs):
        y = x.clone().requires_grad_(True)
        (layer(y) * probe).sum().backward()
        grads.append(y.grad)
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(*grads, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_of_both_orders(method: str) -> None:
    torch.manual_seed(1)
    layer = DecorrelatedBatchNorm2d(3, eps=0.5, method=method).double()
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    tolerance = 1e-3 if method == "pade" else 1e-6
    assert torch.autograd.gradcheck(layer, (x,), atol=tolerance)
    assert torch.autograd.gradgradcheck(layer, (x,), atol=10 * tolerance)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_64_channels_of_27_dimensional_patches(method: str, scale: float) -> None:
    # the reference's first layer: rank 27 whatever the weight, 37 eigenvalues equal eps
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 64, 3, padding=1, bias=False), DecorrelatedBatchNorm2d(64, method=method)
    with torch.no_grad():
        conv.weight.mul_(scale)
    out = norm(conv(torch.randn(4, 3, 16, 16)))
    (out * torch.randn(out.shape)).sum().backward()
    assert torch.isfinite(out).all()
    assert torch.isfinite(conv.weight.grad).all()
    found = norm.conditioning()
    assert found["kappa"] == [float("inf")]
    lead = found["lambda_max"][0]
    assert found["kappa_shifted"] == [pytest.approx((lead + 1e-2) / 1e-2, rel=1e-3)]
    assert norm.last_covariance is not None
    assert int(torch.linalg.matrix_rank(norm.last_covariance[0].double(), rtol=1e-5)) == 27


def test_the_rank_deficient_gradient_is_the_one_of_float64() -> None:
    torch.manual_seed(0)
    conv, x, probe = nn.Conv2d(3, 64, 3, bias=False), torch.randn(4, 3, 10, 10), torch.randn(4, 64, 8, 8)
    grads = []
    for dtype in (torch.float32, torch.float64):
        net = nn.Sequential(copy.deepcopy(conv), DecorrelatedBatchNorm2d(64)).to(dtype)
        (net(x.to(dtype)) * probe).sum().backward()
        grads.append(net[0].weight.grad.float())
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-2, atol=1e-3 * float(grads[1].abs().max()))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(1, 6, 4, 4), (1, 6, 1, 1), (4, 6, 3, 3)], ids=str)
@pytest.mark.parametrize("constant", [True, False])
def test_one_sample_one_position_and_constant_input(method: str, shape: tuple[int, ...], constant: bool) -> None:
    torch.manual_seed(0)
    x = (torch.full(shape, 1.7) if constant else torch.randn(shape)).requires_grad_(True)
    layer = DecorrelatedBatchNorm2d(6, groups=2, method=method)
    out = layer(x)
    (out * torch.randn(shape)).sum().backward()
    assert torch.isfinite(out).all()
    assert torch.isfinite(x.grad).all()
    assert all(np.isfinite(layer.conditioning()["kappa_shifted"]))
    if constant or shape[2] == 1:
        assert float(out.detach().abs().max()) < 1e-4
        assert layer.conditioning()["kappa_shifted"] == pytest.approx([1.0, 1.0], rel=1e-3)


def test_evaluation_uses_running_averages() -> None:
    torch.manual_seed(0)
    layer = DecorrelatedBatchNorm2d(4, groups=2, momentum=0.25, affine=False)
    mean, matrix = torch.zeros(4), torch.eye(2).repeat(2, 1, 1)
    for _ in range(3):
        x = torch.randn(8, 4, 3, 3) + 2
        out = layer(x)
        mean = 0.75 * mean + 0.25 * x.mean((0, 2, 3))
        now = [
            torch.linalg.lstsq(
                (x - x.mean((0, 2, 3), keepdim=True))[:, part].transpose(0, 1).flatten(1).T,
                out[:, part].transpose(0, 1).flatten(1).T,
            ).solution.T
            for part in (slice(0, 2), slice(2, 4))
        ]
        matrix = 0.75 * matrix + 0.25 * torch.stack(now)
    torch.testing.assert_close(layer.running_mean, mean)
    torch.testing.assert_close(layer.running_whitening, matrix, rtol=1e-3, atol=1e-4)
    before = copy.deepcopy(layer.state_dict())
    x = torch.randn(2, 4, 3, 3)
    expected = torch.block_diag(*matrix) @ (x - mean.view(1, -1, 1, 1)).flatten(2)
    torch.testing.assert_close(layer.eval()(x).flatten(2), expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(layer.state_dict(), before)
    assert int(layer.num_batches_tracked) == 3


def test_an_evaluation_forward_and_a_training_forward_before_one_backward() -> None:
    torch.manual_seed(0)
    layer = DecorrelatedBatchNorm2d(3)
    one, two = (torch.randn(4, 3, 2, 2, requires_grad=True) for _ in range(2))
    total = layer.eval()(one).square().sum()
    expected = torch.autograd.grad(total, one, retain_graph=True)[0]
    layer.train()(two)
    (total + layer(two).square().sum()).backward()
    torch.testing.assert_close(one.grad, expected)


def test_copies_states_and_modes() -> None:
    torch.manual_seed(0)
    layer = DecorrelatedBatchNorm2d(4, groups=2)
    x = torch.randn(4, 4, 3, 3)
    layer(x)
    twin, other = copy.deepcopy(layer), DecorrelatedBatchNorm2d(4, groups=2)
    other.load_state_dict(layer.state_dict())
    for again in (twin, other):
        torch.testing.assert_close(again.eval()(x), layer.eval()(x))
    assert twin.conditioning() == layer.conditioning()
    assert set(layer.state_dict()) == {"weight", "bias", "running_mean", "running_whitening", "num_batches_tracked"}
    with pytest.raises(ValueError, match="no batch yet"):
        other.conditioning()


def test_half_precision_input_is_whitened_in_float32() -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 4, 4, 4).bfloat16()
    layer = DecorrelatedBatchNorm2d(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, layer(x.float()).bfloat16())
    assert layer.running_whitening.dtype == torch.float32


@pytest.mark.parametrize("method", METHODS)
def test_compiles_into_one_graph(method: str) -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    eager = DecorrelatedBatchNorm2d(4, method=method)
    twin = copy.deepcopy(eager)
    compiled = torch.compile(twin, backend="aot_eager", fullgraph=True)
    x = torch.randn(3, 4, 3, 3)
    for _ in range(3):
        x = x.roll(1, 3) ** 2
        grads = []
        for layer in (eager, compiled):
            y = x.clone().requires_grad_(True)
            layer(y).pow(3).sum().backward()
            grads.append(y.grad)
        torch.testing.assert_close(*grads)
    torch.testing.assert_close(twin.state_dict(), eager.state_dict())
    assert twin.conditioning()["lambda_max"] == pytest.approx(eager.conditioning()["lambda_max"])
    twin.eval()
    torch.testing.assert_close(compiled(x), eager.eval()(x))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.block = ConditionalBatchNorm2d(4, 2)
        self.again = self.stem[1]


def test_decorrelate_replaces_what_the_patterns_name() -> None:
    net = Net()
    nn.init.uniform_(net.stem[1].weight)
    gain = net.stem[1].weight.detach().clone()
    net.eval()
    assert decorrelate(net, "stem.*", eps=0.1) == ["stem.1"]
    new = net.stem[1]
    assert isinstance(new, DecorrelatedBatchNorm2d)
    assert (new.eps, new.training, new.num_features) == (0.1, False, 4)
    assert torch.equal(new.weight, gain)
    assert isinstance(net.again, nn.BatchNorm2d)
    assert isinstance(net.block.norm, nn.BatchNorm2d)


def test_decorrelate_of_everything_keeps_shared_layers_shared() -> None:
    net = Net().double()
    assert sorted(decorrelate(net, groups=2)) == ["again", "block.norm", "stem.1"]
    assert net.again is net.stem[1]
    assert isinstance(net.block.norm, DecorrelatedBatchNorm2d)
    assert net.block.norm.weight is None
    out = net.block(net.stem(torch.randn(2, 3, 5, 5, dtype=torch.float64)), torch.tensor([0, 1]))
    assert out.dtype == torch.float64
    with pytest.raises(ValueError, match="there is none"):
        decorrelate(net)


def test_refusals_replace_nothing() -> None:
    net = Net()
    for words in (["head.*"], ["stem.*", "head.*"], []):
        with pytest.raises(ValueError, match=r"there are stem\.1, block\.norm, again"):
            decorrelate(net, words)
    with pytest.raises(ValueError, match="groups is 3: it must divide the 4"):
        decorrelate(net, groups=3)
    assert isinstance(net.stem[1], nn.BatchNorm2d)
    with pytest.raises(ValueError, match="eps is 0"):
        DecorrelatedBatchNorm2d(4, eps=0)
    with pytest.raises(ValueError, match="momentum is 2"):
        DecorrelatedBatchNorm2d(4, momentum=2)
    with pytest.raises(ValueError, match="method 'qr'"):
        DecorrelatedBatchNorm2d(4, method="qr")
    with pytest.raises(ValueError, match="iterations is 0"):
        DecorrelatedBatchNorm2d(4, method="newton_schulz", iterations=0)


TWO = """
import os, sys
import torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP
from orthogan.layers import DecorrelatedBatchNorm2d
rank = int(os.environ["RANK"])
torch.manual_seed(0)
x, probe = torch.randn(8, 4, 3, 3) * 3 + 5, torch.randn(8, 4, 3, 3)
x = x + x.roll(1, 1)
whole, shared = (DecorrelatedBatchNorm2d(4, groups=2) for _ in range(2))
for layer in (whole, shared):
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(0.5, 2, 4))
        layer.bias.copy_(torch.linspace(-1, 1, 4))
a = x.clone().requires_grad_(True)
expected = whole(a)  # before the group exists: one process
(expected * probe).sum().backward()
dist.init_process_group("gloo")
rows = slice(5 * rank, 5 + 3 * rank)
b = x[rows].clone().requires_grad_(True)
model = DDP(shared)  # its hooks live as long as it does
got = model(b)
(got * probe[rows]).sum().backward()
torch.testing.assert_close(got, expected[rows], rtol=1e-4, atol=1e-4)
torch.testing.assert_close(b.grad, a.grad[rows], rtol=1e-3, atol=1e-4)
for p, q in ((shared.weight, whole.weight), (shared.bias, whole.bias)):
    torch.testing.assert_close(2 * p.grad, q.grad, rtol=1e-4, atol=1e-4)  # DDP averages
torch.testing.assert_close(shared.running_mean, whole.running_mean)
torch.testing.assert_close(shared.running_whitening, whole.running_whitening, rtol=1e-4, atol=1e-5)
torch.testing.assert_close(shared.last_covariance, whole.last_covariance, rtol=1e-4, atol=1e-4)
"""


@pytest.mark.slow
def test_two_processes_are_one_batch(tmp_path: Path) -> None:
    both_finish(TWO, tmp_path)
