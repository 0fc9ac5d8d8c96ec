"""beta-VAE and FactorVAE scores against loops over what was drawn, and encoders whose score is known."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from orthogan.disentanglement import GridSource, Score, SpriteSource, beta_vae, factor_vae
from tests.fixtures.toy import Recorder

SIZES = (3, 4, 1, 5)
MIX = np.random.default_rng(0).standard_normal((4, 6)) ** 3


def mixed(factors: np.ndarray) -> np.ndarray:
    codes = np.tanh(factors @ MIX / 8)
    codes[:, 2] = 4.0  # still
    codes[:, 4] *= 1e-3  # faint
    return codes


def short_factor(encoder, source=None, **options) -> Score:
    sizes = {"variance_samples": 200, "train_votes": 150, "test_votes": 75, "batch": 16} | options
    return factor_vae(source or Recorder(SIZES), encoder, **sizes)


def short_beta(encoder, source=None, **options) -> Score:
    sizes = {"train_points": 200, "test_points": 100, "batch": 16} | options
    return beta_vae(source or Recorder(SIZES), encoder, **sizes)


def test_votes_are_those_of_a_loop_over_what_was_drawn() -> None:
    source = Recorder(SIZES)
    found = short_factor(mixed, source)
    drawn = source.all()
    first = [[row[i] for row in mixed(drawn[:200])] for i in range(6)]
    spread = [np.var(code, ddof=1) for code in first]
    kept = [i for i in range(6) if spread[i] ** 0.5 >= 0.05 * max(spread) ** 0.5 and i != 2]
    votes: Counter[tuple[int, int]] = Counter()
    tests: Counter[tuple[int, int]] = Counter()
    for number in range(225):
        batch = drawn[200 + 16 * number : 216 + 16 * number]
        held = [k for k in (0, 1, 3) if len(set(batch[:, k].tolist())) == 1]
        assert len(held) == 1
        codes = mixed(batch)
        ratios = {i: np.var([row[i] for row in codes], ddof=1) / spread[i] for i in kept}
        (votes if number < 150 else tests)[(held[0], min(kept, key=lambda i: ratios[i]))] += 1
    table = [[votes[(k, i)] for i in range(6)] for k in range(4)]
    np.testing.assert_array_equal(found.details["votes"], table)
    assert found.details["active"].tolist() == kept == [0, 1, 3]
    majority = {i: max(range(4), key=lambda k: (votes[(k, i)], -k)) for i in kept if sum(np.array(table)[:, i])}
    assert found.details["train"] == pytest.approx(sum(votes[(k, i)] for i, k in majority.items()) / 150)
    assert float(found) == pytest.approx(sum(tests[(k, i)] for i, k in majority.items()) / 75)


def test_points_are_pairs_that_share_one_factor() -> None:
    source = Recorder(SIZES)
    found = short_beta(mixed, source)
    # each group of 64 points asks for its first halves, then its second halves
    features, labels = [], []
    asked = iter(source.asked)
    for first, second in zip(asked, asked, strict=True):
        for a, b in zip(first.reshape(-1, 16, 4), second.reshape(-1, 16, 4), strict=True):
            shared = [k for k in (0, 1, 3) if (a[:, k] == b[:, k]).all()]
            assert len(shared) == 1
            labels.append(shared[0])
            features.append(sum(abs(mixed(a)[r] - mixed(b)[r]) for r in range(16)) / 16)
    assert len(labels) == 300
    model = LogisticRegression(max_iter=5000).fit(features[:200], labels[:200])
    assert float(found) == pytest.approx(model.score(features[200:], labels[200:]), abs=0.011)
    assert found.details["chance"] == pytest.approx(1 / 3)
    assert found.details["factors"].tolist() == [0, 1, 3]


def test_known_encoders_score_what_they_should() -> None:
    source = Recorder((5,) * 6)
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))[0]
    for score in (short_factor, short_beta):
        straight, still, rotated, double = (
            float(score(encoder, source))
            for encoder in (
                lambda x: x,
                lambda x: 0.0 * x,
                lambda x: x @ rotation,
                lambda x: np.hstack([x, x]),
            )
        )
        assert straight > 0.95
        assert double > 0.95
        assert still < 0.3
        assert rotated < straight
    assert float(short_factor(lambda x: 0.0 * x, source)) == 0


@given(st.permutations(range(4)), st.lists(st.integers(-8, 8), min_size=4, max_size=4), st.integers(-30, 30))
@settings(max_examples=10, deadline=None)
def test_order_and_scale_of_codes_do_not_matter(order: list[int], powers: list[int], whole: int) -> None:
    def plain(factors: np.ndarray) -> np.ndarray:
        return np.tanh(factors @ MIX[:, :4] / 8)

    each = 2.0 ** np.array(powers)
    options = {"train_votes": 60, "test_votes": 30}
    expected = short_factor(plain, threshold=0.0, **options)
    moved = short_factor(lambda x: (plain(x) * each)[:, order], threshold=0.0, **options)
    assert float(moved) == float(expected)
    np.testing.assert_array_equal(moved.details["votes"], expected.details["votes"][:, order])
    # one scale for all moves nothing, whatever is pruned
    kept = short_factor(mixed, **options)
    np.testing.assert_array_equal(
        short_factor(lambda x: mixed(x) * 2.0**whole, **options).details["votes"], kept.details["votes"]
    )
    assert float(short_beta(lambda x: (plain(x) * each)[:, order], standardise=True)) == pytest.approx(
        float(short_beta(plain, standardise=True)), abs=0.05
    )


def test_pruning_is_relative_or_absolute_as_asked() -> None:
    relative, absolute = short_factor(lambda x: 1e-3 * mixed(x)), short_factor(lambda x: 1e-3 * mixed(x), absolute=True)
    assert relative.details["active"].tolist() == [0, 1, 3]
    assert absolute.details["active"].tolist() == []
    assert float(absolute) == 0
    assert (absolute.details["assigned"] == -1).all()
    assert "prune=0.05*max" in relative.name
    assert "prune=0.05," in absolute.name
    assert short_factor(mixed, threshold=0.0).details["active"].tolist() == [0, 1, 3, 4, 5]


def test_the_seed_and_nothing_else_decides() -> None:
    for score in (short_factor, short_beta):
        np.random.seed(0)
        first = float(score(mixed, seed=3))
        np.random.seed(1)
        assert float(score(mixed, seed=3)) == first
        assert np.random.randint(2**31) == np.random.RandomState(1).randint(2**31)


def test_a_grid_of_codes_and_drawn_sprites_are_sources() -> None:
    grid = np.stack(np.unravel_index(np.random.default_rng(0).permutation(60), (3, 4, 5)), axis=1)
    assert float(short_factor(lambda x: x, GridSource(grid, grid.astype(float)))) > 0.95

    def centre(pictures: np.ndarray) -> np.ndarray:
        mass = pictures.reshape(len(pictures), 64, 64).astype(float)
        line = np.arange(64)
        area = mass.sum((1, 2))
        return np.stack([area, mass.sum(1) @ line / area, mass.sum(2) @ line / area], axis=1)

    found = short_factor(centre, SpriteSource(), train_votes=60, test_votes=30)
    assert found.details["votes"][3:, 0].sum() == 0  # no place has ever been taken for an area
    assert found.details["assigned"][1:].tolist() == [3, 4]


def test_wrong_sources_sizes_and_encoders_are_refused() -> None:
    for score in (short_factor, short_beta):
        with pytest.raises(ValueError, match=r"factor_sizes=\(1, 5\)"):
            score(mixed, Recorder((1, 5)))
        with pytest.raises(ValueError, match=r"\(15, 4\)|\(199, 4\)|\(1023, 4\)"):
            score(lambda x: x[1:])
        with pytest.raises(ValueError, match="NaN"):
            score(lambda x: x * np.nan)
        with pytest.raises(ValueError, match="batch=0"):
            score(mixed, batch=0)
    with pytest.raises(ValueError, match="threshold=-1"):
        short_factor(mixed, threshold=-1)
    with pytest.raises(ValueError, match="at least 30"):
        short_beta(mixed, train_points=20)
