"""Run the power iterations of all constrained weights together, and hold the weights fixed afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from orthogan.weights.constraint import Constraint
from orthogan.weights.network import list_constrained


class PowerIterationScheduler:
    """A scheduler that advances the constraints of ``nets`` in a training loop.

    Create it once with ``step = PowerIterationScheduler(net)``, then in each step::

        with step.hold():
            loss(net(x)).backward()
        optimizer.step()

    It runs the same power iteration as a forward pass in training mode. Only the frequency differs: it runs once per
    block, however many forward passes the block has, while plain training runs it once per forward pass. With one
    forward pass per step, both give the same weights up to rounding. Layers of the same shape share their matrix
    products, and all layers share the other operations. A round therefore takes a few tens of kernels, while
    advancing the layers one by one takes about a dozen kernels per layer.

    The constraints are collected once, in the constructor. Create a new scheduler after ``weights.apply`` or
    ``weights.remove``.

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
        """Run one round on every constraint that is in training mode and not held."""
        self._round(keep=False)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Run one round, then hold the power iterations until the block ends.

        Inside the block, ``orthogan.weights.hold_power_iteration`` is in effect. All forward passes use the same
        effective weights and share the work of computing them. Run their backward passes inside the block, and change
        the weights after it. If autograd notices a change of the weights, the result is still correct, but the work
        is no longer shared.
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
    """Run one round of power iterations on every constrained weight below ``module`` that is in training mode.

    This searches ``module`` on each call. In a training loop, create a ``PowerIterationScheduler`` once instead.

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
