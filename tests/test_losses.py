"""Adversarial losses and gradient penalties against their formulas written out in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from orthogan.config.files import load_config
from orthogan.errors import UserError
from orthogan.losses import LOSSES, AdversarialLoss, sign_mean
from orthogan.penalties.input_gradient import GRADIENT_PENALTIES, WGAN_GP, GradientPenalty, between, squared_norm

logits = st.lists(st.floats(-20, 20), min_size=3, max_size=3)

ORIGIN = torch.zeros((), requires_grad=True)


def by_hand(kind: str, r: float, f: float) -> tuple[float, float]:
    softplus = lambda x: max(x, 0.0) + math.log1p(math.exp(-abs(x)))  # noqa: E731
    match kind:
        case "hinge":
            return max(0.0, 1 - r) + max(0.0, 1 + f), -f
        case "non_saturating":
            return softplus(-r) + softplus(f), softplus(-f)
        case "wasserstein":
            return f - r, -f
        case "least_squares":
            return 0.5 * ((r - 1) ** 2 + f**2), 0.5 * (f - 1) ** 2
        case "relativistic":
            return softplus(f - r), softplus(r - f)
    raise AssertionError(kind)


@pytest.mark.parametrize("kind", LOSSES)
@given(real=logits, fake=logits)
@settings(max_examples=25)
def test_losses_are_means_of_their_formulas(kind: str, real: list[float], fake: list[float]) -> None:
    r, f = torch.tensor(real, dtype=torch.float64), torch.tensor(fake, dtype=torch.float64)
    pairs = [by_hand(kind, a, b) for a, b in zip(real, fake, strict=True)]
    loss = LOSSES.get(kind)
    assert loss.discriminator(r, f).item() == pytest.approx(sum(p[0] for p in pairs) / 3, rel=1e-9, abs=1e-9)
    assert loss.generator(f, r if loss.paired else None).item() == pytest.approx(
        sum(p[1] for p in pairs) / 3, rel=1e-9, abs=1e-9
    )


@pytest.mark.parametrize("kind", LOSSES)
def test_gradients(kind: str) -> None:
    r = torch.randn(4, dtype=torch.float64, requires_grad=True)
    f = torch.randn(4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(LOSSES.get(kind).discriminator, (r, f))
    assert torch.autograd.gradcheck(lambda a, b: LOSSES.get(kind).generator(a, b), (f, r))


def test_the_paired_loss_without_reals_says_so() -> None:
    with pytest.raises(TypeError, match="reals"):
        LOSSES.get("relativistic").generator(torch.zeros(2), None)


def test_sign_mean() -> None:
    assert sign_mean(torch.tensor([3.0, -0.1, 2.0, 5.0])).item() == 0.5


def linear(weight: Tensor) -> torch.nn.Module:
    class Linear(torch.nn.Module):
        def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
            return (x * weight).flatten(1).sum(1)

    return Linear()


def test_a_linear_critic_has_its_weight_as_gradient() -> None:
    weight = torch.randn(1, 2, 3, 3, dtype=torch.float64)
    x = torch.randn(5, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    net = linear(weight)
    expected = weight.square().sum().float()
    torch.testing.assert_close(squared_norm(net(x), x), expected.expand(5))
    torch.testing.assert_close(GRADIENT_PENALTIES.get("r1").at(net, x, None, ORIGIN), 0.5 * expected)
    mix = torch.rand(5, dtype=torch.float64)
    torch.testing.assert_close(WGAN_GP.at(net, between(x, x.flip(0), mix), None, ORIGIN), (expected.sqrt() - 1) ** 2)


def test_penalties_against_finite_differences() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(8, 6), torch.nn.Tanh(), torch.nn.Linear(6, 1)
    ).double()
    critic = lambda x, y: net(x).squeeze(1)  # noqa: E731
    x = torch.randn(3, 2, 2, 2, dtype=torch.float64)
    numeric = torch.zeros(3)
    for i in range(8):
        step = torch.zeros(8, dtype=torch.float64)
        step[i] = 1e-5
        slope = (critic(x + step.view(1, 2, 2, 2), None) - critic(x - step.view(1, 2, 2, 2), None)) / 2e-5
        numeric += slope.square().float()
    torch.testing.assert_close(
        GRADIENT_PENALTIES.get("r2").at(critic, x, None, ORIGIN), numeric.mean() / 2, rtol=1e-5, atol=1e-7
    )


def test_a_flat_critic_gives_wgan_gp_a_finite_gradient() -> None:
    scale = torch.zeros((), requires_grad=True)
    critic = lambda x, y: (x * scale).flatten(1).sum(1)  # noqa: E731
    penalty = WGAN_GP.at(critic, torch.randn(4, 1, 2, 2), None, ORIGIN)
    (gradient,) = torch.autograd.grad(penalty, scale)
    assert torch.isfinite(gradient)
    assert penalty.item() == pytest.approx(1.0, rel=1e-4)


STEEP = GradientPenalty(("real", "between"), lambda square: square.square())
SQUARED = AdversarialLoss(lambda real, fake: (real - fake).square().mean(), lambda fake, real: fake.mean())


def test_a_loss_of_the_users_own_is_named_in_the_config() -> None:
    config = load_config(None, [f"loss.kind={__name__}:SQUARED"])
    assert LOSSES.get(config.loss.kind, "loss.kind") is SQUARED
    with pytest.raises(UserError, match=r"name an orthogan\.losses\.AdversarialLoss"):
        LOSSES.get(f"{__name__}:test_a_loss_of_the_users_own_is_named_in_the_config", "loss.kind")
    with pytest.raises(UserError, match="unknown loss 'hinges'; did you mean 'hinge'"):
        load_config(None, ["loss.kind=hinges"])


def test_a_gradient_penalty_of_the_users_own_is_named_in_the_config() -> None:
    config = load_config(None, [f"loss.gradient_penalty.kind={__name__}:STEEP", "loss.gradient_penalty.interval=2"])
    assert GRADIENT_PENALTIES.get(config.loss.gradient_penalty.kind) is STEEP
    with pytest.raises(UserError, match=r"name an orthogan\.penalties\.input_gradient\.GradientPenalty"):
        GRADIENT_PENALTIES.get(f"{__name__}:SQUARED", "loss.gradient_penalty.kind")
    with pytest.raises(UserError, match="unknown gradient penalty 'r3'"):
        load_config(None, ["loss.gradient_penalty.kind=r3"])
