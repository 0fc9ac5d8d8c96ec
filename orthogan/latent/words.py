"""Directions in plain words: a name to call them by, and a sentence about what they change, measured on pictures."""

from __future__ import annotations

import re

import numpy as np

# Mean change of a pixel at an offset of one, in gray levels of 255, from which a word applies.
STRENGTHS = ((12.0, "Strong"), (4.0, "Clear"), (1.0, "Subtle"), (0.0, "Hardly visible"))
_AGREE = 0.8  # share of the pictures that have to agree before an effect is named
_BRIGHTER = 0.3  # of the change, before it counts as one of brightness
_TINTED = 0.3  # and as one of color
_PLACED = 0.68  # share of the change in a half of the picture, before the half is named
_TINTS = (("redder", "more cyan"), ("greener", "more purple"), ("bluer", "more yellow"))


def plain_name(name: str) -> str:
    """What to call a direction: "Direction 4" for "4" or "z4", "Layer 3, direction 1" for "z3.1", else its own name.

    Example:
        >>> plain_name("z3.1"), plain_name("4"), plain_name("smile")
        ('Layer 3, direction 1', 'Direction 4', 'smile')
    """
    if found := re.fullmatch(r"[zw]?(\d+)", name):
        return f"Direction {found[1]}"
    if found := re.fullmatch(r"[zw](\d+)\.(\d+)", name):
        return f"Layer {found[1]}, direction {found[2]}"
    return name.capitalize() if re.fullmatch(r"random \d+", name) else name


def strength(change: float) -> str:
    """A word for the mean change of a pixel [gray levels of 255] at an offset of one.

    Example:
        >>> strength(15.0), strength(0.2)
        ('Strong', 'Hardly visible')
    """
    return next(word for least, word in STRENGTHS if change >= least)


def describe_effect(low: np.ndarray, middle: np.ndarray, high: np.ndarray) -> str:
    """A sentence or two about a direction: how strong it is, where it acts, and how brightness and color change.

    An effect is named only if it is a good part of the whole change and most of the pictures agree on it.

    Args:
        low: pictures at an offset of -1, uint8 (n, c, h, w).
        middle: the same pictures at 0.
        high: at +1.
    """
    from orthogan.drawing.grid import on_white  # it imports torch

    low, middle, high = on_white(low), on_white(middle), on_white(high)
    change = change_of(low, middle, high)
    if change < STRENGTHS[-2][0]:
        return "Hardly visible."
    half = (high.astype(np.float64) - low) / 2
    size = (np.abs(high.astype(np.float64) - middle) + np.abs(low.astype(np.float64) - middle)).mean(axis=(0, 1))
    sentence = f"{strength(change)} change{_place(size / size.sum())}."
    per_channel = half.mean(axis=(2, 3))  # (n, c)
    brighter = per_channel.mean(axis=1)
    effects = []
    if _agreed(brighter, _BRIGHTER * change):
        effects.append("brighter" if brighter.mean() > 0 else "darker")
    if per_channel.shape[1] == 3:
        tint = per_channel - brighter[:, None]
        channel = int(np.abs(tint.mean(axis=0)).argmax())
        if _agreed(tint[:, channel], _TINTED * change):
            effects.append(_TINTS[channel][int(tint[:, channel].mean() < 0)])
    return sentence + (f" Slide right: {' and '.join(effects)}." if effects else "")


def change_of(low: np.ndarray, middle: np.ndarray, high: np.ndarray) -> float:
    """The mean absolute change of a pixel from the middle to both ends, in gray levels of 255."""
    centre = middle.astype(np.int16)
    return float((np.abs(high.astype(np.int16) - centre).mean() + np.abs(low.astype(np.int16) - centre).mean()) / 2)


def _agreed(values: np.ndarray, least: float) -> bool:
    mean = values.mean()
    return abs(mean) >= least and bool((np.sign(values) == np.sign(mean)).mean() >= _AGREE)


def _place(share: np.ndarray) -> str:
    """Where most of the change is; ``share`` (h, w) sums to one. The middle is the central half of the area."""
    height, width = share.shape
    top, left = round(height * 0.146), round(width * 0.146)  # a square of half the area
    halves = {
        "in the middle": share[top : height - top, left : width - left].sum(),
        "in the upper half": share[: height // 2].sum(),
        "in the lower half": share[(height + 1) // 2 :].sum(),
        "in the left half": share[:, : width // 2].sum(),
        "in the right half": share[:, (width + 1) // 2 :].sum(),
    }
    halves["near the edges"] = 1 - halves["in the middle"]
    where = max(halves, key=lambda name: halves[name])
    return f", mostly {where}" if halves[where] >= _PLACED else ""
