"""Layers of another kind put in place of a net's own, wherever they stand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from orthogan.layers.householder_pixel import HouseholderPixel
from orthogan.layers.householder_projector import HouseholderProjector
from orthogan.layers.skew_orthogonal import skew_orthogonal
from orthogan.weights.selection import refuse_tied, select


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
    return _replace(
        module,
        layers,
        lambda layer: skew_orthogonal(layer, terms=terms, eval_terms=eval_terms),  # pyright: ignore
        "skew_orthogonal(conv)",
    )


def make_householder(
    module: nn.Module, layers: str | Sequence[str] = "first", *, rank: int = 10, scale: float | None = 1.0
) -> list[str]:
    """Put a ``HouseholderProjector``, fitted to the present weight, in place of linear layers; returns their names.

    A transposed convolution that takes one pixel, as the first of a DCGAN-like generator, becomes a
    ``HouseholderPixel``. ``orthogan.weights.remove`` takes them all off again.

    Args:
        layers: which ones, in the words of ``orthogan.weights.select``.
        rank: number of directions, with the singular value ``scale`` each (None: the root mean square of those kept).

    Raises:
        ValueError: nothing is chosen, or a chosen layer cannot be one; nothing is replaced then.
    """

    def projector(layer: nn.Module) -> nn.Module:
        if isinstance(layer, nn.ConvTranspose2d):
            return HouseholderPixel.from_transposed(layer, rank, scale=scale)
        return HouseholderProjector.from_linear(layer, rank, scale=scale)  # pyright: ignore

    return _replace(module, layers, projector, "HouseholderProjector.from_linear(linear)")


def _replace(
    module: nn.Module, layers: str | Sequence[str], make: Callable[[nn.Module], nn.Module], alone: str
) -> list[str]:
    new: dict[str, tuple[nn.Module, tuple[str, ...]]] = {}
    chosen = select(module, layers)
    refuse_tied(module, chosen)
    for found in chosen:
        if not found.name:
            raise ValueError(f"a layer cannot replace itself: use {alone}, which returns the new one")
        try:
            new[found.name] = make(found.layer), found.aliases
        except ValueError as error:
            raise ValueError(f"{found.name}: {error}") from error
    for name, (layer, aliases) in new.items():
        for place in (name, *aliases):
            module.set_submodule(place, layer)
    return list(new)
