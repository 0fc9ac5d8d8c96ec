"""SeFa, activation PCA and the Jacobian on generators whose singular vectors are known."""

from __future__ import annotations

import copy
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as of_hypothesis
from hypothesis import strategies as st
from torch import Tensor, nn

from orthogan import weights
from orthogan.errors import UserError
from orthogan.latent.discovery import jacobian, latent_axes, pca, random_basis, sefa
from orthogan.latent.discovery.pca import layer_behind
from orthogan.latent.discovery.response import trace_generator
from orthogan.latent.discovery.sefa import first_layer_directions
from orthogan.models.families.dcgan import DCGANGenerator
from orthogan.models.families.sngan import SNGANGenerator
from orthogan.models.families.stylegan2 import StyleGAN2Generator
from orthogan.models.generate import in_space, model_hash
from tests.fixtures.latent_nets import Factors, Linear, assert_same_lines

SIGMA = [5.0, 3.0, 2.0, 1.0]


def dcgan(**changes: int) -> DCGANGenerator:
    torch.manual_seed(0)
    return DCGANGenerator(**{"resolution": 32, "image_channels": 1, "channels": 16, "latent_dim": 6, **changes})


@pytest.mark.parametrize("method", [sefa, pca, jacobian])
def test_a_linear_generator_gives_its_singular_vectors(method) -> None:
    net = Linear(SIGMA)
    found = method(net) if method is not pca else pca(net, samples=200_000, batch_size=50_000)
    # PCA sees a sample: the angle between neighbours is off by about 1 / sqrt(samples) over their gap
    assert_same_lines(found.matrix, net.v, 1 - 1e-6 if method is not pca else 1 - 1e-3)
    assert found.scores["sigma"] == pytest.approx(SIGMA, rel=1e-5 if method is not pca else 1e-2)
    leading = np.abs(found.matrix).argmax(axis=1)
    assert (found.matrix[np.arange(4), leading] > 0).all()
    assert np.allclose(np.linalg.norm(found.matrix, axis=1), 1)
    assert found.model_hash == model_hash(net)


@pytest.mark.parametrize("method", [sefa, pca, jacobian, random_basis])
def test_nothing_of_the_generator_or_of_chance_is_touched(method) -> None:
    net = dcgan().train()
    weights.spectral_norm(net.linear)
    before = copy.deepcopy(net.state_dict())
    state = torch.random.get_rng_state()
    settings = {"samples": 1000} if method is pca else {"samples": 20} if method is jacobian else {}
    first = method(net, **settings)
    torch.manual_seed(1)
    assert np.array_equal(first.matrix, method(net, **settings).matrix)
    torch.random.set_rng_state(state)
    assert all(part.training for part in net.modules())
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())


def test_plain_sefa_is_the_svd_of_the_first_layer() -> None:
    net = dcgan()
    _, sigma, right = np.linalg.svd(net.linear.weight.detach().double().numpy(), full_matrices=False)
    found = sefa(net)
    assert_same_lines(found.matrix, right)
    assert found.scores["sigma"] == pytest.approx(sigma)
    assert found.layer == "linear"
    assert first_layer_directions is sefa


def test_unit_outputs_are_the_authors_eigenvectors() -> None:
    net = dcgan()
    columns = net.linear.weight.detach().double().numpy().T  # (latent, outputs), as in the authors' code
    columns = columns / np.linalg.norm(columns, axis=0)
    values, vectors = np.linalg.eigh(columns @ columns.T)
    found = sefa(net, normalise=True)
    assert_same_lines(found.matrix, vectors[:, ::-1].T)
    assert found.scores["sigma"] == pytest.approx(np.sqrt(values[::-1]))


def test_an_output_without_weights_survives_unit_length() -> None:
    net = Linear(SIGMA)
    with torch.no_grad():
        net.fc.weight[3] = 0
    assert np.isfinite(sefa(net, normalise=True).matrix).all()


