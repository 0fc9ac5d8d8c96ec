"""A penalty on chosen layers of a whole network."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from orthogan.layers.skew_orthogonal import SkewOrthogonalConv2d
from orthogan.penalties.conv import conv_orthogonality
from orthogan.penalties.disentangled_norm import disentangled_norm
from orthogan.penalties.energy import hyperspherical_energy
from orthogan.penalties.kernel import double_soft_orthogonality, mutual_coherence, off_diagonal, soft_orthogonality
from orthogan.penalties.srip import srip
from orthogan.weights import Selected, hold_power_iteration, select
from orthogan.weights.effective import sources
from orthogan.weights.network import ready_to_measure

PENALTIES: dict[str, Callable[..., Tensor]] = {
    "soft_orthogonality": soft_orthogonality,
    "double_soft_orthogonality": double_soft_orthogonality,
    "mutual_coherence": mutual_coherence,
    "srip": srip,
    "conv_orthogonality": conv_orthogonality,
    "off_diagonal": off_diagonal,
    "disentangled_norm": disentangled_norm,
    "hyperspherical_energy": hyperspherical_energy,
}
FROM_THE_LAYER = ("weight", "stride", "groups")  # the penalties' arguments that are no options


class Penalty:
    """weight * (sum of the penalty over the chosen layers' effective weights), of ``module`` as it is at each call.

    The layers are chosen once. ``weight`` may be assigned between calls. A power iteration of a constrained layer
    stays where it is. Transposed and grouped kernels are handled as the operators they are: a kernel with groups is a
    block-diagonal matrix. A parameter that several layers share counts once. Frozen parameters count in the value.
    """

    def __init__(
        self, module: nn.Module, name: str, weight: float = 1.0, layers: str | Sequence[str] = (), **options: object
    ) -> None:
        """
        Args:
            name: a key of ``PENALTIES``.
            layers: as of ``orthogan.weights.select``.
            options: of that penalty.

        Raises:
            ValueError: an unknown name, option or layer.
        """
        if name not in PENALTIES:
            raise ValueError(f"penalty {name!r}{_near(name, list(PENALTIES))}")
        known = [p for p in inspect.signature(PENALTIES[name]).parameters if p not in FROM_THE_LAYER]
        for option in options:
            if option not in known:
                raise ValueError(f"penalty {name}: no option {option!r}{_near(option, known)}")
        if not math.isfinite(weight):
            raise ValueError(f"penalty {name}: weight is {weight}; it must be finite")
        self.module, self.name, self.weight, self.options = module, name, weight, options
        with hold_power_iteration(module):
            chosen: dict[Any, Selected] = {}
            for found in select(module, layers):
                chosen.setdefault(self._identity(found), found)
            self.selected = list(chosen.values())

    @property
    def names(self) -> list[str]:
        """The layers it is on, "" for ``module`` itself."""
        return [selected.name for selected in self.selected]

    def values(self) -> list[Tensor]:
        """The penalty of each layer, 0-d, before ``weight``."""
        with hold_power_iteration(self.module):
            return [self._of(selected) for selected in self.selected]

    def __call__(self) -> Tensor:
        """The penalty, 0-d."""
        first, *rest = self.values()
        for value in rest:
            first = first + value
        return self.weight * first

    def _identity(self, selected: Selected) -> tuple[Any, ...]:
        """Equal for two layers whose weights are one matrix of the same parameters."""
        layer, view = selected.layer, selected.view
        strides = (
            (layer.stride, layer.dilation) if self.name == "conv_orthogonality" and isinstance(layer, _ConvNd) else ()
        )
        return (*sources(layer, selected.weight), view.transposed, view.groups, *strides)

    def _of(self, selected: Selected) -> Tensor:
        penalty = PENALTIES[self.name]
        if self.name != "conv_orthogonality":
            return penalty(selected.matrix, **self.options)
        value, layer = selected.value, selected.layer
        if value.dim() == 2:
            return penalty(value, **self.options)
        if isinstance(layer, SkewOrthogonalConv2d):  # its map is no convolution with the filter, but with this kernel
            return penalty(layer.torus_kernel()[0], layer.stride, **self.options)
        assert isinstance(layer, _ConvNd)
        # a stride of 2 over a dilation of 2 moves one tap of the kernel
        stride = [s // math.gcd(s, d) for s, d in zip(layer.stride, layer.dilation, strict=True)]
        return penalty(value, stride, groups=layer.groups, **self.options)


def apply(
    module: nn.Module, name: str, weight: float = 1.0, layers: str | Sequence[str] = (), **options: object
) -> Tensor:
    """``Penalty(module, name, weight, layers, **options)()``: one value, for a single look or a short script."""
    with ready_to_measure(module):
        return Penalty(module, name, weight, layers, **options)()


def _near(word: str, known: list[str]) -> str:
    if not known:
        return "; it has none"
    near = difflib.get_close_matches(word, known, 1, 0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; choose from {', '.join(known)}"
