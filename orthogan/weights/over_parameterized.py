"""What orthogonal over-parameterized training (Liu et al. 2021) does over a whole net, beside the rotations."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from orthogan.linalg import gram_residual, hyperspherical_energy
from orthogan.linalg.precision import at_least_float32
from orthogan.rng import generator
from orthogan.weights.network import list_constrained, unconstrained
from orthogan.weights.rotation import Rotation


def rotations(module: nn.Module) -> list[tuple[str, Rotation, nn.Parameter]]:
    """(layer name, constraint, its parameter) of every rotation below ``module``."""
    return [
        (name, constraint, unconstrained(layer, weight))
        for name, layer, weight, constraint in list_constrained(module)
        if isinstance(constraint, Rotation)
    ]


def relaxation(module: nn.Module, weight: float = 0.1) -> Tensor:
    """weight * sum of ||R R^T - I||_F over the relaxed rotations below ``module`` (not squared, as published).

    Raises:
        ValueError: there are none.
    """
    found = [(c, p) for _, c, p in rotations(module) if c.method == "relaxed"]
    if not found:
        raise ValueError(f"{type(module).__name__} has no weight under rotation(method='relaxed')")
    total = torch.zeros((), device=found[0][1].device)
    for constraint, parameter in found:
        # the norm has no slope at 0, where training starts
        residual = gram_residual(constraint.rotation(at_least_float32(parameter)))
        total = total + residual.square().sum().clamp_min(1e-12).sqrt()
    return weight * total


@torch.no_grad()
def resample(module: nn.Module, episode: int, *, optimizers: Iterable[Optimizer] = (), seed: int = 0) -> list[str]:
    """Begin an episode of stochastic OPT below ``module``: merge the rotations, draw new dimensions.

    Each sampled rotation goes into the fixed neurons (in float64, so that hundreds of merges leave their norms and
    angles alone) and starts again at the identity, on dimensions that are a function of (seed, layer,
    episode). What ``optimizers`` remember of these parameters is dropped: it belongs to other dimensions. Nothing
    else in the net, batch norm included, is touched, and the effective weights stay what they are. Call it at
    the start (episode 0) and then every so many steps (750 in the authors' code).

    Returns:
        The names of the layers.

    Raises:
        ValueError: no weight below ``module`` is under ``rotation(sample=...)``.
    """
    found = [(name, c, p) for name, c, p in rotations(module) if c.sample is not None]
    if not found:
        raise ValueError(f"{type(module).__name__} has no weight under rotation(sample=...)")
    optimizers = list(optimizers)
    for name, constraint, parameter in found:
        neurons = constraint.neurons
        constraint.neurons = neurons.double()
        merged = constraint.rotated(parameter.detach().double())
        constraint.neurons = neurons.copy_(merged)
        parameter.copy_(constraint.initial())
        order = torch.randperm(constraint.view.columns, generator=generator("cpu", seed, "dimensions", name, episode))
        constraint.index.copy_(order[: constraint.index.numel()].sort().values)
        for optimizer in optimizers:
            optimizer.state.pop(parameter, None)
            for rule in getattr(optimizer, "orthogan_rules", ()):  # of orthogan.gradients
                rule.forget(parameter)
    return [name for name, _, _ in found]


def refine(module: nn.Module, steps: int = 200, *, s: float = 2, lr: float = 0.01) -> dict[str, tuple[float, float]]:
    """Lower the hyperspherical energy of the fixed neurons of every rotation below ``module``, before training.

    Adam on the directions; the norms stay. Training then keeps the lower energy, since rotations keep any.

    Args:
        s: exponent of the energy, see ``orthogan.linalg.hyperspherical_energy``.

    Returns:
        For each layer the mean pair energy before and after.

    Raises:
        ValueError: there is no rotation below ``module``.
    """
    found = rotations(module)
    if not found:
        raise ValueError(f"{type(module).__name__} has no weight under rotation()")
    energies = {}
    for name, constraint, _ in found:
        neurons = constraint.neurons
        norms = neurons.norm(dim=1, keepdim=True)
        directions = nn.Parameter(neurons / norms.clamp_min(1e-12))
        best, lowest, first = directions.detach().clone(), float("inf"), float("nan")
        optimizer = Adam([directions], lr=lr)
        for step in range(steps + 1):
            energy = hyperspherical_energy(directions, s=s)
            value = float(energy.detach())
            first = value if step == 0 else first
            if value < lowest:
                best, lowest = directions.detach().clone(), value
            if step < steps and len(neurons) > 1:
                optimizer.zero_grad()
                energy.backward()
                optimizer.step()
        with torch.no_grad():
            neurons.copy_(best / best.norm(dim=1, keepdim=True).clamp_min(1e-12) * norms)
        energies[name] = (first, lowest)
    return energies
