from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthogan.data.order import epoch_permutation, permuted_index, subset


@given(seed=st.integers(0, 2**62), n=st.integers(1, 60), epoch=st.integers(0, 5))
def test_every_epoch_shows_every_image_once(seed: int, n: int, epoch: int) -> None:
    assert sorted(permuted_index(seed, n, epoch * n, n)) == list(range(n))


@given(n=st.integers(1, 20), position=st.integers(0, 100), first=st.integers(0, 50), second=st.integers(0, 50))
def test_pieces_join_to_the_whole(n: int, position: int, first: int, second: int) -> None:
    pieces = [permuted_index(3, n, position, first), permuted_index(3, n, position + first, second)]
    np.testing.assert_array_equal(np.concatenate(pieces), permuted_index(3, n, position, first + second))


def test_order_depends_on_seed_and_epoch() -> None:
    orders = {tuple(epoch_permutation(seed, 50, epoch)) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16


def test_order_is_pinned() -> None:
    """A resumed run of another machine or release must see the same images."""
    assert permuted_index(7, 10, 0, 12).tolist() == [0, 3, 1, 2, 6, 9, 8, 7, 4, 5, 3, 6]


def test_permutations_are_uniform() -> None:
    """Each of the 6 orders of 3 images, 1,200 times expected 200: chi-square of 5 degrees, p = 1e-4 at 25.7."""
    counts: dict[tuple[int, ...], int] = {}
    for epoch in range(1200):
        order = tuple(epoch_permutation(11, 3, epoch).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert sum((c - 200) ** 2 / 200 for c in counts.values()) + 200 * (6 - len(counts)) < 25.7


@given(n=st.integers(1, 400), share=st.floats(0, 1), seed=st.integers(0, 100))
def test_subset_is_distinct_and_in_range(n: int, share: float, seed: int) -> None:
    count = int(share * n)
    chosen = subset(seed, n, count)
    assert len(set(chosen.tolist())) == count
    assert count == 0 or (chosen.min() >= 0 and chosen.max() < n)


def test_small_subset_of_a_huge_range_grows_by_appending() -> None:
    small, large = subset(5, 10**12, 50), subset(5, 10**12, 5000)
    np.testing.assert_array_equal(small, large[:50])
    assert large.max() > 10**11


@pytest.mark.parametrize("arguments", [(0, 0, 0, 1), (0, 5, -1, 1), (0, 5, 0, -1)])
def test_impossible_requests(arguments: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="need n >= 1"):
        permuted_index(*arguments)


def test_subset_larger_than_the_set() -> None:
    with pytest.raises(ValueError, match="cannot take 4"):
        subset(0, 3, 4)
