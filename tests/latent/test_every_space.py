"""Latent spaces beside z: StyleGAN2's W and a user's own, layer ranges, and directions that live there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import Tensor, nn

from orthogan.errors import UserError
from orthogan.latent.directions import Directions
from orthogan.latent.discovery import discover, sefa
from orthogan.latent.discovery.native import latent_axes
from orthogan.latent.traverse import traverse
from orthogan.models.families.style_based import WSpace
from orthogan.models.families.stylegan2 import StyleGAN2Generator
from orthogan.models.generate import in_space, list_spaces, model_hash
from tests.fixtures.disc import Affine

DIM, STYLES = 6, 8


@pytest.fixture
def net() -> StyleGAN2Generator:
    """Small, with different biases and a mean that is not zero, so that nothing cancels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        found = StyleGAN2Generator(resolution=32, image_channels=1, channels=2, latent_dim=DIM, mapping_layers=2)
        with torch.no_grad():
            for tensor in found.parameters():
                tensor += 0.1 * torch.randn_like(tensor)
            found.w_mean += 0.5 * torch.randn(DIM)
    return found.eval()


def w_directions(k: int = 2, **more: object) -> Directions:
    rows = np.random.default_rng(0).normal(size=(k, DIM))
    return Directions(rows, method="made up", space="w", **more)


def grey(images: Tensor) -> np.ndarray:
    return (images.detach().double().clamp(-1, 1).numpy() + 1) * 127.5


class Styled(Affine):
    """A user's wrapper that has a second space of its own: v = 2 z, not entered layer by layer."""

    spaces = ("z", "v")

    def latent_space(
        self, name: str, *, y: int | None = None, layers: tuple = (), base: Tensor | None = None
    ) -> nn.Module:
        if layers:
            raise UserError("v has no layers")
        return _V(self)


class _V(nn.Module):
    def __init__(self, net: Styled) -> None:
        super().__init__()
        self.net, self.latent_dim = net, net.latent_dim

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z / 2)

    def sample_latent(self, n: int, *, seed: int) -> Tensor:
        return 2 * self.net.sample_latent(n, seed=seed)


def test_spaces_are_those_that_a_generator_names(net: StyleGAN2Generator) -> None:
    assert list_spaces(net) == ("z", "w", "w+", "s")
    assert list_spaces(Affine()) == ("z",)
    assert in_space(net, "z") is net
    assert isinstance(in_space(net, "w", layers=[1]), WSpace)
    with pytest.raises(UserError, match=r"space 'w': Affine has 'z'; .* 'latent_space'"):
        in_space(Affine(), "w")
    with pytest.raises(UserError, match=r"layers \[0, 2\]: 'z' enters the generator in a single layer"):
        in_space(net, "z", layers=[0, 2])
    with pytest.raises(UserError, match=r"no latent space 'p'; available: z, w, w\+, s"):
        net.latent_space("p")


def test_a_users_wrapper_offers_its_own_space() -> None:
    net = Styled()
    rows = Directions(np.eye(5)[:2], method="m", space="v", model_hash=model_hash(net))
    walked = traverse(net, rows, steps=3, range=2.0, truncation=0.5, seed=4)
    z = net.sample_latent(1, seed=4)[0]
    for row in (0, 1):
        for column, offset in enumerate((-2.0, 0.0, 2.0)):
            at = 0.5 * z + offset / 2 * torch.eye(5)[row]  # the pull to the mean is linear outside z
            assert np.abs(walked.frames[row, column] - grey(net(at[None]))[0]).max() <= 0.5 + 1e-3
    with pytest.raises(UserError, match="mine: v has no layers"):
        replace(rows, layers=[1]).check(net, where="mine")


def test_the_view_adds_nothing_to_the_state_so_both_have_one_hash(net: StyleGAN2Generator) -> None:
    hashes = {
        model_hash(part) for part in (net, in_space(net, "w"), in_space(net, "w", layers=[0, 3], base=torch.ones(DIM)))
    }
    assert len(hashes) == 1


def test_a_layer_range_moves_its_rows_of_ws_and_no_other(net: StyleGAN2Generator) -> None:
    source = torch.Generator().manual_seed(1)
    v, base = torch.randn(3, DIM, generator=source), torch.randn(DIM, generator=source)
    ws = (net.w_mean + base).repeat(3, STYLES, 1)
    for row in (1, 5):
        ws[:, row] = net.w_mean + v
    seen = WSpace(net, layers=[5, 1, 1], base=base)
    torch.testing.assert_close(seen(v), net.synthesis(ws), rtol=0, atol=0)
    torch.testing.assert_close(WSpace(net, layers=range(STYLES), base=base)(v), WSpace(net)(v), rtol=1e-3, atol=1e-5)
    assert (seen(v) != WSpace(net, layers=[1, 5])(v)).any()  # where the base is the mean
    for wrong, message in (([STYLES], "styles of this generator are 0 to 7"), ([-1], r"layers \[-1\]")):
        with pytest.raises(UserError, match=message):
            WSpace(net, layers=wrong)
    with pytest.raises(UserError, match=r"base has shape \(1, 6\)"):
        WSpace(net, base=torch.zeros(1, DIM))


