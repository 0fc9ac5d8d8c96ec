"""The classifiers are the published nets: their sizes, shapes, and what the rest of orthogan finds in them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from orthogan import weights
from orthogan.config.files import load_config
from orthogan.errors import UserError
from orthogan.models.build import build_classifier
from orthogan.models.classifiers import CNN, MLP, VGG, AlexNet, Classifier, DenseNet, ResNet, SmallResNet, WideResNet
from orthogan.models.classifiers.base import CLASSIFIERS
from orthogan.weights.network import list_constrained

# parameters for 10 classes of 3-channel images, as the authors or the usual CIFAR repositories print them
PUBLISHED: dict[str, tuple[Callable[..., Classifier], dict[str, Any], int]] = {
    "resnet18": (ResNet, {"depth": 18}, 11_173_962),
    "resnet34": (ResNet, {"depth": 34}, 21_282_122),
    "resnet50": (ResNet, {"depth": 50}, 23_520_842),
    "resnet20": (SmallResNet, {"depth": 20}, 269_722),
    "resnet32": (SmallResNet, {"depth": 32}, 464_154),
    "resnet110": (SmallResNet, {"depth": 110}, 1_727_962),
    "wrn-28-10": (WideResNet, {"depth": 28, "widen": 10}, 36_479_194),
    "wrn-16-8": (WideResNet, {"depth": 16, "widen": 8}, 10_961_370),
    "wrn-40-4": (WideResNet, {"depth": 40, "widen": 4}, 8_949_210),
    "vgg19": (VGG, {"depth": 19}, 20_040_522 - 5_504),  # published with biases before the batch norms, 5,504 of them
    "vgg16": (VGG, {"depth": 16}, 14_728_266 - 4_224),
    "densenet40": (DenseNet, {"depth": 40}, 1_019_722),
    "densenet100": (DenseNet, {"depth": 100}, 6_979_642),
    "alexnet": (AlexNet, {}, 2_472_266),
    "mlp": (MLP, {}, (3072 + 1) * 256 + 257 * 256 + 257 * 10),
}
KINDS = ["resnet18", "resnet34", "resnet50", "resnet20", "resnet32", "vgg11", "cnn6", "cnn9", "mlp", "wrn-10-1"]
KINDS += ["densenet40", "alexnet"]


def built(kind: str, *overrides: str, classes: int = 5, channels: int = 4) -> nn.Module:
    start = ["task=classifier", f"model.classifier.kind={kind}", f"model.classifier.channels={channels}"]
    return build_classifier(load_config(None, [*start, *overrides]), num_classes=classes)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_number_of_parameters_is_the_published_one(name: str) -> None:
    make, options, expected = PUBLISHED[name]
    with torch.device("meta"):
        net = make(resolution=32, image_channels=3, num_classes=10, **options)
    assert sum(p.numel() for p in net.parameters()) == expected


def test_cnn6_has_the_weights_of_the_opt_code() -> None:
    with torch.device("meta"):
        net = CNN(resolution=32, image_channels=3, num_classes=100)
    assert sum(p.numel() for p in net.parameters() if p.dim() > 1) == 257_984
    assert sum(p.numel() for n, p in net.named_parameters() if p.dim() == 1) == 6 * 2 * 64  # batch norms and no more
    columns = [found.view.columns for found in weights.select(net)]
    assert sum(d * (d - 1) // 2 for d in columns[:-1]) + 64 * 100 == 1_358_527  # OPT's count, its classifier plain


@settings(max_examples=12, deadline=None)
@given(kind=st.sampled_from(KINDS), side=st.sampled_from([32, 64]), grey=st.booleans(), classes=st.integers(2, 7))
def test_every_kind_gives_logits_at_every_size(kind: str, side: int, grey: bool, classes: int) -> None:
    channels = 1 if grey else 3
    net = built(kind, f"data.resolution={side}", f"data.channels={channels}", classes=classes, channels=2)
    logits = net(torch.randn(2, channels, side, side).clamp(-1, 1))
    assert logits.shape == (2, classes)
    assert torch.isfinite(logits).all()
    logits.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.parametrize("kind", ["resnet18", "resnet20", "vgg19", "cnn6", "mlp", "wrn-16-2", "densenet40", "alexnet"])
def test_images_are_classified_one_by_one_in_eval_mode(kind: str) -> None:
    net = built(kind).eval().double()
    x = torch.rand(3, 3, 32, 32, dtype=torch.float64) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(net(x)[1:2], net(x[1:2]))
        torch.testing.assert_close(net(x.to(memory_format=torch.channels_last)), net(x))
        assert torch.equal(copy.deepcopy(net)(x), net(x))


def test_the_shortcut_without_parameters_is_option_a() -> None:
    block = SmallResNet(resolution=32, image_channels=3, channels=4, num_classes=10).get_submodule("stages.1.0")
    x = torch.rand(2, 4, 8, 8)
    beside = block.shortcut(x)
    assert torch.equal(beside[:, 2:6], x[:, :, ::2, ::2])
    assert int(beside[:, :2].count_nonzero() + beside[:, 6:].count_nonzero()) == 0


def test_a_residual_block_without_weights_passes_its_input_on() -> None:
    net = built("wrn-10-1").eval()
    block = net.get_submodule("stages.0.0")
    nn.init.zeros_(block.conv2.weight)
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(block(x), x)


def test_half_precision_stays_close() -> None:
    net = built("resnet20", channels=8).eval()
    x = torch.rand(4, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        exact = net(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = net(x).float()
    torch.testing.assert_close(rough, exact, atol=0.05 * float(exact.abs().amax()), rtol=0.05)


@pytest.mark.parametrize("kind", ["resnet20", "cnn6", "alexnet"])
def test_it_compiles_whole(kind: str) -> None:
    net = built(kind).eval()
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(torch.compile(net, backend="aot_eager", fullgraph=True)(x), net(x))


def test_initial_weights_follow_from_the_seed_and_have_the_published_scale() -> None:
    one, two, other = built("resnet20", channels=16), built("resnet20", channels=16), built("resnet20", "seed=1")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(built("resnet20").conv.weight, other.conv.weight)
    conv = one.get_submodule("stages.1.1.conv1")
    assert float(conv.weight.detach().std()) == pytest.approx((2 / (9 * 32)) ** 0.5, rel=0.05)


def test_constraints_and_whitening_reach_the_layers_by_name() -> None:
    net = built(
        "wrn-10-1",
        "model.classifier.norm={kind: spectral, layers: ['stages.*.conv1']}",
        "model.classifier.whitening={layers: [norm], groups: 2}",
    )
    assert [name for name, *_ in list_constrained(net)] == [f"stages.{i}.0.conv1" for i in range(3)]
    assert type(net.norm).__name__ == "DecorrelatedBatchNorm2d"


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["model.classifier.kind=resnet19"], ["model.classifier.kind", "'resnet19'", "resnet18"]),
        (["model.classifier.kind=wrn-27-2"], ["wrn-27-2", "6n + 4"]),
        (
            ["model.classifier.options={depth: 3}"],
            ["model.classifier.options.depth", "'resnet18' has no such option; it has stem"],
        ),
        (["data.resolution=36"], ["data.resolution is 36", "multiple of 8"]),
        (["model.classifier.kind=vgg19", "data.resolution=48"], ["data.resolution is 48", "multiple of 32"]),
        (["model.classifier.norm={kind: spectral, layers: [convs]}"], ["model.classifier.norm", "matches nothing"]),
    ],
)
def test_what_cannot_be_built_is_said(overrides: list[str], parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        build_classifier(load_config(None, ["task=classifier", *overrides]), num_classes=10)
    for part in parts:
        assert part in str(caught.value)


def test_other_depths_are_refused() -> None:
    for make, depth in ((ResNet, 19), (SmallResNet, 21), (VGG, 17), (CNN, 7), (DenseNet, 99), (DenseNet, 4)):
        with pytest.raises(ValueError, match=f"depth is {depth}"):
            make(resolution=32, image_channels=3, num_classes=10, depth=depth)
    with pytest.raises(ValueError, match="num_classes is 1"):
        MLP(resolution=32, image_channels=3, num_classes=1)


class Mine(nn.Module):
    """A user's own net."""

    def __init__(self, num_classes: int, hidden: int = 3) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.LazyLinear(hidden), nn.Linear(hidden, num_classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def test_a_class_of_the_users_own() -> None:
    net = built(f"{__name__}:Mine", "model.classifier.options={hidden: 6}")
    assert net(torch.rand(2, 3, 32, 32)).shape == (2, 5)
    assert set(CLASSIFIERS) >= {"resnet18", "wrn-28-10", "vgg19", "cnn6", "cnn9", "mlp"}
