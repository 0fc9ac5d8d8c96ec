from __future__ import annotations

import pytest
import torch

from orthogan.data import flip, to_float
from orthogan.data.transforms import draw_coins, draw_noise, flip_where, rescale_pixels
from orthogan.rng import generator

LEVELS = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)


def test_plain_levels_run_from_minus_one_to_one() -> None:
    floats = to_float(LEVELS, dequantize=False)
    assert floats.dtype == torch.float32
    torch.testing.assert_close(floats.flatten(), torch.linspace(-1, 1, 256))


def test_plain_levels_come_back() -> None:
    back = ((to_float(LEVELS, dequantize=False) * 127.5) + 127.5).round().to(torch.uint8)
    assert torch.equal(back, LEVELS)


def test_dequantisation_fills_each_step_evenly() -> None:
    levels = LEVELS.repeat(2000, 1, 1, 1)
    noise = (to_float(levels, dequantize=True, generator=generator("cpu", 0)) + 1) * 128 - levels
    assert noise.min() >= 0
    assert noise.max() <= 1
    deciles = torch.histc(noise, 10, 0, 1) / noise.numel()
    torch.testing.assert_close(deciles, torch.full((10,), 0.1), atol=0.002, rtol=0)


def test_dequantisation_is_a_function_of_the_generator() -> None:
    first, again, other = (to_float(LEVELS, dequantize=True, generator=generator("cpu", s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_memory_format_is_kept() -> None:
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8).to(memory_format=torch.channels_last)
    for dequantize in (False, True):
        floats = to_float(images, dequantize=dequantize, generator=generator("cpu", 0))
        assert floats.is_contiguous(memory_format=torch.channels_last)


def test_source_is_left_alone() -> None:
    images = LEVELS.clone()
    to_float(images, dequantize=True, generator=generator("cpu", 0))
    assert torch.equal(images, LEVELS)


def test_wrong_use() -> None:
    with pytest.raises(TypeError, match="float32"):
        to_float(LEVELS.float(), dequantize=False)
    with pytest.raises(ValueError, match="generator"):
        to_float(LEVELS, dequantize=True)


def test_flip_mirrors_about_half_of_the_images_each_by_its_own_coin() -> None:
    images = torch.arange(3 * 4).view(1, 1, 3, 4).repeat(1000, 2, 1, 1)
    flipped = flip(images, generator("cpu", 5))
    mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    kept = (flipped == images).flatten(1).all(1)
    assert (mirrored ^ kept).all()
    assert 420 < int(mirrored.sum()) < 580
    assert torch.equal(flip(images, generator("cpu", 5)), flipped)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_chance_and_use_of_it_are_the_formulas_bit_for_bit(layout: torch.memory_format) -> None:
    """Written out as they always were; runs that continue must see the same pixels."""
    images = torch.randint(0, 256, (9, 3, 8, 8), dtype=torch.uint8, generator=generator("cpu", 1)).to(
        memory_format=layout
    )
    rng = generator("cpu", 2)
    coins = torch.rand(9, 1, 1, 1, generator=rng) < 0.5
    mirrored = torch.where(coins, images.flip(3), images)
    noise = torch.rand(9, 3, 8, 8, generator=rng)
    expected = mirrored.to(torch.float32).div(128.0).sub(1.0).add(noise.div(128.0))
    follow = torch.rand((), generator=rng)

    rng = generator("cpu", 2)
    drawn = draw_coins(9, rng), draw_noise(images.shape, rng)
    assert torch.equal(torch.rand((), generator=rng), follow)
    assert torch.equal(rescale_pixels(flip_where(images, drawn[0]), drawn[1]), expected)
    rng = generator("cpu", 2)
    assert torch.equal(to_float(flip(images, rng), dequantize=True, generator=rng), expected)
    every, noise = LEVELS.repeat(3000, 1, 1, 1), torch.rand(3000, 1, 16, 16, generator=rng)
    assert torch.equal(rescale_pixels(every, noise), every.float().div(128.0).sub(1.0).add(noise.div(128.0)))


def test_the_pure_part_compiles_to_one_graph() -> None:
    torch.compiler.reset()
    images = torch.randint(0, 256, (9, 3, 8, 8), dtype=torch.uint8, generator=generator("cpu", 1))
    coins, noise = draw_coins(9, rng := generator("cpu", 2)), draw_noise(images.shape, rng)
    compiled = torch.compile(lambda x, c, n: rescale_pixels(flip_where(x, c), n), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(images, coins, noise), rescale_pixels(flip_where(images, coins), noise))
