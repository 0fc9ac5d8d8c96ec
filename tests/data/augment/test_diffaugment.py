from __future__ import annotations

import pytest
import torch
from torch import Tensor

from orthogan.data.augment.diffaugment import OPERATIONS, DiffAugment, brightness, contrast, saturation
from orthogan.errors import UserError
from orthogan.rng import generator

POLICIES = ("color", "translation", "cutout", "color,translation,cutout")


def random_images(n: int = 64, *, channels: int = 3, side: int = 16, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(n, channels, side, side, generator=generator("cpu", 1), dtype=dtype) * 2 - 1


def numbers(n: int) -> Tensor:
    return torch.rand(n, 1, 1, 1, generator=generator("cpu", 0))


def test_brightness_adds_up_to_a_half() -> None:
    images = random_images(2000, side=2)
    added = brightness(images, numbers(2000)) - images
    per_image = added.mean((1, 2, 3))
    torch.testing.assert_close(added, per_image[:, None, None, None].expand_as(added), atol=1e-6, rtol=0)
    assert per_image.abs().max() <= 0.5
    torch.testing.assert_close(per_image.var(), torch.tensor(1 / 12), atol=0.01, rtol=0)


def test_saturation_scales_the_distance_to_grey() -> None:
    images = random_images(2000, side=2)
    result = saturation(images, numbers(2000))
    torch.testing.assert_close(result.mean(1), images.mean(1), atol=1e-6, rtol=0)
    factors = (result - result.mean(1, True)).flatten(1).norm(dim=1) / (images - images.mean(1, True)).flatten(1).norm(
        dim=1
    )
    assert factors.min() >= 0
    assert factors.max() <= 2 + 1e-5
    torch.testing.assert_close(factors.mean(), torch.tensor(1.0), atol=0.05, rtol=0)


def test_contrast_scales_the_distance_to_the_mean() -> None:
    images = random_images(2000, side=2)
    result = contrast(images, numbers(2000))
    torch.testing.assert_close(result.mean((1, 2, 3)), images.mean((1, 2, 3)), atol=1e-6, rtol=0)
    factors = result.flatten(1).std(dim=1) / images.flatten(1).std(dim=1)
    assert factors.min() >= 0.5 - 1e-5
    assert factors.max() <= 1.5 + 1e-5


def test_translation_equals_shifting_by_hand() -> None:
    images = random_images(400)
    result = DiffAugment("translation")(images, generator("cpu", 0))
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    seen = set()
    for before, after in zip(padded, result, strict=True):
        shifts = {
            (y - 2, x - 2) for y in range(5) for x in range(5) if torch.equal(before[:, y : y + 16, x : x + 16], after)
        }
        assert len(shifts) == 1
        seen |= shifts
    assert len(seen) == 25  # -2 to 2 in both directions


def test_cutout_removes_a_square_of_half_the_side() -> None:
    images = torch.ones(500, 2, 16, 16)
    result = DiffAugment("cutout")(images, generator("cpu", 0))
    assert torch.equal(result[:, 0], result[:, 1])
    heights, widths = (((result[:, 0] == 0).any(axis)).sum(1) for axis in (2, 1))
    assert torch.equal((result[:, 0] == 0).sum((1, 2)), heights * widths)
    # The centre lies in 0 ... 16, so at a border only half of it is seen.
    for extent in (heights, widths):
        assert set(extent.tolist()) == {4, 5, 6, 7, 8}


@pytest.mark.parametrize("policy", POLICIES)
def test_gradients_of_both_orders(policy: str) -> None:
    augment = DiffAugment(policy)
    images = random_images(2, side=5, dtype=torch.float64).requires_grad_()

    def run(x: Tensor) -> Tensor:
        return augment(x, generator("cpu", 3)) ** 2  # squared, or the second derivative would be zero

    assert torch.autograd.gradcheck(run, images)
    assert torch.autograd.gradgradcheck(run, images)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shape_type_and_seed(policy: str, channels: int, dtype: torch.dtype) -> None:
    images, augment = random_images(8, channels=channels).to(dtype), DiffAugment(policy)
    first, again, other = (augment(images, generator("cpu", seed)) for seed in (0, 0, 1))
    assert (first.shape, first.dtype) == (images.shape, dtype)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_images_differ_within_a_batch() -> None:
    images = random_images(1).repeat(20, 1, 1, 1)
    for policy in POLICIES:
        assert len(torch.unique(DiffAugment(policy)(images, generator("cpu", 0)), dim=0)) > 10


@pytest.mark.parametrize("policy", ["", "colour", "color,flip"])
def test_unknown_policies(policy: str) -> None:
    with pytest.raises(UserError, match=r"augment\.policy: .* names from color, translation, cutout"):
        DiffAugment(policy)


@pytest.mark.parametrize("policy", POLICIES)
def test_what_is_drawn_is_as_many_rows_as_images_and_applied_by_a_pure_function(policy: str) -> None:
    images, augment, rng = random_images(6, side=9), DiffAugment(policy), generator("cpu", 4)
    drawn = augment.draw(6, (3, 9, 9), rng)
    assert len(drawn) == sum(OPERATIONS[name].size for name in augment.names)
    assert all(len(numbers) == 6 for numbers in drawn)
    whole, follow = augment(images, again := generator("cpu", 4)), torch.rand((), generator=again)
    assert torch.equal(augment.apply(images, drawn), whole)
    assert torch.equal(torch.rand((), generator=rng), follow)
    half = augment.apply(images[3:], tuple(numbers[3:] for numbers in drawn))
    torch.testing.assert_close(half, whole[3:])


def test_an_operation_is_applied_to_all_images_or_to_none_with_its_probability() -> None:
    augment = DiffAugment("cutout", p=0.6)
    images = torch.ones(4, 1, 8, 8)
    changed = []
    for seed in range(300):
        out = augment(images, torch.Generator().manual_seed(seed))
        touched = (out != images).flatten(1).any(1)
        assert touched.all() or not touched.any()
        changed.append(bool(touched[0]))
    assert abs(sum(changed) / 300 - 0.6) < 0.1
    again = DiffAugment("color,translation,cutout", p=1.0).draw(3, (1, 8, 8), torch.Generator().manual_seed(0))
    assert len(again) == 7
    assert repr(augment) == "DiffAugment('cutout', p=0.6)"
