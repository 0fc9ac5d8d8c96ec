"""Detection of the first non-finite loss or gradient, without synchronizing in every step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from orthogan.errors import Diverged

foreach_norm = torch._foreach_norm  # pyright: ignore[reportPrivateImportUsage]


class FiniteWatch:
    """Records on the device the first step of each phase with NaN or infinite values.

    ``inspect`` costs a few small kernels and never synchronizes with the device; ``check`` fetches the record.
    """

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}
        self._first: dict[str, Tensor] = {}  # per phase: step at the first trouble (-1 = none), then a flag a tensor
        self._named: dict[nn.Module, list[tuple[str, nn.Parameter]]] = {}  # walking a net takes as long as a kernel

    @torch.no_grad()
    def inspect(self, phase: str, step: int, loss: Tensor, net: nn.Module) -> None:
        """Inspect the loss and the gradients of ``net`` just before the optimizer uses them."""
        if net not in self._named:
            self._named[net] = list(net.named_parameters())
        named = [(n, p.grad) for n, p in self._named[net] if p.grad is not None]
        norms = foreach_norm([g for _, g in named])
        bad = ~torch.isfinite(torch.stack([loss.float(), *(n.float() for n in norms)]))
        if phase not in self._first:
            self._names[phase] = ["the loss", *(f"the gradient of {name}" for name, _ in named)]
            self._first[phase] = torch.full((1 + len(bad),), -1.0, device=loss.device)
        first = self._first[phase]
        now = torch.cat([torch.full_like(first[:1], float(step)), bad.float()])
        first.copy_(torch.where((first[0] < 0) & bad.any(), now, first))

    def check(self, nets: dict[str, nn.Module]) -> None:
        """Raise if any inspected value, or any weight or buffer of ``nets``, is not finite.

        Raises:
            Diverged: naming the phase, the step and the non-finite tensors.
        """
        for phase, record in sorted(self._first.items(), key=lambda item: float(item[1][0])):
            step = int(record[0])
            if step >= 0:
                flagged = [name for name, bad in zip(self._names[phase], record[1:].tolist(), strict=True) if bad]
                raise Diverged(f"phase {phase}, step {step}: not finite: {_some(flagged)}")
        for name, net in nets.items():
            tensors = [(n, t) for n, t in net.state_dict().items() if t.is_floating_point()]
            if not tensors:
                continue
            norms = torch.stack([n.float() for n in foreach_norm([t for _, t in tensors])])
            finite = torch.isfinite(norms).tolist()
            flagged = [f"{name}.{n}" for (n, _), ok in zip(tensors, finite, strict=True) if not ok]
            if flagged:
                raise Diverged(f"weights of {name}: not finite: {_some(flagged)}")


def _some(names: Sequence[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
