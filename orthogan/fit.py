"""The training loop of small networks: critics, encoders, factor classifiers, and learned directions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from orthogan.distributed import hide_progress
from orthogan.errors import UserError
from orthogan.rng import derive


class LossNotFinite(UserError, ValueError):
    """The loss of a small net became NaN or infinite."""


@contextmanager
def seeded(seed: int, *parts: int | str) -> Iterator[None]:
    """Context in which the global random state of the CPU depends on the arguments; it is restored afterward."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, *parts))
        yield


def fit(
    optimizer: torch.optim.Optimizer,
    loss: Callable[[int], Tensor],
    steps: int,
    *,
    what: str,
    rate: Callable[[int], float] | None = None,
    after: Callable[[int], None] | None = None,
    start: int = 0,
    check_every: int | None = None,
    progress: bool = True,
) -> None:
    """Minimize ``loss(step)``, a 0-d tensor, for ``step`` from ``start`` to ``steps`` - 1; gradients are enabled.

    Only the parameters of ``optimizer``, which has one group, get gradients.

    Args:
        what: name of the net in the progress bar and in messages.
        rate: step -> learning rate; None leaves that of the optimizer.
        after: called with the step after each update.
        check_every: steps between two checks of the loss, each of which waits for the device; None: at the end only.

    Raises:
        LossNotFinite: at a check the loss is NaN or infinite.
    """
    from orthogan.progress import progress_bar

    (group,) = optimizer.param_groups
    bar = progress_bar(
        total=steps, initial=start, desc=what, unit=" steps", disable=hide_progress(progress), leave=False
    )
    with torch.enable_grad(), bar:
        for step in range(start, steps):
            if rate is not None:
                group["lr"] = rate(step)
            value = loss(step)
            optimizer.zero_grad()
            value.backward(inputs=group["params"])
            optimizer.step()
            if (step + 1 == steps or (check_every and (step + 1) % check_every == 0)) and not math.isfinite(
                last := float(value.detach())
            ):
                raise LossNotFinite(f"{what}: the loss became {last} by step {step + 1}; choose a lower lr")
            if after is not None:
                after(step)
            bar.update()


def cosine(lr: float, steps: int, warm: int = 0) -> Callable[[int], float]:
    """Return a schedule step -> learning rate: a linear rise to ``lr`` over ``warm`` steps, then half a cosine to 0."""

    def rate(step: int) -> float:
        fall = (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))) / 2
        return lr * ((step + 1) / warm if step < warm else fall)

    return rate
