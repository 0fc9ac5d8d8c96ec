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
from orthogan.latent.explorer.session import Explorer, change, difference
from orthogan.latent.explorer.state import ExplorerState, View, described, reach_of, view_of
from orthogan.latent.render.picture import palette
from orthogan.latent.traverse import traverse
from orthogan.models.families.stylegan2 import StyleGAN2Generator
from orthogan.models.generate import generate
from tests.fixtures.disc import Affine, Disc


def some(dim: int, k: int = 3, **more: object) -> Directions:
    rows = np.random.default_rng(1).normal(size=(k, dim))
    return Directions(rows, method="made up", scores={"change": np.arange(k) + 1.0}, **more)


def at(bench: ExplorerState, moved: dict[int, float], **more: object) -> View:
    offsets = [moved.get(index, 0.0) for index in range(len(bench.rows))]
    return View(offsets=tuple(offsets), **more)


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
    bench, _ = Explorer(net).bench(some(6))
    explorer = Explorer(net)
    walk = traverse(
        net, bench.found, range=2, steps=9, seed=11, y=label, truncation=truncation, control=0, batch_size=1
    )
    for row in range(3):
        for column, offset in enumerate(walk.offsets):
            view = at(bench, {row: float(offset)}, seed=11, label=label, truncation=truncation)
            assert np.array_equal(explorer.image(bench, view), walk.frames[row, column])


@pytest.mark.parametrize("layers", [(), (1, 2)])
def test_directions_of_w_give_the_frames_of_the_traversal_too(layers: tuple[int, ...]) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = StyleGAN2Generator(resolution=32, image_channels=1, channels=2, latent_dim=5, mapping_layers=2, w_dim=4)
        with torch.no_grad():
            for tensor in net.parameters():
                tensor += 0.1 * torch.randn_like(tensor)
    explorer = Explorer(net)
    bench, told = explorer.bench(some(4, 2, space="w", layers=layers))
    assert told == []
    walk = traverse(net, bench.found, range=4, steps=3, seed=2, truncation=0.6, batch_size=1)
    for row in range(2):
        for column, offset in enumerate(walk.offsets):
            view = at(bench, {row: float(offset)}, seed=2, truncation=0.6)
            assert np.array_equal(explorer.image(bench, view), walk.frames[row, column])
    about = Image.open(io.BytesIO(explorer.png(bench, at(bench, {0: 1.0})))).text
    assert (about["space"], about["layers"]) == ("w", "1-2" if layers else "")


@settings(max_examples=20, deadline=None)
@given(offsets=st.lists(st.floats(-6, 6), min_size=4, max_size=4), seed=st.integers(0, 2**31))
def test_offsets_add_up(offsets: list[float], seed: int) -> None:
    net = Affine(dim=5)
    bench = ExplorerState(some(5))
    z = net.sample_latent(1, seed=seed)[0].double().numpy()
    moved = z + sum(o * row for o, row in zip(offsets, bench.rows, strict=True))
    linear = net.fc.weight.detach().double().numpy() @ moved + net.fc.bias.detach().double().numpy()
    exact = np.clip(linear, -1, 1) * 127.5 + 127.5
    image = Explorer(net).image(bench, View(seed, offsets=tuple(offsets)))
    assert np.abs(image.reshape(-1) - exact).max() <= 0.5 + 1e-3


def test_the_random_control_is_the_last_row_and_as_long_as_the_others_on_average() -> None:
    found = some(6)
    bench = ExplorerState(found)
    lengths = np.linalg.norm(found.matrix.astype(np.float64), axis=1)
    assert len(bench.rows) == 4
    assert np.linalg.norm(bench.rows[-1]) == pytest.approx(lengths.mean(), rel=1e-6)
    assert bench.names[-1] == "random control"
    assert np.array_equal(bench.rows, ExplorerState(found).rows)
    assert len(bench.directions()) == 3


def test_a_saved_edit_is_a_direction_that_gives_the_same_picture_at_one() -> None:
    net = Disc(channels=3)
    explorer = Explorer(net)
    bench, _ = explorer.bench(some(6, names=["x", "y", "7"]))
    view = at(bench, {0: 1.5, 2: -2.0, 3: 0.25}, seed=4)
    grown = explorer.saved(bench, view, "  both ")
    assert grown.names == ["x", "y", "7", "both", "random control"]
    assert np.allclose(grown.rows[3], 1.5 * bench.rows[0] - 2 * bench.rows[2] + 0.25 * bench.rows[3], atol=1e-6)
    again = explorer.image(grown, at(grown, {3: 1.0}, seed=4))
    assert np.abs(again.astype(int) - explorer.image(bench, view)).max() <= 1
    assert grown.saved[0].notes == ("made of x +1.5, direction 7 -2, random control +0.25",)
    assert explorer.saved(grown, at(grown, {3: 2.0}), "twice", " so ").saved[1].notes == ("so",)


