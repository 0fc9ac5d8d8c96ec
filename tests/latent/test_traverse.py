"""Traversals against a generator whose every frame is known, and the promises about the middle column."""

from __future__ import annotations

import html
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

import orthogan
from orthogan.errors import UserError
from orthogan.latent.directions import Directions, random_control
from orthogan.latent.discovery.native import latent_axes
from orthogan.latent.render.html import render_html
from orthogan.latent.traverse import column_offsets, contact_sheet, path, traverse
from orthogan.models.generate import model_hash, truncate
from orthogan.models.samples import sample_images
from tests.fixtures.disc import Affine, Disc


def exact(net: Affine, z: np.ndarray) -> np.ndarray:
    """The grey levels, not rounded, that ``net`` gives latents (…, dim), by float64 arithmetic."""
    weight, bias = net.fc.weight.detach().double().numpy(), net.fc.bias.detach().double().numpy()
    return np.clip(z @ weight.T + bias, -1, 1) * 127.5 + 127.5


def frames_of(traversal: Any) -> np.ndarray:
    return traversal.frames.reshape(*traversal.frames.shape[:2], -1).astype(np.float64)


def some(net: nn.Module, k: int = 3, seed: int = 1) -> Directions:
    rows = np.random.default_rng(seed).normal(size=(k, int(net.latent_dim)))
    return Directions(rows, method="made up", scores={"s": list(range(k))}, names=[f"d{i}" for i in range(k)])


@pytest.mark.parametrize("base", ["sample", "zero"])
@pytest.mark.parametrize("truncation", [1.0, 0.6])
def test_frames_are_base_plus_offset_times_direction(base: Any, truncation: float) -> None:
    net = Affine()
    directions = some(net)
    found = traverse(net, directions, range=2.0, steps=5, seed=4, base=base, truncation=truncation, batch_size=3)
    z = truncate(net.sample_latent(1, seed=4), truncation)[0].double().numpy() * (base == "sample")
    offsets = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    expected = exact(net, z + offsets[None, :, None] * directions.matrix[:, None].astype(np.float64))
    assert np.array_equal(found.offsets, offsets)
    assert found.frames.dtype == np.uint8
    assert found.frames.shape == (3, 5, 1, 4, 4)
    assert np.abs(frames_of(found) - expected).max() <= 0.5 + 1e-3
    assert expected.std() > 5


def test_centred_puts_the_coordinate_along_the_direction_at_the_offset() -> None:
    net = Affine()
    directions = some(net)
    found = traverse(net, directions, steps=3, seed=4, centred=True)
    z = net.sample_latent(1, seed=4)[0].double().numpy()
    for row, d in enumerate(directions.matrix.astype(np.float64)):
        unit = d / np.linalg.norm(d)
        perpendicular = z - (z @ unit) * unit
        for column, offset in enumerate([-3.0, 0.0, 3.0]):
            at = perpendicular + offset * d
            assert at @ unit == pytest.approx(offset * np.linalg.norm(d))
            assert np.abs(frames_of(found)[row, column] - exact(net, at)).max() <= 0.5 + 1e-3
    axes = traverse(net, latent_axes(net), dims=[2], steps=3, range=1.5, seed=4, centred=True)
    moved = z.copy()
    moved[2] = 1.5
    assert np.abs(frames_of(axes)[0, 2] - exact(net, moved)).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_the_middle_column_is_the_base_image_bit_for_bit(batch_size: int) -> None:
    net = Disc(channels=3, num_classes=5)
    found = traverse(net, latent_axes(net), seed=9, control=2, batch_size=batch_size)
    alone = sample_images(net, [9])
    assert found.centre == 5
    assert found.offsets[found.centre] == 0
    for row in found.frames:
        assert np.array_equal(row[found.centre], alone.images[0])