def test_sefa_of_a_layer_range_takes_the_styles_of_these_rows(net: StyleGAN2Generator) -> None:
    rows = net.style_rows()
    weights = dict(net.style_layers())
    for chosen in ([0], [1, 2]):
        names = [name for name, row in rows.items() if row in chosen]
        assert names
        stacked = torch.cat([weights[name].weight * weights[name].gain for name in names])
        found = sefa(in_space(net, "w", layers=chosen))
        sigma = torch.linalg.svdvals(stacked.detach().double())[: len(found)]
        np.testing.assert_allclose(found.scores["sigma"], sigma, rtol=1e-5)


@pytest.mark.parametrize("layers", [(), (0, 1), (6,)])
@pytest.mark.parametrize("truncation", [1.0, 0.4, 0.0])
def test_a_traversal_walks_in_w_from_the_truncated_w(
    net: StyleGAN2Generator, layers: tuple[int, ...], truncation: float
) -> None:
    directions = w_directions(layers=layers)
    walked = traverse(net, directions, range=2.0, steps=3, seed=9, truncation=truncation, batch_size=4)
    with torch.no_grad():
        w = net.truncate(net.mapping(net.sample_latent(1, seed=9)), truncation)[0]
    for row, d in enumerate(torch.from_numpy(directions.matrix.copy())):
        for column, offset in enumerate((-2.0, 0.0, 2.0)):
            ws = w.repeat(1, STYLES, 1)
            for style in layers or range(STYLES):
                ws[0, style] += offset * d
            assert np.abs(walked.frames[row, column] - grey(net.synthesis(ws))[0]).max() <= 0.5 + 0.02
    assert walked.metadata["space"] == "w"
    assert walked.metadata["layers"] == {(): "", (0, 1): "0-1", (6,): "6"}[layers]
    assert walked.metadata["model_hash"] == model_hash(net)
    assert walked.frames[0, 0].std() > 1


def test_the_mean_of_w_is_the_zero_base_and_spheres_are_of_z_only(net: StyleGAN2Generator) -> None:
    walked = traverse(net, w_directions(), steps=3, base="zero")
    assert np.abs(walked.frames[0, 1] - grey(net.synthesis(net.w_mean[None]))[0]).max() <= 0.5 + 0.02
    with pytest.raises(UserError, match="space 'w': only latents of z"):
        traverse(net, w_directions(), steps=3, walk="sphere")
    for truncation in (-0.1, 1.5):
        with pytest.raises(UserError, match=f"truncation={truncation}"):
            traverse(net, w_directions(), steps=3, truncation=truncation)


def test_a_conditional_generator_walks_the_w_of_its_class() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        net = StyleGAN2Generator(
            resolution=32, image_channels=1, channels=2, latent_dim=DIM, num_classes=3, mapping_layers=1
        )
    one, two = (traverse(net, w_directions(1), steps=3, seed=4, y=y) for y in (1, 2))
    assert one.metadata["class"] == "1"
    z = net.sample_latent(1, seed=4)
    for walked, y in ((one, 1), (two, 2)):
        assert np.abs(walked.frames[0, 1] - grey(net.eval()(z, torch.tensor([y])))[0]).max() <= 0.5 + 0.02
    assert np.array_equal(one.frames, traverse(net, w_directions(1), steps=3, seed=4).frames)  # 4 modulo 3
    with pytest.raises(UserError, match="y is None: must be one of the 3 classes"):
        discover(net, "random", space="w")


def test_check_measures_directions_in_their_own_space(
    net: StyleGAN2Generator, recwarn: pytest.WarningsRecorder
) -> None:
    wide = StyleGAN2Generator(resolution=32, image_channels=1, channels=2, latent_dim=3, w_dim=DIM, mapping_layers=1)
    for generator in (net, wide):
        w_directions().check(generator)
    assert not recwarn.list
    with pytest.raises(UserError, match="mine: made for a latent of 6 dimensions, but this generator has 3 in 'z'"):
        replace(w_directions(), space="z").check(wide, where="mine")
    with pytest.raises(UserError, match=r"mine: layers .*0 to 7"):
        w_directions(layers=[8]).check(net, where="mine")
    with pytest.warns(UserWarning, match="another model"):
        replace(w_directions(), model_hash=model_hash(net)).check(wide)


