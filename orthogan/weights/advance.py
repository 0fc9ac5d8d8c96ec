"""One round of power iterations for all constrained weights at once, and all of them held still after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from orthogan.weights.constraint import Constraint
from orthogan.weights.network import list_constrained


class PowerIterationScheduler:
    """Advances the constraints of ``nets``, for a training loop.

    ``step = PowerIterationScheduler(net)`` once, then each step::

        with step.hold():
            loss(net(x)).backward()
        optimizer.step()

    It is the power iteration that a forward in training mode does; only how often it is run differs: once a
    block, however many forwards that has, where plain training does one a forward. With one forward a step both
    give the same weights up to rounding. Layers of a shape share their products and all layers the rest, so a round
    is a few tens of kernels, where one layer after the other takes a dozen each.

    The nets are searched here and not again: after ``weights.apply`` or ``weights.remove`` make another.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from orthogan.weights import PowerIterationScheduler, spectral_norm
        >>> net = nn.Sequential(spectral_norm(nn.Linear(4, 8)), nn.ReLU(), spectral_norm(nn.Linear(8, 1)))
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        >>> step = PowerIterationScheduler(net)
        >>> for _ in range(3):
        ...     optimizer.zero_grad()
        ...     with step.hold():  # both forwards use the same weights
        ...         (net(torch.ones(2, 4)).mean() - net(torch.zeros(2, 4)).mean()).backward()
        ...     optimizer.step()
        ...
    """

    def __init__(self, *nets: nn.Module) -> None:
        found: dict[Constraint, nn.Module] = {}
        for net in nets:
            found |= {one: layer.parametrizations[weight] for _, layer, weight, one in list_constrained(net)}  # pyright: ignore
        self.found = found

    def __call__(self) -> None:
        """One round on every constraint that is in training mode and not held."""
        self._round(keep=False)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """One round, then ``orthogan.weights.hold_power_iteration`` until the block ends.

        Forwards see one effective weight and share what it takes; so their backwards belong into the block, and
        the weights change after it (a change that autograd notices costs the saving, not the right answer).
        """
        self._round(keep=True)
        for constraint in self.found:
            constraint.held += 1
        try:
            yield
        finally:
            for constraint in self.found:
                constraint.held -= 1
                constraint.kept = None

    def _round(self, keep: bool) -> None:
        kinds: dict[Callable[..., None], tuple[list[Constraint], list[Tensor]]] = {}
        for constraint, parameters in self.found.items():
            if constraint.training and not constraint.held:
                constraints, weights = kinds.setdefault(constraint.advance_batch, ([], []))
                constraints.append(constraint)
                weights.append(parameters.original)  # pyright: ignore
        for together, (constraints, weights) in kinds.items():
            together(constraints, weights, keep)


def advance(module: nn.Module) -> None:
    """One round of power iterations on every constrained weight below ``module`` that is in training mode.

    This searches ``module`` each time; a training loop makes an ``PowerIterationScheduler`` once.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from orthogan.weights import advance, spectral_norm
        >>> layer = spectral_norm(nn.Linear(4, 4))
        >>> for _ in range(20):
        ...     advance(layer)
        ...
        >>> bool((torch.linalg.matrix_norm(layer.weight, 2) - 1).abs() < 0.05)
        True
    """
    PowerIterationScheduler(module)()