@pytest.mark.parametrize(
    ("name", "moved", "words"),
    [(" ", {0: 1.0}, "a name"), ("x", {0: 1.0}, "choose another name"), ("new", {}, "move a slider")],
)
def test_an_edit_that_cannot_be_saved_is_refused(name: str, moved: dict[int, float], words: str) -> None:
    explorer = Explorer(Disc())
    bench = ExplorerState(some(6, names=["x", "y", "7"]))
    with pytest.raises(UserError, match=words):
        explorer.saved(bench, at(bench, moved), name)


def test_the_file_holds_found_and_saved_with_their_new_names(tmp_path: Path) -> None:
    explorer = Explorer(Disc())
    found = replace(some(6, notes=["a", "", "c"]), scores={"sigma": [3, 2, 1.5], "change": [5, 6, 7]})
    bench = ExplorerState(found)
    bench = explorer.saved(bench, at(bench, {1: 2.0}), "new")
    bench = bench.renamed(["up", "1", "2", " down ", "-"], ["a", "", "c", "d", ""])
    path = tmp_path / "kept.safetensors"
    path.write_bytes(explorer.file(bench))
    kept = Directions.load(path)
    assert kept.names == ("up", "1", "2", "down")
    assert kept.notes == ("a; sigma 3", "sigma 2", "c; sigma 1.5", "d")  # only some have it, but it is not lost
    assert list(kept.scores) == ["change"]
    assert kept.scores["change"][:3] == (5, 6, 7)
    assert np.array_equal(kept.matrix, np.concatenate([found.matrix, bench.saved[0].matrix]))
    alone = Directions.load(_written(tmp_path / "alone.safetensors", explorer.file(ExplorerState(found))))
    assert alone.scores == found.scores
    assert alone.notes == found.notes


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("names", "words"), [(["a", "b", "c"], "3 names for 4"), (["a", " ", "c", "d"], "no name")])
def test_names_that_do_not_fit_are_refused(names: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        ExplorerState(some(6)).renamed(names, [""] * len(names))


def test_directions_without_scores_get_their_change_at_an_offset_of_one() -> None:
    net = Affine(dim=5)
    explorer = Explorer(net)
    plain = replace(some(5, 4), scores={"sigma": [4, 3, 2, 1]})
    measured = explorer.measured(plain)
    assert list(measured.scores) == ["sigma", "change"]
    expected = np.zeros(4)
    for seed in range(16):
        z = net.sample_latent(1, seed=seed)
        for row in range(4):
            d = torch.from_numpy(plain.matrix[row].copy())
            low, middle, high = (to_uint8(net(z + o * d)).numpy().astype(float) for o in (-1, 0, 1))
            expected[row] += (np.abs(high - middle).mean() + np.abs(low - middle).mean()) / 2 / 16
    assert measured.scores["change"] == pytest.approx(expected, abs=0.1)
    assert explorer.measured(some(5)).scores["change"] == (1, 2, 3)


def test_directions_that_do_not_fit_are_refused_and_those_of_another_model_told() -> None:
    explorer = Explorer(Disc())
    with pytest.raises(UserError, match="latent of 5 dimensions"):
        explorer.bench(some(5))
    bench, told = explorer.bench(some(6, model_hash="0" * 64))
    assert len(told) == 1
    assert "another model" in told[0]
    assert len(bench.found) == 3
    (control,) = bench.every[-1].scores["change"]
    again = ExplorerState(bench.found, control=replace(bench.every[-1], scores={})).every[-1]
    assert explorer.measured(again).scores["change"] == (control,)
    assert 0 < control < 255


def test_a_file_replaces_the_found_ones_and_keeps_the_saved(tmp_path: Path) -> None:
    net = Disc()
    explorer = Explorer(net)
    bench = ExplorerState(some(6))
    bench = explorer.saved(bench, at(bench, {0: 1.0}), "mine")
    path = latent_axes(net).save(tmp_path / "axes.safetensors")
    loaded, told = explorer.load(path, bench)
    assert loaded.names == [*(f"z{i}" for i in range(6)), "mine", "random control"]
    assert told == []
    other = replace(latent_axes(net), unit="sigma").save(tmp_path / "other.safetensors")
    loaded, told = explorer.load(other, bench)
    assert loaded.saved == ()
    assert "1 saved" in told[0]


def test_a_file_that_is_no_file_of_directions_is_named_without_its_folder(tmp_path: Path) -> None:
    path = _written(tmp_path / "holiday.safetensors", b"nonsense")
    with pytest.raises(UserError, match=r"^holiday\.safetensors: damaged, or not a safetensors file") as caught:
        Explorer(Disc()).load(path, ExplorerState(some(6)))
    assert str(tmp_path) not in str(caught.value)


def test_the_png_says_how_to_draw_it_again() -> None:
    net = Disc(channels=3, num_classes=3)
    explorer = Explorer(net)
    bench = ExplorerState(some(6, names=["x", "é", "x"]))
    view = at(bench, {1: 1.5, 2: -1.0}, seed=9, label=2, truncation=0.8)
    picture = Image.open(io.BytesIO(explorer.png(bench, view)))
    about = picture.text
    assert picture.size == (256, 256)
    assert (about["seed"], about["class"], about["truncation"], about["scale"]) == ("9", "2", "0.8", "8")
    assert json.loads(about["offsets"]) == [["é", 1.5], ["x", -1.0]]
    again = generate(net, torch.tensor([json.loads(about["latent"])]), [2])[0]
    assert np.array_equal(np.asarray(picture), np.kron(again, np.ones((1, 8, 8), np.uint8)).transpose(1, 2, 0))


def test_the_loop_is_that_of_the_chosen_direction() -> None:
    explorer = Explorer(Disc(channels=3))
    bench = ExplorerState(some(6, names=["x", "y", "w"]))
    loop = Image.open(io.BytesIO(explorer.loop(bench, 1, View(seed=5), 2.0)))
    about = json.loads(loop.info["comment"])
    assert loop.n_frames == 40
    assert (about["seed"], about["range"], about["steps"]) == ("5", "2", "21")
    assert loop.tobytes() != Image.open(io.BytesIO(explorer.loop(bench, 3, View(seed=5), 2.0))).tobytes()
    with pytest.raises(UserError, match="direction 4"):
        explorer.loop(bench, 4, View(), 2.0)


def test_what_a_browser_says_is_checked() -> None:
    good = {"offsets": [1, 0.5, 0, 0]}
    assert view_of(good, 3.0, None, 1) == View(3, None, 1.0, (1.0, 0.5, 0.0, 0.0))
    for state, seed, truncation in [
        ({}, 3, 1),
        ({"offsets": ["1"]}, 3, 1),
        (good, None, 1),
        (good, 1.5, 1),
        (good, -1, 1),
        (good, -5.0, 1),
        (good, float("nan"), 1),
        (good, float("inf"), 1),
        (good, 1e300, 1),
        (good, 3, float("nan")),
        ({"offsets": [101, 0, 0, 0]}, 3, 1),
        ({"offsets": [float("nan"), 0, 0, 0]}, 3, 1),
        ({"offsets": [-float("inf"), 0, 0, 0]}, 3, 1),
        (good, 3, None),
        (good, 3, 1.1),
    ]:
        with pytest.raises(UserError):
            view_of(state, seed, None, truncation)
    assert reach_of({"reach": 6}) == 6.0
    for reach in (None, "6", 0, -1, 1e9, float("nan")):
        with pytest.raises(UserError):
            reach_of({"reach": reach})
    explorer, bench = Explorer(Disc()), ExplorerState(some(6))
    with pytest.raises(UserError, match="finite"):
        explorer.image(bench, at(bench, {0: float("nan")}))
    with pytest.raises(UserError, match="2 offsets for 4"):
        explorer.image(bench, View(offsets=(1.0, 0.0)))


def test_the_difference_is_black_where_nothing_moved_and_the_last_colour_where_all_did() -> None:
    before = np.zeros((3, 2, 2), np.uint8)
    after = before.copy()
    after[:, 0, 0] = 255
    after[0, 1, 1] = 96  # a mean of 32 over the channels, a quarter of the scale
    colours = difference(before, after)
    assert np.array_equal(colours[:, 0, 1], palette()[0])
    assert np.array_equal(colours[:, 0, 0], palette()[-1])
    assert np.array_equal(colours[:, 1, 1], palette()[64])
    assert change(before, after) == pytest.approx((3 * 255 + 96) / 12)
    assert change(after, before) == change(before, after)


def test_words_for_an_edit() -> None:
    bench = ExplorerState(some(6, names=["smile", "3", "age"]))
    assert described(bench, at(bench, {0: 1.5, 1: -2, 2: 0})) == ["smile +1.5", "direction 3 -2"]
    assert described(bench, View()) == []


def test_class_names_are_completed() -> None:
    assert Explorer(Disc(num_classes=3), class_names=["cat"]).class_names == ["cat", "class 1", "class 2"]
    assert Explorer(Disc()).class_names == []


def test_many_threads_draw_the_same_and_leave_the_net_as_it_was() -> None:
    net = Noisy().train()
    net.body[1].eval()
    modes = [part.training for part in net.modules()]
    explorer = Explorer(net)
    bench = ExplorerState(some(4))
    views = [at(bench, {0: float(number % 4)}, seed=number % 3) for number in range(48)]
    alone = [Explorer(Noisy().eval()).image(bench, view) for view in views]
    before = torch.get_rng_state()
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda view: explorer.image(bench, view), views))
    assert all(np.array_equal(a, b) for a, b in zip(together, alone, strict=True))
    assert [part.training for part in net.modules()] == modes
    assert all(parameter.grad is None for parameter in net.parameters())
    assert torch.equal(torch.get_rng_state(), before)
