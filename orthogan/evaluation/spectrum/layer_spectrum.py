"""Conditioning of every layer of a network, from exact singular values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from orthogan import weights
from orthogan.evaluation.spectrum.conv_operator import conv_operator_norm
from orthogan.io.terminal import text_table
from orthogan.linalg import hyperspherical_energy
from orthogan.linalg.gram import orthogonality_error, unit_rows
from orthogan.linalg.precision import at_least_float32
from orthogan.models import modes
from orthogan.weights.matrix import Layer, Transposed
from orthogan.weights.selection import select

CELLS = 2**22  # size of a block of cosines between rows, which limits the memory for large embeddings


@dataclass(frozen=True, eq=False)
class LayerSpectrum:
    """Statistics of one effective weight as a matrix (rows = outputs, columns).

    A kernel with groups is a block-diagonal matrix. Complex weights have the same statistics. ``sigma`` is the largest
    singular value, ``stable_rank`` ||W||_F^2 / sigma^2 (0 for a zero matrix). ``rank`` counts the values above sigma *
    max(rows, columns) * eps. ``condition_number`` is infinite if the rank is below min(rows, columns);
    ``effective_condition`` uses only the values counted by the rank. ``orthogonality_residual`` is
    ||Gram - I||_F of the smaller side. ``coherence`` is the largest |cosine| between two rows, ``energy`` the mean
    of 1 / distance between two normalized rows (MHE with s = 1; both are 0 for a single row). ``operator_norm`` is the
    Lipschitz constant of the layer: sigma for a linear layer, the longest row for an embedding, and for a convolution
    that of its map on a torus (``conv_operator``), for any padding.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    rows: int
    columns: int
    singular_values: Tensor  # (min(rows, columns),) descending, on the CPU
    sigma: float
    stable_rank: float
    rank: int
    condition_number: float
    effective_condition: float
    orthogonality_residual: float
    coherence: float
    energy: float
    operator_norm: float

    def as_dict(self) -> dict[str, Any]:
        """Return a dict for JSON; infinite numbers become None."""
        values = vars(self) | {"shape": list(self.shape), "singular_values": self.singular_values.tolist()}
        return {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in values.items()}


def spectrum(module: nn.Module, layers: str | Sequence[str] = (), size: int = 8) -> list[LayerSpectrum]:
    """Measure the effective weight, including constraints, of each layer of ``module``, which is not changed.

    Args:
        module: a layer or a network.
        layers: layers to measure, as in ``orthogan.weights.select``; all by default.
        size: height and width of the input map of convolutions; rounded up to fit the kernel and to a multiple of the
            stride. Above a few kernel widths the norm hardly depends on it.

    Raises:
        ValueError: no such layer, a size below 1, or a non-finite weight.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from orthogan.evaluation.spectrum.layer_spectrum import spectrum
        >>> layer = nn.Linear(2, 2, bias=False)
        >>> layer.weight.data = torch.diag(torch.tensor([3.0, 1.0]))
        >>> (found,) = spectrum(layer)
        >>> found.sigma, round(found.stable_rank, 3)
        (3.0, 1.111)
    """
    if size < 1:
        raise ValueError(f"size is {size}: must be at least 1 pixel")
    with modes.eval_mode(module), weights.hold_power_iteration(module):
        chosen = [found for found in select(module, layers) if _is_map(found)]
        if not chosen:
            raise ValueError(
                "skew orthogonal convolutions have singular values of 1 by construction, which their filters do not "
                "show; choose other layers"
            )
        return [_measure(found, size) for found in chosen]


def list_unmeasured(module: nn.Module) -> list[str]:
    """List parameters with two or more dimensions outside of supported layers, such as recurrent weights."""
    owners = dict(module.named_modules())
    names = []
    for name, parameter in module.named_parameters():
        owner, constrained, _ = name.partition(".parametrizations.")
        owner = owner if constrained else name.rpartition(".")[0]
        if parameter.dim() > 1 and not isinstance(owners[owner], Layer):
            names.append(name)
    return names


def log10_product_of_norms(rows: Sequence[LayerSpectrum]) -> dict[str, float]:
    """Return log10 of the product of the norms of all layers: as matrices ("reshaped") and linear maps ("operator").

    This is only a heuristic. The operator product bounds the Lipschitz constant of a plain chain of these layers with
    1-Lipschitz activations (ReLU, leaky ReLU, tanh). With branches, shortcuts, attention or norm layers it refers to a
    single imaginary path through everything. With convolutions, the reshaped product is not a bound: each norm may be
    too small by sqrt(taps). It is -inf if a layer is zero.
    """
    return {
        "reshaped": sum(_log10(row.sigma) for row in rows),
        "operator": sum(_log10(row.operator_norm) for row in rows),
    }