def test_each_direction_does_what_its_coordinate_does() -> None:
    net = Disc()
    found = traverse(net, latent_axes(net), steps=7, base="zero")
    light = found.frames[:, :, 0].astype(np.float64)
    x = (light.sum(axis=2) * np.arange(32)).sum(axis=-1) / light.sum(axis=(2, 3))
    assert (np.diff(x[0]) > 0).all()
    assert np.ptp(x[1:]) < 0.1
    assert (np.diff(light[2].sum(axis=(1, 2))) > 0).all()
    assert found.scores[5] == {"change": 0.0}
    assert found.scores[0]["change"] > 1


def test_change_is_the_mean_difference_of_the_ends() -> None:
    net = Affine()
    found = traverse(net, some(net), steps=5, control=1)
    frames = frames_of(found)
    for row in range(4):
        expected = np.mean([np.abs(frames[row, end] - frames[row, 2]).mean() for end in (0, 4)])
        assert found.scores[row]["change"] == pytest.approx(expected)


def test_control_rows_are_last_labelled_and_as_long_as_the_rest() -> None:
    net = Affine()
    directions = Directions(3 * np.eye(5)[:2], method="m", scores={"sigma": [2.0, 1.0]}, names=["a", "b"])
    found = traverse(net, directions, steps=3, range=1.0, control=2, seed=5)
    assert list(found.names) == ["a", "b", "random 1", "random 2"]
    assert found.is_control.tolist() == [False, False, True, True]
    assert [set(row) for row in found.scores] == [{"sigma", "change"}] * 2 + [{"change"}] * 2
    z = net.sample_latent(1, seed=5)[0].double().numpy()
    ends = exact(net, z + 3 * random_control(5, 2, 5).matrix.astype(np.float64))
    assert np.abs(frames_of(found)[2:, 2] - ends).max() <= 0.5 + 1e-3


def test_dims_choose_and_order_rows() -> None:
    net = Affine()
    whole = traverse(net, some(net), steps=3)
    part = traverse(net, some(net), dims=[2, 0], steps=3)
    assert list(part.names) == ["d2", "d0"]
    assert np.abs(part.frames.astype(int) - whole.frames[[2, 0]]).max() <= 1
    assert [row["s"] for row in part.scores] == [2.0, 0.0]
    assert part.metadata["dims"] == "2,0"
    assert whole.metadata["dims"] == "all"


def test_class_is_fixed_and_defaults_to_the_seeds() -> None:
    net = Disc(num_classes=4)
    axes = latent_axes(net)
    default = traverse(net, axes, steps=3, seed=7)
    assert default.metadata["class"] == "3"
    assert np.array_equal(default.frames, traverse(net, axes, steps=3, seed=7, y=3).frames)
    assert not np.array_equal(default.frames, traverse(net, axes, steps=3, seed=7, y=0).frames)


def test_metadata_says_how_to_make_it_again() -> None:
    net = Affine()
    about = traverse(net, some(net), range=2.5, steps=9, seed=12, truncation=0.5, centred=True, control=1).metadata
    assert all(isinstance(value, str) for value in about.values())
    assert about["model_hash"] == model_hash(net)
    expected = {"range": "2.5", "steps": "9", "seed": "12", "truncation": "0.5", "centred": "true", "control": "1"}
    assert expected.items() <= about.items()
    assert {"method": "made up", "unit": "latent std", "base": "sample", "class": "none"}.items() <= about.items()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 10}, "nearest is 11"),
        ({"steps": 1}, "nearest is 3"),
        ({"range": 0.0}, "range=0"),
        ({"range": float("inf")}, "range=inf"),
        ({"dims": [0, 3]}, r"dims \[3\].* 0 to 2"),
        ({"dims": "some"}, "dims is 'some'"),
        ({"base": "mean"}, "base='mean'"),
        ({"y": 1}, "unconditional"),
        ({"control": 6}, "latent dimension, 5"),
        ({"control": -1}, "control=-1"),
        ({"truncation": 2.0}, "truncation=2"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"walk": "circle"}, "walk='circle': choose line or sphere"),
    ],
)
def test_impossible_requests_are_named(change: dict[str, Any], message: str) -> None:
    net = Affine()
    with pytest.raises(UserError, match=message):
        traverse(net, some(net), **change)


