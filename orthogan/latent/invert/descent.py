"""Gradient descent whose state is kept in a file, so that the same command continues after an interruption."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from orthogan.errors import Stopped
from orthogan.fit import fit
from orthogan.io.hashing import json_sha256
from orthogan.io.weights import Damaged, read_sealed, write_sealed

EVERY = 20.0  # seconds between two writes of the state
CHECK = 50  # steps between two checks that the loss is finite
RISE, FALL = 0.05, 0.25  # shares of the steps in which the rate rises, and falls to zero
_KEY = "projection"


class Kept:
    """The state of unfinished work: results of finished ``parts``, and a part that was interrupted.

    Args:
        path: the file; None keeps nothing.
        protocol: what the work depends on; a file of other work is replaced.
    """

    def __init__(self, path: Path | None, protocol: Mapping[str, Any]) -> None:
        self.path, self.key = path, json_sha256(protocol)
        self.parts: dict[str, dict[str, Tensor]] = {}
        self._written = time.monotonic()
        if path is None or not path.exists():
            return
        try:
            tensors, metadata = read_sealed(path, needed=True)
            if json.loads(metadata.get(_KEY, "{}")).get("key") != self.key:
                return
        except (Damaged, ValueError):
            return  # it is written again
        for name, tensor in tensors.items():
            part, _, rest = name.partition("/")
            self.parts.setdefault(part, {})[rest] = tensor

    def put(self, part: str, tensors: Callable[[], Mapping[str, Tensor]], *, now: bool = False) -> None:
        """Keep the tensors of a part; they are written if the last writing was 20 seconds ago, or ``now``."""
        if self.path is None or (not now and time.monotonic() - self._written < EVERY):
            return
        self.parts[part] = {name: tensor.detach().cpu().clone() for name, tensor in tensors().items()}
        flat = {f"{one}/{name}": tensor for one, found in self.parts.items() for name, tensor in found.items()}
        write_sealed(self.path, flat, {_KEY: json.dumps({"key": self.key})})
        self._written = time.monotonic()


def rate_at(step: int, steps: int) -> float:
    """Return the factor of the learning rate: a rise in the first 5 % of the steps, a cosine to 0 in the last 25 %."""
    share = step / steps
    return min(1.0, (step + 1) / max(1.0, RISE * steps)) * (
        1.0 if share < 1 - FALL else 0.5 + 0.5 * math.cos(math.pi * (share - 1 + FALL) / FALL)
    )


def descend(
    params: Mapping[str, Tensor],
    loss: Callable[[int], Tensor],
    *,
    steps: int,
    rate: float,
    part: str,
    kept: Kept,
    what: str,
    progress: bool = True,
    after: Callable[[int], None] | None = None,
    stopped: Callable[[], str | None] = lambda: None,
) -> None:
    """Minimize ``loss(step)`` over ``params`` in place with Adam; continues where ``kept`` was interrupted.

    Args:
        params: leaf tensors by name, with gradients.
        loss: step -> scalar.
        rate: the largest learning rate, see ``rate_at``.
        part: name of this work in ``kept``.
        what: name of this work in the progress bar and in messages.
        after: called with the step after each step.
        stopped: asked after each step; the name of the signal that stops the work, or None.

    Raises:
        LossNotFinite: the loss is NaN or infinite.
        Stopped: after the state was written.
    """
    optimizer = torch.optim.Adam(list(params.values()), lr=rate, betas=(0.9, 0.99))
    first = _restore(params, optimizer, kept.parts.get(part, {}))

    def then(step: int) -> None:
        if after is not None:
            after(step)
        name = stopped() if step + 1 < steps else None
        kept.put(part, lambda: _state(params, optimizer, step + 1), now=name is not None or step + 1 == steps)
        if name is not None:
            raise Stopped(f"{what}: stopped by {name} after step {step + 1} of {steps}; the same command continues")

    fit(
        optimizer,
        loss,
        steps,
        what=what,
        rate=lambda step: rate * rate_at(step, steps),
        after=then,
        start=first,
        check_every=CHECK,
        progress=progress,
    )


def _state(params: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, step: int) -> dict[str, Tensor]:
    found = {"step": torch.tensor(step)}
    for name, param in params.items():
        found[f"param.{name}"] = param
        for key in ("exp_avg", "exp_avg_sq"):
            found[f"{key}.{name}"] = optimizer.state[param][key]
    return found


@torch.no_grad()
def _restore(params: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> int:
    if "step" not in state:
        return 0
    for name, param in params.items():
        param.copy_(state[f"param.{name}"])
        optimizer.state[param] = {
            "step": state["step"].float(),
            **{key: state[f"{key}.{name}"].to(param) for key in ("exp_avg", "exp_avg_sq")},
        }
    return int(state["step"])
