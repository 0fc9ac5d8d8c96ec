"""Variation predictability of generators whose dimensions do distinct, equal or no things."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from orthogan.disentanglement import vp
from orthogan.latent import Directions, random_control
from tests.fixtures.quadrants import Quadrants

QUICK: dict[str, Any] = {"pairs": 1000, "epochs": 4, "lr": 3e-3}  # few steps ask for a higher rate


def test_dimensions_that_move_distinct_things_are_told_apart() -> None:
    net = Quadrants()
    net.train()
    score = vp(net, **QUICK)
    assert score.value > 0.9
    assert score.details["chance"] == 0.25
    assert net.training
    assert all(p.grad is None for p in net.parameters())
    confusion = score.details["confusion"]
    assert confusion.sum() == 300
    assert confusion.trace() / 300 == pytest.approx(score.value)
    np.testing.assert_allclose(score.details["per_direction"], confusion.diagonal() / confusion.sum(1))


def test_a_generator_that_ignores_its_latent_is_at_chance() -> None:
    score = vp(Quadrants((None,) * 4), **QUICK)
    assert abs(score.value - 0.25) < 0.1


def test_dimensions_that_do_the_same_are_taken_for_each_other() -> None:
    score = vp(Quadrants((0, 1, 0)), **QUICK)
    confusion = score.details["confusion"]
    shares = confusion / confusion.sum(1, keepdims=True)
    assert shares[1, 1] > 0.9
    assert shares[0, 2] + shares[2, 0] > 0.6  # half of the time each, whichever way the net leans
    assert shares[0, 1] + shares[2, 1] < 0.2


def test_a_rotated_basis_scores_lower_where_dimensions_meet_in_one_pixel() -> None:
    net = Quadrants((0, 0, 0, 1))
    mixed = random_control(4, 4, 0)
    assert vp(net, mixed, **QUICK).value < 0.75


def test_the_same_seed_gives_the_same_score_and_another_one_another_pair_set() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, second, other = (vp(Quadrants(), pairs=200, epochs=1, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.value == second.value
    np.testing.assert_array_equal(first.details["confusion"], second.details["confusion"])
    assert not np.array_equal(first.details["confusion"].sum(1), other.details["confusion"].sum(1))


def test_the_published_protocol_chooses_on_the_test_pairs() -> None:
    score = vp(Quadrants(), protocol="published", pairs=400, epochs=3, inputs="both", reach=4, noise_scale=0.7)
    assert "pairs=40+0+360" in score.variant
    assert "epoch by test" in score.variant
    assert "both,reach=4,noise=0.7" in score.variant
    assert "float32" in score.variant
    assert score.value == pytest.approx(score.details["curve"].max())
    assert score.details["curve"][score.details["epoch"] - 1] == pytest.approx(score.value)
    assert score.details["curve"][-1] == pytest.approx(score.details["last"])


def test_pairs_share_all_but_one_coordinate_and_the_rest() -> None:
    seen: list[torch.Tensor] = []

    class Recorder(Quadrants):
        def forward(self, z: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
            seen.append(z.clone())
            return super().forward(z, y)

    net = Recorder((0, 1, 2, 3, None, None))
    lines = Directions(np.eye(3, 6), method="test")
    vp(net, lines, pairs=100, epochs=1, reach=1.5, noise_scale=0.0)
    before, after = seen[1], seen[2]  # the first call only tries the generator
    assert ((before != after).sum(1) <= 1).all()
    assert float(before[:, :3].abs().max()) <= 1.5
    assert float(before[:, :3].abs().max()) > 1.3
    assert float(before[:, 3:].abs().max()) < 1e-6
    assert set((before != after).nonzero()[:, 1].tolist()) == {0, 1, 2}


def test_larger_images_are_averaged_down_and_the_variant_says_so() -> None:
    class Large(Quadrants):
        def forward(self, z: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
            return super().forward(z, y).repeat(1, 3, 16, 16)

    score = vp(Large(), pairs=60, epochs=1)
    assert "side=32" in score.variant
    assert "side" not in vp(Quadrants(), pairs=60, epochs=1).variant


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "publishd"}, "protocol='publishd'"),
        ({"inputs": "sum"}, "inputs='sum'"),
        ({"epochs": 0}, "epochs=0"),
        ({"pairs": 2}, "pairs=2"),
        ({"train_share": 0.95}, "train_share=0.95"),
        ({"reach": 0.0}, "reach=0.0"),
    ],
)
def test_numbers_that_make_no_protocol_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vp(Quadrants(), **options)


def test_one_direction_cannot_be_told_from_others() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        vp(Quadrants(), Directions(np.eye(1, 4), method="test"))
