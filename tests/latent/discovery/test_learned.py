"""The reconstructor's directions, the scores of given ones, and several methods in one file."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from orthogan.errors import UserError
from orthogan.latent.directions import Directions, random_control
from orthogan.latent.discovery import latent_axes, learned, merge, random_basis, rca, score
from orthogan.latent.discovery.learned import Reconstructor, shifts
from orthogan.latent.traverse import traverse
from orthogan.linalg.rotations import qr
from orthogan.models.generate import sample_label, sample_latents
from orthogan.rng import derive
from tests.fixtures.disc import Disc
from tests.fixtures.latent_nets import Bars, Linear, assert_same_lines

# ---- learned ----


def test_learned_directions_turn_away_from_the_dead_part_of_the_latent() -> None:
    net = Bars(dim=6, live=2)
    start = random_control(6, 2, derive(1, "learned", "start")).matrix
    found = learned(net, components=2, steps=120, lr=2e-2, pairs=40, seed=1)
    assert np.allclose(found.matrix @ found.matrix.T, np.eye(2), atol=1e-5)
    assert (found.matrix[:, :2] ** 2).sum() > 2 * (start[:, :2] ** 2).sum()
    assert np.mean(found.scores["rca"]) > 0.8
    assert list(found.scores["rca"]) == sorted(found.scores["rca"], reverse=True)


@pytest.mark.filterwarnings("ignore:the directions are classified")  # after four steps they are not
def test_learning_is_a_function_of_its_seed_and_leaves_the_generator_alone() -> None:
    net = Disc(dim=4, resolution=8).train()
    before = copy.deepcopy(net.state_dict())
    state = torch.random.get_rng_state()
    first = learned(net, components=3, steps=4, pairs=4)
    assert torch.equal(state, torch.random.get_rng_state())
    second = learned(net, components=3, steps=4, pairs=4)
    assert np.array_equal(first.matrix, second.matrix)
    assert first.scores == second.scores
    assert not np.array_equal(first.matrix, learned(net, components=3, steps=4, pairs=4, seed=1).matrix)
    assert torch.equal(before["strength"], net.strength)
    assert net.strength.grad is None
    assert net.training


def test_unfit_arguments_of_learning() -> None:
    net = Bars(4, 2)
    for wrong in ({"components": 5}, {"components": 0}, {"steps": 0}, {"lr": 0.0}, {"reach": 0.5}, {"pairs": 0}):
        with pytest.raises(UserError):
            learned(net, **{"steps": 1, "pairs": 1, **wrong})


def test_the_orthonormal_map_of_a_tall_matrix_has_the_right_gradient() -> None:
    tall = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    assert torch.autograd.gradcheck(qr, (tall,))


@given(st.integers(0, 10**6), st.floats(0.6, 20))
@settings(max_examples=30, deadline=None)
def test_shifts_are_spread_over_the_reach_but_never_small(seed: int, reach: float) -> None:
    drawn = shifts(400, reach, torch.Generator().manual_seed(seed)).numpy()
    assert np.abs(drawn).min() >= 0.5
    assert np.abs(drawn).max() <= reach + 1e-6
    assert abs((drawn > 0).mean() - 0.5) < 0.15
    assert np.abs(drawn).max() > 0.9 * reach


@pytest.mark.parametrize("side", [1, 5, 32])
def test_the_reconstructor_takes_any_size(side: int) -> None:
    net = Reconstructor(3, 7, width=8)
    x = torch.randn(4, 3, side, side)
    logits, shift = net(x, x + 1)
    assert logits.shape == (4, 7)
    assert shift.shape == (4,)
    twin = copy.deepcopy(net)
    twin.load_state_dict(net.state_dict())
    assert torch.equal(twin.eval()(x, x)[0], net.eval()(x, x)[0])


# ---- scores ----


def test_change_and_activeness_of_a_linear_generator_in_closed_form() -> None:
    net = Linear([0.05, 0.02])
    with torch.no_grad():
        net.fc.bias.zero_()  # all pixels within [-1, 1]
    rows = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 3.0]])
    found = score(net, Directions(rows, method="by hand", scores={"mine": [1, 2, 3]}), seeds=range(4))
    slope = rows @ net.fc.weight.detach().double().numpy().T
    assert found.scores["change"] == pytest.approx(np.abs(slope).mean(1) * 127.5, rel=1e-4)
    unit = slope / np.linalg.norm(rows, axis=1)[:, None]
    assert found.scores["activeness"] == pytest.approx((unit**2).mean(1) * 4, rel=1e-4)  # var(-2, 0, 2) = 4
    assert found.scores["mine"] == (1, 2, 3)


def test_change_is_that_of_the_traversal_up_to_rounding_to_grey_levels() -> None:
    net = Disc(dim=4, resolution=16, num_classes=3)
    axes = latent_axes(net)
    for y in (None, 1):
        found = score(net, axes, seeds=[5], y=y)
        walk = traverse(net, axes, range=1.0, steps=3, seed=5, y=y)
        assert found.scores["change"] == pytest.approx([row["change"] for row in walk.scores], abs=0.3)


def test_activeness_sets_the_coordinate_to_minus_two_zero_and_two() -> None:
    net = Disc(dim=4, resolution=8, num_classes=3)
    found = score(net, latent_axes(net), seeds=[3, 1, 7], batch_size=4)
    for axis, activeness in enumerate(found.scores["activeness"]):
        spread = []
        for seed in (3, 1, 7):
            z = sample_latents(net, [seed]).repeat(3, 1)
            z[:, axis] = torch.tensor([-2.0, 0.0, 2.0])
            spread.append(net(z, torch.full((3,), sample_label(net, seed) or 0)).detach().var(dim=0).mean())
        assert activeness == pytest.approx(float(np.mean(spread)), rel=1e-4)


def test_activeness_ranks_the_live_coordinates_first() -> None:
    net = Disc(dim=6, resolution=16)
    found = score(net, latent_axes(net), seeds=range(8), batch_size=5)
    activeness = found.scores["activeness"]
    assert min(activeness[:4]) > 1e-4
    assert activeness[4:] == (0, 0)
    assert found.scores["change"][4:] == (0, 0)
    whole = score(net, latent_axes(net), seeds=range(8), batch_size=1000)
    assert whole.scores["activeness"] == pytest.approx(activeness, rel=1e-5)


def test_scores_refuse_what_does_not_fit() -> None:
    net = Disc(dim=4, resolution=8)
    for tool in (score, rca):
        with pytest.raises(UserError, match="latent of 3 dimensions"):
            tool(net, random_control(3, 2, 0))
    with pytest.raises(UserError, match="seeds"):
        score(net, latent_axes(net), seeds=[])
    with pytest.raises(UserError, match="unconditional"):
        score(net, latent_axes(net), y=1)


def test_a_small_net_tells_live_directions_apart_and_dead_ones_not() -> None:
    net = Bars(dim=6, live=4)
    live = rca(net, latent_axes(net).select([0, 1, 2, 3]), steps=120, lr=3e-3, pairs=40)
    assert min(live.scores["rca"]) > 0.9
    with pytest.warns(UserWarning, match="50.0% by chance"):
        dead = rca(net, latent_axes(net).select([4, 5]), steps=20, pairs=40)
    assert np.mean(dead.scores["rca"]) == pytest.approx(0.5, abs=0.2)


# ---- merge ----


def test_merging_keeps_each_line_once_and_says_where_the_others_went() -> None:
    eye = np.eye(4)
    first = Directions(eye[:2], method="sefa", scores={"sigma": [2, 1], "own": [0, 0]}, notes=["", "dull"], layer="fc")
    near = np.array([[-0.99, 0.1, 0, 0], [0, 0, 5.0, 0]])
    second = Directions(near, method="pca", scores={"sigma": [7, 6]}, names=["pca one", "two"], layer="block")
    found = merge([first, second, replace(second, method="again")])
    assert found.names == ("sefa 0", "sefa 1", "pca two")
    assert_same_lines(found.matrix, eye[:3])
    assert found.matrix[2, 2] == 5
    assert found.notes == (
        "also pca one (cosine 0.99); also again pca one (cosine 0.99)",
        "dull",
        "also again two (cosine 1.00)",
    )
    assert found.scores == {"sigma": (2, 1, 6)}
    assert found.method == "sefa + pca + again"
    assert found.layer == ""


@given(st.integers(0, 10**6), st.floats(0.3, 1.0))
@settings(max_examples=30, deadline=None)
def test_no_two_merged_rows_are_nearly_parallel_and_no_line_is_lost(seed: int, threshold: float) -> None:
    rows = np.random.default_rng(seed).normal(size=(9, 3))
    parts = [Directions(rows[i : i + 3], method=f"m{i}") for i in (0, 3, 6)]
    found = merge(parts, threshold=threshold)
    cosine = lambda a, b: np.abs(a @ b.T) / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)  # noqa: E731
    kept = found.matrix.astype(np.float64)
    assert (cosine(kept, kept) - np.eye(len(kept))).max() <= threshold + 1e-6
    near = cosine(rows, kept).max(axis=1)
    assert (near > threshold - 1e-6).all()
    assert np.array_equal(kept[0], rows[0].astype(np.float32))


def test_merging_one_file_changes_only_its_names() -> None:
    net = Bars(4, 2)
    basis = random_basis(net)
    found = merge([basis])
    assert np.array_equal(found.matrix, basis.matrix)
    assert found.names == basis.names  # "random 1" begins with its method
    assert found.model_hash == basis.model_hash


def test_what_cannot_be_merged() -> None:
    one = Directions(np.eye(3), method="a", model_hash="1")
    for other in (
        Directions(np.eye(2), method="b"),
        replace(one, space="w"),
        replace(one, unit="pixels"),
        replace(one, model_hash="2"),
    ):
        with pytest.raises(UserError, match="differ in"):
            merge([one, other])
    merge([one, replace(one, model_hash="")])
    for threshold in (0.0, 1.1):
        with pytest.raises(UserError, match="threshold"):
            merge([one], threshold=threshold)
    with pytest.raises(UserError, match="nothing to merge"):
        merge([])