@pytest.mark.parametrize(("classes", "y"), [(0, None), (3, None), (3, 1)])
def test_following_the_norm_gives_the_map_to_the_normalised_features(classes: int, y: int | None) -> None:
    net = dcgan(num_classes=classes)
    norm = net.norms[0].norm
    batch_norm = norm.norm if classes else norm
    gain = norm.gain if classes else norm.weight
    with torch.no_grad():
        batch_norm.running_var.uniform_(0.1, 9.0)
        gain.uniform_(-2.0, 2.0)
    found = sefa(net, follow_norm=True, y=y)

    # brute force: the features' slope along each axis of the latent, class by class
    gram = np.zeros((6, 6))
    net.eval()
    for label in [y] if y is not None else range(max(1, classes)):
        labels = [torch.full((7,), label)] if classes else []
        points = torch.cat([torch.zeros(1, 6), torch.eye(6)])
        with torch.no_grad():
            out = norm(net.linear(points).reshape(7, net.width, *net.bottom), *labels)
        slope = (out[1:] - out[:1]).reshape(6, -1).double().numpy()
        gram += slope @ slope.T
    values, vectors = np.linalg.eigh(gram / (1 if y is not None or not classes else classes))
    assert_same_lines(found.matrix, vectors[:, ::-1].T, 1 - 1e-4)
    assert found.scores["sigma"] == pytest.approx(np.sqrt(values[::-1]), rel=1e-4)


def test_a_norm_elsewhere_is_not_followed() -> None:
    with pytest.raises(UserError, match="no batch norm directly follows"):
        sefa(Linear(SIGMA), follow_norm=True)
    torch.manual_seed(0)
    blocks = SNGANGenerator(resolution=32, image_channels=3, channels=8, latent_dim=4)
    assert sefa(blocks, follow_norm=True).layer == "linear"  # blocks.0 normalises its input first
    with pytest.raises(UserError, match="choose one"):
        sefa(blocks, follow_norm=True, normalise=True)
    assert np.array_equal(sefa(blocks, y=1).matrix, sefa(blocks).matrix)  # the first layer has no class


