"""Constraints on nets of every dtype, with ties, groups, copies, sparse gradients and weights of any size."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from orthogan import layers, weights
from orthogan.weights.orthogonal import OrthogonalMethod
from orthogan.weights.rotation import COMPACT, SQUARE, fewest_blocks

ORTHOGONAL = OrthogonalMethod.__args__
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "spectral": ("spectral", {}),
    "stable_rank": ("stable_rank", {"c": 0.5}),
    "k0": ("stable_rank", {"c": 0.5, "k": 0}),
    "k2": ("stable_rank", {"c": 0.5, "k": 2}),
    **{method: ("orthogonal", {"method": method}) for method in ORTHOGONAL},
    **{f"rotation {method}": ("rotation", {"method": method}) for method in (*COMPACT, *SQUARE)},
    "sampled": ("rotation", {"sample": 0.5}),
}
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(6, 5), (2, 6)),
    "conv": (lambda: nn.Conv2d(3, 4, 3), (2, 3, 5, 5)),
    "groups": (lambda: nn.Conv2d(4, 8, 3, groups=2), (2, 4, 5, 5)),
    "transposed": (lambda: nn.ConvTranspose2d(3, 4, 3), (2, 3, 5, 5)),
}


def raw(layer: nn.Module) -> Tensor:
    return layer.parametrizations.weight.original


@pytest.mark.parametrize("kind", KINDS)
def test_a_net_of_any_dtype_keeps_it_forwards_backwards_and_after_removal(kind: str) -> None:
    few = 1 if kind == "rotation gram_schmidt" else len(LAYERS)  # that is slow for a fan-in of 27
    for i, (make, shape) in enumerate(list(LAYERS.values())[:few]):
        for j, dtype in enumerate((torch.bfloat16, torch.float16, torch.float64)):
            for before in {i % 2 == 0, j % 2 == 0}:  # converted before or after the constraint is put on
                torch.manual_seed(0)
                layer = make().to(dtype) if before else make()
                weights.apply(layer, KINDS[kind][0], **KINDS[kind][1])
                layer.to(dtype)
                out = layer(torch.randn(shape).to(dtype))
                out.sum().backward()
                assert (out.dtype, layer.weight.dtype) == (dtype, dtype)
                assert bool(torch.isfinite(raw(layer).grad).all())
                exact = all(b.dtype in (torch.float32, torch.float64) for b in layer.buffers() if b.is_floating_point())
                assert exact
                expected = layer.eval().weight.detach().clone()
                assert torch.equal(weights.remove(layer).weight, expected)
                assert expected.dtype == dtype


@pytest.mark.parametrize("kind", KINDS)
def test_an_embedding_with_sparse_gradients_gets_the_gradient_of_a_dense_one(kind: str) -> None:
    found = []
    for sparse in (True, False):
        torch.manual_seed(0)
        layer = nn.Embedding(10, 4, sparse=sparse)
        weights.apply(layer, KINDS[kind][0], **KINDS[kind][1])
        layer(torch.tensor([1, 2, 2])).square().sum().backward()
        found.append(raw(layer).grad)
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("kind", ["spectral", "stable_rank", "k0", "k2"])
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-13, 1e-5, 1e20])
def test_a_layer_learns_from_a_start_of_any_size(kind: str, scale: float) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(8, 3)
    with torch.no_grad():
        layer.weight.mul_(scale)
    weights.apply(layer, KINDS[kind][0], **KINDS[kind][1])
    if scale:
        assert float(torch.linalg.matrix_norm(layer.weight.detach(), 2)) == pytest.approx(1, abs=0.05 + (kind == "k0"))
    x = torch.randn(64, 8)
    target = x @ (torch.linalg.qr(torch.randn(8, 3))[0] * torch.tensor([1.0, 0.3, 0.2]))
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-2)
    losses, largest = [], 0.0
    for _ in range(250):
        optimizer.zero_grad()
        loss = (layer(x) - target).square().mean()
        loss.backward()
        largest = max(largest, float(raw(layer).grad.abs().max()))
        losses.append(float(loss))
        optimizer.step()
    assert largest < 2e3
    assert losses[-1] < 0.25 * float(target.square().mean())


@pytest.mark.parametrize("kind", ["spectral", "stable_rank", "k0", "k2"])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_effective_weight_does_not_depend_on_the_size_of_the_parameter(kind: str, groups: int) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, 3, groups=groups)
    weights.apply(layer, KINDS[kind][0], **KINDS[kind][1])
    start = raw(layer).detach().clone()
    for training in (False, True):
        layer.train(training)
        with weights.hold_power_iteration(layer):
            expected = layer.weight.detach().clone()
            for scale in (2.0**-90, 2.0**-50, 2.0**-20, 2.0**20, 2.0**60):
                with torch.no_grad():
                    raw(layer).copy_(start * scale)
                torch.testing.assert_close(layer.weight.detach(), expected, rtol=1e-2, atol=1e-3)
                (gradient,) = torch.autograd.grad(layer.weight.square().sum(), raw(layer))
                assert float(gradient.abs().max()) < 2e3


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.out = nn.Embedding(12, 8), nn.Linear(8, 12, bias=False)
        self.out.weight = self.embedding.weight
        self.other = nn.Linear(8, 8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("words", ["", "embedding", "linear", "out"])
def test_tied_weights_are_refused_by_the_names_of_both_layers(kind: str, words: str) -> None:
    net = Tied()
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(ValueError, match=r"embedding\.weight and out\.weight are the same parameter"):
        weights.apply(net, KINDS[kind][0], words, **KINDS[kind][1])
    assert net.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert weights.apply(net, KINDS[kind][0], "other", **KINDS[kind][1]) == ["other"]


def test_ties_of_other_shapes_and_replaced_layers_are_refused_too() -> None:
    net = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ConvTranspose2d(4, 4, 3), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    with pytest.raises(ValueError, match=r"0\.weight and 1\.weight"):
        weights.apply(net, "spectral", "transposed")
    with pytest.raises(ValueError, match=r"0\.weight and 1\.weight"):
        weights.apply(net, "skew_orthogonal")


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_in_two_places_has_one_constraint(kind: str) -> None:
    shared = nn.Linear(6, 6)
    net = nn.Sequential(shared, nn.ReLU(), shared)
    assert weights.apply(net, KINDS[kind][0], "2", **KINDS[kind][1]) == ["0"]
    net(torch.randn(2, 6)).sum().backward()
    expected = net.eval()(torch.ones(1, 6))
    assert list(weights.report(net)) == ["0"]
    torch.testing.assert_close(weights.remove(net)(torch.ones(1, 6)), expected)


def test_a_replaced_layer_is_replaced_wherever_it_is() -> None:
    shared = nn.Linear(6, 6)
    net = nn.Sequential(shared, nn.ReLU(), shared)
    weights.apply(net, "householder", "2", rank=3)
    assert net[0] is net[2]
    assert isinstance(net[0], layers.HouseholderProjector)
    weights.remove(net)
    assert net[0] is net[2]
    assert isinstance(net[0], nn.Linear)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["copy", "original", "chain"])
def test_removal_from_one_copy_leaves_the_others(kind: str, order: str) -> None:
    torch.manual_seed(0)
    nets = [nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1))]
    weights.apply(nets[0], KINDS[kind][0], **KINDS[kind][1])
    nets.append(copy.deepcopy(nets[0]))
    nets.append(copy.deepcopy(nets[1] if order == "chain" else nets[0]))
    x = torch.randn(2, 3, 5, 5)
    expected = nets[0].eval()(x)
    for i in {"copy": (1, 2, 0), "original": (0, 1, 2), "chain": (2, 0, 1)}[order]:
        weights.remove(nets[i])
        for net in nets:
            torch.testing.assert_close(net.eval()(x), expected)
            with weights.hold_power_iteration(net.train()):
                net(x).sum().backward()
    assert all(type(net[0]) is nn.Conv2d for net in nets)


def old_spectral_norm() -> nn.Module:
    return torch.nn.utils.spectral_norm(nn.Linear(4, 4))


def pruned() -> nn.Module:
    return prune.l1_unstructured(nn.Linear(4, 4), "weight", 0.5)


def doubly_registered() -> nn.Module:
    layer = nn.Linear(4, 4)
    layer.other = layer.weight
    return layer


@pytest.mark.parametrize("kind", ["spectral", "stable_rank", "qr", "rotation qr"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Linear(4, 4, dtype=torch.complex64), "complex64"),
        (lambda: nn.Linear(4, 0), "no layer|no linear|no numbers|is empty"),
        (lambda: nn.Linear(0, 4), "no layer|no linear|no numbers|is empty"),
        (old_spectral_norm, "not a parameter: it is computed from others"),
        (pruned, "not a parameter: it is computed from others"),
        (lambda: torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), "has the torch parametrization"),
        (lambda: weights.spectral_norm(nn.Linear(4, 4)), "already constrained"),
        (doubly_registered, "the same parameter"),
        (lambda: nn.Sequential(nn.Linear(4, 4)), r"orthogan\.weights\.apply"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_constrained_is_refused_before_it_is_touched(
    make: Callable[[], nn.Module], message: str, kind: str
) -> None:
    layer = make()
    before = copy.deepcopy(layer.state_dict())
    function = weights.CONSTRAINTS.get(KINDS[kind][0]).put_on
    with pytest.raises(ValueError, match=message):
        function(layer)
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_that_is_not_finite_is_neither_constrained_nor_assigned(kind: str, bad: float) -> None:
    name, options = KINDS[kind]
    layer = nn.Linear(6, 5)
    spoilt = layer.weight.detach().clone()
    spoilt[2, 1] = bad
    weights.apply(layer, name, **options)
    kept = layer.eval().weight.clone()
    with pytest.raises(ValueError, match="the assigned weight contains NaN or infinite"):
        layer.weight = spoilt
    assert torch.equal(layer.weight, kept)
    with pytest.raises(ValueError, match="shape"):
        layer.weight = spoilt.T
    other = nn.Linear(6, 5)
    other.weight.data = spoilt
    with pytest.raises(ValueError, match=r"Linear\.weight contains NaN or infinite"):
        weights.apply(other, name, **options)
    assert type(other) is nn.Linear


def not_finite() -> nn.Linear:
    layer = nn.Linear(5, 4)
    layer.weight.data[0, 0] = torch.nan
    return layer


@pytest.mark.parametrize(
    ("last", "kinds"),
    [
        (old_spectral_norm, list(KINDS)),
        (not_finite, list(KINDS)),
        (lambda: nn.Linear(5, 4, dtype=torch.complex64), list(KINDS)),
        (lambda: torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), list(KINDS)),
        (lambda: nn.Linear(7, 4), ["rotation qr", "rotation cayley"]),  # two blocks do not divide it
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_where_one_layer_is_refused_no_layer_of_the_net_is_changed(
    last: Callable[[], nn.Module], kinds: list[str]
) -> None:
    for kind in kinds:
        name, options = KINDS[kind]
        net = nn.Sequential(nn.Linear(6, 5), nn.ConvTranspose2d(4, 6, 3, groups=2), last())
        parameters, before = dict(net.named_parameters()), copy.deepcopy(net.state_dict())
        with pytest.raises(ValueError, match=r"^2: "):
            weights.apply(
                net, name, **options, **({"blocks": 2} if name == "rotation" and "sample" not in options else {})
            )
        assert [type(part) for part in net[:2]] == [nn.Linear, nn.ConvTranspose2d]
        assert list(net.state_dict()) == list(before)
        for key, parameter in net.named_parameters():
            assert parameter is parameters[key], (kind, key)
            torch.testing.assert_close(parameter.data, before[key], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("gain", [0.0, -1.0, torch.nan, torch.inf])
def test_a_gain_is_positive_and_finite(gain: float) -> None:
    with pytest.raises(ValueError, match="gain is"):
        weights.orthogonal(nn.Linear(3, 3), gain=gain)


@pytest.mark.parametrize(("word", "meant"), [("spectral_nrm", "spectral"), ("orthogonl", "orthogonal"), ("svd", "")])
def test_a_wrong_kind_gets_a_suggestion(word: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"did you mean '{meant}" if meant else "known: householder, none"):
        weights.apply(nn.Linear(2, 2), word)


@pytest.mark.parametrize("word", ["spectral_norm", "SN", "srn", "opt"])
def test_a_kind_has_the_names_that_papers_give_it(word: str) -> None:
    assert weights.apply(nn.Sequential(nn.Linear(4, 4)), word) == ["0"]


@pytest.mark.parametrize("most", [2, 3, 5, 64, 512, 1024])
def test_blocks_are_near_in_size_and_each_can_turn(most: int) -> None:
    for width in (*range(2, 200), 521, 769, 1031, 1042, 4608, 10007):
        count = fewest_blocks(width, most)
        smallest, largest = width // count, -(-width // count)
        assert smallest >= 2
        assert largest <= max(most, 3)
        assert count == 1 or 4 * smallest >= most


@pytest.mark.parametrize(
    ("method", "sample"),
    [
        (method, sample)
        for method in (*COMPACT, *SQUARE)
        for sample in (None, 11)
        if (method, sample) != ("relaxed", 11)
    ],
)
def test_unequal_blocks_turn_every_dimension_and_keep_all_angles(method: str, sample: int | None) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(13, 6, bias=False).double()
    weights.rotation(layer, method=method, blocks=None, block_size=5, sample=sample)
    constraint: Any = layer.parametrizations.weight[0]
    neurons = constraint.neurons.clone()
    torch.testing.assert_close(layer.weight, neurons)
    with torch.no_grad():
        raw(layer).add_(0.1 * torch.randn_like(raw(layer)))
    if method == "ogd":
        with torch.no_grad():
            raw(layer).copy_(torch.linalg.qr(constraint.rotation(raw(layer)))[0])
    weight = layer.weight
    moved = (weight.detach() - neurons).abs().amax(0)
    assert int((moved > 1e-6).sum()) == (sample or 13)
    if method != "relaxed":
        torch.testing.assert_close(weight @ weight.T, neurons @ neurons.T, atol=1e-6, rtol=1e-5)
    (gradient,) = torch.autograd.grad((weight * torch.randn_like(weight)).sum(), raw(layer))
    assert all(float(block.norm()) > 0 for block in gradient)
    fresh = nn.Linear(13, 6, bias=False).double()
    weights.rotation(fresh, method=method, blocks=None, block_size=5, sample=sample)
    fresh.load_state_dict(layer.state_dict())
    torch.testing.assert_close(fresh.weight, layer.weight)


@pytest.mark.parametrize("method", [*COMPACT, *SQUARE])
def test_a_checkpoint_keeps_the_blocks_that_it_was_made_with(method: str) -> None:
    torch.manual_seed(0)
    layer, older = nn.Linear(26, 4), nn.Linear(26, 4)
    weights.rotation(older, method=method, blocks=13)
    weights.rotation(layer, method=method, blocks=None, block_size=10)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    with torch.no_grad():
        raw(older).add_(0.1 * torch.randn_like(raw(older)))
    layer.load_state_dict(older.state_dict())
    assert torch.equal(layer.weight, older.weight)
    layer(torch.randn(3, 26)).sum().backward()
    optimizer.step()


def test_blocks_of_one_dimension_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot rotate anything"):
        weights.rotation(nn.Linear(7, 3), blocks=7)


@pytest.mark.parametrize("kind", ["spectral", "stable_rank", "k2", *ORTHOGONAL])
def test_a_checkpoint_of_stacked_groups_keeps_its_meaning(kind: str) -> None:
    """Earlier versions took the rows of all groups for one matrix."""
    torch.manual_seed(0)
    grouped, dense = nn.Conv2d(8, 12, 3, groups=4), nn.Conv2d(2, 12, 3)  # of one shape
    for layer in (grouped, dense):
        weights.apply(layer, KINDS[kind][0], **KINDS[kind][1])
    grouped.load_state_dict(dense.state_dict())
    grouped.eval()
    dense.eval()
    torch.testing.assert_close(grouped.weight, dense.weight)
    assert weights.report(grouped)[""]["sigma_after"] <= 1.01


@pytest.mark.parametrize("make", [nn.Conv2d, nn.ConvTranspose2d])
def test_a_depthwise_identity_has_norm_one_and_stays_itself(make: type[nn.Conv2d]) -> None:
    layer = make(64, 64, 1, groups=64, bias=False)
    nn.init.ones_(layer.weight)
    weights.spectral_norm(layer)
    torch.testing.assert_close(layer.eval().weight, torch.ones_like(layer.weight))
    assert weights.report(layer)[""]["sigma_after"] == pytest.approx(1)


def test_a_group_that_grows_later_is_seen() -> None:
    layer = nn.Conv2d(4, 4, 1, groups=2, bias=False)
    with torch.no_grad():
        layer.weight[2:].mul_(0.1)
    weights.spectral_norm(layer)
    for _ in range(500):
        weights.advance(layer)  # the smaller group must not vanish from the vectors
    with torch.no_grad():
        raw(layer)[2:].mul_(100)
    weights.advance(layer)
    blocks = layer.parametrizations.weight[0].view.blocks(layer.weight.detach())
    assert float(torch.linalg.svdvals(blocks).amax()) == pytest.approx(1, abs=1e-2)
