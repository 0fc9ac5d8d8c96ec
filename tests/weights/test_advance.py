"""One round for all constraints at once, and what the forwards of a held block share."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from orthogan import weights
from orthogan.weights import PowerIterationScheduler, SpectralNorm, orthogonal, spectral_norm, stable_rank_norm
from orthogan.weights.network import list_constrained, unconstrained
from tests.fixtures.two_processes import both_finish

# name -> what makes it; several of one shape, and single rows, columns, kinds and counts of iterations
LAYERS = {
    "sn": lambda: spectral_norm(nn.Linear(7, 5)),
    "sn again": lambda: spectral_norm(nn.Linear(7, 5)),
    "sn twice": lambda: spectral_norm(nn.Linear(7, 5), n_power_iterations=2),
    "row": lambda: spectral_norm(nn.Linear(6, 1)),
    "column": lambda: spectral_norm(nn.Linear(1, 6)),
    "srn binding": lambda: stable_rank_norm(nn.Conv2d(3, 8, 3), c=0.2),
    "srn loose": lambda: stable_rank_norm(nn.Conv2d(3, 8, 3), c=1.0),
    "srn row": lambda: stable_rank_norm(nn.Linear(6, 1), c=0.5),
    "srn rank 1": lambda: stable_rank_norm(nn.Linear(6, 3), c=0.3),
    "k0": lambda: stable_rank_norm(nn.Linear(7, 5), c=0.5, k=0),
    "k2": lambda: stable_rank_norm(nn.Linear(7, 5), c=0.5, k=2),
    "k2 again": lambda: stable_rank_norm(nn.Linear(7, 5), c=0.6, k=2),
    "transposed": lambda: spectral_norm(nn.ConvTranspose2d(4, 6, 3, groups=2)),
    "embedding": lambda: spectral_norm(nn.Embedding(10, 4)),
    "double": lambda: stable_rank_norm(nn.Linear(7, 5).double(), c=0.3),
    "half": lambda: spectral_norm(nn.Linear(7, 5).bfloat16()),
    "half, vectors too": lambda: spectral_norm(nn.Linear(7, 5)).bfloat16(),
    "orthogonal": lambda: orthogonal(nn.Linear(5, 3), method="bjorck"),
}


def net(*names: str) -> nn.ModuleList:
    torch.manual_seed(0)
    made = nn.ModuleList([LAYERS[name]() for name in names or LAYERS])
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))  # away from where the vectors were made
    return made


def parts(module: nn.Module) -> list[tuple[SpectralNorm, Tensor]]:
    return [(c, unconstrained(layer, weight)) for _, layer, weight, c in list_constrained(module)]


def values(module: nn.Module) -> list[Tensor]:
    return [layer.weight for _, layer, _, _ in list_constrained(module)]


def buffers(module: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in module.named_buffers()}


def probe(found: list[Tensor]) -> Tensor:
    """A scalar with a slope of its own in every direction of every weight."""
    return torch.stack([one.double().flatten().cumsum(0).cos().sum() for one in found]).sum()


def gradients(module: nn.Module) -> list[Tensor]:
    module.zero_grad()
    probe(values(module)).backward()
    return [parameter.grad.clone() for _, parameter in parts(module)]


def equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_round_is_one_layer_after_the_other() -> None:
    ours, theirs = net(), net()
    step = PowerIterationScheduler(ours)
    before = buffers(ours)
    for _ in range(3):
        step()
        for constraint, weight in parts(theirs):
            constraint.advance(weight)
    torch.testing.assert_close(buffers(ours), buffers(theirs), rtol=1e-4, atol=1e-5)
    moving = {name for name, buffer in before.items() if not name.endswith("signs") and buffer.numel() > 1}
    assert not any(torch.equal(before[name], buffers(ours)[name]) for name in moving)


@pytest.mark.parametrize(
    "name", ["sn", "row", "column", "srn binding", "k0", "k2", "transposed", "double", "embedding"]
)
def test_many_rounds_reach_the_singular_values_in_float64(name: str) -> None:
    module = net(name)
    step = PowerIterationScheduler(module)
    for _ in range(1000):
        step()
    ((constraint, weight),) = parts(module)
    matrix = constraint.matrix(weight.detach()).double()
    u, v = constraint.u.double(), constraint.v.double()
    if constraint.groups > 1:
        found = (u * (matrix @ v.unsqueeze(-1)).squeeze(-1)).sum(-1)
        torch.testing.assert_close(found, torch.linalg.svdvals(matrix)[:, 0], rtol=1e-4, atol=1e-6)
        return
    k = 1 if u.dim() == 1 else u.shape[1]
    found = torch.diagonal(u.reshape(-1, k).mT @ matrix @ v.reshape(-1, k))
    torch.testing.assert_close(found, torch.linalg.svdvals(matrix)[:k], rtol=1e-4, atol=1e-6)


def test_eval_mode_and_held_constraints_stay_still() -> None:
    module = net()
    step = PowerIterationScheduler(module)
    before = buffers(module)
    module.eval()
    step()
    with step.hold():
        pass
    module.train()
    with weights.hold_power_iteration(module):
        step()
        with step.hold():
            values(module)
    with step.hold():
        during = buffers(module)
        step()
        values(module)
        weights.advance(module)
        assert equal(buffers(module), during)
    assert equal(during, buffers(module))
    assert not equal(before, during)
    module.train()
    module[0].eval()
    step()
    assert torch.equal(during["0.parametrizations.weight.0.u"], parts(module)[0][0].u)
    assert not torch.equal(during["1.parametrizations.weight.0.u"], parts(module)[1][0].u)


def test_a_held_block_has_the_values_and_gradients_of_frozen_after_advance() -> None:
    ours, theirs = net(), net()
    for _ in range(2):
        weights.advance(theirs)
        with weights.hold_power_iteration(theirs):
            expected, wanted = values(theirs), gradients(theirs)
        with PowerIterationScheduler(ours).hold():
            torch.testing.assert_close(values(ours), expected, rtol=2e-2, atol=1e-4)  # bfloat16 vectors are rounded
            torch.testing.assert_close(gradients(ours)[:15], wanted[:15], rtol=1e-3, atol=1e-4)
            assert sum(constraint.kept is not None for constraint, _ in parts(ours)) > 10
        assert all(constraint.kept is None and not constraint.held for constraint, _ in parts(ours))


@pytest.mark.parametrize("name", ["sn", "row", "column", "srn binding", "srn loose", "srn row"])
@pytest.mark.parametrize("held", [False, True])
def test_the_gradient_on_paper_is_that_of_autograd(name: str, held: bool) -> None:
    module = net(name).double()
    step = PowerIterationScheduler(module)
    ((constraint, weight),) = parts(module)

    def plain() -> Tensor:
        return constraint.view.back(constraint.effective(constraint.view.to(weight), constraint.u, constraint.v))

    with step.hold() if held else weights.hold_power_iteration(module):
        (value,) = values(module)
        torch.testing.assert_close(value, plain())
        (found,) = torch.autograd.grad(probe([value]), weight)
        (wanted,) = torch.autograd.grad(probe([plain()]), weight)
        torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-10)
        loss, other = (probe([one.sin()]) for one in (values(module)[0], plain()))
        again = [torch.autograd.grad(one, weight, create_graph=True)[0] for one in (loss, other)]
        second = [torch.autograd.grad(one.square().sum(), weight)[0] for one in again]
        torch.testing.assert_close(*second, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", ["sn", "row", "srn binding", "srn loose", "srn row", "double", "half", "k0", "k2"])
def test_the_effective_weight_of_a_frozen_parameter_is_computed_once(name: str, layout: torch.memory_format) -> None:
    frozen, trained = (net(name).to(memory_format=layout) for _ in range(2))  # pyright: ignore[reportCallIssue]
    ((constraint, weight),) = parts(frozen)
    weight.requires_grad_(False)
    before = weight.clone()
    with PowerIterationScheduler(frozen).hold(), PowerIterationScheduler(trained).hold():
        (first,), (again,) = values(frozen), values(frozen)
        torch.testing.assert_close([first], values(trained))
        assert first.stride() == values(trained)[0].stride()
        assert not first.requires_grad
        assert (first is again) == (constraint.share is not None)
        weight.requires_grad_()  # the gradient is that of the other net
        torch.testing.assert_close(gradients(frozen), gradients(trained))
        weight.requires_grad_(False)
        with torch.no_grad():
            weight.mul_(torch.linspace(0.5, 2, weight.numel()).reshape(weight.shape))
        (changed,) = values(frozen)
        assert not torch.equal(changed, first)
        with torch.no_grad():
            weight.copy_(before)
        torch.testing.assert_close(values(frozen)[0], first)


@pytest.mark.parametrize("name", ["sn", "srn binding"])
def test_a_step_inside_the_block_is_noticed(name: str) -> None:
    module = net(name)
    ((constraint, weight),) = parts(module)
    with PowerIterationScheduler(module).hold():
        values(module)
        with torch.no_grad():
            weight.mul_(3.0)
        expected = constraint.effective(constraint.view.to(weight.detach()), constraint.u, constraint.v)
        torch.testing.assert_close(constraint.view.to(values(module)[0].detach()), expected)


@pytest.mark.parametrize("name", ["sn", "srn binding", "k0", "k2"])
def test_a_backward_after_the_next_block_is_still_right(name: str) -> None:
    module = net(name).double()
    step = PowerIterationScheduler(module)
    ((_, weight),) = parts(module)
    with step.hold():
        first = probe(values(module))
        (wanted,) = torch.autograd.grad(probe(values(module)), weight)
    with step.hold():
        second = probe(values(module))
    second.backward()
    assert not torch.equal(weight.grad, wanted)
    weight.grad = None
    first.backward()
    torch.testing.assert_close(weight.grad, wanted)


@pytest.mark.parametrize("how", ["zero", "ones", "tiny"])
@pytest.mark.parametrize("name", ["sn", "srn binding", "srn loose", "srn row", "k0", "k2"])
def test_degenerate_weights_stay_finite_and_recover(name: str, how: str) -> None:
    module = net(name)
    ((constraint, weight),) = parts(module)
    with torch.no_grad():
        weight.copy_({"zero": torch.zeros(()), "ones": torch.ones(()), "tiny": torch.tensor(1e-30)}[how])
    step = PowerIterationScheduler(module)
    with step.hold():
        assert all(torch.isfinite(one).all() for one in values(module) + gradients(module))
    with torch.no_grad():
        weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    for _ in range(300):
        step()
    sigma = float(torch.linalg.svdvals(constraint.view.to(weight.detach()))[0])
    u, v = (one if one.dim() == 1 else one[:, 0] for one in (constraint.u, constraint.v))
    assert float(u @ constraint.view.to(weight.detach()) @ v) == pytest.approx(sigma, rel=1e-4)


def test_a_copy_made_in_a_block_is_free() -> None:
    module = net("sn", "srn binding")
    step = PowerIterationScheduler(module)
    with step.hold():
        twin = copy.deepcopy(module)
    assert all(constraint.kept is None and not constraint.held for constraint, _ in parts(twin))
    before = buffers(twin)
    values(twin)
    assert not equal(before, buffers(twin))
    assert equal(before, buffers(module))


def test_an_exception_ends_the_block_and_nets_that_share_a_layer_advance_it_once() -> None:
    module = net("sn", "srn binding")
    twice = PowerIterationScheduler(module, nn.ModuleList([module[0]]))
    with pytest.raises(RuntimeError), twice.hold():
        raise RuntimeError
    assert all(constraint.kept is None and not constraint.held for constraint, _ in parts(module))
    single, double = net("sn"), net("sn")
    PowerIterationScheduler(single)()
    PowerIterationScheduler(double, double)()
    torch.testing.assert_close(buffers(single), buffers(double))


def test_the_net_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    module = net("sn", "k2")
    step = PowerIterationScheduler(module)
    before = buffers(module)
    for search in ("named_modules", "modules", "children", "named_children"):
        monkeypatch.setattr(nn.Module, search, lambda *_, **__: pytest.fail("searched again"))
    with step.hold():
        pass
    step()
    monkeypatch.undo()
    assert not equal(before, buffers(module))


@pytest.mark.parametrize("names", [("sn", "sn again"), ("srn binding", "srn loose"), ("k0",), ("k2",)])
def test_compiled_forwards_in_a_block_are_the_eager_ones(names: tuple[str, ...]) -> None:
    eager = net(*names)
    twin = copy.deepcopy(eager)
    compiled = torch.compile(lambda: probe(values(twin)), fullgraph=True, backend="aot_eager")
    ours, theirs = PowerIterationScheduler(twin), PowerIterationScheduler(eager)
    for _ in range(3):
        with ours.hold(), theirs.hold():
            eager.zero_grad()
            twin.zero_grad()
            found, wanted = compiled(), probe(values(eager))
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
            found.backward()
            wanted.backward()
            for (_, one), (_, other) in zip(parts(twin), parts(eager), strict=True):
                torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["sn", "srn binding"])
def test_other_transforms_of_the_weight(name: str) -> None:
    module = net(name).double().eval()
    ((constraint, weight),) = parts(module)
    start = weight.detach()
    direction = torch.randn(start.shape, dtype=start.dtype, generator=torch.Generator().manual_seed(2))

    def loss(w: Tensor) -> Tensor:
        return probe([constraint(w)])

    wanted = torch.autograd.grad(loss(leaf := start.clone().requires_grad_(True)), leaf)[0]
    torch.testing.assert_close(torch.func.grad(loss)(start), wanted)
    along = torch.func.jvp(loss, (start,), (direction,))[1]
    torch.testing.assert_close(along, (wanted * direction).sum())
    batch = torch.stack([start, 2 * start])
    torch.testing.assert_close(
        torch.func.vmap(torch.func.grad(loss))(batch), torch.stack([torch.func.grad(loss)(one) for one in batch])
    )


def test_gradients_are_float32_within_autocast() -> None:
    module = net("sn", "srn binding")
    with PowerIterationScheduler(module).hold():
        wanted = gradients(module)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(gradients(module), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["sn", "srn"])
def test_kernels_with_channels_last_are_the_same_and_stay_so(name: str) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(3, 8, (2, 3))
    spectral_norm(plain) if name == "sn" else stable_rank_norm(plain, c=0.3)
    turned = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    for _ in range(2):
        torch.testing.assert_close(values(plain), values(turned))  # after one iteration each
        torch.testing.assert_close(buffers(plain), buffers(turned))
        with PowerIterationScheduler(plain).hold(), PowerIterationScheduler(turned).hold():
            torch.testing.assert_close(gradients(plain), gradients(turned))
        with weights.hold_power_iteration(plain), weights.hold_power_iteration(turned):
            torch.testing.assert_close(gradients(plain), gradients(turned))
            (value,) = values(turned)
            torch.testing.assert_close([value], values(plain))
            assert value.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(buffers(plain), buffers(turned))


class Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if not func.is_view and name not in ("detach", "_unsafe_view", "empty", "new_empty"):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def operations(call: Callable[[], object]) -> int:
    call()
    with Operations() as mode:
        call()
    return len(mode.found)


def test_a_layer_more_costs_a_round_its_products_alone() -> None:
    # what a GPU launches: one layer after the other takes 13 each
    few, many = (nn.ModuleList([spectral_norm(nn.Linear(7, 5 + i)) for i in range(n)]) for n in (2, 12))
    assert operations(PowerIterationScheduler(many)) - operations(PowerIterationScheduler(few)) == 2 * 10


@pytest.mark.parametrize("held", [True, False])
def test_stable_rank_norm_takes_few_operations_more_than_spectral_norm(held: bool) -> None:
    # by autograd alone they were 19 and 66 an update
    counts = {}
    for name in ("sn", "srn binding"):
        module = net(name)
        with PowerIterationScheduler(module).hold() if held else weights.hold_power_iteration(module):
            counts[name] = operations(lambda module=module: gradients(module))
    assert counts["srn binding"] - counts["sn"] <= (8 if held else 32)


TWO = """
import copy, os, sys, torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from orthogan import weights
dist.init_process_group("gloo")
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 1))
weights.apply(net, "stable_rank", c=0.5)
alone = copy.deepcopy(net)
whole = torch.randn(8, 6)
mine = whole[dist.get_rank()::2]
for model, x in ((DistributedDataParallel(net), mine), (alone, whole)):
    step, optimizer = weights.PowerIterationScheduler(model), torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(4):
        optimizer.zero_grad()
        with step.hold():
            model(x).square().mean().backward()
        optimizer.step()
for name, tensor in net.state_dict().items():
    both = [torch.empty_like(tensor) for _ in range(2)]
    dist.all_gather(both, tensor)
    assert torch.equal(*both), name
    torch.testing.assert_close(tensor, alone.state_dict()[name], rtol=1e-4, atol=1e-5)
"""


@pytest.mark.slow
def test_two_processes_agree_with_each_other_and_with_one(tmp_path: Path) -> None:
    both_finish(TWO, tmp_path)
