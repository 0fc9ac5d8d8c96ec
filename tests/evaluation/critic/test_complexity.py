"""Complexity measures: closed forms of tiny nets, invariances, and what a batch norm counts for."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from orthogan import weights
from orthogan.data import ArraySource
from orthogan.errors import UserError
from orthogan.evaluation.critic.complexity import (
    JAC_NORM,
    MARGIN,
    SPEC_FRO,
    SPEC_L1,
    capacity,
    complexity,
    jacobian_norm,
    margins,
)
from orthogan.evaluation.result import MetricResult
from orthogan.evaluation.spectrum.conv_operator import conv_operator_norm
from orthogan.layers import DecorrelatedBatchNorm2d
from orthogan.models.classifiers import CNN, MLP, SmallResNet, WideResNet

CLASSES = 3


def chain(*matrices: Tensor) -> nn.Sequential:
    """Linear layers without biases, ReLU between them."""
    layers: list[nn.Module] = []
    for matrix in matrices:
        layer = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False, dtype=matrix.dtype)
        layer.weight = nn.Parameter(matrix.clone())
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def random_chain(seed: int, *widths: int) -> nn.Sequential:
    rng = torch.Generator().manual_seed(seed)
    shapes = zip(widths[1:], widths[:-1], strict=True)
    return chain(*(torch.randn(*shape, generator=rng, dtype=torch.float64) for shape in shapes))


class OnPixels(nn.Module):
    """A chain that sees images of one channel."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.flatten(1))


def labelled(count: int = 40, seed: int = 0, channels: int = 1, side: int = 4) -> ArraySource:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, channels, side, side), dtype=np.uint8)
    names = [str(i) for i in range(CLASSES)]
    return ArraySource("noise", images, labels=rng.integers(0, CLASSES, count), class_names=names)


def measured(
    net: nn.Module, source: ArraySource, **options: object
) -> tuple[dict[str, MetricResult], dict[str, np.ndarray]]:
    results, values = complexity(net, source, progress=False, **options)
    return {result.metric: result for result in results}, values


def test_the_margin_is_the_lead_of_the_label() -> None:
    logits = torch.tensor([[1.0, 4.0, 3.0], [1.0, 4.0, 3.0], [-2.0, -5.0, -2.0]])
    assert margins(logits, torch.tensor([1, 2, 0])).tolist() == [1.0, -1.0, 0.0]


def test_of_diagonal_layers_both_products_are_known() -> None:
    net = chain(torch.diag(torch.tensor([3.0, 1.0])), torch.diag(torch.tensor([2.0, 2.0])))
    found = capacity(net)
    # norms 3 and 2; stable ranks 10/9 and 2; (sum of row lengths) / norm = 4/3 and 2
    assert found[SPEC_FRO] == pytest.approx(math.log10(9 * 4 * (10 / 9 + 2)))
    assert found[SPEC_L1] == pytest.approx(math.log10(9 * 4 * ((4 / 3) ** (2 / 3) + 2 ** (2 / 3)) ** 3))


