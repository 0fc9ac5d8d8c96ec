"""Near-orthogonality against the singular values of dense matrices, on every layer of real nets."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from orthogan import weights
from orthogan.config.files import load_config
from orthogan.evaluation.spectrum.layer_spectrum import spectrum
from orthogan.evaluation.spectrum.near_orthogonality import near_orthogonality
from orthogan.models.build import build_classifier
from tests.fixtures.convolutions import dense


def rms(values: Tensor) -> float:
    return float((values.double().square() - 1).square().mean().sqrt())


def net_of(kind: str, *overrides: str) -> nn.Module:
    start = ["task=classifier", f"model.classifier.kind={kind}", "model.classifier.channels=4"]
    return build_classifier(load_config(None, [*start, *overrides]), num_classes=5)


@settings(max_examples=40, deadline=None)
@given(
    out=st.integers(1, 5),
    inputs=st.integers(1, 3),
    groups=st.integers(1, 2),
    taps=st.integers(1, 3),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    seed=st.integers(0, 10**6),
)
def test_a_convolution_is_its_dense_matrix(
    out: int, inputs: int, groups: int, taps: int, stride: int, dilation: int, seed: int
) -> None:
    check(nn.Conv1d(inputs * groups, out * groups, taps, stride, dilation=dilation, groups=groups), seed, side=12)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(3, 2), (2, 3), (9, 1), (1, 2)])
@pytest.mark.parametrize("taps", [1, 3])
def test_so_is_one_of_pictures(shape: tuple[int, int], taps: int, stride: int) -> None:
    check(nn.Conv2d(shape[1], shape[0], taps, stride), seed=0, side=6)


def check(conv: nn.Conv1d | nn.Conv2d, seed: int, side: int) -> None:
    """``side`` is more than twice the reach of the kernel, and a multiple of the stride."""
    with torch.no_grad():
        conv.weight.copy_(torch.randn(conv.weight.shape, generator=torch.Generator().manual_seed(seed)))
    found = near_orthogonality(nn.Sequential(conv))
    sides = [side] * (conv.weight.dim() - 2)
    matrix = dense(conv.weight.detach().double(), sides, list(conv.stride), conv.groups, list(conv.dilation))
    matrix = matrix[:, matrix.abs().sum(0) > 0]  # not the pixels that the stride passes by
    assert found["0/operator"] == pytest.approx(rms(torch.linalg.svdvals(matrix)), rel=1e-3, abs=3e-3)
    kernel = torch.linalg.svdvals(torch.block_diag(*conv.weight.detach().flatten(1).chunk(conv.groups)))
    assert found["0/kernel"] == pytest.approx(rms(kernel), rel=1e-4, abs=1e-5)


def test_the_kernel_residual_is_the_one_of_the_audit() -> None:
    net = net_of("resnet18")
    found = near_orthogonality(net)
    for row in spectrum(net):
        small = min(row.rows, row.columns)
        assert found[f"{row.name}/kernel"] == pytest.approx(row.orthogonality_residual / math.sqrt(small), rel=1e-4)
        assert found[f"{row.name}/kernel"] == pytest.approx(rms(row.singular_values), rel=1e-3)


@pytest.mark.parametrize("kind", ["resnet18", "wrn-10-1", "densenet40", "alexnet", "cnn6"])
def test_every_layer_is_in_it_the_stem_and_1x1_convolutions_too(kind: str) -> None:
    net = net_of(kind)
    found = near_orthogonality(net)
    layers = [name for name, layer in net.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert list(found)[: 2 * len(layers)] == [f"{name}/{view}" for name in layers for view in ("kernel", "operator")]
    assert any(isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) for layer in net.modules()) == (
        kind in ("resnet18", "wrn-10-1", "densenet40")
    )
    for view in ("kernel", "operator"):
        values = [found[f"{name}/{view}"] for name in layers]
        assert found[f"mean/{view}"] == pytest.approx(sum(values) / len(values))
        assert found[f"max/{view}"] == max(values)
    linear = next(name for name in layers if name == "linear")
    assert found[f"{linear}/kernel"] == pytest.approx(found[f"{linear}/operator"], rel=1e-5)


def test_orthogonal_matrices_have_none_of_it_and_scaled_ones_what_the_scale_says() -> None:
    net = nn.Sequential(nn.Conv2d(6, 4, 1), nn.Conv2d(4, 4, 1, stride=2), nn.Linear(5, 8))
    for layer in net:
        nn.init.orthogonal_(layer.weight)
    assert max(near_orthogonality(net).values()) < 3e-3
    with torch.no_grad():
        net[0].weight.mul_(2.0)
    found = near_orthogonality(net)
    assert found["0/kernel"] == pytest.approx(3.0, rel=1e-5)  # 2^2 - 1
    assert found["0/operator"] == pytest.approx(3.0, rel=1e-5)
    assert found["max/kernel"] == found["0/kernel"]


def test_an_orthogonal_kernel_is_no_orthogonal_convolution() -> None:
    net = net_of("cnn6")
    weights.apply(net, "orthogonal")
    found = near_orthogonality(net)
    assert found["max/kernel"] < 1e-3
    assert found["max/operator"] > 0.1


def test_nothing_moves_and_layers_can_be_chosen() -> None:
    net = net_of("resnet20", "model.classifier.norm={kind: spectral}").train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    found = near_orthogonality(net, "conv,!first")
    assert "conv/kernel" not in found
    assert "linear/kernel" not in found
    assert net.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert near_orthogonality(net, "conv,!first") == found
    with pytest.raises(ValueError, match="matches nothing"):
        near_orthogonality(net, "convs")
