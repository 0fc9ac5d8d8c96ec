"""Effect, leakage, feature distance and captions, where all of them are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from orthogan.errors import UserError
from orthogan.latent import Directions, describe_factors, measure_effects
from tests.fixtures.latent_nets import KNOWN, PER_UNIT, PixelFactors, Pixels

UNIT = 4 * PER_UNIT / 2  # change of what ``Pixels`` reads between the offsets -2 and 2


def directions(*names: str) -> Directions:
    return Directions(KNOWN[: len(names)].astype(np.float32), method="mine", names=names)


def test_changes_are_those_of_the_linear_factors() -> None:
    found = measure_effects(PixelFactors(), directions("a", "b", "c"), Pixels(), seeds=range(8))
    np.testing.assert_allclose(found.columns, UNIT * KNOWN @ KNOWN.T, atol=0.01)
    assert found.distance is None


def test_a_direction_with_the_name_of_a_factor_is_scored_for_it() -> None:
    found = describe_factors(PixelFactors(), directions("red", "oracle green", "blue"), Pixels(), seeds=range(8))
    assert found.scores["effect"] == pytest.approx([UNIT] * 3, abs=0.01)
    assert found.scores["leakage"] == pytest.approx([0.6 * UNIT, 0.6 * UNIT, 0], abs=0.01)
    assert found.notes == ("red +0.3, green +0.2", "green +0.3, red +0.2", "blue +0.3")


def test_any_other_direction_is_judged_at_its_best_and_described() -> None:
    mine = Directions(
        np.array([[0, 0, -0.6, 0, -0.8, 0], [0, 0, 0, 0, 0, 1.0]], dtype=np.float32), method="sefa", notes=["x", ""]
    )
    found = describe_factors(PixelFactors(), mine, Pixels(), seeds=range(4))
    assert found.scores["effect"] == pytest.approx([UNIT, 0], abs=0.01)
    assert found.notes == ("blue -0.3; x", "no known factor")
    assert describe_factors(PixelFactors(), mine, Pixels(), captions=False, seeds=[0]).notes == mine.notes


def test_the_value_that_changes_most_stands_for_its_factor() -> None:
    class Shared(Pixels):
        groups = ("color", "color", "light")

    found = describe_factors(PixelFactors(), directions("1", "2"), Shared(), seeds=range(4))
    assert found.notes == ("red +0.3", "green +0.3")
    assert found.scores["leakage"] == pytest.approx([0, 0], abs=0.01)


def test_the_feature_distance_is_the_mean_cosine_distance_to_the_middle() -> None:
    net, row = PixelFactors(), KNOWN[1]

    def features(images: Tensor) -> Tensor:
        return images.flatten(1).float()[:, :3]

    found = describe_factors(net, directions("a", "b"), None, features, seeds=[0, 1])
    z = torch.cat([torch.as_tensor(_latent(seed)) for seed in (0, 1)])
    seen = [np.clip(np.round((PER_UNIT * (z + end * row) @ KNOWN.T + 1) * 127.5), 0, 255) for end in (-2, 0, 2)]
    low, middle, high = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in map(np.asarray, seen))
    expected = 1 - ((low * middle).sum(1) + (high * middle).sum(1)).mean() / 2
    assert found.scores["feature distance"][1] == pytest.approx(expected, abs=2e-3)
    assert "effect" not in found.scores


def _latent(seed: int) -> np.ndarray:
    from orthogan.models.generate import sample_latents

    return sample_latents(PixelFactors(), [seed]).double().numpy()


def test_a_reader_of_another_shape_is_named() -> None:
    class Wrong(Pixels):
        def read(self, images: np.ndarray) -> np.ndarray:
            return np.zeros(len(images))

    with pytest.raises(UserError, match=r"Wrong: read\(\) returned \(2,\) for 2 images and 3 names"):
        measure_effects(PixelFactors(), directions("a"), Wrong(), seeds=[0, 1])
    with pytest.raises(UserError, match="seeds: at least one"):
        measure_effects(PixelFactors(), directions("a"), Pixels(), seeds=[])