def test_directions_of_another_latent_are_refused_and_of_another_model_warned_of() -> None:
    with pytest.raises(UserError, match="made for a latent of 5 dimensions, but this generator has 6"):
        traverse(Affine(dim=6), some(Affine()))
    with pytest.raises(UserError, match="class 4"):
        traverse(Disc(num_classes=4), latent_axes(Disc()), y=4)
    with pytest.warns(UserWarning, match="another model"):
        traverse(Affine(seed=1), latent_axes(Affine(seed=0)), steps=3)


def test_offsets_are_exactly_symmetric() -> None:
    for steps in (3, 11, 17, 41):
        offsets = column_offsets(3.0, steps)
        assert np.array_equal(offsets, -offsets[::-1])
        assert offsets[-1] == pytest.approx(3.0)
        assert np.allclose(np.diff(offsets), 6.0 / (steps - 1))


def test_the_sphere_walk_makes_the_images_of_its_latents_and_says_so() -> None:
    net = Affine()
    directions = some(net)
    found = traverse(net, directions, steps=3, range=2.0, seed=4, truncation=0.7, walk="sphere", control=1)
    assert found.metadata["walk"] == "sphere"
    assert traverse(net, directions, steps=3).metadata["walk"] == "line"
    z = truncate(net.sample_latent(1, seed=4), 0.7)[0].double().numpy()
    radius = np.linalg.norm(z)
    for row, d in enumerate(directions.matrix.astype(np.float64)):
        # By the angle from the direction's own axis, as the paper writes it: cos(t0 + a) p + sin(t0 + a) v.
        v, length = d / np.linalg.norm(d), np.linalg.norm(d)
        p = z - (z @ v) * v
        tilt = np.arcsin(z @ v / radius)
        for column, offset in enumerate((-2.0, 0.0, 2.0)):
            angle = tilt + offset * length / radius
            at = radius * (np.cos(angle) * p / np.linalg.norm(p) + np.sin(angle) * v)
            assert np.abs(frames_of(found)[row, column] - exact(net, at)).max() <= 0.5 + 1e-3
    line = traverse(net, directions, steps=3, range=2.0, seed=4, truncation=0.7, control=1)
    assert np.array_equal(line.frames[:, 1], found.frames[:, 1])
    assert not np.array_equal(line.frames[3, 0], found.frames[3, 0])  # control rows go the same way
    with pytest.raises(UserError, match="length is zero"):
        traverse(net, directions, walk="sphere", base="zero")
    with pytest.raises(UserError, match="length is zero"):
        traverse(net, directions, walk="sphere", truncation=0.0)


def test_the_generator_is_left_as_it_was() -> None:
    net = Disc()
    net.train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    traverse(net, latent_axes(net), steps=3, dims=[0])
    assert net.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert net.strength.grad is None


@pytest.mark.parametrize(
    "dims", [[0, 2], (0, 2), np.array([0, 2]), np.arange(0, 3, 2), torch.tensor([0, 2]), range(0, 3, 2)], ids=repr
)
def test_dims_may_be_any_sequence_of_integers(dims: Any) -> None:
    net = Affine()
    assert list(traverse(net, some(net), dims=dims, steps=3).names) == ["d0", "d2"]


@pytest.mark.parametrize("dims", [3, 1.5, [0.5], "0", ["0"], None, [None], np.array([0.0, 1.0])], ids=repr)
def test_dims_that_are_no_integers_are_refused(dims: Any) -> None:
    net = Affine()
    with pytest.raises(UserError, match="dims"):
        traverse(net, some(net), dims=dims, steps=3)


