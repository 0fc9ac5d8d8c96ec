from __future__ import annotations

import pickle

import numpy as np
import pytest

from orthogan.data import ImageSource, open_source
from orthogan.data.sources.sprites import GROUND_COLOURS, SPRITE_COLOURS, SpriteGrid, colour
from orthogan.data.sprites import GRID_SIZE, render
from orthogan.errors import UserError


def plain(count: int | None = None, *, resolution: int = 64, channels: int = 1, seed: int = 0) -> ImageSource:
    return open_source("sprites", resolution=resolution, channels=channels, count=count, seed=seed)


def test_grid_is_lazy_and_complete() -> None:
    grid = plain()
    assert not grid.in_memory
    assert len(grid) == GRID_SIZE == 737_280
    # The order of dSprites' own file: index = class . (245760, 40960, 1024, 32, 1).
    index = 2 * 245_760 + 4 * 40_960 + 17 * 1024 + 9 * 32 + 30
    images, labels = grid.read(np.array([index]))
    np.testing.assert_array_equal(images[0, 0], render(np.array([[2, 4, 17, 9, 30]]))[0] * 255)
    assert labels.tolist() == [2]
    assert grid.class_names == ["square", "ellipse", "heart"]
    factors = grid.factors
    assert factors is not None
    assert factors.shape == (GRID_SIZE, 5)
    assert factors[index].tolist() == [2, 4, 17, 9, 30]


def test_subset_is_a_seeded_part_of_the_grid() -> None:
    source, grid = plain(200), plain()
    assert source.in_memory
    assert source.factors is not None
    indices = source.factors @ [245_760, 40_960, 1024, 32, 1]
    assert len(set(indices.tolist())) == 200
    for mine, theirs in zip(source.read(np.arange(200)), grid.read(indices), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert plain(200).fingerprint() == source.fingerprint()
    assert plain(200, seed=1).fingerprint() != source.fingerprint()


def test_32_pixels_are_the_means_of_four() -> None:
    large, small = plain(50), plain(50, resolution=32)
    expected = large.read(np.arange(50))[0].reshape(50, 1, 32, 2, 32, 2).mean((3, 5))
    images = small.read(np.arange(50))[0]
    assert set(np.unique(images)) <= {0, 64, 128, 191, 255}
    assert np.abs(images - expected).max() <= 0.5


def test_three_channels_of_plain_sprites_are_equal() -> None:
    images, _ = plain(10, channels=3).read(np.arange(10))
    assert images.shape == (10, 3, 64, 64)
    np.testing.assert_array_equal(images, plain(10).read(np.arange(10))[0].repeat(3, 1))


def test_colours_stand_where_their_factors_say() -> None:
    source = open_source("sprites-colour", resolution=64, channels=3, count=100)
    assert source.factors is not None
    assert source.factor_sizes == [3, 6, 40, 32, 32, 8, 6]
    assert len(source.factor_names) == source.factors.shape[1] == 7
    masks = render(source.factors[:, :5]).astype(bool)
    for image, mask, factors in zip(source.read(np.arange(100))[0], masks, source.factors, strict=True):
        assert (image[:, mask] == SPRITE_COLOURS[factors[5]][:, None]).all()
        assert (image[:, ~mask] == GROUND_COLOURS[factors[6]][:, None]).all()


def test_colour_grid_agrees_with_its_subset() -> None:
    grid = SpriteGrid(coloured=True, resolution=32, channels=3)
    assert len(grid) == GRID_SIZE * 48
    source = open_source("sprites-colour", resolution=32, channels=3, count=20)
    assert source.factors is not None
    indices = np.ravel_multi_index(tuple(source.factors.T), tuple(grid.factor_sizes))
    np.testing.assert_array_equal(grid.read(indices)[0], source.read(np.arange(20))[0])


def test_all_colours_differ_and_sprites_are_brighter() -> None:
    assert len(np.unique(SPRITE_COLOURS, axis=0)) == 8
    assert len(np.unique(GROUND_COLOURS, axis=0)) == 6
    assert SPRITE_COLOURS.max(1).min() == 255
    assert GROUND_COLOURS.max() <= 102


def test_half_covered_pixels_are_blended() -> None:
    mask = np.array([[[0, 128, 255]]], np.uint8)
    image = colour(mask, np.array([0]), np.array([0]))[0, :, 0].T.astype(float)
    ground, front = GROUND_COLOURS[0].astype(float), SPRITE_COLOURS[0].astype(float)
    np.testing.assert_allclose(image, [ground, ground + (front - ground) * 128 / 255, front], atol=0.5)


def test_grid_survives_pickling_and_tells_its_variants_apart() -> None:
    grid = plain()
    assert pickle.loads(pickle.dumps(grid)).fingerprint() == grid.fingerprint()
    assert len({plain(resolution=r, channels=c).fingerprint() for r in (32, 64) for c in (1, 3)}) == 4


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("sprites", {"resolution": 48, "channels": 1}, "must be 32 or 64 for sprites, not 48"),
        ("sprites-colour", {"resolution": 32, "channels": 1}, "channels: must be 3 for sprites-colour, not 1"),
        ("sprites", {"resolution": 32, "channels": 1, "count": 737_281}, "1 to 737280, not 737281"),
        ("sprites", {"resolution": 32, "channels": 1, "count": 0}, "1 to 737280, not 0"),
    ],
)
def test_impossible_requests(kind: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_source(kind, **options)
