"""The spectrum of every layer: how well conditioned a net's weights are, by exact singular values."""

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

CELLS = 2**22  # of a block of cosines between rows: bounds the memory for embeddings with many rows


@dataclass(frozen=True, eq=False)
class LayerSpectrum:
    """What the singular values and rows of one effective weight, as a matrix (rows = outputs, columns), say.

    A kernel with groups is the block-diagonal matrix that it stands for. Complex weights have the same numbers.
    ``sigma`` is the largest singular value, ``stable_rank`` ||W||_F^2 / sigma^2 (0 for a zero matrix). ``rank``
    counts the values above sigma * max(rows, columns) * eps. ``condition_number`` is infinite where the rank is
    below min(rows, columns); ``effective_condition`` is that of the values that count. ``orthogonality_residual`` is
    ||Gram - I||_F of the smaller side. ``coherence`` is the largest |cosine| between two rows, ``energy`` the mean
    of 1 / distance between two rows at unit length (MHE with s = 1; both 0 for one row). ``operator_norm`` is the
    Lipschitz constant of the layer: sigma for a linear layer, the longest row for an embedding, and for a
    convolution that of the map on a torus (``conv_operator``), whatever its padding.
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
        """JSON-ready; an infinite number is None, which JSON has a word for."""
        values = vars(self) | {"shape": list(self.shape), "singular_values": self.singular_values.tolist()}
        return {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in values.items()}


def spectrum(module: nn.Module, layers: str | Sequence[str] = (), size: int = 8) -> list[LayerSpectrum]:
    """Measure the effective weight, constraints and all, of each layer below ``module``; nothing in it moves.

    Args:
        layers: which ones, in the words of ``orthogan.weights.select``; all by default.
        size: side of the input map on which a convolution is a linear map; rounded up to hold the kernel and to a
            multiple of the stride. The norm hardly depends on it from a few kernel widths on.

    Raises:
        ValueError: no such layer, a size below 1, or a weight that is not finite.
    """
    if size < 1:
        raise ValueError(f"size is {size}: the side of a map is at least 1 pixel")
    with modes.eval_mode(module), weights.hold_power_iteration(module):
        chosen = [found for found in select(module, layers) if _is_map(found)]
        if not chosen:
            raise ValueError(
                "a skew orthogonal convolution has singular values of 1 by construction, and its filter does not show "
                "them; choose other layers"
            )
        return [_measure(found, size) for found in chosen]


def list_unmeasured(module: nn.Module) -> list[str]:
    """Parameters with two or more dimensions in no layer that ``spectrum`` knows, such as recurrent weights."""
    owners = dict(module.named_modules())
    names = []
    for name, parameter in module.named_parameters():
        owner, constrained, _ = name.partition(".parametrizations.")
        owner = owner if constrained else name.rpartition(".")[0]
        if parameter.dim() > 1 and not isinstance(owners[owner], Layer):
            names.append(name)
    return names


def log10_product_of_norms(rows: Sequence[LayerSpectrum]) -> dict[str, float]:
    """log10 of the product of all layers' norms: as matrices ("reshaped") and as linear maps ("operator").

    Only a heuristic. The operator product bounds the Lipschitz constant of a plain chain of these layers with
    1-Lipschitz activations between them (ReLU, leaky ReLU, tanh). With branches, shortcuts, attention or norm layers
    it is that of one imagined path through everything. The reshaped product bounds nothing where there are
    convolutions: each may be short by sqrt(taps). -inf where a layer is zero.
    """
    return {
        "reshaped": sum(_log10(row.sigma) for row in rows),
        "operator": sum(_log10(row.operator_norm) for row in rows),
    }


def table(rows: Sequence[LayerSpectrum]) -> str:
    """One line per layer under a header, columns aligned."""
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
            f"{found.name or '(itself)'}: the weight is on the meta device, without numbers; load it first"
        )
    if not bool(torch.isfinite(at_least_float32(weight, allow_complex=True)).all()):
        raise ValueError(f"{found.name or '(itself)'}: the weight holds NaN or infinite values; the net is damaged")
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
    """The largest |cosine| between different rows, ``chunk`` rows at a time."""
    rows = unit_rows(_real(matrix))
    rows = torch.view_as_complex(rows.unflatten(-1, (-1, 2))) if matrix.is_complex() else rows
    best = 0.0
    for start in range(0, len(rows), chunk):
        # each pair once: the columns left of the diagonal
        cosines = (rows[start : start + chunk] @ rows[: start + chunk].mH).tril(start - 1)
        best = max(best, float(cosines.abs().amax()))
    return best


def _real(matrix: Tensor) -> Tensor:
    """Real rows with the lengths and distances of those of ``matrix``."""
    return torch.view_as_real(matrix).flatten(-2) if matrix.is_complex() else matrix


def _is_map(found: weights.Selected) -> bool:
    """Whether the weight is the layer's linear map, as the filter of a skew orthogonal convolution is not."""
    return isinstance(found.layer, Layer) or len(found.view.shape) == 2


def _operator_norm(layer: nn.Module, weight: Tensor, sigma: float, size: int) -> float:
    if isinstance(layer, nn.Embedding):
        return float(weight.norm(dim=1).amax())
    if weight.dim() == 2:
        return sigma
    assert isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d, *Transposed))
    # the adjoint of a transposed convolution starts from its larger map
    factor = layer.stride if isinstance(layer, Transposed) else (1,) * len(layer.stride)
    sides = []
    for f, s, d, taps in zip(factor, layer.stride, layer.dilation, weight.shape[2:], strict=True):
        sides.append(-(-max(size * f, d * (taps - 1) + 1) // s) * s)
    return float(conv_operator_norm(weight, sides, layer.stride, layer.groups, dilation=layer.dilation))


def _log10(value: float) -> float:
    return math.log10(value) if value > 0 else -math.inf