def table(rows: Sequence[LayerSpectrum]) -> str:
    """Format one line per layer under a header, with aligned columns."""
    head = ("layer", "type", "shape", "sigma", "operator", "stable rank", "rank", "condition")
    head += ("effective", "|G-I|", "coherence", "energy")
    return text_table([_line(row) for row in rows], "lll" + "r" * 9, head)


def _line(row: LayerSpectrum) -> tuple[str, ...]:
    numbers = (row.orthogonality_residual, row.coherence, row.energy)
    return (
        row.name or "(itself)",
        row.type,
        "x".join(map(str, row.shape)),
        f"{row.sigma:.4g}",
        f"{row.operator_norm:.4g}",
        f"{row.stable_rank:.2f}",
        f"{row.rank}/{len(row.singular_values)}",
        f"{row.condition_number:.3g}",
        f"{row.effective_condition:.3g}",
        *(f"{number:.3g}" for number in numbers),
    )


def _measure(found: weights.Selected, size: int) -> LayerSpectrum:
    weight = found.value.detach()
    if weight.is_meta:
        raise ValueError(
            f"{found.name or '(itself)'}: the weight is on the meta device, so it has no values; load it first"
        )
    if not bool(torch.isfinite(at_least_float32(weight, allow_complex=True)).all()):
        raise ValueError(
            f"{found.name or '(itself)'}: the weight contains NaN or infinite values; the network is damaged"
        )
    with torch.autocast(weight.device.type, enabled=False):
        weight = at_least_float32(weight, allow_complex=True)
        matrix = found.view.block_diagonal(weight)
        values = torch.linalg.svdvals(found.view.blocks(weight)).flatten().sort(descending=True).values
        tolerance = values[0] * max(matrix.shape) * torch.finfo(matrix.dtype).eps
        rank = int((values > tolerance).sum())
        relative = values.double() / values[0].double().clamp_min(torch.finfo(matrix.dtype).tiny)
        effective = float(1 / relative[rank - 1]) if rank else math.inf
        residual = (values.square() - 1).norm() if matrix.is_complex() else orthogonality_error(matrix)
        chunk = max(1, min(1024, CELLS // len(matrix)))
        return LayerSpectrum(
            name=found.name,
            type=parametrize.type_before_parametrizations(found.layer).__name__,
            shape=tuple(weight.shape),
            rows=matrix.shape[0],
            columns=matrix.shape[1],
            singular_values=values.cpu(),
            sigma=float(values[0]),
            stable_rank=float(relative.square().sum()),
            rank=rank,
            condition_number=effective if rank == len(values) else math.inf,
            effective_condition=effective,
            orthogonality_residual=float(residual),
            coherence=_coherence(matrix, chunk),
            energy=float(hyperspherical_energy(_real(matrix), 1.0, chunk=chunk)),
            operator_norm=_operator_norm(found.layer, weight, float(values[0]), size),
        )


def _coherence(matrix: Tensor, chunk: int) -> float:
    """Return the largest |cosine| between different rows, computed in chunks of ``chunk`` rows."""
    rows = unit_rows(_real(matrix))
    rows = torch.view_as_complex(rows.unflatten(-1, (-1, 2))) if matrix.is_complex() else rows
    best = 0.0
    for start in range(0, len(rows), chunk):
        # each pair once: the columns left of the diagonal
        cosines = (rows[start : start + chunk] @ rows[: start + chunk].mH).tril(start - 1)
        best = max(best, float(cosines.abs().amax()))
    return best


def _real(matrix: Tensor) -> Tensor:
    """Return real rows with the same lengths and distances as those of ``matrix``."""
    return torch.view_as_real(matrix).flatten(-2) if matrix.is_complex() else matrix


def _is_map(found: weights.Selected) -> bool:
    """Whether the weight is the linear map of the layer, unlike the filter of a skew orthogonal convolution."""
    return isinstance(found.layer, Layer) or len(found.view.shape) == 2


def _operator_norm(layer: nn.Module, weight: Tensor, sigma: float, size: int) -> float:
    if isinstance(layer, nn.Embedding):
        return float(weight.norm(dim=1).amax())
    if weight.dim() == 2:
        return sigma
    assert isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d, *Transposed))
    # the adjoint of a transposed convolution has the larger map as input
    factor = layer.stride if isinstance(layer, Transposed) else (1,) * len(layer.stride)
    sides = []
    for f, s, d, taps in zip(factor, layer.stride, layer.dilation, weight.shape[2:], strict=True):
        sides.append(-(-max(size * f, d * (taps - 1) + 1) // s) * s)
    return float(conv_operator_norm(weight, sides, layer.stride, layer.groups, dilation=layer.dilation))


def _log10(value: float) -> float:
    return math.log10(value) if value > 0 else -math.inf
