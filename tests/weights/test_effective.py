"""One function reads a weight, whatever stands between it and the parameters, and every tool uses it."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from orthogan import first_layer_directions, penalties, weights
from orthogan.evaluation.critic.complexity import capacity
from orthogan.evaluation.spectrum.layer_spectrum import spectrum
from orthogan.evaluation.spectrum.near_orthogonality import near_orthogonality
from orthogan.gradients import NearestOrthogonalGradient
from orthogan.layers import HouseholderProjector
from orthogan.linalg import orthogonality_error
from orthogan.models.families.modulation import EqualLinear
from orthogan.weights.effective import effective_weight

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated.*", "ignore:.*singular values tie.*")


class Scaled:
    """A hook of the kind that many public repositories have: it names the weight that it sets."""

    name = "weight"

    def __call__(self, module: nn.Module, inputs: object) -> None:
        module.weight = 3 * module.raw


class OwnHook(nn.Linear):
    """A layer whose weight exists from its first forward on, set by a method of its own."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.raw = self.weight
        del self.weight
        self.calls = 0
        self.register_forward_pre_hook(self.derive)

    def derive(self, module: nn.Module, inputs: object) -> None:
        self.calls += 1
        self.weight = self.raw.tanh()


def by_class(layer: nn.Linear) -> nn.Linear:
    layer.raw = layer.weight
    del layer.weight
    layer.weight = torch.full((5, 4), torch.nan)
    layer.register_forward_pre_hook(Scaled())
    return layer


def by_function(layer: nn.Linear) -> nn.Linear:
    layer.raw = layer.weight
    del layer.weight
    layer.weight = torch.full((5, 4), torch.nan)
    layer.register_forward_pre_hook(
        lambda _, inputs: None if inputs[0].dim() else inputs
    )  # needs an input, makes no weight
    layer.register_forward_pre_hook(lambda _, inputs: setattr(layer, "weight", layer.raw.exp()))
    return layer


def pruned(layer: nn.Linear) -> nn.Linear:
    prune.random_unstructured(layer, "weight", 0.3)
    return prune.l1_unstructured(layer, "weight", 0.2)  # twice: a container of masks


WRAPS: dict[str, Callable[[nn.Linear], nn.Linear]] = {
    "plain": lambda layer: layer,
    "old weight_norm": nn.utils.weight_norm,
    "old spectral_norm": nn.utils.spectral_norm,
    "prune": pruned,
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "our spectral_norm": weights.spectral_norm,
    "our stable_rank_norm": lambda layer: weights.stable_rank_norm(layer, c=0.4),
    "our rotation": lambda layer: weights.rotation(layer, method="cayley"),
    "a hook class": by_class,
    "a hook function": by_function,
    "a method of the layer": lambda layer: OwnHook(4, 5),
    "equalized": lambda layer: EqualLinear(4, 5),
    "equalized, pruned": lambda layer: pruned(EqualLinear(4, 5)),
    "equalized, spectral": lambda layer: weights.spectral_norm(EqualLinear(4, 5)),
}


def made(name: str, seed: int = 0) -> nn.Linear:
    """A layer whose parameters were changed after its hooks last ran, as by a step or by ``load_state_dict``."""
    torch.manual_seed(seed)
    layer = WRAPS[name](nn.Linear(4, 5))
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter))
    return layer


def applied(layer: nn.Module) -> Tensor:
    """The matrix of the map that a forward in eval mode is."""
    layer = layer.eval()
    return (layer(torch.eye(4)) - layer(torch.zeros(1, 4))).T.detach()


def twin(name: str, layer: nn.Module) -> nn.Module:
    other = made(name, 1)
    other.load_state_dict(layer.state_dict())
    return other


