"""Directions from the first layer's weight: its right singular vectors, the largest singular value first.

The closed form of SeFa (Shen & Zhou, CVPR 2021, "Closed-Form Factorization of Latent Semantics in GANs"): the unit
directions that the first affine map stretches most. The effective weight is taken, after any spectral or
stable-rank normalisation, and no column is rescaled.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from orthogan.errors import UserError
from orthogan.latent.directions import Directions
from orthogan.latent.identity import model_hash
from orthogan.models.modes import eval_mode
from orthogan.models.protocol import Generator, as_generator
from orthogan.weights.effective import effective_weight

DEGENERATE_RATIO = 1.05
_TRANSPOSED: dict[type[nn.Module], Any] = {
    nn.ConvTranspose1d: functional.conv_transpose1d,
    nn.ConvTranspose2d: functional.conv_transpose2d,
    nn.ConvTranspose3d: functional.conv_transpose3d,
}
_CONVOLUTIONS: dict[type[nn.Module], Any] = {
    nn.Conv1d: functional.conv1d,
    nn.Conv2d: functional.conv2d,
    nn.Conv3d: functional.conv3d,
}


def first_layer_directions(generator: nn.Module, *, layer: str = "auto") -> Directions:
    """The right singular vectors of the first layer's effective weight, in latent space, by descending sigma.

    ``layer``: a dotted submodule name, or "auto": ``generator.first_layer()`` where there is one, else the first
    registered linear or (transposed) convolution layer with ``latent_dim`` inputs. At most
    min(latent_dim, outputs) directions, unit length, sign fixed, singular values as score "sigma".

    Warns when the singular values tie (largest / smallest below 1.05): then every rotation of these directions is
    as good, and another method is needed. Raises ``UserError`` when no layer or an unsuitable one is found.
    """
    name, _, weight = first_map(generator, layer)
    _, sigma, right = torch.linalg.svd(weight, full_matrices=False)
    if len(sigma) > 1 and float(sigma[0]) < DEGENERATE_RATIO * float(sigma[-1]):
        warnings.warn(
            f"layer '{name}': the singular values tie ({float(sigma[0]):.4g} to {float(sigma[-1]):.4g}), "
            "so the weight prefers no direction and these are arbitrary; use the latent axes instead",
            stacklevel=2,
        )
    return Directions(
        right.numpy(),
        method="first-layer svd",
        layer=name,
        scores={"sigma": sigma.tolist()},
        model_hash=model_hash(generator),
    ).oriented()


def first_map(generator: nn.Module, layer: str = "auto") -> tuple[str, nn.Module, torch.Tensor]:
    """The name of the first layer, itself, and its effective linear map (outputs, latent_dim), float64 on the CPU.

    Raises ``UserError`` when no layer or an unsuitable one is found.
    """
    dim = as_generator(generator).latent_dim
    name, module = find_layer(generator, layer, dim)
    with eval_mode(generator):
        weight = latent_matrix(module).cpu()
    if weight.shape[1] != dim:
        raise UserError(
            f"layer '{name}' takes {weight.shape[1]} inputs but the latent has {dim} dimensions; "
            "name a layer that the whole latent enters"
        )
    if not bool(torch.isfinite(weight).all()):
        raise UserError(f"layer '{name}': the weight holds NaN or infinite values; use an earlier checkpoint")
    return name, module, weight


def latent_matrix(module: nn.Module) -> torch.Tensor:
    """The linear map of a first layer in float64, (outputs, inputs); a convolution's input is one pixel, z.

    Convolutions are applied to the unit vectors, so that padding, stride, groups and dilation count as they do in
    the net: kernel entries that never reach the output are not in the map, and the bias is left out.
    Raises ``UserError`` for a module with no such weight.
    """
    try:
        weight = effective_weight(module)
    except AttributeError:
        weight = None
    if isinstance(weight, torch.Tensor):
        weight = weight.detach().double()
        if isinstance(module, tuple(_TRANSPOSED)):
            inputs = weight.shape[0]
            out = _TRANSPOSED[_kind(module, _TRANSPOSED)](
                _unit_pixels(inputs, weight),
                weight,
                None,
                module.stride,
                module.padding,
                module.output_padding,
                module.groups,
                module.dilation,
            )
            return out.reshape(inputs, -1).T
        if isinstance(module, tuple(_CONVOLUTIONS)) and module.padding_mode == "zeros":
            inputs = weight.shape[1] * int(module.groups)  # pyright: ignore[reportArgumentType]
            out = _CONVOLUTIONS[_kind(module, _CONVOLUTIONS)](
                _unit_pixels(inputs, weight),
                weight,
                None,
                module.stride,
                module.padding,
                module.dilation,
                module.groups,
            )
            return out.reshape(inputs, -1).T
        if weight.ndim == 2:
            return weight
    raise UserError(
        f"{type(module).__name__}: no directions can be read from it; expected a linear layer or a zero-padded or "
        "transposed convolution"
    )


def _kind(module: nn.Module, kinds: dict[type[nn.Module], Any]) -> type[nn.Module]:
    return next(kind for kind in kinds if isinstance(module, kind))


def _unit_pixels(inputs: int, weight: torch.Tensor) -> torch.Tensor:
    """(inputs, inputs, 1, …): one batch item for each unit vector of the latent."""
    eye = torch.eye(inputs, dtype=weight.dtype, device=weight.device)
    return eye.reshape(inputs, inputs, *[1] * (weight.ndim - 2))


def find_layer(generator: nn.Module, layer: str, dim: int) -> tuple[str, nn.Module]:
    """The layer asked for and its dotted name."""
    if layer != "auto":
        try:
            return layer, generator.get_submodule(layer)
        except AttributeError as error:
            fitting = [name for name, part in generator.named_modules() if _inputs(part) == dim]
            raise UserError(
                f"no layer '{layer}' in {type(generator).__name__}; with {dim} inputs there are: "
                f"{', '.join(fitting) or 'none'}"
            ) from error
    own = getattr(generator, "first_layer", None)
    if isinstance(own, nn.Module):
        return "first_layer", own
    # The protocol's own first_layer is inherited by nets that name none, and then raises.
    if own is not None and getattr(type(generator), "first_layer", None) is not Generator.first_layer:
        module = own()
        names = {part: name for name, part in generator.named_modules()}
        return names.get(module, "first_layer()"), module
    for name, part in generator.named_modules():
        if _inputs(part) == dim:
            return name, part
    raise UserError(
        f"{type(generator).__name__}: no first layer with {dim} inputs found; name it with layer=, or give the "
        "generator a method first_layer() that returns it"
    )


def _inputs(module: nn.Module) -> int | None:
    """How many inputs a layer we can read takes; None for any other module."""
    if isinstance(module, nn.Linear):
        return module.in_features
    if isinstance(module, (*_TRANSPOSED, *_CONVOLUTIONS)):
        return int(module.in_channels)  # pyright: ignore[reportArgumentType]
    return None