@pytest.mark.parametrize("method", [sefa, pca, jacobian])
def test_equal_singular_values_warn(method) -> None:
    with pytest.warns(UserWarning, match="singular values tie"):
        method(Linear([2.0] * 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method(Linear(SIGMA))


# ---- PCA ----


class Behind(nn.Module):
    """A first layer, and a module behind it that knows nothing of its size."""

    def __init__(self, behind: nn.Module, dim: int = 4) -> None:
        super().__init__()
        self.latent_dim, self.num_classes = dim, 0
        torch.manual_seed(3)
        self.same = nn.Identity()
        self.first, self.behind = nn.Linear(dim, 10), behind

    def forward(self, z: Tensor) -> Tensor:
        return self.behind(self.first(self.same(z)))[:, None, None]


class Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x**2


class Wide(nn.Module):
    """Many features with a large mean, so that the covariance is never formed."""

    def forward(self, x: Tensor) -> Tensor:
        source = torch.Generator().manual_seed(4)
        return 100 + x @ torch.randn(10, 2100, generator=source)


def test_pca_and_its_way_back_are_those_of_numpy() -> None:
    net = Behind(nn.Tanh())
    found = pca(net, samples=3000, components=3, seed=5)
    with trace_generator(net, layer="behind") as response:
        z, _ = response.draw(3000, 5)
        a = response(z, None).double().numpy()
    a = a - a.mean(0)
    u, s, _ = np.linalg.svd(a, full_matrices=False)
    z = z.double().numpy() - z.double().numpy().mean(0)
    back = np.linalg.lstsq(u[:, :3], z, rcond=None)[0]
    assert_same_lines(found.matrix, back, 1 - 1e-9 - 1e-6)
    assert found.scores["sigma"] == pytest.approx(s[:3] / np.sqrt(2999), rel=1e-6)
    assert found.scores["share"] == pytest.approx(s[:3] ** 2 / (s**2).sum(), rel=1e-6)
    on_z = np.linalg.lstsq(z, u[:, :3], rcond=None)[0]
    assert found.scores["linear"] == pytest.approx(((z @ on_z) ** 2).sum(0), rel=1e-6)
    assert found.layer == "behind"


def test_the_iterated_subspace_is_the_exact_one(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Behind(Wide())  # of rank 4: the mean must not take up a place
    monkeypatch.setattr(sys.modules[pca.__module__], "OVERSAMPLING", 0)
    iterated = pca(net, samples=400)
    # the package's name for the module is the function's
    monkeypatch.setattr(sys.modules[pca.__module__], "EXACT_FEATURES", 3000)
    exact = pca(net, samples=400)
    assert_same_lines(iterated.matrix, exact.matrix)
    for name in ("sigma", "share", "linear"):
        assert iterated.scores[name] == pytest.approx(exact.scores[name], rel=1e-6)


def test_pca_refuses_the_latent_itself_and_what_does_not_vary() -> None:
    net = Behind(nn.Tanh())
    with pytest.raises(UserError, match="z itself"):
        pca(net, layer="same")
    with torch.no_grad():
        net.first.weight.zero_()
    with pytest.raises(UserError, match="do not depend"):
        pca(net, samples=50)
    with pytest.raises(UserError, match="at least 10 per latent dimension, 40"):
        pca(net, samples=39)
    with pytest.raises(UserError, match="no layer 'absent'"):
        pca(net, layer="absent")
    with pytest.raises(UserError, match="components=5"):
        pca(net, components=5)


def test_components_that_owe_the_latent_nothing_warn() -> None:
    net = Behind(Square())
    with torch.no_grad():
        net.first.bias.zero_()  # then squares are even in z
    with pytest.warns(UserWarning, match="components 0, 1, 2, 3 are not linear in z"):
        pca(net, samples=2000, layer="behind")


def test_fewer_features_than_latents_give_fewer_components() -> None:
    net = Behind(nn.Linear(10, 2))
    assert len(pca(net, samples=100)) == 2
    with pytest.warns(UserWarning, match="only 2 of 3 components vary"):
        pca(net, samples=100, components=3)


def test_the_layer_behind_the_first() -> None:
    assert layer_behind(dcgan()) == "norms.0"
    torch.manual_seed(0)
    assert layer_behind(SNGANGenerator(resolution=32, image_channels=3, channels=8, latent_dim=4)) == "blocks.0"
    assert layer_behind(Behind(nn.Sequential(nn.ReLU(), nn.Linear(10, 3)))) == "behind.0"
    assert layer_behind(Linear(SIGMA)) == "fc"
    labelled = Behind(nn.Linear(10, 3))
    labelled.num_classes, labelled.embedding = 2, nn.Embedding(2, 10)
    labelled.forward = lambda z, y: labelled.behind(labelled.embedding(y) + labelled.first(z)).view(-1, 1, 1, 3)
    assert layer_behind(labelled) == "behind"  # not the embedding, which knows nothing of z
    assert pca(Linear(SIGMA), samples=100).layer == "fc"


# ---- Jacobian ----


@given(st.integers(2, 6), st.integers(1, 9), st.integers(1, 20), st.integers(0, 100))
@of_hypothesis(max_examples=15, deadline=None)
def test_the_mean_of_jtj_is_that_of_reverse_mode(dim: int, samples: int, batch_size: int, seed: int) -> None:
    net = Factors(dim, seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ties are not the point here
        found = jacobian(net, samples=samples, batch_size=batch_size, seed=seed)
    with trace_generator(net) as response:
        z, _ = response.draw(samples, seed)
    gram = np.zeros((dim, dim))
    for one in z:
        j = torch.autograd.functional.jacobian(lambda x: net(x[None]).flatten(), one).double().numpy()
        gram += j.T @ j / samples
    values = np.linalg.eigvalsh(gram)
    assert found.scores["sigma"] == pytest.approx(np.sqrt(values[::-1].clip(0)), abs=1e-5)
    rows = found.matrix.astype(np.float64)
    assert np.allclose(rows @ gram @ rows.T, np.diag(values[::-1]), atol=1e-5)


def test_one_sample_is_the_local_basis() -> None:
    net = Factors(4, curve=lambda u: u**3 + u)
    local = jacobian(net, samples=1, seed=3)
    assert local.method == "local jacobian"
    with trace_generator(net) as response:
        z, _ = response.draw(1, 3)
    slopes = np.abs(3 * (net.v @ z[0].double().numpy()) ** 2 + 1)
    order = np.argsort(-slopes)
    assert_same_lines(local.matrix, net.v[order], 1 - 1e-5)
    assert local.scores["sigma"] == pytest.approx(slopes[order], rel=1e-4)


def test_constrained_conditional_nets_layers_and_resolutions() -> None:
    net = dcgan(num_classes=2)
    weights.rotation(net.linear)  # its backward is an autograd function of the old kind
    whole = jacobian(net, samples=4, y=1)
    assert whole.layer == ""
    layer = jacobian(net, samples=4, layer="norms.0", components=2)
    assert layer.layer == "norms.0"
    assert len(layer) == 2
    small = jacobian(net, samples=4, resolution=4, y=1)
    assert max(small.scores["sigma"]) < max(whole.scores["sigma"])  # a mean of 64 pixels moves less than they
    with pytest.raises(UserError, match="resolution=33"):
        jacobian(net, resolution=33)
    with pytest.raises(UserError, match="class 2"):
        jacobian(net, y=2)


def test_classes_are_taken_in_turn_unless_one_is_fixed() -> None:
    net = Linear(SIGMA, num_classes=2)  # class 1 doubles the image
    sigma = np.array(SIGMA)
    assert jacobian(net, samples=4, y=0).scores["sigma"] == pytest.approx(sigma, rel=1e-5)
    assert jacobian(net, samples=4, y=1).scores["sigma"] == pytest.approx(2 * sigma, rel=1e-5)
    assert jacobian(net, samples=4).scores["sigma"] == pytest.approx(np.sqrt(2.5) * sigma, rel=1e-5)


def test_directions_that_change_nothing_say_so() -> None:
    net = Linear([3.0, 1.0, 0.0, 0.0])
    for method in (sefa, jacobian):
        found = method(net)
        assert found.notes == ("", "", "changes nothing", "changes nothing")
        assert_same_lines(found.matrix[:2], net.v[:2])
    with torch.no_grad():
        net.fc.weight.zero_()
    with pytest.raises(UserError, match="does not depend on the latent"):
        jacobian(net, samples=2)


def test_one_latent_dimension_has_one_direction() -> None:
    net = Linear([2.0])
    for method in (sefa, jacobian, random_basis, latent_axes):
        assert np.abs(method(net).matrix) == pytest.approx(1.0)
    assert pca(net, samples=50).matrix == pytest.approx(1.0)


def test_a_damaged_generator_is_refused() -> None:
    net = Linear(SIGMA)
    with torch.no_grad():
        net.fc.weight[0, 0] = torch.nan
    for method in (sefa, pca, jacobian):
        with pytest.raises(UserError, match="NaN"):
            method(net)


def test_controls_are_orthonormal_and_belong_to_the_generator() -> None:
    net = Linear(SIGMA)
    for found in (random_basis(net, components=3, seed=2), latent_axes(net, components=3)):
        assert np.allclose(found.matrix @ found.matrix.T, np.eye(3), atol=1e-6)
        assert found.model_hash == model_hash(net)
    assert np.array_equal(random_basis(net, seed=2).matrix[:3], random_basis(net, components=3, seed=2).matrix)
    assert not np.array_equal(random_basis(net, seed=2).matrix, random_basis(net, seed=3).matrix)


def test_pca_in_w_is_that_of_the_latents_of_w() -> None:
    torch.manual_seed(0)
    net = StyleGAN2Generator(resolution=32, image_channels=1, channels=2, latent_dim=6, mapping_layers=2).eval()
    w = in_space(net, "w")
    found = pca(w, samples=4000, components=3)
    assert found.layer == "latent"
    values, basis = np.linalg.eigh(np.cov(w.sample_latent(4000, seed=0).double().numpy().T))
    assert_same_lines(found.matrix, basis[:, ::-1].T[:3], 1 - 1e-5)
    assert found.scores["sigma"] == pytest.approx(np.sqrt(values[::-1][:3]), rel=1e-3)
    assert found.scores["linear"] == pytest.approx([1.0] * 3)