def test_discovery_in_w_is_kept_with_its_space_layers_and_generator(
    net: StyleGAN2Generator, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    found = discover(net, "sefa,identity", space="w", layers=[2, 0, 1], control=2)
    for one in (found.directions, found.control):
        assert (one.space, one.layers, one.unit) == ("w", (0, 1, 2), "units of w")
        assert one.model_hash == model_hash(net)
        assert one.latent_dim == DIM
    loaded = Directions.load(found.directions.save(tmp_path / "d.safetensors"))
    assert loaded.layers == (0, 1, 2)
    recwarn.clear()
    walked = traverse(net, loaded, dims=[0], range=1.0, steps=3, seed=1)
    assert not recwarn.list
    # The score is of the same walk: one unit, all layers but these at the mean; here at the seed's own w.
    assert (walked.frames[0, 0] != walked.frames[0, 2]).any()
    assert latent_axes(in_space(net, "w")).names[3] == "w3"
    assert latent_axes(net).names[3] == "z3"
    with pytest.raises(UserError, match="space 'q'"):
        discover(net, "sefa", space="q")


def test_discovery_in_z_is_as_ever() -> None:
    found = discover(Affine(), "sefa", control=2).directions
    assert (found.space, found.layers, found.unit) == ("z", (), "latent std")


def test_an_old_file_without_layers_still_loads(tmp_path: Path) -> None:
    text = json.dumps({"format": "orthogan-directions-1", "method": "old", "space": "z"})
    path = tmp_path / "old.safetensors"
    save_file({"directions": np.eye(2, dtype=np.float32)}, path, {"directions": text})
    assert Directions.load(path).layers == ()
    with pytest.raises(UserError, match=r"layers \[1\] of space 'z'"):
        Directions(np.eye(2), method="m", layers=[1])
    with pytest.raises(UserError, match="numbers from 0"):
        w_directions(layers=[-1, 2])


def test_looking_from_w_leaves_the_generator_as_it_was(net: StyleGAN2Generator) -> None:
    net.train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    traverse(net, w_directions(layers=[1]), steps=3)
    assert all(part.training for part in net.modules())
    assert before.keys() == net.state_dict().keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(tensor.grad is None for tensor in net.parameters())


def test_w_plus_has_coordinates_for_each_style(net: StyleGAN2Generator) -> None:
    seen = in_space(net, "w+")
    assert (seen.latent_dim, seen.rows, model_hash(seen)) == (STYLES * DIM, STYLES, model_hash(net))
    v = torch.randn(2, STYLES, DIM, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(seen(v.flatten(1)), net.synthesis(net.w_mean + v), rtol=0, atol=0)
    torch.testing.assert_close(seen(seen.sample_latent(2, seed=4)), net(net.sample_latent(2, seed=4)))
    z = net.sample_latent(3, seed=1)
    assert torch.equal(seen.from_z(z)[:, DIM : 2 * DIM], in_space(net, "w").from_z(z))
    walked = traverse(net, Directions(np.eye(STYLES * DIM)[[9]], method="m", space="w+"), steps=3, seed=4)
    ws = (net.mapping(net.sample_latent(1, seed=4))).repeat(STYLES, 1)[None]
    ws[0, 1, 3] += 3
    assert np.abs(walked.frames[0, 2] - grey(net.synthesis(ws))[0]).max() <= 0.5 + 0.02
    with pytest.raises(UserError, match=r"layers \[1\]: w\+ has coordinates of its own"):
        in_space(net, "w+", layers=[1])


def test_s_has_a_coordinate_for_each_channel_of_each_layer(net: StyleGAN2Generator) -> None:
    seen = in_space(net, "s")
    widths = [layer.out_features for _, layer in net.style_layers()]
    assert (seen.latent_dim, model_hash(seen)) == (sum(widths), model_hash(net))
    torch.testing.assert_close(seen(torch.zeros(1, sum(widths))), net.synthesis(net.w_mean[None]))
    torch.testing.assert_close(seen(seen.sample_latent(2, seed=4)), net(net.sample_latent(2, seed=4)))
    # a coordinate is an entry of one bias: layer 4 has the third row of ws and the channels after those of 0 to 3
    v = torch.zeros(1, sum(widths))
    v[0, sum(widths[:4]) + 1] = 2.0
    want = net.synthesis(net.w_mean[None])
    with torch.no_grad():
        net.style_layers()[4][1].bias[1] += 2.0
    torch.testing.assert_close(net.synthesis(net.w_mean[None]), seen(v))
    assert not torch.allclose(seen(v), want)


def test_some_styles_of_s_keep_a_base(net: StyleGAN2Generator) -> None:
    seen = in_space(net, "s")
    base, v = seen.sample_latent(2, seed=3)
    some = in_space(net, "s", layers=[1, 3], base=base)
    mixed = [
        b if i not in (1, 3) else a
        for i, (a, b) in enumerate(zip(*(x.split(seen.sizes) for x in (v, base)), strict=True))
    ]
    torch.testing.assert_close(some(v[None]), seen(torch.cat(mixed)[None]))
    with pytest.raises(UserError, match="styles of this generator are 0 to 10"):
        in_space(net, "s", layers=[11])
    with pytest.raises(UserError, match=r"base has shape \(1, 6\)"):
        in_space(net, "s", base=torch.zeros(1, DIM))
