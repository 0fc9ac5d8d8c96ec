"""Skew orthogonal convolutions over a whole net."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from orthogan.layers.skew_orthogonal import skew_orthogonal
from orthogan.weights.selection import select


def make_skew_orthogonal(
    module: nn.Module, layers: str | Sequence[str] = "conv", *, terms: int = 5, eval_terms: int | None = None
) -> list[str]:
    """Put a fresh ``SkewOrthogonalConv2d`` in place of convolutions below ``module``; returns their names.

    Args:
        layers: which ones, in the words of ``orthogan.weights.select``.

    Raises:
        ValueError: nothing is chosen, or a chosen layer cannot be one (see ``skew_orthogonal``); nothing is
            replaced then.
    """
    new: dict[str, nn.Module] = {}
    for found in select(module, layers):
        if not found.name:
            raise ValueError("a layer cannot replace itself: use skew_orthogonal(conv), which returns the new one")
        try:
            new[found.name] = skew_orthogonal(found.layer, terms=terms, eval_terms=eval_terms)  # pyright: ignore
        except ValueError as error:
            raise ValueError(f"{found.name}: {error}") from error
    for name, layer in new.items():
        parent, _, child = name.rpartition(".")
        setattr(module.get_submodule(parent), child, layer)
    return list(new)