@given(st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_capacity_is_that_of_brute_force(seed: int) -> None:
    net = random_chain(seed, 4, 6, 5, 3)
    matrices = [layer.weight.detach().numpy() for layer in net if isinstance(layer, nn.Linear)]
    norms = [np.linalg.svd(w)[1][0] for w in matrices]
    product = np.prod(np.square(norms))
    ranks = [np.square(w).sum() / s**2 for w, s in zip(matrices, norms, strict=True)]
    rows = [np.sqrt(np.square(w).sum(1)).sum() / s for w, s in zip(matrices, norms, strict=True)]
    found = capacity(net)
    assert found[SPEC_FRO] == pytest.approx(math.log10(product * sum(ranks)))
    assert found[SPEC_L1] == pytest.approx(math.log10(product * sum(r ** (2 / 3) for r in rows) ** 3))


def test_the_jacobian_norm_of_two_layers_is_known() -> None:
    # all neurons are on, so the hidden layer is W x, and the margin's gradient in it the difference of two rows
    first, second = (
        torch.rand(4, 3).double() + 0.1,
        torch.randn(2, 4, generator=torch.Generator().manual_seed(1)).double(),
    )
    x = torch.rand(5, 3, generator=torch.Generator().manual_seed(2)).double() + 0.1
    y = torch.tensor([0, 1, 0, 1, 1])
    found, sums = jacobian_norm(chain(first, second), x, y)
    hidden = x @ first.T
    difference = second[y] - second[1 - y]
    torch.testing.assert_close(found, (hidden * difference).sum(1))
    torch.testing.assert_close(sums, hidden.norm(dim=1) * difference.norm(dim=1))


@given(st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_the_jacobian_norm_is_that_of_finite_differences(seed: int) -> None:
    net = random_chain(seed, 4, 5, 4, 3)
    rng = torch.Generator().manual_seed(seed)
    x, y = torch.randn(1, 4, generator=rng, dtype=torch.float64), torch.tensor([seed % 3])
    _, sums = jacobian_norm(net, x, y)
    expected, step = 0.0, 1e-6
    with torch.no_grad():
        for depth in (2, 4):  # what enters the second and the third layer
            hidden, rest = net[:depth](x), net[depth:]
            moved = hidden + step * torch.eye(hidden.shape[1], dtype=torch.float64)
            slopes = (margins(rest(moved), y.expand(len(moved))) - margins(rest(hidden), y)) / step
            expected += float(hidden.norm() * slopes.norm())
    assert float(sums) == pytest.approx(expected, rel=1e-4, abs=1e-8)


@given(st.integers(0, 10**6), st.floats(0.1, 10), st.floats(0.1, 10))
@settings(max_examples=15, deadline=None)
def test_scaling_layers_of_a_relu_net_changes_nothing(seed: int, a: float, b: float) -> None:
    net = random_chain(seed, 4, 6, 5, 3)
    scaled = copy.deepcopy(net)
    with torch.no_grad():
        for layer, factor in ((scaled[0], a), (scaled[2], b), (scaled[4], 2.0)):
            layer.weight.mul_(factor)
    rng = torch.Generator().manual_seed(seed)
    x, y = torch.randn(8, 4, generator=rng, dtype=torch.float64), torch.randint(0, 3, (8,), generator=rng)
    before, after = jacobian_norm(net, x, y), jacobian_norm(scaled, x, y)
    whole = a * b * 2
    torch.testing.assert_close(after[0], whole * before[0])
    torch.testing.assert_close(after[1], whole * before[1])
    for name, value in capacity(scaled).items():
        assert value - 2 * math.log10(whole) == pytest.approx(capacity(net)[name])


def test_a_chain_of_homogeneous_layers_has_a_term_of_at_least_one_for_each_hidden_layer() -> None:
    # <h, dg/dh> = g there, so that |h| |dg/dh| / g >= 1 by Cauchy and Schwarz
    net = OnPixels(random_chain(3, 16, 8, 8, CLASSES)).float()
    _, values = measured(net, labelled())
    assert (values[JAC_NORM] >= math.log10(2)).all()


def test_measures_are_of_the_images_classified_rightly() -> None:
    net, source = OnPixels(random_chain(1, 16, 40, CLASSES)).float(), labelled(90)
    results, values = measured(net, source, batch_size=32)
    images = torch.from_numpy(source.images).float() / 127.5 - 1
    with torch.no_grad():
        logits = net(images)
    right = (logits.argmax(1) == torch.from_numpy(source.labels)).numpy()
    assert 0 < right.sum() < 90
    assert results[MARGIN].parts["right"] == pytest.approx(right.mean())
    assert [len(values[name]) for name in (MARGIN, SPEC_FRO, SPEC_L1, JAC_NORM)] == [90] + 3 * [right.sum()]
    expected = margins(logits, torch.from_numpy(source.labels)).numpy()
    np.testing.assert_allclose(values[MARGIN], expected, rtol=1e-4, atol=1e-5)
    tops = capacity(net)
    for name in (SPEC_FRO, SPEC_L1):
        np.testing.assert_allclose(values[name], tops[name] - 2 * np.log10(expected[right]), rtol=1e-4)
        assert results[name].value == pytest.approx(np.percentile(values[name], 90))
        assert results[name].parts["10%"] == pytest.approx(np.percentile(values[name], 10))
    assert results[MARGIN].value == pytest.approx(np.median(values[MARGIN]))
    assert "90 images of noise" in results[JAC_NORM].one_line()


def test_a_subset_is_a_function_of_the_seed_and_batches_do_not_matter() -> None:
    net, source = OnPixels(random_chain(1, 16, 8, CLASSES)).float(), labelled(90)
    first, again, other = (
        measured(net, source, samples=30, seed=seed, batch_size=size)[1][MARGIN]
        for seed, size in ((0, 30), (0, 7), (1, 30))
    )
    np.testing.assert_allclose(first, again, rtol=1e-4, atol=1e-5)
    assert len(first) == 30
    assert not np.allclose(first, other)


class Normed(nn.Module):
    """conv, norm, ReLU, mean, linear."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.norm = norm
        self.linear = nn.Linear(4, CLASSES, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(functional.relu(self.norm(self.conv(x))).mean((2, 3)))


def test_a_batch_norm_counts_as_the_largest_of_its_factors() -> None:
    norm = nn.BatchNorm2d(4, eps=0.0)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, -6.0, 2.0, 3.0]))
        norm.running_var.copy_(torch.tensor([1.0, 4.0, 0.25, 9.0]))
    assert capacity(Normed(norm), batch_norm=False) == capacity(Normed(nn.Identity()))
    plain, with_norm = capacity(Normed(nn.Identity())), capacity(Normed(norm))
    for name in (SPEC_FRO, SPEC_L1):
        assert with_norm[name] - plain[name] == pytest.approx(2 * math.log10(4.0))


def test_scaling_a_layer_and_its_batch_norm_along_changes_nothing() -> None:
    norm = nn.BatchNorm2d(4, eps=0.0)
    net = Normed(norm)
    with torch.no_grad():
        norm.running_var.copy_(torch.rand(4) + 0.5)
        scaled = copy.deepcopy(net)
        scaled.conv.weight.mul_(7)
        scaled.norm.running_mean.mul_(7)
        scaled.norm.running_var.mul_(49)
    source = labelled(60)
    (_, first), (_, second) = measured(net, source), measured(scaled, source)
    for name, values in first.items():
        np.testing.assert_allclose(second[name], values, rtol=1e-3, atol=1e-4)


def test_whitening_counts_as_the_norm_of_its_matrix() -> None:
    norm = DecorrelatedBatchNorm2d(4, groups=2)
    matrices = torch.randn(2, 2, 2, generator=torch.Generator().manual_seed(0))
    gain = torch.tensor([1.0, 2.0, 3.0, 0.5])
    with torch.no_grad():
        norm.running_whitening.copy_(matrices)
        norm.weight.copy_(gain)
    whole = torch.diag(gain) @ torch.block_diag(*matrices)
    difference = capacity(Normed(norm))[SPEC_FRO] - capacity(Normed(nn.Identity()))[SPEC_FRO]
    assert difference == pytest.approx(2 * math.log10(float(torch.linalg.matrix_norm(whole, 2))), rel=1e-5)


def test_the_operator_norm_of_a_convolution_can_take_the_place_of_its_matrix() -> None:
    net = Normed(nn.Identity())
    kernel = net.conv.weight.detach()
    ratio = float(conv_operator_norm(kernel, 8)) / float(torch.linalg.matrix_norm(kernel.flatten(1), 2))
    matrix, operator = capacity(net), capacity(net, norm="operator", size=8)
    assert ratio > 1.05
    for name in (SPEC_FRO, SPEC_L1):
        assert operator[name] - matrix[name] == pytest.approx(2 * math.log10(ratio), rel=1e-4)
    results, _ = measured(net, labelled(), norm="operator")
    assert results[SPEC_FRO].label == "spec_fro[operator]"
    assert results[JAC_NORM].label == "jac_norm"


@pytest.mark.parametrize("family", [MLP, CNN, SmallResNet, WideResNet])
def test_every_family_is_measured_under_a_constraint_and_left_as_it_was(family: type[nn.Module]) -> None:
    torch.manual_seed(0)
    options = {"depth": 10, "widen": 1} if family is WideResNet else {"depth": 8} if family is SmallResNet else {}
    net = family(resolution=8, image_channels=1, channels=4, num_classes=CLASSES, **options)
    weights.apply(net, "stable_rank", "!last", c=0.5)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    net.train()
    results, values = measured(net, labelled(30, side=8))
    assert net.training
    assert list(values) == [MARGIN, SPEC_FRO, SPEC_L1, JAC_NORM]
    assert all(np.isfinite(some).all() for some in values.values())
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert results[SPEC_FRO].protocol["batch norm"] == "running statistics, its factor in the product"


def test_a_shared_input_counts_once() -> None:
    class Shortcut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.stem, self.a, self.b, self.last = (
                nn.Linear(n, m, bias=False) for n, m in ((3, 4), (4, 4), (4, 4), (4, 2))
            )

        def forward(self, x: Tensor) -> Tensor:
            h = self.stem(x)
            return self.last(self.a(h) + self.b(h))

    net = Shortcut()
    x, y = torch.randn(3, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 0])
    _, sums = jacobian_norm(net, x, y)
    with torch.no_grad():
        difference = net.last.weight[y] - net.last.weight[1 - y]
        both = net.a.weight + net.b.weight
        first = net.stem(x)
        expected = first.norm(dim=1) * (difference @ both).norm(dim=1) + (first @ both.T).norm(dim=1) * difference.norm(
            dim=1
        )
    torch.testing.assert_close(sums, expected)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.last = nn.GRUCell(16, 4), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.cell(x.flatten(1)))


def zeroed() -> nn.Module:
    net = OnPixels(random_chain(0, 16, 4, CLASSES)).float()
    nn.init.zeros_(net.net[0].weight)
    return net


def wrong_everywhere() -> tuple[nn.Module, ArraySource]:
    source = labelled(10)
    source.labels[:] = 0
    net = OnPixels(chain(torch.rand(4, 16), -torch.eye(CLASSES, 4)))
    last = net.net[2]
    with torch.no_grad():
        last.weight.copy_(torch.tensor([[-1.0] * 4, [1.0] * 4, [1.0] * 4]))
        net.net[0].weight.copy_(torch.cat([torch.eye(2, 16), -torch.eye(2, 16)]))
    return net, source


@pytest.mark.parametrize(
    ("net", "source", "options", "parts"),
    [
        (Normed(nn.GroupNorm(2, 4)), labelled(), {}, ["norm, a GroupNorm", "use batch norms"]),
        (Normed(nn.BatchNorm2d(4, track_running_stats=False)), labelled(), {}, ["norm, a BatchNorm2d"]),
        (Recurrent(), labelled(), {}, ["cell.weight_ih", "not known"]),
        (OnPixels(random_chain(0, 16, CLASSES)).float(), labelled(), {}, ["has only one layer"]),
        (zeroed(), labelled(), {}, ["net.0", "is zero"]),
        (*wrong_everywhere(), {}, ["none of 10 images", "train the network"]),
        (Normed(nn.Identity()), labelled(), {"samples": 0}, ["samples=0"]),
        (Normed(nn.Identity()), labelled(), {"norm": "both"}, ["norm='both'", "matrix, operator"]),
        (Normed(nn.Identity()), ArraySource("plain", labelled().images), {}, ["0 classes"]),
    ],
)
def test_what_cannot_be_measured_is_named(
    net: nn.Module, source: ArraySource, options: dict[str, object], parts: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        measured(net, source, **options)
    assert all(part in str(caught.value) for part in parts)


def test_the_search_for_hidden_layers_leaves_no_hooks() -> None:
    net = random_chain(0, 4, 5, 3)
    jacobian_norm(net, torch.randn(2, 4).double(), torch.tensor([0, 1]))
    assert all(not part._forward_pre_hooks for part in net.modules())
