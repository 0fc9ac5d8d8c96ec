"""Directions with names: generators whose factors are known linear functions of the latent give them back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from orthogan.errors import UserError
from orthogan.latent import Labels
from orthogan.latent.discovery import discover, find_directions, labels, marked, oracle, text
from orthogan.latent.discovery.boundary import CORRELATION, fit_row, held_out, orthogonal_to_others
from orthogan.latent.discovery.probe import fit_probe
from orthogan.latent.labels import Spot
from orthogan.models.generate import sample_latents
from tests.fixtures.latent_nets import KNOWN, PixelFactors, Pixels

SEEDS = range(400)


def coordinates(net: PixelFactors) -> tuple[np.ndarray, np.ndarray]:
    """Latents of ``SEEDS``, and the factors that they have."""
    z = sample_latents(net, SEEDS).double().numpy()
    return z, z @ KNOWN.T


def cosines(found: np.ndarray, expected: np.ndarray = KNOWN) -> np.ndarray:
    return (found * expected).sum(axis=1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)


def test_an_oracle_gives_the_known_directions_back() -> None:
    found = oracle(PixelFactors(), reader=Pixels(), attributes=["red", "green", "blue"], samples=500)
    assert found.names == ("red", "green", "blue")
    assert cosines(found.matrix).min() > 0.999
    assert min(found.scores[CORRELATION]) > 0.99
    (blue,) = oracle(PixelFactors(), reader=Pixels(), attributes=["blue"], samples=500).names
    assert blue == "blue"
    with pytest.raises(UserError, match="there is no 'violet'; available: red, green, blue"):
        oracle(PixelFactors(), reader=Pixels(), attributes=["violet"], samples=8)


def test_numbers_that_are_linear_in_the_latent_are_regressed_exactly() -> None:
    net = PixelFactors()
    _, factors = coordinates(net)
    columns = {name: factors[:, i] for i, name in enumerate(["red", "green", "blue"])}
    found = labels(net, table=Labels.from_seeds(SEEDS, columns))
    np.testing.assert_allclose(found.matrix, KNOWN, atol=1e-5)
    assert found.scores[CORRELATION] == pytest.approx([1, 1, 1], abs=1e-6)


def test_yes_and_no_have_a_boundary_whose_normal_is_the_known_direction() -> None:
    net = PixelFactors()
    _, factors = coordinates(net)
    words = ["yes" if value > 0.3 else "no" for value in factors[:, 0]]
    hair = ["" if i % 7 == 0 else "short" if value > 0 else "long" for i, value in enumerate(factors[:, 2])]
    table = Labels.from_seeds(SEEDS, {"red": words, "hair": hair})
    assert table.names == ("red", "hair: short")
    found = labels(net, table=table)
    assert cosines(found.matrix, KNOWN[[0, 2]]).min() > 0.98
    # what the boundary of the first says of new latents
    new = sample_latents(net, range(1000, 2000)).double().numpy()
    agree = np.sign(new @ found.matrix[1]) == np.sign(new @ KNOWN[2])
    assert agree.mean() > 0.93


def test_a_few_marked_pictures_give_the_difference_of_their_means() -> None:
    net = PixelFactors()
    groups = Labels.from_groups("0-5", "6,8,9,20-22", net, name="smile")
    found = marked(net, groups=groups)
    means = [sample_latents(net, seeds).mean(0) for seeds in (range(6), [6, 8, 9, 20, 21, 22])]
    expected = torch.nn.functional.normalize(means[1] - means[0], dim=0)
    torch.testing.assert_close(torch.from_numpy(found.matrix[0].copy()), expected, atol=1e-5, rtol=0)
    assert found.names == ("smile",)
    with pytest.raises(UserError, match="seed 3 is in both"):
        Labels.from_groups("0-5", "3,7", net)
    with pytest.raises(UserError, match="smile: 4 yes and 1 no; at least 2"):
        marked(net, groups=Labels.from_groups("0", "1-4", net, name="smile"))


def test_a_probe_of_features_makes_more_of_a_few_marks() -> None:
    net = PixelFactors()
    _, factors = coordinates(net)
    yes, no = (np.flatnonzero(some)[:8] for some in (factors[:, 2] > 0, factors[:, 2] <= 0))
    groups = Labels.from_groups(",".join(map(str, no)), ",".join(map(str, yes)), net, name="blue")
    plain = marked(net, groups=groups)
    found = marked(net, groups=groups, features=lambda images: images[:, 0, 0].float(), samples=300)
    assert cosines(found.matrix, KNOWN[[2]])[0] > max(0.9, cosines(plain.matrix, KNOWN[[2]])[0])


def test_conditional_directions_keep_all_other_factors() -> None:
    net = PixelFactors()
    _, factors = coordinates(net)
    columns = {name: factors[:, i] for i, name in enumerate(["red", "green", "blue"])}
    found = labels(net, table=Labels.from_seeds(SEEDS, columns), conditional=True)
    moved = found.matrix @ KNOWN.T  # what a step along each direction does to each factor
    np.testing.assert_allclose(moved - np.diag(np.diag(moved)), 0, atol=1e-5)
    assert np.diag(moved).min() > 0.5
    assert found.method == "labels, conditional"
    # the formula of the paper for two directions
    first, second = KNOWN[:2]
    expected = first - (first @ second) * second
    np.testing.assert_allclose(
        orthogonal_to_others(KNOWN[:2], ["a", "b"], ["a", "b"])[0], expected / np.linalg.norm(expected), atol=1e-12
    )
    # values of one factor may depend on each other
    same = orthogonal_to_others(np.array([[1.0, 0], [-1, 0], [0, 1]]), ["a", "a", "b"], ["x", "y", "z"])
    np.testing.assert_allclose(same, [[1, 0], [-1, 0], [0, 1]])
    with pytest.raises(UserError, match="'x' is nearly a combination of the other 2"):
        orthogonal_to_others(np.array([[1.0, 0], [0.8, 0.6], [0, 1]]), ["a", "b", "c"], ["x", "y", "z"])


def test_texts_give_the_direction_along_which_their_similarity_rises() -> None:
    class Words:
        """Pictures resemble "red" as much as their first pixel is bright, and "blue" as much as their third."""

        def embed_texts(self, texts: list[str]) -> Tensor:
            return torch.tensor([[float("red" in one), float("blue" in one), 1.0] for one in texts])

        def embed_images(self, images: Tensor) -> Tensor:
            pixels = images[:, 0, 0].float() / 255
            return torch.stack([pixels[:, 0], pixels[:, 2], torch.full((len(images),), 3.0)], dim=1)

    net = PixelFactors()
    found = text(net, prompts=["a red thing", "a blue thing"], model=Words(), samples=500)
    assert cosines(found.matrix, KNOWN[[0, 2]]).min() > 0.95
    with pytest.raises(UserError, match="means the same to the model"):
        text(net, prompts=["a thing"], model=Words(), samples=500)
    scored = discover(net, "text", prompts=["red", "blue"], model=Words(), samples=500, control=3)
    assert min(scored.directions.scores["effect"]) > max(scored.control.scores["effect"])
    assert scored.directions.notes == ("", "")


def test_random_labels_are_not_predicted() -> None:
    noise = np.random.default_rng(0)
    latents, values = noise.normal(size=(60, 8)), noise.permutation([0.0, 1.0] * 30)
    assert abs(held_out(latents, values)) < 0.35
    assert np.linalg.norm(fit_row(latents, values)) == pytest.approx(1)


def test_methods_name_what_they_need() -> None:
    for method, option in (("labels", "--labels"), ("marked", "--marked"), ("oracle", "--data"), ("text", "--clip")):
        with pytest.raises(UserError, match=f"method {method}: needs .*{option}"):
            find_directions(PixelFactors(), method)


def test_a_probe_of_the_labeled_pictures_scores_directions_from_labels() -> None:
    net = PixelFactors()
    _, factors = coordinates(net)
    table = Labels.from_seeds(SEEDS[:120], {n: (factors[:120, i] > 0).astype(int) for i, n in enumerate("ab")})

    def features(images: Tensor) -> Tensor:
        return images[:, 0, 0].float()

    probe = fit_probe(net, table, features)
    assert min(probe.correlation.values()) > 0.7
    new = sample_latents(net, range(500, 700))
    read = probe.read(((net(new).clamp(-1, 1) + 1) * 127.5).to(torch.uint8).numpy())
    assert ((read[:, 0] > 0.5) == (new.numpy() @ KNOWN[0] > 0)).mean() > 0.9
    scored = discover(net, "labels", table=table, features=features, control=3)
    assert {"effect", "leakage", "feature distance"} <= scored.directions.scores.keys()
    assert min(scored.directions.scores["effect"]) > np.mean(scored.control.scores["effect"])


def test_latents_of_another_space_or_truncation_are_refused() -> None:
    net = PixelFactors()
    own = Spot(3, latent=(1.0,) * 6)
    assert Labels([own], np.ones((1, 1)), ["a"]).latents(net).tolist() == [[1.0] * 6]
    with pytest.raises(UserError, match=r"latent of 2 dimensions in 'w'.*use --space w"):
        Labels([Spot(3, latent=(1.0, 2.0), space="w")], np.ones((1, 1)), ["a"]).latents(net)
