"""Which values of factors count as one, against the geometry of the sprites."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthogan.data import ArraySource, open_source
from orthogan.data.sprites import render
from orthogan.disentanglement import get_merging


def source_of(names: tuple[str, ...], sizes: tuple[int, ...]) -> ArraySource:
    images = np.zeros((2, 1, 4, 4), np.uint8)
    return ArraySource("toy", images, factors=np.zeros((2, len(names)), int), factor_names=names, factor_sizes=sizes)


@given(st.integers(2, 200), st.integers(2, 12))
@settings(max_examples=60, deadline=None)
def test_bins_are_equal_ordered_and_not_too_many(size: int, levels: int) -> None:
    (table,) = get_merging(source_of(("x",), (size,)), levels=levels).tables
    counts = np.bincount(table)
    assert len(counts) <= levels
    assert list(table) == sorted(table)
    assert counts.max() - counts.min() <= 1
    assert counts.max() == -(-size // levels)
    if size <= levels:
        assert table == tuple(range(size))


def test_kinds_keep_their_values_and_constant_factors_go() -> None:
    merging = get_merging(source_of(("object", "colour", "azimuth", "still"), (183, 20, 24, 1)))
    assert merging.names == ("object", "colour", "azimuth")
    assert merging.sizes == (183, 20, 6)
    assert merging.variant == "azimuth 24>6"
    np.testing.assert_array_equal(merging(np.array([[182, 3, 23, 0]])), [[182, 3, 5]])


def test_sprites_merge_orientations_that_look_alike() -> None:
    merging = get_merging(open_source("sprites", resolution=32, channels=1), levels=8, turns=4)
    assert merging.names == ("shape", "scale", "orientation", "x", "y")
    assert merging.sizes == (3, 6, 4, 8, 8)
    assert merging.variant == "orientation 40>4 mod 90 degrees;x 32>8;y 32>8"
    orientation = np.array(merging.tables[2])
    assert orientation[0] == orientation[39]
    angle = 360 * np.arange(40) / 39 % 360 % 90
    np.testing.assert_array_equal(orientation, np.minimum(angle / 22.5 + 1e-9, 3.5).astype(int))


def test_squares_that_are_one_picture_are_of_one_class() -> None:
    (table,) = (get_merging(open_source("sprites", resolution=64, channels=1), turns=2).tables[2],)
    pictures: dict[bytes, set[int]] = {}
    for value in range(40):
        picture = render(np.array([[0, 5, value, 16, 16]])).tobytes()
        pictures.setdefault(picture, set()).add(value)
    alike = [values for values in pictures.values() if len(values) > 1]
    assert alike
    # the turn between two alike squares is a right angle, give or take the grid
    for values in alike:
        rest = [4 * (value % 39) % 39 for value in values]
        if max(rest) - min(rest) < 19 and {r * 2 // 39 for r in rest} == {rest[0] * 2 // 39}:
            assert len({table[value] for value in values}) == 1


def test_values_with_names_are_merged_by_their_names() -> None:
    source = open_source("faces", resolution=16, channels=3, count=2)
    merging = get_merging(source)
    table = dict(zip(merging.names, merging.tables, strict=True))
    values = dict(zip(source.factor_names, source.factor_values, strict=True))
    assert [table["hair"][values["hair"].index(v)] for v in ("long01", "long21", "short03")] == [0, 0, 1]
    assert [table["glasses"][values["glasses"].index(v)] for v in ("none", "dark07", "light01")] == [0, 1, 2]
    assert table["clothes"] == tuple(range(23))  # they would all be one: variant01, variant02, ...
    assert table["skin"] == tuple(range(8))  # colors are never merged
    assert merging.names == tuple(source.factor_names)


def test_one_turn_leaves_the_orientation_out() -> None:
    merging = get_merging(open_source("sprites-colour", resolution=32, channels=3), turns=1)
    assert merging.names == ("shape", "scale", "x", "y", "hue", "background")
    assert merging.columns == (0, 1, 3, 4, 5, 6)


def test_what_cannot_be_merged_is_refused() -> None:
    plain = ArraySource("plain", np.zeros((2, 1, 4, 4), np.uint8))
    with pytest.raises(ValueError, match="plain: its factors are not known"):
        get_merging(plain)
    with pytest.raises(ValueError, match="levels=1"):
        get_merging(source_of(("x",), (4,)), levels=1)
    with pytest.raises(ValueError, match="no factor has more than one value"):
        get_merging(source_of(("x",), (1,)))
