"""The live page without its page: pictures as traversals draw them, saved edits, files, and what is refused."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from orthogan.drawing.grid import to_uint8
from orthogan.errors import UserError
from orthogan.latent.directions import Directions
from orthogan.latent.discovery.native import latent_axes
from orthogan.latent.explorer.session import Explorer, difference
from orthogan.latent.explorer.state import Sliders, View, control_of, motion
from orthogan.latent.latents import Latents
from orthogan.latent.render.picture import palette
from orthogan.latent.traverse import traverse
from orthogan.models.families.stylegan2 import StyleGAN2Generator
from orthogan.models.generate import generate, in_space
from tests.fixtures.disc import Affine, Disc


def some(dim: int, k: int = 3, **more: object) -> Directions:
    rows = np.random.default_rng(1).normal(size=(k, dim))
    return Directions(rows, method="made up", scores={"change": np.arange(k) + 1.0}, **more)


def plainly(found: Directions) -> Sliders:
    return Sliders(found, control_of(found), ["."] * (len(found) + 1))


def at(moved: dict[int, float], **more: object) -> View:
    return View(offsets=tuple(sorted((row, offset) for row, offset in moved.items() if offset)), **more)


class Noisy(nn.Module):
    """A net whose picture in training mode differs from that in eval mode, and from call to call."""

    def __init__(self) -> None:
        super().__init__()
        self.latent_dim, self.num_classes, self.resolution, self.image_channels = 4, 0, 8, 1
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Linear(4, 64), nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Tanh())

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.body(z).reshape(-1, 1, 8, 8)


@pytest.mark.parametrize(
    ("net", "label", "truncation"),
    [(Disc(channels=3, num_classes=3), 2, 0.5), (Disc(), None, 1.0), (Affine(dim=6), None, 0.7)],
    ids=["coloured, of a class", "grey", "linear"],
)
def test_one_offset_gives_the_frame_of_the_traversal_to_the_byte(
    net: nn.Module, label: int | None, truncation: float
) -> None:
    bench, _ = Explorer(net).sliders(some(6))
    explorer = Explorer(net)
    walk = traverse(
        net, bench.found, range=2, steps=9, seed=11, y=label, truncation=truncation, control=0, batch_size=1
    )
    for row in range(3):
        for column, offset in enumerate(walk.offsets):
            view = at({row: float(offset)}, seed=11, label=label, truncation=truncation)
            assert np.array_equal(explorer.image(bench, view), walk.frames[row, column])


@pytest.mark.parametrize("layers", [(), (1, 2)])
def test_directions_of_w_give_the_frames_of_the_traversal_too(layers: tuple[int, ...]) -> None:
    net = of_style()
    explorer = Explorer(net)
    bench, told = explorer.sliders(some(4, 2, space="w", layers=layers))
    assert told == []
    walk = traverse(net, bench.found, range=4, steps=3, seed=2, truncation=0.6, batch_size=1)
    for row in range(2):
        for column, offset in enumerate(walk.offsets):
            view = at({row: float(offset)}, seed=2, truncation=0.6)
            assert np.array_equal(explorer.image(bench, view), walk.frames[row, column])
    about = Image.open(io.BytesIO(explorer.png(bench, at({0: 1.0}), 64, False))).text
    assert (about["space"], about["layers"]) == ("w", "1-2" if layers else "")


def of_style() -> StyleGAN2Generator:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = StyleGAN2Generator(resolution=32, image_channels=1, channels=2, latent_dim=5, mapping_layers=2, w_dim=4)
        with torch.no_grad():
            for tensor in net.parameters():
                tensor += 0.1 * torch.randn_like(tensor)
    return net


@pytest.mark.parametrize(
    ("net", "space", "layers", "labels"),
    [
        (Disc(channels=3, num_classes=3), "z", (), [2, 0]),
        (of_style(), "w", (), None),
        (of_style(), "w", (1, 2), None),
        (of_style(), "w+", (1, 2), None),
    ],
    ids=["class", "w", "layers of w", "layers of w+"],
)
def test_an_opened_picture_gives_the_frames_of_its_traversal(
    net: nn.Module, space: str, layers: tuple[int, ...], labels: list[int] | None
) -> None:
    dim = in_space(net, space, y=None).latent_dim
    latents = Latents(np.random.default_rng(5).normal(size=(2, dim)), space, labels=labels, names=["me", "you"])
    explorer = Explorer(net, latents=latents)
    bench, _ = explorer.sliders(some(6 if space == "z" else 4, 2, space=space.removesuffix("+"), layers=layers))
    keys = list(explorer.given)
    assert [explorer.picture(key).name for key in keys] == ["me", "you"]
    for place, key in enumerate(keys):
        walk = traverse(net, bench.found, range=4, steps=3, latents=latents.select([place]), batch_size=1)
        views = []
        for row in range(2):
            for column, offset in enumerate(walk.offsets):
                views.append(at({row: float(offset)}, picture=key, label=labels[place] if labels else None))
                assert np.array_equal(explorer.image(bench, views[-1]), walk.frames[row, column])
        assert np.array_equal(explorer.picture(key).image, walk.frames[0, 1])
        for view, image in zip(views, explorer.images(bench, views), strict=True):
            assert np.abs(image.astype(int) - explorer.image(bench, view)).max() <= 1
        blended = explorer.image(bench, replace(views[1], other=4, mix=1.0))
        seed = explorer.image(bench, replace(views[1], picture="", seed=4))
        assert np.abs(blended.astype(int) - seed).max() <= 1
    about = Image.open(io.BytesIO(explorer.png(bench, views[0], 32, False))).text
    assert about["picture"] == "you"
    assert "seed" not in about
    with pytest.raises(UserError, match="open its file again"):
        explorer.image(bench, replace(views[0], picture="abc"))


@settings(max_examples=20, deadline=None)
@given(offsets=st.lists(st.floats(-6, 6), min_size=4, max_size=4), seed=st.integers(0, 2**31))
def test_offsets_add_up(offsets: list[float], seed: int) -> None:
    net = Affine(dim=5)
    bench = plainly(some(5))
    z = net.sample_latent(1, seed=seed)[0].double().numpy()
    moved = z + sum(o * row for o, row in zip(offsets, bench.rows, strict=True))
    linear = net.fc.weight.detach().double().numpy() @ moved + net.fc.bias.detach().double().numpy()
    exact = np.clip(linear, -1, 1) * 127.5 + 127.5
    image = Explorer(net).image(bench, at(dict(enumerate(offsets)), seed=seed))
    assert np.abs(image.reshape(-1) - exact).max() <= 0.5 + 1e-3


def test_directions_without_scores_get_their_change_at_an_offset_of_one() -> None:
    net = Affine(dim=5)
    explorer = Explorer(net)
    plain = replace(some(5, 4), scores={"sigma": [4, 3, 2, 1]})
    measured, words = explorer.measured(plain)
    assert len(words) == 4
    assert list(measured.scores) == ["sigma", "change"]
    expected = np.zeros(4)
    for seed in range(16):
        z = net.sample_latent(1, seed=seed)
        for row in range(4):
            d = torch.from_numpy(plain.matrix[row].copy())
            low, middle, high = (to_uint8(net(z + o * d)).numpy().astype(float) for o in (-1, 0, 1))
            expected[row] += (np.abs(high - middle).mean() + np.abs(low - middle).mean()) / 2 / 16
    assert measured.scores["change"] == pytest.approx(expected, abs=0.1)
    assert explorer.measured(some(5))[0].scores["change"] == (1, 2, 3)


def test_a_file_that_is_no_file_of_directions_is_named_as_the_user_knows_it() -> None:
    with pytest.raises(UserError, match=r"^holiday\.safetensors: damaged, or not a safetensors file") as caught:
        Explorer(Disc()).load("holiday.safetensors", b"nonsense")
    assert "/" not in str(caught.value)


def test_directions_that_do_not_fit_are_refused_and_those_of_another_model_told() -> None:
    explorer = Explorer(Disc())
    with pytest.raises(UserError, match="latent of 5 dimensions"):
        explorer.sliders(some(5))
    sliders, told = explorer.sliders(some(6, model_hash="0" * 64))
    assert len(told) == 1
    assert "another model" in told[0]
    assert len(sliders.found) == 3
    assert len(sliders.words) == 4
    assert 0 < sliders.control.scores["change"][0] < 255


def test_a_file_of_directions_becomes_sliders(tmp_path: Path) -> None:
    net = Disc()
    path = latent_axes(net).save(tmp_path / "axes.safetensors")
    sliders, told = Explorer(net).load("axes", path.read_bytes())
    assert sliders.found.names == tuple(f"z{i}" for i in range(6))
    assert told == []
    assert sliders.words[2] == "Clear change, mostly in the middle. Slide right: brighter."  # the radius
    assert sliders.words[5] == "Hardly visible."  # moves nothing


def test_the_file_holds_found_and_kept_ones_with_their_new_names(tmp_path: Path) -> None:
    explorer = Explorer(Disc())
    found = replace(some(6, notes=["a", "", "c"]), scores={"sigma": [3, 2, 1.5], "change": [5, 6, 7]})
    sliders = plainly(found)
    saved = [{"name": " down ", "note": "d", "offsets": {"1": 2.0, "3": 0.5}}]
    told = {"names": {"0": "up"}, "notes": {"1": "b"}, "saved": saved}
    kept = Directions.load(_written(tmp_path / "kept.safetensors", explorer.file(sliders, told)))
    assert kept.names == ("up", "1", "2", "down")
    assert kept.notes == ("a; sigma 3", "b; sigma 2", "c; sigma 1.5", "d")  # only some have it, but it is not lost
    assert list(kept.scores) == ["change"]
    assert kept.scores["change"][:3] == (5, 6, 7)
    assert np.allclose(kept.matrix[-1], 2 * sliders.rows[1] + 0.5 * sliders.rows[3], atol=1e-6)
    alone = Directions.load(_written(tmp_path / "alone.safetensors", explorer.file(sliders, {})))
    assert alone.scores == found.scores
    assert alone.notes == found.notes


def test_pictures_drawn_together_are_those_drawn_alone() -> None:
    for net, labels in ((Disc(channels=3, num_classes=3), (0, 2)), (Affine(dim=6), (None,))):
        explorer = Explorer(net)
        sliders = plainly(some(6))
        views = [at({seed % 4: 1.0}, seed=seed, label=label) for seed in range(5) for label in labels]
        together = explorer.images(sliders, views)
        for view, image in zip(views, together, strict=True):
            assert np.abs(image.astype(int) - explorer.image(sliders, view)).max() <= 1


def test_a_class_that_does_not_exist_is_refused() -> None:
    for net, label in ((Disc(num_classes=3), 3), (Disc(num_classes=3), None), (Disc(), 0)):
        with pytest.raises(UserError, match="classes"):
            Explorer(net).image(plainly(some(6)), View(label=label))
    with pytest.raises(UserError, match="slider 9"):
        Explorer(Disc()).image(plainly(some(6)), at({9: 1.0}))


def test_a_blend_begins_and_ends_at_the_two_pictures() -> None:
    explorer, sliders = Explorer(Disc()), plainly(some(6))
    for mix, seed in ((0.0, 3), (1.0, 4)):
        blended = explorer.image(sliders, View(3, other=4, mix=mix))
        assert np.abs(blended.astype(int) - explorer.image(sliders, View(seed))).max() <= 1
    edited = at({0: 1.0}, seed=3, other=4, mix=0.5)
    z = explorer.latent(sliders, edited) - sliders.rows[0]
    assert np.allclose(z, explorer.latent(sliders, edited.unedited), atol=1e-6)


def test_a_loop_shows_the_motion_and_says_where_it_comes_from() -> None:
    explorer, sliders = Explorer(Disc(channels=3)), plainly(some(6, names=["x", "y", "w"]))
    views = motion(View(seed=5), "direction", 50, row=1, reach=2.0)
    images, order = explorer.frames(sliders, views)
    assert len(images) < len(order) == 50
    for index, view in zip(order, views, strict=True):
        assert np.abs(images[index].astype(int) - explorer.image(sliders, view)).max() <= 1
    loop = Image.open(io.BytesIO(explorer.loop(sliders, views, 96, False, ".gif", {"motion": "direction"})))
    about = json.loads(loop.info["comment"])
    assert loop.size == (96, 96)
    assert sum(_durations(loop)) == 2000
    assert (about["seed"], about["motion"], about["model_hash"]) == ("5", "direction", explorer.hash)


def _durations(loop: Image.Image) -> list[int]:
    found = []
    for place in range(loop.n_frames):
        loop.seek(place)
        found.append(loop.info["duration"])
    return found


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_the_png_says_how_to_draw_it_again() -> None:
    net = Disc(channels=3, num_classes=3)
    explorer = Explorer(net)
    bench = plainly(some(6, names=["x", "é", "x"]))
    view = at({1: 1.5, 2: -1.0}, seed=9, label=2, truncation=0.8)
    picture = Image.open(io.BytesIO(explorer.png(bench, view, 256, False)))
    about = picture.text
    assert picture.size == (256, 256)
    assert (about["seed"], about["class"], about["truncation"], about["blend"]) == ("9", "2", "0.8", "")
    assert json.loads(about["offsets"]) == [["é", 1.5], ["x", -1.0]]
    again = generate(net, torch.tensor([json.loads(about["latent"])]), [2])[0]
    assert np.array_equal(np.asarray(picture), np.kron(again, np.ones((1, 8, 8), np.uint8)).transpose(1, 2, 0))


def test_the_difference_is_black_where_nothing_moved_and_the_last_colour_where_all_did() -> None:
    before = np.zeros((3, 2, 2), np.uint8)
    after = before.copy()
    after[:, 0, 0] = 255
    after[0, 1, 1] = 96  # a mean of 32 over the channels, a quarter of the scale
    colours = difference(before, after)
    assert np.array_equal(colours[:, 0, 1], palette()[0])
    assert np.array_equal(colours[:, 0, 0], palette()[-1])
    assert np.array_equal(colours[:, 1, 1], palette()[64])


def test_class_names_are_completed() -> None:
    assert Explorer(Disc(num_classes=3), class_names=["cat"]).class_names == ["cat", "class 1", "class 2"]
    assert Explorer(Disc()).class_names == []


def test_many_threads_draw_the_same_and_leave_the_net_as_it_was() -> None:
    net = Noisy().train()
    net.body[1].eval()
    modes = [part.training for part in net.modules()]
    explorer = Explorer(net)
    bench = plainly(some(4))
    views = [at({0: float(number % 4)}, seed=number % 3) for number in range(48)]
    alone = [Explorer(Noisy().eval()).image(bench, view) for view in views]
    before = torch.get_rng_state()
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda view: explorer.image(bench, view), views))
    assert all(np.array_equal(a, b) for a, b in zip(together, alone, strict=True))
    assert [part.training for part in net.modules()] == modes
    assert all(parameter.grad is None for parameter in net.parameters())
    assert torch.equal(torch.get_rng_state(), before)
