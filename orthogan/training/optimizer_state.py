"""An optimizer's tensors under the names of the parameters they belong to, for safetensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from orthogan.errors import UserError


def keep_fixed(optimizer: Optimizer, parameters: Iterable[nn.Parameter]) -> None:
    """Take ``parameters`` out of training: ``optimizer`` keeps them in a group of their own."""
    fixed = {id(p): p for p in parameters}
    group = optimizer.param_groups[0]
    group["params"] = [p for p in group["params"] if id(p) not in fixed]
    optimizer.add_param_group({**{k: v for k, v in group.items() if k != "params"}, "params": list(fixed.values())})
    optimizer.param_groups[-1]["frozen"] = True
    for parameter in fixed.values():
        parameter.requires_grad_(False)


def respect_fixed(optimizer: Optimizer, net: nn.Module, key: str) -> None:
    """Keep the parameters of ``net`` that need no gradient, such as those of a user's pretrained backbone, as they are.

    Raises:
        UserError: none is left to train. ``key``: of the network in the config.
    """
    parameters = list(net.parameters())
    fixed = [p for p in parameters if not p.requires_grad]
    if len(fixed) == len(parameters):
        raise UserError(
            f"{key}: no parameter of {type(net).__name__} has requires_grad=True, so there is nothing to train; call "
            "requires_grad_(True) on the layers to train in its __init__"
        )
    if fixed:
        keep_fixed(optimizer, fixed)


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
        if tensor.shape == parameter.shape and key != "step":
            like = torch.empty_like(parameter, dtype=tensor.dtype, requires_grad=False)
            optimizer.state[parameter][key] = like.copy_(tensor)
        else:
            # Adam's step count stays on the CPU unless the fused kernel wants it beside the parameter
            fused = optimizer.defaults.get("fused", False)
            optimizer.state[parameter][key] = tensor.to(parameter.device) if fused else tensor
