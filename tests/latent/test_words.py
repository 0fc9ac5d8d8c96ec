"""Plain names, and sentences about effects that were put into the pictures by hand."""

from __future__ import annotations

import numpy as np
import pytest

from orthogan.latent.words import change_of, describe_effect, plain_name, strength


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("0", "Direction 0"),
        ("z12", "Direction 12"),
        ("w3", "Direction 3"),
        ("z3.1", "Layer 3, direction 1"),
        ("smile", "smile"),
        ("z", "z"),
        ("x4", "x4"),
        ("random 1", "Random 1"),
        ("", ""),
    ],
)
def test_names_that_nobody_gave_are_spelled_out(name: str, plain: str) -> None:
    assert plain_name(name) == plain


def pictures(change: np.ndarray, *, n: int = 8, channels: int = 3, side: int = 32) -> tuple[np.ndarray, ...]:
    """``n`` grey pictures at -1, 0 and +1, where ``change`` (n, c, h, w) is added and taken away."""
    middle = np.full((n, channels, side, side), 120.0)
    return tuple((middle + sign * change).astype(np.uint8) for sign in (-1, 0, 1))


def test_an_effect_is_named_with_its_strength_place_and_direction() -> None:
    change = np.zeros((8, 3, 32, 32))
    change[:, :, 8:24, 8:24] = 80  # a quarter of the pixels
    assert describe_effect(*pictures(change)) == "Strong change, mostly in the middle. Slide right: brighter."
    assert describe_effect(*pictures(-change)) == "Strong change, mostly in the middle. Slide right: darker."
    half = np.zeros((8, 3, 32, 32))
    half[:, :, :16] = 10
    assert describe_effect(*pictures(half)) == "Clear change, mostly in the upper half. Slide right: brighter."
    edges = np.full((8, 3, 32, 32), 4.0)
    edges[:, :, 5:27, 5:27] = 0
    assert describe_effect(*pictures(edges)).startswith("Subtle change, mostly near the edges")


def test_colors_are_named_by_the_channel_that_moves_most() -> None:
    for channel, (more, less) in enumerate(
        [("redder", "more cyan"), ("greener", "more purple"), ("bluer", "more yellow")]
    ):
        change = np.full((8, 3, 32, 32), -10.0)
        change[:, channel] = 20
        assert describe_effect(*pictures(change)) == f"Strong change. Slide right: {more}."
        assert describe_effect(*pictures(-change)) == f"Strong change. Slide right: {less}."


def test_alpha_is_seen_on_white() -> None:
    change = np.zeros((8, 4, 32, 32))
    change[:, 3] = 60  # gray that becomes more opaque hides the white behind it
    for shown in (change, change[:, 2:]):
        found = describe_effect(*pictures(shown, channels=shown.shape[1]))
        assert found == "Strong change. Slide right: darker."


def test_pictures_that_disagree_have_no_direction() -> None:
    change = np.full((8, 3, 32, 32), 20.0)
    change[:4] *= -1
    assert describe_effect(*pictures(change)) == "Strong change."
    change[:3] *= -1  # one of eight is left
    assert describe_effect(*pictures(change)) == "Strong change. Slide right: brighter."


def test_what_changes_nothing_is_hardly_visible() -> None:
    still = np.zeros((8, 1, 32, 32))
    assert describe_effect(*pictures(still, channels=1)) == "Hardly visible."
    assert change_of(*pictures(still, channels=1)) == 0


def test_the_change_is_the_mean_over_pixels_and_both_ends() -> None:
    low, middle, high = pictures(np.full((2, 1, 4, 4), 6.0), n=2, channels=1, side=4)
    assert change_of(low, middle, high) == 6
    assert change_of(middle, middle, high) == 3
    assert [strength(value) for value in (0, 1, 3.9, 4, 12)] == [
        "Hardly visible",
        "Subtle",
        "Subtle",
        "Clear",
        "Strong",
    ]
