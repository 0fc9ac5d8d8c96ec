"""Neural divergence: closed forms between two points, nothing between equals, and the same number every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from orthogan.data import ArraySource
from orthogan.errors import UserError
from orthogan.evaluation.critic import critic as critics
from orthogan.evaluation.critic.critic import Recipe, new_critic, train_critic
from orthogan.evaluation.critic.neural_divergence import neural_divergence
from orthogan.evaluation.result import MetricResult
from tests.fixtures.scored import Patches, source

QUICK = Recipe(steps=12, batch_size=8, width=2, lr=1e-3)
SIDE = 8


def flat(level: int, count: int = 32) -> ArraySource:
    """Images that are all one grey."""
    return ArraySource(f"grey {level}", np.full((count, 1, SIDE, SIDE), level, np.uint8))


def blobs(seed: int, centre: int, count: int = 256) -> ArraySource:
    """Smooth images around one grey."""
    coarse = np.random.default_rng(seed).normal(centre, 20, (count, 1, 2, 2))
    images = coarse.repeat(SIDE // 2, 2).repeat(SIDE // 2, 3)
    return ArraySource("blobs", images.clip(0, 255).astype(np.uint8))


def measured(subject: object, held_out: ArraySource, recipe: Recipe = QUICK, **options: object) -> MetricResult:
    arguments = {"samples": 64, "progress": False, **options}
    return neural_divergence(subject, held_out, recipe=recipe, **arguments)


@pytest.mark.parametrize(("levels", "penalty"), [((100, 132), 10.0), ((140, 124), 2.0)])
def test_between_two_points_it_is_the_distance_and_what_the_penalty_allows(
    levels: tuple[int, int], penalty: float
) -> None:
    recipe = Recipe(steps=600, batch_size=16, width=4, lr=5e-3, penalty=penalty)
    found = measured(flat(levels[0]), flat(levels[1]), recipe)
    distance = SIDE * abs(levels[0] - levels[1]) / 128
    # the best slope s along the line maximises s W - penalty (s - 1)^2
    slope = 1 + distance / (2 * penalty)
    assert found.parts["difference"] == pytest.approx(slope * distance, rel=0.03)
    assert found.parts["penalty"] == pytest.approx(penalty * (slope - 1) ** 2, rel=0.2, abs=0.01)
    assert found.value == pytest.approx(found.parts["difference"] - found.parts["penalty"])
    assert found.value == pytest.approx(distance + distance**2 / (4 * penalty), rel=0.03)
    assert found.protocol["penalty"] == f"{penalty:g}, in the value, as published"


def test_equals_are_not_told_apart_and_others_are() -> None:
    recipe = Recipe(steps=150, batch_size=32, width=4, lr=2e-3)
    reals = blobs(0, 100)
    same, other = (measured(fakes, reals, recipe, samples=256) for fakes in (blobs(1, 100), blobs(2, 150)))
    assert same.std is not None
    assert other.std is not None
    assert abs(same.value) < 4 * same.std
    assert other.value > 10 * other.std
    assert other.value > 5 * abs(same.value)


def test_the_spread_is_that_of_the_two_means() -> None:
    reals, fakes = blobs(0, 100, 64), blobs(1, 140, 64)
    recipe = Recipe(steps=16, batch_size=8, width=2)  # after two whole rounds: the means are over whole sets
    few, many = (measured(fakes, reals, recipe, samples=samples) for samples in (64, 640))
    assert few.std is not None
    # a stream that comes round again brings no more images
    assert many.std == pytest.approx(few.std, rel=0.02)
    assert many.parts["difference"] == pytest.approx(few.parts["difference"], rel=0.01)
    assert (few.protocol["samples"], many.protocol["samples"]) == (64, 640)


def test_it_is_a_function_of_its_arguments_alone() -> None:
    net, reals = Patches(num_classes=2), source(32)
    first = measured(net, reals)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    again = measured(net, reals)
    assert torch.equal(torch.get_rng_state(), state)
    assert (again.value, again.std, again.parts) == (first.value, first.std, first.parts)
    assert measured(net, reals, seed=1).value != first.value


def test_a_generator_is_drawn_from_as_it_stands_and_comes_back_as_it_was() -> None:
    seen: list[Tensor] = []

    class Recording(Patches):
        def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            assert y is not None
            assert not self.norm.training
            seen.append(y)
            return super().forward(z, y)

    net = Recording(num_classes=4).train()
    found = measured(net, source(32), samples=15)
    assert net.training
    assert net.norm.training
    assert len(seen) == 12 + 2  # steps, and two batches for the means
    assert torch.cat(seen).bincount().tolist() == [28] * 4
    assert found.protocol["samples"] == 16
    assert found.protocol["reference"] == "noise"
    assert found.protocol["batch norm"] == "running statistics"


def test_the_name_says_what_is_not_as_published() -> None:
    found = measured(blobs(0, 100), blobs(1, 100), info={"subject": "x"})
    assert found.label == "neural_divergence[steps=12,batch_size=8,width=2,lr=0.001]"
    assert found.protocol["subject"] == "x"
    assert "batch norm" not in found.protocol
    assert Recipe().described == ""


def test_an_interrupted_critic_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(critics, "SAVE_EVERY", 5)
    reals, keep = source(32), tmp_path / "state" / "critic.safetensors"
    whole = measured(Patches(), reals)

    class Stopping(Patches):
        calls, last = 0, 10**9

        def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            type(self).calls += 1
            if self.calls > self.last:
                raise KeyboardInterrupt
            return super().forward(z, y)

    Stopping.last = 8
    with pytest.raises(KeyboardInterrupt):
        measured(Stopping(), reals, keep=keep)
    assert keep.is_file()
    with pytest.raises(UserError, match=r"state of another critic.*delete it"):
        measured(Patches(), reals, keep=keep, seed=1)
    content = keep.read_bytes()
    keep.write_bytes(content[:-3] + bytes([content[-3] ^ 4]) + content[-2:])
    with pytest.raises(UserError, match=r"damaged.*delete this file"):
        measured(Patches(), reals, keep=keep)
    keep.write_bytes(content)
    Stopping.calls, Stopping.last = 0, 10**9
    found = measured(Stopping(), reals, keep=keep)
    assert Stopping.calls == 12 - 5 + 8
    assert (found.value, found.std, found.parts) == (whole.value, whole.std, whole.parts)
    assert not keep.exists()
    keep.write_bytes(b"x")
    with pytest.raises(UserError, match="delete this file"):
        measured(Patches(), reals, keep=keep)


def test_the_published_critic_has_its_widths_and_the_average_is_slow_to_forget() -> None:
    net = new_critic(3, 32, 64, seed=0)
    assert net.widths == [64, 128, 256]
    assert net.layers[-1].in_features == 4 * 4 * 256
    assert net(torch.zeros(5, 3, 32, 32)).shape == (5,)
    assert new_critic(1, 4, 64, seed=0).described == "linear"
    assert new_critic(1, 13, 2, seed=0)(torch.zeros(2, 1, 13, 13)).shape == (2,)
    assert Recipe().decay(0) == pytest.approx(0.1)
    assert Recipe().decay(10**5) == 0.999


def test_without_an_average_the_critic_is_the_last_one() -> None:
    net = new_critic(1, SIDE, 2, seed=0)
    start = [p.detach().clone() for p in net.parameters()]
    rng = torch.Generator().manual_seed(0)
    images = torch.rand(2, 4, 1, SIDE, SIDE, generator=rng)
    recipe = Recipe(steps=3, batch_size=4, width=2, average=0.0)
    average = train_critic(
        net, lambda index: (images[0], images[1]), recipe, seed=0, device=torch.device("cpu"), progress=False
    )
    for old, ours, theirs in zip(start, average.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
        assert not ours.requires_grad
        assert old.shape == ours.shape
    assert any(not torch.equal(old, new) for old, new in zip(start, net.parameters(), strict=True))


@pytest.mark.parametrize(
    ("subject", "held_out", "options", "parts"),
    [
        (Patches(channels=1), source(32), {}, ["(1, 16, 16)", "(3, 16, 16)", "resolution"]),
        (Patches(), source(5), {}, ["5 images", "batch of 8"]),
        (Patches(), source(32), {"samples": 1}, ["samples=1"]),
        (torch.nn.Linear(2, 2), source(32), {}, ["latent_dim"]),
        (
            flat(0),
            flat(1),
            {"recipe": Recipe(steps=60, batch_size=8, width=2, lr=1e30)},
            ["the loss became", "lower lr"],
        ),
    ],
)
def test_what_does_not_fit_is_named(
    subject: object, held_out: ArraySource, options: dict[str, object], parts: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        measured(subject, held_out, **options)
    assert all(part in str(caught.value) for part in parts)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"width": 0}, {"lr": 0.0}, {"penalty": 0.0}, {"average": 1.0}])
def test_a_recipe_that_means_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        Recipe(**wrong)
