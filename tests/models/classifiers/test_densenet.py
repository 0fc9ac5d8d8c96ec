"""DenseNet and AlexNet for small images: the published sizes, their wiring, every constraint and penalty."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from orthogan import penalties, weights
from orthogan.config.files import load_config
from orthogan.errors import UserError
from orthogan.models.build import build_classifier
from orthogan.models.classifiers import AlexNet, DenseNet
from orthogan.models.classifiers.densenet import DenseLayer, Transition

SMALL = {"densenet40": 3, "alexnet": 4}  # kind -> channels


def small(kind: str, *overrides: str) -> nn.Module:
    start = ["task=classifier", f"model.classifier.kind={kind}", f"model.classifier.channels={SMALL[kind]}"]
    return build_classifier(load_config(None, [*start, *overrides]), num_classes=5)


@pytest.mark.parametrize(
    ("depth", "growth", "millions"),
    [(40, 12, "1.0"), (100, 12, "7.0"), (100, 24, "27.2")],  # table of the authors' repository, liuzhuang13/DenseNet
)
def test_dense_nets_are_as_large_as_the_authors_say(depth: int, growth: int, millions: str) -> None:
    with torch.device("meta"):
        net = DenseNet(resolution=32, image_channels=3, channels=growth, num_classes=10, depth=depth)
    assert f"{sum(p.numel() for p in net.parameters()) / 1e6:.1f}" == millions


def test_alexnet_is_as_large_as_its_repository_says() -> None:
    with torch.device("meta"):
        net = AlexNet(resolution=32, image_channels=3, num_classes=10)
    assert f"{sum(p.numel() for p in net.parameters()) / 1e6:.2f}" == "2.47"  # bearpaw/pytorch-classification


@pytest.mark.parametrize("depth", [7, 40, 100])
def test_a_dense_net_has_as_many_layers_as_its_name_says(depth: int) -> None:
    with torch.device("meta"):
        net = DenseNet(resolution=32, image_channels=3, num_classes=10, depth=depth)
    assert sum(isinstance(layer, nn.Conv2d | nn.Linear) for layer in net.modules()) == depth


@settings(max_examples=12, deadline=None)
@given(
    kind=st.sampled_from(list(SMALL)),
    side=st.sampled_from([28, 32]),
    channels=st.sampled_from([1, 3]),
    n=st.integers(2, 3),
)
def test_logits_at_28_and_32_pixels_in_grey_and_colour(kind: str, side: int, channels: int, n: int) -> None:
    net = small(kind, f"data.resolution={side}", f"data.channels={channels}")
    logits = net(torch.rand(n, channels, side, side) * 2 - 1)
    assert logits.shape == (n, 5)
    logits.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


def test_a_dense_layer_hands_on_all_that_came_in() -> None:
    layer = DenseLayer(5, 3).eval()
    x = torch.randn(2, 5, 6, 6)
    out = layer(x)
    assert out.shape == (2, 8, 6, 6)
    assert torch.equal(out[:, :5], x)
    torch.testing.assert_close(out[:, 5:], layer.conv(layer.norm(x).relu()))


def test_a_transition_halves_the_map_and_keeps_the_width() -> None:
    layer = Transition(4).eval()
    x = torch.randn(2, 4, 8, 8)
    seen = layer.conv(layer.norm(x).relu())
    corners = [seen[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]
    torch.testing.assert_close(layer(x), sum(corners) / 4)


def test_widths_follow_channels() -> None:
    with torch.device("meta"):
        dense = [DenseNet(resolution=32, image_channels=3, channels=k, num_classes=2, depth=40) for k in (6, 12)]
        alex = [AlexNet(resolution=32, image_channels=3, channels=c, num_classes=2) for c in (16, 64)]
    assert [net.linear.in_features for net in dense] == [16 + 36 * 6, 16 + 36 * 12]
    assert [net.linear.in_features for net in alex] == [64, 256]
    assert [conv.weight.shape[0] for conv in alex[1].convs] == [64, 192, 384, 256, 256]


def test_alexnet_is_the_plain_chain_at_32_pixels() -> None:
    net = AlexNet(resolution=32, image_channels=3, channels=4, num_classes=6)
    with torch.no_grad():
        for conv in net.convs:
            conv.bias.normal_()
    first, second, third, fourth, fifth = net.convs
    pool = nn.MaxPool2d(kernel_size=2, stride=2)
    chain = nn.Sequential(first, nn.ReLU(), pool, second, nn.ReLU(), pool, third, nn.ReLU(), fourth, nn.ReLU(), fifth)
    chain.extend([nn.ReLU(), pool, nn.Flatten(), net.linear])
    x = torch.rand(3, 3, 32, 32) * 2 - 1
    torch.testing.assert_close(net(x), chain(x))


def test_alexnet_starts_with_activations_in_range() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = AlexNet(resolution=32, image_channels=3, channels=64, num_classes=10)
        x = torch.randn(64, 3, 32, 32)
    with torch.no_grad():
        for conv in net.convs[:1]:
            x = conv(x)
        assert 1.0 < float(x[:, :, 2:-2, 2:-2].std()) < 2.0  # variance 2 of unit inputs
    assert all(int(conv.bias.count_nonzero()) == 0 for conv in net.convs)


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("norm", ["spectral", "stable_rank", "orthogonal", "rotation"])
def test_every_constraint_holds_on_every_layer(kind: str, norm: str) -> None:
    net = small(kind)
    count = sum(isinstance(layer, nn.Conv2d | nn.Linear) for layer in net.modules())
    chosen = weights.apply(net, norm, "!last") if norm == "rotation" else weights.apply(net, norm)
    assert len(chosen) == count - (norm == "rotation")
    logits = net(torch.rand(2, 3, 32, 32) * 2 - 1)
    logits.square().sum().backward()
    assert torch.isfinite(logits).all()
    if norm == "orthogonal":
        for found in weights.select(net):
            small_side = min(found.matrix.shape)
            values = torch.linalg.svdvals(found.matrix.detach())[:small_side]
            torch.testing.assert_close(values, torch.ones(small_side), atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", SMALL)
def test_penalties_sum_over_every_layer(kind: str) -> None:
    net = small(kind)
    value = penalties.apply(net, "soft_orthogonality").detach()
    each = [penalties.soft_orthogonality(found.matrix.detach()) for found in weights.select(net)]
    assert len(each) == sum(isinstance(layer, nn.Conv2d | nn.Linear) for layer in net.modules())
    torch.testing.assert_close(value, torch.stack(each).sum())
    assert float(value) > 0


def test_what_cannot_be_built_is_said() -> None:
    with pytest.raises(ValueError, match="3n \\+ 4"):
        DenseNet(resolution=32, image_channels=3, num_classes=10, depth=99)
    with pytest.raises(UserError, match=r"data\.resolution is 30: densenet40 needs a multiple of 4 pixels"):
        small("densenet40", "data.resolution=30")
