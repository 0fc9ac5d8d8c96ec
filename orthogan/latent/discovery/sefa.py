"""SeFa (Shen & Zhou, CVPR 2021, "Closed-Form Factorization of Latent Semantics"): what the first layer amplifies most.

The directions are the eigenvectors of A^T A, largest first, for the effective first affine map A (outputs, latent),
after any spectral or stable-rank normalization; no column is rescaled.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from orthogan.arguments import checked
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
@checked
def sefa(
    generator: nn.Module,
    *,
    layer: str = "auto",
    normalise: bool = False,
    follow_norm: bool = False,
    y: int | None = None,
) -> Directions:
    """Compute right singular vectors of the effective weight of the first layer, by descending singular value "sigma".

    Warns if the singular values tie, because the directions are then arbitrary.

    Args:
        layer: a dotted submodule name; or "auto": ``generator.first_layer()`` if there is one, else the first
            registered linear or (transposed) convolution layer with ``latent_dim`` inputs.
        normalise: normalize the weight vector of each output, as the authors do for StyleGAN. This undoes
            ``follow_norm``, so the two cannot be combined.
        follow_norm: scale each output of the layer by the gain / standard deviation of the batch norm that follows it,
            in eval mode, so that the directions are those of the normalized features.
        y: with ``follow_norm``, the class whose gains are used; None for the root mean square over the classes.

    Returns:
        At most min(latent_dim, outputs) directions.

    Raises:
        UserError: the layer is missing or unsuitable, or with ``follow_norm`` no batch norm follows it directly.

    Source: Shen & Zhou 2021, arXiv:2007.06600.

    Example:
        >>> import orthogan
        >>> directions = orthogan.first_layer_directions(orthogan.load("sprites-sngan"))
        >>> directions.matrix.shape, directions.method
        ((16, 16), 'sefa')
    """
    if normalise and follow_norm:
        raise UserError("normalise=True and follow_norm=True: normalized rows ignore the gains of the norm; choose one")
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
    """Return the name of the first layer, the layer, and its linear map (outputs, latent_dim), float64 on the CPU.

    Raises ``UserError`` if no suitable layer is found.
    """
    dim = as_generator(generator).latent_dim
    name, module = find_layer(generator, layer, dim)
    with eval_mode(generator):
        weight = latent_matrix(module).cpu()
    if weight.shape[1] != dim:
        raise UserError(
            f"layer '{name}' takes {weight.shape[1]} inputs but the latent has {dim} dimensions; "
            "choose a layer that takes the whole latent"
        )
    if not bool(torch.isfinite(weight).all()):
        raise UserError(f"layer '{name}': the weight contains NaN or infinite values; use an earlier checkpoint")
    return name, module, weight


def latent_matrix(module: nn.Module) -> torch.Tensor:
    """Return the linear map of a first layer in float64, (outputs, inputs); the input of a convolution is one pixel, z.

    Convolutions are applied to the unit vectors, so that padding, stride, groups and dilation have the same effect as
    in the network: kernel entries that never reach the output are not in the map, and the bias is omitted. Raises
    ``UserError`` for a module without such a weight.
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
        f"{type(module).__name__}: cannot compute directions from this layer; expected a linear layer, or a "
        "zero-padded or transposed convolution"
    )


def find_layer(generator: nn.Module, layer: str, dim: int) -> tuple[str, nn.Module]:
    """Return the requested layer and its dotted name."""
    if layer != "auto":
        try:
            return layer, generator.get_submodule(layer)
        except AttributeError as error:
            fitting = [name for name, part in generator.named_modules() if _inputs(part) == dim]
            raise UserError(
                f"no layer '{layer}' in {type(generator).__name__}; layers with {dim} inputs: "
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
        f"{type(generator).__name__}: no first layer with {dim} inputs found; set it with layer=, or add a method "
        "first_layer() to the generator that returns it"
    )


def _inputs(module: nn.Module) -> int | None:
    """Return the number of inputs of a supported layer; None for any other module."""
    if isinstance(module, nn.Linear):
        return module.in_features
    if isinstance(module, CONVOLUTIONS):
        return int(module.in_channels)  # pyright: ignore[reportArgumentType]
    return None


def _gains(generator: nn.Module, name: str, first: nn.Module, y: int | None) -> Tensor:
    """Return the factors (outputs,) float64 of the batch norm after ``first``."""
    before: list[Tensor] = []
    found: list[tuple[nn.Module, Tensor]] = []

    def leave(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        before.append(output)

    def enter(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        # A norm counts if only changes of shape are in between.
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
        raise UserError(f"layer '{name}': no batch norm directly follows it; omit follow_norm")
    norm, x = found[0]
    gain = _gain(norm, y).abs().double().cpu()
    return gain.repeat_interleave(x[0].numel() // len(gain))


def _gain(norm: nn.Module, y: int | None) -> Tensor:
    """Return (channels,): gain over standard deviation in eval mode; for classes the root mean square of the gains."""
    if isinstance(norm, ConditionalBatchNorm2d):
        gain = norm.gain.detach().square().mean(0).sqrt() if y is None else norm.gain.detach()[y]
        return gain * _gain(norm.norm, y)
    if not isinstance(norm, nn.modules.batchnorm._BatchNorm) or norm.running_var is None:
        raise UserError(f"{type(norm).__name__}: has no running variance, so it has no fixed gain; omit follow_norm")
    scale = torch.rsqrt(norm.running_var + norm.eps)
    return scale if norm.weight is None else scale * effective_weight(norm).detach()
