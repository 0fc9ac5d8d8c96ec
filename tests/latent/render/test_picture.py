"""The map of differences against its definition, and colours that rise evenly in lightness."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageCms

from orthogan.latent.discovery.native import latent_axes
from orthogan.latent.render.picture import ceiling, colours, differences, palette, render_grid
from orthogan.latent.traverse import Traversal, traverse
from tests.fixtures.disc import Disc
from tests.fixtures.pictures import find, magnified


@pytest.fixture(scope="module")
def walk() -> Traversal:
    net = Disc(channels=3)
    return traverse(net, latent_axes(net), dims=[0, 4, 5], steps=5, seed=3, control=1)


def test_the_map_is_the_mean_distance_of_the_ends_and_its_mean_the_change(walk: Traversal) -> None:
    maps = differences(walk)
    assert maps.shape == (4, 32, 32)
    row, y, x = np.unravel_index(maps.argmax(), maps.shape)
    pixel = walk.frames[row, :, :, y, x].astype(int)
    assert maps[row, y, x] == (abs(pixel[0] - pixel[2]) + abs(pixel[4] - pixel[2])).sum() / 6
    assert maps.mean(axis=(1, 2)) == pytest.approx([scores["change"] for scores in walk.scores])
    assert not maps[2].any()  # a coordinate that changes nothing


def lightness(colour: np.ndarray) -> np.ndarray:
    """CIE L* by littlecms, an oracle of its own: (n, 3) uint8 sRGB -> (n,) from 0 to 100."""
    transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    picture = ImageCms.applyTransform(Image.fromarray(colour[None]), transform)
    assert picture is not None
    return np.asarray(picture)[0, :, 0].astype(float) / 255 * 100


def test_the_colours_are_even_in_lightness_and_all_different() -> None:
    found = palette()
    assert found.shape == (256, 3)
    assert len(np.unique(found, axis=0)) == 256
    seen = lightness(found)
    line = np.linspace(seen[0], seen[-1], 256)
    assert seen[0] < 12
    assert seen[-1] > 92
    assert np.abs(seen - line).max() < 2.5
    assert np.diff(seen[::8]).min() > 0


def test_values_become_the_colour_of_their_part_of_the_scale() -> None:
    values = np.array([[0.0, 5.0, 10.0, 12.0]])
    found = colours(values, 10.0)
    assert found.dtype == np.uint8
    assert np.array_equal(found[:, 0].T, palette()[[0, 128, 255, 255]])
    assert [ceiling(np.array(v)) for v in (0.0, 0.3, 7.2, 20.0, 20.1, 83.0, 255.0)] == [1, 1, 8, 20, 25, 85, 255]


def test_the_picture_has_each_map_right_of_its_row_on_one_scale(walk: Traversal) -> None:
    picture = np.asarray(render_grid(walk, heatmap=True))
    plain = render_grid(walk)
    maps = differences(walk)
    top = ceiling(maps)
    for row in (0, 1, 3):
        (at,) = find(picture, magnified(colours(maps[row], top), 3))
        (last,) = find(picture, magnified(walk.frames[row, 4], 3))
        assert at[0] == last[0]
        assert plain.width - 12 < at[1] < picture.shape[1] - 96
    flash = np.zeros_like(walk.frames[:1])
    flash[:, 2] = 255
    louder = replace(
        walk,
        frames=np.concatenate([walk.frames, flash]),
        names=[*walk.names, "flash"],
        notes=[*walk.notes, ""],
        scores=[*walk.scores, {}],
        is_control=np.zeros(5, bool),
    )
    assert top < 255 == ceiling(differences(louder))
    other = np.asarray(render_grid(louder, heatmap=True))
    assert not find(other, magnified(colours(maps[0], top), 3))  # paler now
    assert len(find(other, magnified(colours(maps[0], 255), 3))) == 1


def test_a_picture_of_nothing_that_changes_is_dark_and_not_a_fault(walk: Traversal) -> None:
    still = replace(
        walk,
        frames=walk.frames[2:3],
        names=["still"],
        notes=[""],
        scores=walk.scores[2:3],
        is_control=walk.is_control[2:3],
    )
    picture = render_grid(still, heatmap=True)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    dark = magnified(np.broadcast_to(palette()[0][:, None, None], (3, 32, 32)).copy(), 3)
    assert len(find(np.asarray(picture), dark)) == 1