@pytest.mark.parametrize("name", WRAPS)
def test_it_is_what_a_forward_in_eval_mode_applies_before_and_after_one(name: str) -> None:
    layer = made(name)
    true = applied(twin(name, layer))
    state = copy.deepcopy(layer.state_dict())
    for _ in range(2):
        found = effective_weight(layer)
        torch.testing.assert_close(found.detach(), true, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(value, state[key]) for key, value in layer.state_dict().items())
    assert all(part.training for part in layer.modules())
    assert getattr(layer, "calls", 0) == 0
    gradients = torch.autograd.grad(found.square().sum() + found.sum(), list(layer.parameters()), allow_unused=True)
    assert any(g is not None and bool(torch.isfinite(g).all()) and float(g.abs().max()) > 0 for g in gradients)
    layer(torch.randn(3, 4))
    torch.testing.assert_close(effective_weight(layer).detach(), applied(layer), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", WRAPS)
def test_a_penalty_before_the_forward_trains_and_leaves_the_forward_alone(name: str) -> None:
    nets = [made(name), made(name)]
    x = torch.randn(3, 4)
    for net, watched in zip(nets, (True, False), strict=True):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
        term = penalties.Penalty(net, "soft_orthogonality", 0.0)
        for _ in range(3):
            optimizer.zero_grad()
            loss = term() if watched else 0.0
            (loss + net(x).square().mean()).backward()
            optimizer.step()
    for (key, one), other in zip(nets[0].state_dict().items(), nets[1].state_dict().values(), strict=True):
        assert torch.equal(one, other), key


@pytest.mark.parametrize("name", [name for name in WRAPS if name not in ("orthogonal", "our rotation")])
def test_every_tool_reads_it(name: str) -> None:
    layer = made(name)
    true = applied(twin(name, layer)).double()
    sigma = torch.linalg.svdvals(true)

    class Net(nn.Module):
        latent_dim, num_classes = 4, 0

        def __init__(self) -> None:
            super().__init__()
            self.first = layer

        def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            return self.first(z)[:, :4].reshape(-1, 1, 2, 2)

    net = Net()
    assert first_layer_directions(net).scores["sigma"] == pytest.approx(sigma.tolist(), rel=1e-4)
    row = spectrum(net)[0]
    assert (row.sigma, row.stable_rank) == pytest.approx((float(sigma[0]), float((sigma / sigma[0]).square().sum())))
    assert near_orthogonality(net)["first/kernel"] == pytest.approx(float(orthogonality_error(true)) / 2, rel=1e-4)
    rows = float(true.norm(dim=1).sum() / sigma[0])
    expected = torch.log10(sigma[0] ** 2 * rows**2)
    assert capacity(net)["spec_l1"] == pytest.approx(float(expected), rel=1e-4, abs=1e-5)
    for penalty in penalties.PENALTIES:
        value = penalties.apply(net, penalty).detach()
        wanted = getattr(penalties, penalty)(true)
        assert float(value) == pytest.approx(float(wanted), rel=1e-3, abs=1e-5), penalty
    projector = HouseholderProjector.from_linear(layer, 4, scale=None)
    assert float(projector.scale[0]) == pytest.approx(float(sigma.square().mean().sqrt()), rel=1e-4)


@pytest.mark.parametrize("name", ["old spectral_norm", "prune", "spectral_norm", "our spectral_norm"])
def test_a_rule_acts_on_the_parameter_behind_a_norm_or_a_mask(name: str) -> None:
    layer = made(name)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    ((_, parameter),) = NearestOrthogonalGradient(optimizer, layer).parameters
    layer(torch.randn(8, 4)).square().sum().backward()
    optimizer.step()
    assert parameter.grad is not None
    torch.testing.assert_close(torch.linalg.svdvals(parameter.grad), torch.ones(4), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["old weight_norm", "weight_norm", "orthogonal", "our rotation", "a hook class"])
def test_a_rule_refuses_a_weight_that_is_no_parameter(name: str) -> None:
    layer = made(name)
    with pytest.raises(ValueError, match=r"Linear\.weight is (not a single parameter|under)"):
        NearestOrthogonalGradient(torch.optim.SGD(layer.parameters(), lr=0.1), layer)
