"""How much a net has to compute: the operations and bytes of its matrix products and convolutions."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from orthogan import weights
from orthogan.models import modes


class Work(TorchDispatchMode):
    """Within the block adds up what matrix products and convolutions do, forwards and backwards.

    ``flops``: floating-point operations (a multiplication and an addition are two). ``bytes``: what they read and
    write, each tensor once a call, in its own number format. Compiled functions cannot be looked into.
    """

    # torch's FlopCounterMode also follows which module is at work, and fails where one gets a bare parameter as input

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.bytes = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if (count := flop_registry.get(func._overloadpacket)) is not None:
            self.flops += count(*args, **kwargs, out_val=out)
            tensors = [t for t in [*args, *(out if isinstance(out, tuple | list) else [out])] if isinstance(t, Tensor)]
            self.bytes += sum(t.numel() * t.element_size() for t in tensors)
        return out


def forward_flops(net: nn.Module, *inputs: Tensor | None) -> float:
    """Floating-point operations of one forward of ``net`` on ``inputs``, weights included; nothing in it moves."""
    with Work() as work, modes.frozen(net), weights.frozen(net):
        net(*inputs)
    return work.flops
