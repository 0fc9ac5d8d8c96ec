"""A Householder projector as the first layer of any generator, from YAML: directions, files, refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from orthogan import native_directions, weights
from orthogan.config.files import load_config
from orthogan.config.schema import Config
from orthogan.errors import UserError
from orthogan.latent.discovery import sefa
from orthogan.layers import HouseholderPixel, HouseholderProjector
from orthogan.models.build import build_generator
from orthogan.models.open import load_generator
from orthogan.models.protocol import Generator
from orthogan.models.saved import save_generator

WIDTHS = {"sngan": 8, "dcgan": 16, "wgan-gp": 8, "r3gan": 16, "simple-gan": 4, "stylegan2": 2, "eigengan": 2}


def config(kind: str, *overrides: str, norm: str = "{kind: householder, rank: 3}") -> Config:
    return load_config(
        None,
        [
            f"model.generator.kind={kind}",
            f"model.generator.channels={WIDTHS[kind]}",
            f"model.generator.latent_dim={24 if kind == 'eigengan' else 7}",
            f"model.generator.norm={norm}",
            *overrides,
        ],
    )


def build(*arguments: str, **options: str) -> Generator:
    return build_generator(config(*arguments, **options), num_classes=0).eval()


@pytest.mark.parametrize("kind", WIDTHS)
def test_the_first_layer_of_every_kind_becomes_one(kind: str) -> None:
    net, plain = build(kind), build(kind, norm="{kind: none}")
    first, was = net.first_layer(), plain.first_layer()
    assert isinstance(first, HouseholderPixel if kind == "simple-gan" else HouseholderProjector)
    assert [name for name, part in net.named_modules() if isinstance(part, HouseholderProjector)] == [
        next(name for name, part in plain.named_modules() if part is was)
    ]
    matrix = was.weight.detach()
    right = torch.linalg.svd(matrix.flatten(1).T if kind == "simple-gan" else matrix)[2][:3]
    torch.testing.assert_close(
        torch.linalg.svdvals(first.directions().detach() @ right.T), torch.ones(3), atol=1e-4, rtol=0
    )
    assert net(net.sample_latent(2, seed=0)).shape == (2, 3, 32, 32)


def test_eigengan_keeps_the_axes_of_its_subspaces() -> None:
    assert build("eigengan").native_directions().shape == (18, 24)  # its first layer takes the noise alone


@pytest.mark.parametrize("kind", [kind for kind in WIDTHS if kind != "eigengan"])
def test_the_rows_of_the_first_layer_are_the_directions_that_act(kind: str) -> None:
    net = build(kind)
    first, z = net.first_layer(), net.sample_latent(2, seed=0)
    rows = net.native_directions()
    assert rows is not None
    assert torch.equal(rows, first.directions().detach())
    assert native_directions(net).matrix.shape == (3, 7)
    found = sefa(net)
    overlap = torch.linalg.svdvals(torch.tensor(found.matrix[:3]).float() @ rows.T)
    torch.testing.assert_close(overlap, torch.ones(3), atol=1e-4, rtol=0)
    if kind != "stylegan2":  # behind a pixel norm everything matters
        away = torch.linalg.svd(rows)[2][3:]
        with torch.no_grad():
            here, moved, still = net(z), net(z + rows[0]), net(z + away.sum(0))
        size = float((moved - here).abs().max())
        assert size > 0.01 * float(here.abs().max())
        assert float((still - here).abs().max()) < 1e-3 * size


def test_other_generators_have_no_directions_of_their_own() -> None:
    assert build("sngan", norm="{kind: none}").native_directions() is None
    assert Generator().native_directions() is None


def test_style_layers_take_it_by_name_as_project_styles_does() -> None:
    net = build("stylegan2", norm="{kind: householder, layers: [blocks.*.up.affine], rank: 2}")
    same = build("stylegan2", "model.generator.options={style_rank: 2}", norm="{kind: none}")
    assert net.state_dict().keys() == same.state_dict().keys()
    z = net.sample_latent(2, seed=0)
    torch.testing.assert_close(net(z), same(z))
    assert net.native_directions() is None  # they are directions of w at a layer


@pytest.mark.parametrize("kind", ["sngan", "simple-gan"])
def test_a_file_brings_it_back_and_remove_bakes_it(tmp_path: Path, kind: str) -> None:
    settings = config(kind, norm="{kind: householder, rank: 3, scale: null}")
    net = build_generator(settings, num_classes=0).eval()
    with torch.no_grad():
        net.first_layer().right.normal_()
        net.first_layer().scale.mul_(2)
    save_generator(tmp_path / "g.safetensors", net, config=settings)
    again = load_generator(tmp_path / "g.safetensors")
    z = net.sample_latent(2, seed=0)
    before = net(z)
    assert torch.equal(again(z), before)
    torch.testing.assert_close(weights.remove(again)(z), before)
    assert not isinstance(again.first_layer(), HouseholderProjector)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.generator.norm.rank=8"], r"model\.generator\.norm: linear: rank is 8: a 128 x 7 weight"),
        (["model.generator.norm.layers=[conv]"], r"model\.generator\.norm: blocks\.0\.conv1: Conv2d: only an nn"),
        (
            ["model.generator.gradient_transforms=[{kind: nearest_orthogonal, layers: [first]}]"],
            r"model\.generator\.gradient_transforms\.0\.layers: the first layer becomes a Householder projector",
        ),
        (["model.generator.norm.scale=0"], r"norm\.scale is 0"),
    ],
)
def test_what_cannot_be_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build("sngan", *overrides)
