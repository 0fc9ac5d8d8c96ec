"""Activation checkpointing gives the gradients and the state that a plain forward pass gives."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from orthogan.layers import DecorrelatedBatchNorm2d, SkewOrthogonalConv2d
from orthogan.models import StyleGAN2Generator
from orthogan.recompute import is_repeated
from orthogan.weights import CONSTRAINTS, apply


def two_layers(norm: nn.Module | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), norm or nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))


def constrained(kind: str) -> nn.Module:
    net = two_layers()
    apply(net, CONSTRAINTS.get(kind)())
    for weights in net.parameters():  # far from the weights that the state was made for
        with torch.no_grad():
            weights.add_(torch.randn(weights.shape))
    return net


NETS: dict[str, Callable[[], nn.Module]] = {
    **{kind: (lambda kind=kind: constrained(kind)) for kind in CONSTRAINTS if kind not in ("none", "householder")},
    "decorrelated": lambda: two_layers(DecorrelatedBatchNorm2d(8)),
    "skew": lambda: two_layers(SkewOrthogonalConv2d(8, 8, 3)),
}


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_gradients_and_state_are_those_without_checkpointing(name: str, reentrant: bool) -> None:
    plain = NETS[name]()
    repeated = copy.deepcopy(plain)
    x = torch.randn(4, 3, 8, 8, requires_grad=True)
    results: list[list[Tensor]] = []
    for net, run in ((plain, plain), (repeated, lambda x: checkpoint(repeated, x, use_reentrant=reentrant))):
        net.train()
        for _ in range(2):  # two updates of the weights
            run(x).square().sum().backward()
            with torch.no_grad():
                for weight in net.parameters():
                    assert weight.grad is not None
                    weight -= 1e-3 * weight.grad
        results.append([*(weight.grad for weight in net.parameters() if weight.grad is not None), *net.buffers()])
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_the_mean_of_w_counts_each_batch_once() -> None:
    plain = StyleGAN2Generator(resolution=16, image_channels=1, channels=4, latent_dim=4).train()
    repeated = copy.deepcopy(plain)
    z = torch.randn(4, 4)
    plain(z).sum().backward()
    checkpoint(repeated, z, use_reentrant=False).sum().backward()
    assert torch.equal(plain.w_mean, repeated.w_mean)
    assert plain.w_mean.abs().max() > 0


def test_only_a_backward_pass_counts() -> None:
    seen: list[bool] = []

    class Seen(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            seen.append(is_repeated())
            return x.clone()

        @staticmethod
        def backward(ctx: object, *gradients: Tensor) -> Tensor:
            seen.append(is_repeated())
            return gradients[0]

    Seen.apply(torch.ones(1, requires_grad=True)).backward()
    assert seen == [False, True]
    assert not is_repeated()
