"""SeFa: what the first layer stretches most (Shen & Zhou, CVPR 2021, "Closed-Form Factorization of Latent Semantics").

The directions are the eigenvectors of A^T A, largest first, for the effective first affine map A (outputs, latent),
after any spectral or stable-rank normalization; no column is rescaled.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from orthogan.errors import UserError
from orthogan.latent.directions import Directions
from orthogan.latent.discovery.methods import DIRECTION_METHODS
from orthogan.latent.discovery.response import trace_generator
from orthogan.latent.discovery.spectrum import sort_by_spectrum, warn_of_tie
from orthogan.layers.batch_norm import ConditionalBatchNorm2d
from orthogan.models.modes import eval_mode
from orthogan.models.protocol import Generator, as_generator
from orthogan.weights.effective import effective_weight

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
Normaliser = (nn.modules.batchnorm._BatchNorm, ConditionalBatchNorm2d)


@DIRECTION_METHODS.register("sefa", "svd")
def sefa(
    generator: nn.Module,
    *,
    layer: str = "auto",
    normalise: bool = False,
    follow_norm: bool = False,
    y: int | None = None,
) -> Directions:
    """The right singular vectors of the first layer's effective weight, by descending singular value "sigma".

    ``layer``: a dotted submodule name, or "auto": ``generator.first_layer()`` where there is one, else the first
    registered linear or (transposed) convolution layer with ``latent_dim`` inputs.
    ``follow_norm``: each output of the layer counts by the gain / standard deviation that the batch norm after it
    gives it in eval mode, so that A is the map to the normalized features (of class ``y``; None: the root mean
    square over the classes). Without it ``y`` has no effect. ``normalise``: then each output's weight vector is
    brought to unit length, as the authors do for StyleGAN; this undoes ``follow_norm``, so both at once are refused.

    At most min(latent_dim, outputs) directions. Warns when the singular values tie. Raises ``UserError`` when the
    layer is missing or unsuitable, or with ``follow_norm`` when no batch norm takes its output as it is.

    Source: Shen & Zhou 2021, arXiv:2007.06600.

    Example:
        >>> import orthogan
        >>> directions = orthogan.first_layer_directions(orthogan.load("sprites-srngan"))
        >>> directions.matrix.shape, directions.method
        ((16, 16), 'sefa')
    """
    if normalise and follow_norm:
        raise UserError("normalise=True and follow_norm=True: unit rows forget the norm's gains; choose one")
    name, module, weight = first_map(generator, layer)
    if follow_norm:
        weight = weight * _gains(generator, name, module, y)[:, None]
    if normalise:
        length = weight.norm(dim=1, keepdim=True)
        weight = torch.where(length > 0, weight / length, 0.0)
    _, sigma, right = torch.linalg.svd(weight, full_matrices=False)
    warn_of_tie(sigma, f"layer '{name}'")
    suffix = " (unit outputs)" if normalise else " (batch norm followed)" if follow_norm else ""
    return sort_by_spectrum(right, sigma, generator, method=f"sefa{suffix}", layer=name)


first_layer_directions = sefa  # its name in version 0.1


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
        if isinstance(module, CONVOLUTIONS) and module.padding_mode == "zeros":
            inputs = int(module.in_channels)  # pyright: ignore[reportArgumentType]
            pixels = torch.eye(inputs, dtype=weight.dtype, device=weight.device)
            pixels = pixels.reshape(inputs, inputs, *[1] * (weight.ndim - 2))
            kind = f"conv_transpose{weight.ndim - 2}d" if module.transposed else f"conv{weight.ndim - 2}d"
            options = {name: getattr(module, name) for name in ("stride", "padding", "groups", "dilation")}
            if module.transposed:
                options["output_padding"] = module.output_padding
            return getattr(functional, kind)(pixels, weight, **options).reshape(inputs, -1).T
        if weight.ndim == 2:
            return weight
    raise UserError(
        f"{type(module).__name__}: no directions can be read from it; expected a linear layer or a zero-padded or "
        "transposed convolution"
    )


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
    if isinstance(module, CONVOLUTIONS):
        return int(module.in_channels)  # pyright: ignore[reportArgumentType]
    return None


def _gains(generator: nn.Module, name: str, first: nn.Module, y: int | None) -> Tensor:
    """(outputs,) float64: by how much the batch norm behind ``first`` multiplies each of its outputs."""
    before: list[Tensor] = []
    found: list[tuple[nn.Module, Tensor]] = []

    def leave(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        before.append(output)

    def enter(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        # A norm counts if nothing but a change of shape lies between.
        if before and not found and torch.equal(before[0].flatten(1), inputs[0].flatten(1)):
            found.append((module, inputs[0]))

    hooks = [first.register_forward_hook(leave)]
    hooks += [part.register_forward_pre_hook(enter) for part in generator.modules() if isinstance(part, Normaliser)]
    try:
        with trace_generator(generator, y=y):
            pass
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise UserError(f"layer '{name}': no batch norm takes its output as it is; leave follow_norm out")
    norm, x = found[0]
    gain = _gain(norm, y).abs().double().cpu()
    return gain.repeat_interleave(x[0].numel() // len(gain))


def _gain(norm: nn.Module, y: int | None) -> Tensor:
    """(channels,): gain over standard deviation in eval mode; over classes the root mean square of the gains."""
    if isinstance(norm, ConditionalBatchNorm2d):
        gain = norm.gain.detach().square().mean(0).sqrt() if y is None else norm.gain.detach()[y]
        return gain * _gain(norm.norm, y)
    if not isinstance(norm, nn.modules.batchnorm._BatchNorm) or norm.running_var is None:
        raise UserError(
            f"{type(norm).__name__}: keeps no running variance, so it has no fixed gain; leave follow_norm out"
        )
    scale = torch.rsqrt(norm.running_var + norm.eps)
    return scale if norm.weight is None else scale * effective_weight(norm).detach()
