"""SeFa of the first layer, and native directions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from orthogan.errors import UserError
from orthogan.latent.discovery.native import latent_axes, native_directions
from orthogan.latent.discovery.sefa import first_layer_directions, latent_matrix
from orthogan.latent.traverse import traverse
from orthogan.models.generate import model_hash
from orthogan.models.protocol import Generator
from orthogan.models.samples import sample_images
from tests.fixtures.disc import Affine, Disc


class Host(nn.Module):
    """A generator of nothing but a first layer, and another layer registered before it."""

    num_classes = 0

    def __init__(self, first: nn.Module, dim: int) -> None:
        super().__init__()
        self.latent_dim = dim
        self.other = nn.Linear(dim + 1, 3)
        self.first = first

    def forward(self, z: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        return self.first(z)


def linear(sigmas: list[float], out: int = 7, seed: int = 0) -> tuple[nn.Linear, np.ndarray]:
    """A linear layer with known singular values and right singular vectors (rows)."""
    dim = len(sigmas)
    rng = np.random.default_rng(seed)
    u, v = np.linalg.qr(rng.normal(size=(out, dim)))[0], np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    layer = nn.Linear(dim, out)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(u @ np.diag(sigmas) @ v))
    return layer, v


def assert_same_lines(found: np.ndarray, expected: np.ndarray) -> None:
    cosine = np.abs((found * expected).sum(axis=1)) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() > 1 - 1e-6


def test_known_singular_vectors_come_out_in_order() -> None:
    layer, v = linear([0.5, 4.0, 1.0, 2.0])
    found = first_layer_directions(Host(layer, 4))
    assert_same_lines(found.matrix, v[[1, 3, 2, 0]])
    assert found.scores["sigma"] == pytest.approx([4.0, 2.0, 1.0, 0.5], rel=1e-5)
    assert found.layer == "first"
    leading = np.abs(found.matrix).argmax(axis=1)
    assert (found.matrix[np.arange(4), leading] > 0).all()


def test_fewer_outputs_than_latent_gives_fewer_directions() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(6, 2)
    found = first_layer_directions(Host(layer, 6))
    expected = np.linalg.svd(layer.weight.detach().double().numpy())[2][:2]
    assert_same_lines(found.matrix, expected)


def test_one_flipped_weight_column_flips_only_that_coordinate() -> None:
    layer, _ = linear([3.0, 2.0, 1.0], seed=3)
    before = first_layer_directions(Host(layer, 3)).matrix
    with torch.no_grad():
        layer.weight[:, 1] *= -1
    after = first_layer_directions(Host(layer, 3)).matrix
    mirrored = before * np.array([1, -1, 1])
    assert np.allclose(np.abs(after), np.abs(before), atol=1e-6)
    assert_same_lines(after, mirrored)
    with torch.no_grad():
        layer.weight *= -1  # a sign of U: the directions must not notice
    assert np.allclose(first_layer_directions(Host(layer, 3)).matrix, after, atol=1e-6)


@pytest.mark.parametrize(
    "layer",
    [
        nn.ConvTranspose2d(4, 6, 4),
        nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1, output_padding=1),
        nn.ConvTranspose2d(4, 6, 3, groups=2, dilation=2, padding=1),
        nn.ConvTranspose1d(4, 3, 5),
        nn.ConvTranspose3d(4, 2, 2),
        nn.Conv2d(4, 6, 4, padding=3),
        nn.Conv2d(4, 6, 5, stride=2, padding=4),
        nn.Conv2d(4, 8, 1, groups=2),
        nn.Linear(4, 9),
    ],
    ids=repr,
)
def test_the_matrix_is_the_layers_own_linear_map(layer: nn.Module) -> None:
    layer = layer.double()
    z = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    pixel = z.reshape(3, 4, *[1] * (layer.weight.ndim - 2))
    expected = (layer(pixel) - layer(torch.zeros_like(pixel))).reshape(3, -1)
    assert torch.allclose(z @ latent_matrix(layer).T, expected, atol=1e-12)


def test_a_layer_that_is_not_linear_in_one_input_has_no_matrix() -> None:
    with pytest.raises(UserError, match="Bilinear"):
        latent_matrix(nn.Bilinear(1, 1, 1))


def test_the_effective_weight_counts_and_is_not_disturbed() -> None:
    layer, _ = linear([5.0, 2.0, 1.0])
    spectral_norm(layer)
    host = Host(layer, 3)
    host.train()
    layer(torch.ones(1, 3))
    u = layer.parametrizations.weight[0]._u.clone()
    found = first_layer_directions(host)
    assert torch.equal(layer.parametrizations.weight[0]._u, u)
    layer.eval()
    effective = np.linalg.svd(layer.weight.detach().double().numpy())[1]
    assert found.scores["sigma"] == pytest.approx(effective, rel=1e-6)
    assert found.scores["sigma"][0] < 2  # normalised, not the stored 5


def test_a_tie_of_singular_values_warns() -> None:
    class Orthogonal(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return torch.linalg.qr(weight)[0]

    layer = nn.Linear(4, 9)
    parametrize.register_parametrization(layer, "weight", Orthogonal())
    with pytest.warns(UserWarning, match="singular values tie"):
        first_layer_directions(Host(layer, 4))


def test_no_tie_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    first_layer_directions(Host(linear([1.06, 1.03, 1.0])[0], 3))
    assert not recwarn.list


def test_which_layer_is_taken() -> None:
    net = Affine(dim=5)
    assert first_layer_directions(net).layer == "fc"
    host = Host(linear([2.0, 1.0])[0], 2)
    assert np.array_equal(first_layer_directions(host, layer="first").matrix, first_layer_directions(host).matrix)
    with pytest.raises(UserError, match=r"no layer 'nowhere' .* layers with 2 inputs: first"):
        first_layer_directions(host, layer="nowhere")
    with pytest.raises(UserError, match="'other' takes 3 inputs but the latent has 2"):
        first_layer_directions(host, layer="other")
    with pytest.raises(UserError, match="no first layer with 8 inputs"):
        first_layer_directions(Disc(dim=8))


class Named(Generator):
    """A generator of the protocol, its layers in another order than they are used."""

    latent_dim, num_classes, image_channels, resolution = 4, 0, 1, 2

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(4, 4)
        self.start = nn.Linear(4, 4)

    def forward(self, z: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        return self.last(self.start(z).relu()).reshape(-1, 1, 2, 2).tanh()


class NamedWell(Named):
    def first_layer(self) -> nn.Module:
        return self.start


def test_a_protocol_generator_names_its_layer_or_is_searched() -> None:
    assert first_layer_directions(Named()).layer == "last"  # registered first: the best guess without a name
    assert first_layer_directions(NamedWell()).layer == "start"


def test_any_module_with_a_latent_dim_joins() -> None:
    class Plain(nn.Module):
        latent_dim = 3

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return z[:, :, None, None].expand(-1, 3, 2, 2).tanh()

    net = Plain()
    found = traverse(net, native_directions(net), steps=3, seed=1)
    assert found.frames.shape == (3, 3, 3, 2, 2)
    assert np.array_equal(found.frames[0, 1], sample_images(net, [1]).images[0])
    with pytest.raises(UserError, match="latent_dim"):
        native_directions(nn.Linear(2, 2))


def test_a_damaged_weight_is_named() -> None:
    layer, _ = linear([2.0, 1.0])
    with torch.no_grad():
        layer.weight[0, 0] = float("nan")
    with pytest.raises(UserError, match=r"'first'.*NaN"):
        first_layer_directions(Host(layer, 2))


def test_axes_are_the_identity_and_native_directions_win() -> None:
    net = Disc(dim=3)
    axes = native_directions(net)
    assert np.array_equal(axes.matrix, np.eye(3))
    assert axes.names == ("z0", "z1", "z2")
    assert axes.model_hash == model_hash(net)
    own = torch.tensor([[0.0, -2.0, 0.0], [1.0, 1.0, 0.0]])
    net.native_directions = lambda: own
    found = native_directions(net)
    assert np.array_equal(found.matrix, own.numpy())
    assert found.method == "native"
    assert np.array_equal(latent_axes(net).matrix, np.eye(3))
    net.native_directions = lambda: None
    assert native_directions(net).method == "latent axes"
    net.native_directions = lambda: torch.eye(2)
    with pytest.raises(UserError, match=r"Disc\.native_directions"):
        native_directions(net)
