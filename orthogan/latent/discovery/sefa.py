"""SeFa: what the first layer stretches most (Shen & Zhou, CVPR 2021, "Closed-Form Factorization of Latent Semantics").

The directions are the eigenvectors of A^T A, largest first, for the effective first affine map A (outputs, latent).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from orthogan.errors import UserError
from orthogan.latent.directions import Directions
from orthogan.latent.discovery.response import trace_generator
from orthogan.latent.discovery.spectrum import sort_by_spectrum, warn_of_tie
from orthogan.latent.first_layer import first_map
from orthogan.layers.batch_norm import ConditionalBatchNorm2d
from orthogan.weights.effective import effective_weight

Normaliser = (nn.modules.batchnorm._BatchNorm, ConditionalBatchNorm2d)


def sefa(
    generator: nn.Module,
    *,
    layer: str = "auto",
    normalise: bool = False,
    follow_norm: bool = False,
    y: int | None = None,
) -> Directions:
    """The right singular vectors of the first layer's effective weight, by descending singular value "sigma".

    ``layer``: as in ``first_layer_directions``, whose result this is with both options off.
    ``follow_norm``: each output of the layer counts by the gain / standard deviation that the batch norm after it
    gives it in eval mode, so that A is the map to the normalised features (of class ``y``; None: the root mean
    square over the classes). Without it ``y`` has no effect. ``normalise``: then each output's weight vector is
    brought to unit length, as the authors do for StyleGAN; this undoes ``follow_norm``, so both at once are refused.

    At most min(latent_dim, outputs) directions. Warns when the singular values tie. Raises ``UserError`` when the
    layer is missing or unsuitable, or with ``follow_norm`` when no batch norm takes its output as it is.
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
