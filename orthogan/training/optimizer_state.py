"""An optimizer's tensors under the names of the parameters they belong to, for safetensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer


def optimizer_tensors(net: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """``{"conv.weight/exp_avg": ...}``: names survive a change in the order of construction."""
    found: dict[str, Tensor] = {}
    for name, parameter in net.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            found[f"{name}/{key}"] = value if isinstance(value, Tensor) else torch.tensor(float(value))
    return found


def load_optimizer(net: nn.Module, optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore the result of ``optimizer_tensors``; each moment gets the memory layout of its parameter.

    Raises:
        KeyError: a tensor belongs to no parameter of ``net``, or the state is that of another optimizer.
    """
    kinds = {name.rpartition("/")[2] for name in tensors}
    if kinds and ("exp_avg" in kinds) != isinstance(optimizer, Adam):
        raise KeyError(f"{type(optimizer).__name__} cannot resume with {', '.join(sorted(kinds))}")
    parameters = dict(net.named_parameters())
    optimizer.state.clear()
    for name, tensor in tensors.items():
        owner, _, key = name.rpartition("/")
        parameter = parameters[owner]
        if tensor.shape == parameter.shape and tensor.dim():
            like = torch.empty_like(parameter, dtype=tensor.dtype, requires_grad=False)
            optimizer.state[parameter][key] = like.copy_(tensor)
        else:
            # Adam's step count stays on the CPU unless the fused kernel wants it beside the parameter
            fused = optimizer.defaults.get("fused", False)
            optimizer.state[parameter][key] = tensor.to(parameter.device) if fused else tensor
