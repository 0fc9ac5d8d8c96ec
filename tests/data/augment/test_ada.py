from __future__ import annotations

import colorsys
import math

import pytest
import torch
from torch import Tensor

from orthogan.data.augment import matrices as m
from orthogan.data.augment.ada import COLOUR, GEOMETRY, OPERATIONS, AdaptiveAugment, recolour
from orthogan.errors import UserError
from orthogan.rng import generator


def random_images(n: int = 16, *, channels: int = 3, side: int = 16, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(n, channels, side, side, generator=generator("cpu", 1), dtype=dtype) * 2 - 1


def with_p(p: float, ops: str | tuple[str, ...] = OPERATIONS) -> AdaptiveAugment:
    augment = AdaptiveAugment(ops=ops)
    augment.p = torch.tensor(p)
    return augment


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_without_strength_images_come_back_bit_for_bit(channels: int, dtype: torch.dtype) -> None:
    images = random_images(channels=channels).to(dtype)
    result = AdaptiveAugment()(images, generator("cpu", 0))
    assert result.dtype == dtype
    assert torch.equal(result, images)


@pytest.mark.parametrize("op", OPERATIONS)
def test_each_operation_falls_on_the_share_p_of_the_images(op: str) -> None:
    images = random_images(1200, side=8)
    changed = with_p(0.4, (op,))(images, generator("cpu", 2)).ne(images).flatten(1).any(1).float().mean()
    # Of a flip (also of luma) half is neutral, of a quarter turn a quarter; a shift by less than half a pixel rounds
    # to none, here with probability (1/2)^2; the two halves of "rotate" together are p.
    neutral = {"xflip": 0.5, "lumaflip": 0.5, "rotate90": 0.25, "xint": 0.25}.get(op, 0.0)
    expected = 0.4 * (1 - neutral)
    assert float(changed) == pytest.approx(expected, abs=4 * math.sqrt(0.25 / 1200))


@pytest.mark.parametrize("op", OPERATIONS)
def test_operations_do_what_they_are_called(op: str) -> None:
    images = random_images(200, side=8)
    result = with_p(1.0, (op,))(images, generator("cpu", 2))
    grey, grey_after = images.mean(1), result.mean(1)
    if op == "xflip":
        same, mirrored = (result == x for x in (images, images.flip(3)))
        assert (same.flatten(1).all(1) | mirrored.flatten(1).all(1)).all()
    elif op == "rotate90":
        turns = torch.stack([(result - torch.rot90(images, k, (2, 3))).abs().amax((1, 2, 3)) for k in range(4)])
        assert (turns.amin(0) < 1e-5).all()
        assert set(turns.argmin(0).tolist()) == {0, 1, 2, 3}
    elif op == "xint":  # only pixels that were there before
        assert all(
            torch.isin((r * 1e4).round(), (i * 1e4).round()).float().mean() > 0.95
            for r, i in zip(result, images, strict=True)
        )
    elif op in ("brightness", "contrast"):
        slope = (result - result.mean((1, 2, 3), True)) / (images - images.mean((1, 2, 3), True))
        spread = slope.flatten(1).median(1).values
        assert (spread.sub(1).abs().max() < 1e-3) == (op == "brightness")
    elif op == "lumaflip":
        torch.testing.assert_close(grey_after.abs(), grey.abs(), atol=1e-5, rtol=0)
        torch.testing.assert_close(result - grey_after[:, None], images - grey[:, None], atol=1e-5, rtol=0)
    elif op in ("hue", "saturation"):
        torch.testing.assert_close(grey_after, grey, atol=1e-5, rtol=0)
        before, after = ((x - x.mean(1, True)).norm(dim=1) for x in (images, result))
        assert torch.allclose(before, after, atol=1e-4) == (op == "hue")
    else:  # filtered geometry leaves a constant image as it is, and noise not
        constant = torch.full((20, 3, 8, 8), 0.3)
        torch.testing.assert_close(with_p(1.0, (op,))(constant, generator("cpu", 0)), constant, atol=1e-4, rtol=0)
        assert (result - images).abs().amax((1, 2, 3)).min() > 1e-3


def test_hue_agrees_with_the_colour_wheel() -> None:
    """A third of a turn about the grey diagonal takes red to green and green to blue."""
    third = m.rotate_hue(torch.tensor([2 * math.pi / 3], dtype=torch.float64))
    primaries = torch.eye(3, dtype=torch.float64)[:, :, None, None]
    turned = recolour(primaries, third.expand(3, 4, 4))[:, :, 0, 0]
    torch.testing.assert_close(turned, torch.eye(3, dtype=torch.float64)[[1, 2, 0]])
    hues = [colorsys.rgb_to_hsv(*row)[0] for row in turned.clamp(0, 1).tolist()]
    assert hues == pytest.approx([1 / 3, 2 / 3, 0], abs=1e-6)


def test_rotation_by_a_quarter_equals_the_exact_one() -> None:
    counts = torch.arange(4, dtype=torch.float64)
    torch.testing.assert_close(m.rotate2d(counts * math.pi / 2), m.quarter_turns(counts))


@pytest.mark.parametrize("ops", [GEOMETRY, COLOUR, OPERATIONS])
@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_of_both_orders(ops: tuple[str, ...], channels: int) -> None:
    augment = with_p(0.8, ops)
    images = random_images(2, channels=channels, side=4, dtype=torch.float64).requires_grad_()

    def run(x: Tensor) -> Tensor:
        return augment(x, generator("cpu", 4)) ** 2

    assert torch.autograd.gradcheck(run, images, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, images, fast_mode=True)


def test_r1_penalty_reaches_the_weights_through_the_augmentation() -> None:
    images, weight = random_images(4).requires_grad_(), torch.randn(3, 3, 3, 3, requires_grad=True)
    features = torch.nn.functional.conv2d(with_p(1.0)(images, generator("cpu", 0)), weight)
    (gradient,) = torch.autograd.grad(features.square().sum(), images, create_graph=True)
    gradient.square().sum().backward()
    assert weight.grad is not None
    assert weight.grad.norm() > 0


def test_autocast_and_bf16_do_not_coarsen_the_filters() -> None:
    images, augment = random_images(), with_p(1.0)
    exact = augment(images, generator("cpu", 0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(augment(images, generator("cpu", 0)), exact)
    rounded = images.bfloat16()
    result = augment(rounded, generator("cpu", 0))
    assert result.dtype == torch.bfloat16
    assert torch.equal(result, augment(rounded.float(), generator("cpu", 0)).bfloat16())


def test_draws_do_not_depend_on_p() -> None:
    """The noise that follows in the same generator is the same whatever p is."""
    follow = set()
    for p in (0.0, 0.5, 1.0):
        g = generator("cpu", 0)
        with_p(p)(random_images(), g)
        follow.add(float(torch.rand((), generator=g)))
    assert len(follow) == 1


def test_same_generator_same_result() -> None:
    images = random_images()
    first, again, other = (with_p(0.9)(images, generator("cpu", seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_p_follows_the_sign_of_overfitting() -> None:
    augment = AdaptiveAugment(target=0.6, images_to_one=1000, interval=4)
    for signs in (0.9, 0.9, 0.4):
        augment.update(torch.tensor(signs), 50)
        assert float(augment.p) == 0.0
    augment.update(torch.tensor(0.9), 50)  # the mean of the four is 0.775
    assert float(augment.p) == pytest.approx(0.2)
    for _ in range(4):
        augment.update(torch.tensor(0.1), 25)
    assert float(augment.p) == pytest.approx(0.1)


def test_p_takes_images_to_one_from_bottom_to_top_and_stays_in_range() -> None:
    augment = AdaptiveAugment(images_to_one=640, interval=2)
    for seen in range(64, 1281, 64):
        augment.update(torch.tensor(1.0), 64)
        assert float(augment.p) == pytest.approx(min(1.0, seen // 128 * 128 / 640))
    for _ in range(40):
        augment.update(torch.tensor(-1.0), 64)
    assert float(augment.p) == 0.0


@pytest.mark.parametrize("interrupted_after", range(1, 9))
def test_state_continues_bit_for_bit(interrupted_after: int) -> None:
    signs = torch.rand(12, generator=generator("cpu", 0)) * 2 - 1
    whole = AdaptiveAugment(target=0.0, images_to_one=777)
    first, second = (AdaptiveAugment(target=0.0, images_to_one=777) for _ in range(2))
    for k, sign in enumerate(signs):
        whole.update(sign, 13)
        if k < interrupted_after:
            first.update(sign, 13)
            continue
        if k == interrupted_after:
            second.load_state_dict(first.state_dict())
        second.update(sign, 13)
    assert whole.state_dict().keys() == second.state_dict().keys()
    assert all(torch.equal(whole.state_dict()[key], value) for key, value in second.state_dict().items())
    assert isinstance(whole.state_dict()["p"], Tensor)


def test_incomplete_state() -> None:
    with pytest.raises(KeyError):
        AdaptiveAugment().load_state_dict({"p": torch.tensor(0.5)})


@pytest.mark.parametrize("ops", ["", "xflip,zoom", ()])
def test_unknown_operations(ops: str) -> None:
    with pytest.raises(UserError, match=r"augment\.ops"):
        AdaptiveAugment(ops=ops)


@pytest.mark.parametrize("channels", [1, 3])
def test_drawing_and_applying_are_the_call_and_p_may_change_in_between(channels: int) -> None:
    images, augment, rng = random_images(6, channels=channels), with_p(0.7), generator("cpu", 4)
    drawn = augment.draw(6, (channels, 16, 16), rng)
    whole, follow = augment(images, again := generator("cpu", 4)), torch.rand((), generator=again)
    assert torch.equal(torch.rand((), generator=rng), follow)
    augment.p = torch.tensor(0.0)  # what was drawn holds the p of its time
    assert torch.equal(augment.apply(images, drawn), whole)
    assert torch.equal(augment.apply(images, (augment.p, drawn[1])), images)
