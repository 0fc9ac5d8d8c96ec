"""Given weights under other image channels and classes: what must come out the same does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from orthogan.config.schema import Config
from orthogan.errors import UserError
from orthogan.models.adapt import LUMA, Form, adapt
from orthogan.models.build import build_discriminator, build_generator
from tests.fixtures.runs import load_config

ANIMALS, MORE = ["cat", "dog"], ["dog", "emu", "cat"]
KINDS = ["sngan", "dcgan", "wgan-gp", "r3gan", "stylegan2"]
UNCONDITIONAL = ["simple-gan", "eigengan"]


def config(kind: str, channels: int) -> Config:
    return load_config(
        None,
        [
            f"data.channels={channels}",
            "data.source=sprites",
            f"model.generator.kind={kind}",
            f"model.discriminator.kind={kind}",
            "model.generator.channels=8",
            "model.discriminator.channels=8",
            "model.discriminator.norm.kind=none",
            "model.generator.latent_dim=20",
        ],
    )


def nets(kind: str, form: Form, seed: int = 0) -> tuple[nn.Module, nn.Module]:
    """A generator and a discriminator in eval mode, whose norms and biases are not those of the start."""
    built = config(kind, form.channels)
    pair = (
        build_generator(built, num_classes=form.num_classes).eval(),
        build_discriminator(built, num_classes=form.num_classes).eval(),
    )
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for net in pair:
            for name, parameter in net.named_parameters():
                if parameter.dim() < 3 and "noise" not in name:
                    parameter += 0.1 * torch.randn(parameter.shape, generator=rng)
    return pair


def carried(kind: str, there: Form, here: Form) -> tuple[tuple[nn.Module, nn.Module], tuple[nn.Module, nn.Module], str]:
    """Nets of the form ``there``, those of the form ``here`` that took their weights, and what was said."""
    old, new = nets(kind, there), nets(kind, here, seed=1)
    said = []
    for a, b, role in zip(old, new, ("generator", "discriminator"), strict=True):
        state = dict(a.state_dict())
        said += adapt(state, b, role, there, here)  # pyright: ignore[reportArgumentType]
        b.load_state_dict(state)
    return old, new, "; ".join(said)


def luma(images: Tensor) -> Tensor:
    return torch.einsum("nchw,c->nhw", images, LUMA)[:, None]


def drawn(net: nn.Module, label: int | None = None) -> Tensor:
    z = torch.randn(3, 20, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        return net(z, None if label is None else torch.full((3,), label))


def judged(net: nn.Module, images: Tensor, label: int | None = None) -> Tensor:
    with torch.no_grad():
        return net(images, None if label is None else torch.full((len(images),), label))


def some(channels: int) -> Tensor:
    return torch.rand(4, channels, 32, 32, generator=torch.Generator().manual_seed(5)) * 2 - 1


@pytest.mark.parametrize("kind", [*KINDS, *UNCONDITIONAL])
def test_gray_to_color_draws_and_judges_the_same(kind: str) -> None:
    (g, d), (g3, d3), said = carried(kind, Form(1), Form(3))
    torch.testing.assert_close(drawn(g3), drawn(g).expand(-1, 3, -1, -1), rtol=1e-4, atol=1e-4)
    if kind != "stylegan2":  # whose first layer counts its inputs in the gain: warm starts make that good
        images = some(3)
        torch.testing.assert_close(judged(d3, images), judged(d, luma(images)), rtol=1e-3, atol=1e-3)
    assert "generator: gray to RGB in" in said
    assert "discriminator: gray to RGB in" in said


@pytest.mark.parametrize("kind", [*KINDS, *UNCONDITIONAL])
def test_color_to_gray_judges_the_same_and_draws_the_luma(kind: str) -> None:
    (g, d), (g1, d1), said = carried(kind, Form(3), Form(1))
    assert drawn(g1).shape[1] == 1
    if kind == "r3gan":  # whose image is not squashed
        torch.testing.assert_close(drawn(g1), luma(drawn(g)), rtol=1e-4, atol=1e-4)
    if kind != "stylegan2":
        gray = some(1)
        torch.testing.assert_close(judged(d1, gray), judged(d, gray.expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-3)
    assert "RGB to gray" in said


@pytest.mark.parametrize("kind", KINDS)
def test_new_classes_begin_as_the_unconditional_net(kind: str) -> None:
    (g, d), (new_g, new_d), said = carried(kind, Form(3), Form(3, 2, ANIMALS))
    images = some(3)
    for label in (0, 1):
        if kind != "stylegan2":  # whose mapping net has a vector of length 1 for each class
            torch.testing.assert_close(drawn(new_g, label), drawn(g), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(judged(new_d, images, label), judged(d, images), rtol=1e-3, atol=1e-3)
    assert "generator: 2 classes, which start with equal weights" in said


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_of_the_same_name_keeps_its_weights(kind: str) -> None:
    (g, d), (new_g, new_d), said = carried(kind, Form(3, 2, ANIMALS), Form(3, 3, MORE))
    images = some(3)
    for name in ANIMALS:
        there, here = ANIMALS.index(name), MORE.index(name)
        torch.testing.assert_close(drawn(new_g, here), drawn(g, there), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(judged(new_d, images, here), judged(d, images, there), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(drawn(new_g, 1), drawn(new_g, 0), atol=1e-3)
    assert "2 classes to 3, the weights of dog, cat are kept" in said


@pytest.mark.parametrize("kind", KINDS)
def test_without_classes_the_net_still_draws(kind: str) -> None:
    (g, _), (new_g, new_d), said = carried(kind, Form(3, 2, ANIMALS), Form(3))
    assert drawn(new_g).isfinite().all()
    assert judged(new_d, some(3)).shape == (4,)
    assert "without classes, as the mean of 2" in said
    if kind in ("sngan", "wgan-gp", "dcgan"):  # gains and biases are linear in the class
        assert (drawn(new_g) - drawn(g, 0)).abs().mean() < (drawn(nets(kind, Form(3), 9)[0]) - drawn(g, 0)).abs().mean()


def test_what_is_alike_stays_and_what_does_not_fit_is_left() -> None:
    net = nets("sngan", Form(3))[0]
    state = dict(net.state_dict())
    assert adapt(state, net, "generator", Form(3), Form(3)) == []
    assert (
        all(state[key] is value for key, value in net.state_dict().items()) or state.keys() == net.state_dict().keys()
    )
    other = {"linear.weight": torch.zeros(5, 5)}
    assert adapt(other, net, "generator", Form(1), Form(3)) == []
    assert other["linear.weight"].shape == (5, 5)


@pytest.mark.parametrize(("there", "here"), [(3, 4), (4, 3), (1, 2), (2, 4), (1, 5)])
def test_other_channels_than_gray_and_rgb_are_refused(there: int, here: int) -> None:
    old, new = nn.Conv2d(8, there, 1), nn.Conv2d(8, here, 1)
    with pytest.raises(UserError, match=f"set data.channels to {there}"):
        adapt(dict(old.state_dict()), new, "generator", Form(there), Form(here))


@pytest.mark.parametrize(
    ("there", "here"), [(Form(1), Form(1, 2, ANIMALS)), (Form(1, 2, ANIMALS), Form(1)), (Form(1), Form(1))]
)
def test_whitened_norms_keep_their_statistics(there: Form, here: Form) -> None:
    whitened = ["data.channels=1", "data.source=sprites", "model.generator.channels=4", "model.generator.latent_dim=5"]
    settings = load_config(None, [*whitened, "model.generator.whitening.layers=*"])
    torch.manual_seed(0)
    z, labels = torch.randn(8, 5), torch.zeros(8, dtype=torch.long)
    old, new = (build_generator(settings, num_classes=form.num_classes) for form in (there, here))
    for _ in range(2):  # the statistics are no longer those of the start
        old(z, labels if there.num_classes else None)
    state = dict(old.eval().state_dict())
    adapt(state, new.eval(), "generator", there, here)
    new.load_state_dict(state)
    with torch.no_grad():
        images = [net(z, labels if form.num_classes else None) for net, form in ((old, there), (new, here))]
    torch.testing.assert_close(*images, rtol=0, atol=0)
