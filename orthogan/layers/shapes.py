"""Checks of the shape and type of inputs, as in ``nn.BatchNorm2d``, because wrong shapes would often broadcast."""

from __future__ import annotations

from torch import Tensor, nn


def check_map(layer: nn.Module, input: Tensor, channels: int | None = None) -> None:
    """Check that ``input`` is a batch of feature maps.

    Raises:
        ValueError: ``input`` is not (n, channels, h, w), with at least one channel for None, or is not real
            floating-point.
    """
    check_numbers(layer, input)
    if input.dim() != 4 or (input.shape[1] != channels if channels is not None else not input.shape[1]):
        wanted = f"(n, {'c' if channels is None else channels}, h, w)"
        raise ValueError(f"{type(layer).__name__}: the input is {tuple(input.shape)}; {wanted} is needed")


def check_features(layer: nn.Module, input: Tensor, features: int, *, batch: bool = False) -> None:
    """Check the length of feature vectors.

    Raises:
        ValueError: ``input`` is not (..., features), or not (n, features) with ``batch``, or is not real
            floating-point.
    """
    check_numbers(layer, input)
    if not input.dim() or input.shape[-1] != features or (batch and input.dim() != 2):
        wanted = f"({'n' if batch else '...'}, {features})"
        raise ValueError(f"{type(layer).__name__}: the input is {tuple(input.shape)}; {wanted} is needed")


def check_numbers(layer: nn.Module, input: Tensor) -> None:
    """Raise a ValueError for integers, booleans and complex numbers."""
    if not input.is_floating_point():  # the result would be rounded to integers
        raise ValueError(f"{type(layer).__name__}: the input is {input.dtype}; real floating-point numbers are needed")
