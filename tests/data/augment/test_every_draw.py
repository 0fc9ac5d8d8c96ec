"""Chance and its use were once one function: what a seed gives must never change, or old runs would not continue."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from orthogan.config.files import load_config
from orthogan.data import AdaptiveAugment, DiffAugment
from orthogan.data.augment import Augmentation, make_augment
from orthogan.rng import generator

Policy = DiffAugment | AdaptiveAugment

CAN_TRACE = hasattr(torch._dynamo.config, "trace_autograd_ops")


def policies(p: float = 0.8) -> dict[str, Policy]:
    adaptive = AdaptiveAugment()
    adaptive.p = torch.tensor(p)
    return {"diffaugment": DiffAugment(), "ada": adaptive}


def images(n: int = 4, side: int = 8) -> Tensor:
    return torch.rand(n, 3, side, side, generator=generator("cpu", 1)) * 2 - 1


# Of version 0.1.0, for these images and seed: sums with weights that tell places apart, and the draw that follows.
KNOWN: dict[str, tuple[float, float]] = {
    "diffaugment": (47.207477920269774, 0.34424179792404175),
    "ada": (-27.85549431891974, 0.9933218955993652),
}


def summary(result: Tensor) -> float:
    weights = torch.linspace(-1, 1, result.numel(), dtype=torch.float64)
    return float((result.double().flatten() * weights).sum())


@pytest.mark.parametrize("name", KNOWN)
def test_a_seed_gives_what_it_always_gave(name: str) -> None:
    rng = generator("cpu", 5)
    value = summary(policies()[name](images(), rng))
    follow = float(torch.rand((), generator=rng))
    assert value == pytest.approx(KNOWN[name][0], abs=1e-4)
    assert follow == KNOWN[name][1]


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.skipif(not CAN_TRACE, reason="torch 2.9 cannot trace a gradient penalty")
@torch._dynamo.config.patch({"trace_autograd_ops": True} if CAN_TRACE else {})
def test_a_whole_phase_with_a_gradient_penalty_compiles_to_one_graph(name: str) -> None:
    torch.compiler.reset()
    augment = policies()[name]
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(144, 1))
    drawn = augment.draw(4, (3, 8, 8), generator("cpu", 2))

    def phase(reals: Tensor, drawn: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        reals = reals.detach().requires_grad_()
        logits = net(augment.apply(reals, drawn))
        (gradient,) = torch.autograd.grad(logits.sum(), reals, create_graph=True)
        loss = logits.mean() + gradient.square().sum()
        return torch.autograd.grad(loss, list(net.parameters()))

    compiled = torch.compile(phase, fullgraph=True, backend="aot_eager")
    for expected, got in zip(phase(images(), drawn), compiled(images(), drawn), strict=True):
        torch.testing.assert_close(got, expected)
    other = augment.draw(4, (3, 8, 8), generator("cpu", 3))  # no number of the first call was frozen into the graph
    for expected, got in zip(phase(images(), other), compiled(images(), other), strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("kind", ["none", "diffaugment", "ada"])
def test_the_augmentations_of_training_draw_and_apply(kind: str) -> None:
    augment = make_augment(load_config(None, [f"augment.kind={kind}"]).augment)
    assert type(augment) is {"none": Augmentation, "diffaugment": DiffAugment, "ada": AdaptiveAugment}[kind]
    if isinstance(augment, AdaptiveAugment):
        augment.p = torch.tensor(0.6)
    drawn = augment.draw(4, (3, 8, 8), generator("cpu", 7))
    whole = augment(images(), generator("cpu", 7))
    assert torch.equal(augment.apply(images(), drawn), whole)
    assert torch.equal(whole, images()) == (kind == "none")
