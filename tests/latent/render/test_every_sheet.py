"""The contact sheet is several traversals with one scale, one set of controls and one picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orthogan.errors import UserError
from orthogan.latent.discovery.native import latent_axes
from orthogan.latent.render import render
from orthogan.latent.render.picture import ceiling, colours, differences, render_sheet
from orthogan.latent.traverse import ContactSheet, contact_sheet, traverse
from tests.fixtures.disc import Disc
from tests.fixtures.pictures import find, magnified


@pytest.fixture(scope="module")
def sheet() -> ContactSheet:
    net = Disc(channels=3, num_classes=4)
    return contact_sheet(net, latent_axes(net), seeds=[5, 2, 9], dims=[0, 3], steps=5, control=1, centred=True)


def test_each_seed_is_the_traversal_of_that_seed(sheet: ContactSheet) -> None:
    net = Disc(channels=3, num_classes=4)
    assert len(sheet) == 3
    for seed, one in zip(sheet.seeds, sheet.traversals, strict=True):
        alone = traverse(net, latent_axes(net), seed=seed, dims=[0, 3], steps=5, control=1, centred=True)
        assert np.array_equal(one.frames[:2], alone.frames[:2])
        assert (one.metadata["seed"], one.metadata["class"]) == (str(seed), str(seed % 4))
        assert one.metadata == alone.metadata
    first = traverse(net, latent_axes(net), seed=5, dims=[0, 3], steps=5, control=1, centred=True)
    assert np.array_equal(sheet.traversals[0].frames, first.frames)


def test_the_random_direction_is_one_for_all_seeds() -> None:
    net = Disc()
    sheet = contact_sheet(net, latent_axes(net), seeds=[5, 2], dims=[0], steps=3, control=1)
    for one, other in zip(sheet.traversals, sheet.traversals[1:], strict=False):
        assert one.names == other.names
        assert not np.array_equal(one.frames[1], other.frames[1])
    alone = traverse(net, latent_axes(net), seed=2, dims=[0], steps=3, control=1)
    assert not np.array_equal(sheet.traversals[1].frames[1], alone.frames[1])  # whose control is of seed 2


def test_metadata_names_all_seeds_and_classes(sheet: ContactSheet) -> None:
    about = sheet.metadata
    assert (about["seeds"], about["class"]) == ("5,2,9", "1,2,1")
    assert "seed" not in about
    assert {"range": "3", "steps": "5", "walk": "line", "control": "1"}.items() <= about.items()
    net = Disc(num_classes=4)
    assert contact_sheet(net, latent_axes(net), seeds=[1, 2], steps=3, y=3).metadata["class"] == "3"


@pytest.mark.parametrize("heatmap", [False, True])
def test_the_picture_has_a_block_a_direction_and_in_it_a_row_a_seed(sheet: ContactSheet, heatmap: bool) -> None:
    picture = np.asarray(render_sheet(sheet, heatmap=heatmap))
    tops = []
    for row in range(3):
        for one in sheet.traversals:
            places = [find(picture, magnified(one.frames[row, column], 2)) for column in (0, 4)]
            assert all(len(hits) == 1 for hits in places)
            assert places[0][0][0] == places[1][0][0]
            tops.append(places[0][0][0])
    assert tops == sorted(tops)
    gaps = np.diff(tops)
    within, between = gaps[[0, 1, 3, 4, 6, 7]], gaps[[2, 5]]
    assert len(set(within.tolist())) == 1
    assert between.min() > within[0]
    if heatmap:
        maps = [differences(one) for one in sheet.traversals]
        top = ceiling(np.stack(maps))  # one scale for the whole sheet
        hits = [find(picture, magnified(colours(heat, top), 2)) for one in maps for heat in one]
        assert all(len(places) == 1 for places in hits)
        assert len({places[0][1] for places in hits}) == 1


def test_render_writes_a_sheet_as_png_and_nothing_else(sheet: ContactSheet, tmp_path: Path) -> None:
    with Image.open(render(sheet, tmp_path / "s.png", heatmap=True)) as picture:
        assert picture.text == sheet.metadata
        assert np.array_equal(np.asarray(picture), np.asarray(render_sheet(sheet, heatmap=True)))
    with pytest.raises(UserError, match=r"contact sheet of several seeds can be written as \.png"):
        render(sheet, tmp_path / "s.html")


def test_no_seeds_are_refused() -> None:
    with pytest.raises(UserError, match="no seeds"):
        contact_sheet(Disc(), latent_axes(Disc()), seeds=[])