def test_directions_may_be_left_out_or_named_by_their_method() -> None:
    net = Affine()
    assert traverse(net, steps=3).metadata["method"] == "latent axes"
    for method in ("sefa", "svd"):
        assert traverse(net, method=method, steps=3).metadata["method"] == "sefa"
    with pytest.raises(UserError, match="did you mean 'pca'"):
        traverse(net, method="pcaa")
    with pytest.raises(UserError, match="one of them"):
        traverse(net, some(net), method="sefa")
    with pytest.raises(TypeError, match=r"Directions\.load reads a file"):
        traverse(net, "found.safetensors")


def test_the_number_of_steps_and_of_images_is_bounded() -> None:
    with pytest.raises(UserError, match="3,003,000 images exceed"):
        contact_sheet(Affine(), some(Affine()), seeds=range(1000), steps=1001)
    with pytest.raises(UserError, match="at most"):
        column_offsets(1.0, 10**9 + 1)


# The paths: a line, or a great circle.


def draw(seed: int, dim: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=dim), rng.normal(size=(k, dim)) * 10.0 ** rng.uniform(-1, 1, size=(k, 1))


def along(rows: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The coordinate of each point along its row."""
    return (points * rows).sum(axis=1) / np.linalg.norm(rows, axis=1)


cases = given(seed=st.integers(0, 2000), dim=st.integers(2, 9), offset=st.floats(-4, 4), centred=st.booleans())


@settings(deadline=None)
@cases
def test_the_sphere_keeps_the_length_and_the_plane_and_walks_the_arc(
    seed: int, dim: int, offset: float, centred: bool
) -> None:
    z, rows = draw(seed, dim, 3)
    at = path(z, rows, "sphere", centred)
    start, end = at(0.0), at(offset)
    radius = float(np.linalg.norm(z))
    np.testing.assert_allclose(np.linalg.norm(start, axis=1), radius)
    np.testing.assert_allclose(np.linalg.norm(end, axis=1), radius)
    for row, before, after in zip(rows, start, end, strict=True):
        plane = np.linalg.qr(np.stack([z, row], axis=1))[0]
        np.testing.assert_allclose(plane @ (plane.T @ after), after, atol=1e-9 * radius)
        # The arc from the start, by its chord: an arc of length s has the chord 2 r sin(s / 2 r).
        arc = abs(offset) * np.linalg.norm(row)
        assert np.linalg.norm(after - before) == pytest.approx(2 * radius * abs(np.sin(arc / radius / 2)), abs=1e-7)


@settings(deadline=None)
@given(seed=st.integers(0, 2000), dim=st.integers(2, 9), centred=st.booleans())
def test_the_first_step_on_the_sphere_is_along_the_part_of_the_direction_across_the_base(
    seed: int, dim: int, centred: bool
) -> None:
    z, rows = draw(seed, dim, 3)
    at = path(z, rows, "sphere", centred)
    small = 1e-5 * np.linalg.norm(z) / np.linalg.norm(rows, axis=1).max()
    step = (at(small) - at(-small)) / (2 * small)
    for row, origin, moved in zip(rows, at(0.0), step, strict=True):
        across = row - row @ origin / (origin @ origin) * origin
        sine = np.linalg.norm(across) / np.linalg.norm(row)
        np.testing.assert_allclose(moved * sine, across, atol=1e-4 * float(np.linalg.norm(row)))


def test_a_direction_across_the_base_starts_on_both_walks_alike() -> None:
    z, rows = np.array([0.0, 2.0, 0.0]), np.array([[3.0, 0.0, 0.0]])
    straight, round_ = path(z, rows, "line", False), path(z, rows, "sphere", False)
    np.testing.assert_array_equal(straight(0.0), round_(0.0))
    np.testing.assert_allclose(straight(1e-4), round_(1e-4), atol=1e-6)
    # a quarter of a turn, an arc of pi, is at the direction itself, a whole one back at the start
    np.testing.assert_allclose(round_(np.pi / 3), [[2.0, 0.0, 0.0]], atol=1e-12)
    np.testing.assert_allclose(round_(4 * np.pi / 3), [z], atol=1e-12)


@settings(deadline=None)
@cases
def test_the_line_adds_and_centred_sets_the_coordinate(seed: int, dim: int, offset: float, centred: bool) -> None:
    z, rows = draw(seed, dim, 3)
    lengths = np.linalg.norm(rows, axis=1)
    moved = path(z, rows, "line", centred)(offset)
    before = 0 if centred else along(rows, np.broadcast_to(z, rows.shape))
    np.testing.assert_allclose(along(rows, moved), before + offset * lengths, atol=1e-8)
    for row, point in zip(rows, moved, strict=True):  # whatever is across the direction stays
        unit = row / np.linalg.norm(row)
        np.testing.assert_allclose(point - point @ unit * unit, z - z @ unit * unit, atol=1e-8)


def test_centred_on_the_sphere_starts_where_the_coordinate_is_zero() -> None:
    z, rows = draw(3, 6, 4)
    at = path(z, rows, "sphere", True)
    np.testing.assert_allclose(along(rows, at(0.0)), 0, atol=1e-12)
    radius, arcs = np.linalg.norm(z), 0.3 * np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(along(rows, at(0.3)), radius * np.sin(arcs / radius), atol=1e-9)


@pytest.mark.parametrize("centred", [False, True])
def test_where_there_is_no_circle_it_says_so(centred: bool) -> None:
    z = np.array([1.0, -2.0])
    with pytest.raises(UserError, match="direction 1 is parallel"):
        path(z, np.array([[1.0, 0.0], [-2.0, 4.0]]), "sphere", centred)
    with pytest.raises(UserError, match="length is zero"):
        path(0 * z, np.eye(2), "sphere", centred)
    with pytest.raises(UserError, match="walk='circle': choose line or sphere"):
        path(z, np.eye(2), "circle", centred)


def test_a_traversal_shows_itself_in_a_notebook(tmp_path: Path) -> None:
    walk = orthogan.traverse("sprites-sngan", method="sefa", dims=[0, 1], steps=3, control=1)
    assert repr(walk) == "<traversal of 3 directions (1 random) in 3 steps, 32x32 px, sefa, seed 7>"
    frame = walk._repr_html_()
    assert frame.startswith('<iframe sandbox="allow-scripts" srcdoc="')
    assert html.unescape(frame.split('srcdoc="')[1].split('" style=')[0]) == render_html(walk)
    shown = Image.open(io.BytesIO(walk._repr_png_()))
    assert np.array_equal(np.asarray(shown), np.asarray(Image.open(walk.save(tmp_path / "walk.png"))))
    net = orthogan.load("sprites-sngan")
    sheet = contact_sheet(net, orthogan.native_directions(net), seeds=[3, 4], dims=[0], steps=3)
    assert repr(sheet) == f"<contact sheet of 3, 4: {sheet.traversals[0]!r}>"
    assert Image.open(io.BytesIO(sheet._repr_png_())).format == "PNG"


def test_the_result_of_discover_is_accepted() -> None:
    net = orthogan.load("sprites-sngan")
    found = orthogan.discover(net, "sefa", components=2, control=2)
    assert np.array_equal(frames_of(traverse(net, found, steps=3)), frames_of(traverse(net, found.directions, steps=3)))


@pytest.mark.parametrize("wrong", [None, torch.ones(3), "walk.png"], ids=lambda w: type(w).__name__)
def test_render_names_what_it_needs(wrong: Any, tmp_path: Path) -> None:
    said = f"render needs the result of orthogan.traverse .*, not a {type(wrong).__name__}"
    with pytest.raises(TypeError, match=said):
        orthogan.render(wrong, tmp_path / "walk.png")
