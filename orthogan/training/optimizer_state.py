"""An optimizer's tensors under the names of the parameters they belong to, for safetensors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from orthogan.errors import UserError

FIXED = "frozen"  # marks the group of the parameters that are not trained
NUMBER = "#number"


def keep_fixed(optimizer: Optimizer, parameters: Iterable[nn.Parameter]) -> None:
    """Take ``parameters`` out of training: ``optimizer`` keeps them in a group of their own."""
    fixed = {id(p): p for p in parameters}
    group = optimizer.param_groups[0]
    group["params"] = [p for p in group["params"] if id(p) not in fixed]
    optimizer.add_param_group({**{k: v for k, v in group.items() if k != "params"}, "params": list(fixed.values())})
    optimizer.param_groups[-1][FIXED] = True
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
    """``{"conv.weight/exp_avg": ...}``: names survive a change in the order of construction.

    The names of numbers end with ``#number``. Values that an optimizer keeps in its groups are ``{"group 0/k": ...}``;
    Adam and SGD have none.

    Raises:
        UserError: the state has something other than tensors and numbers.
    """
    found: dict[str, Tensor] = {}
    for name, parameter in net.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            if value is not None:
                what = f"{type(optimizer).__name__}: state {key!r} of {name}"
                found[f"{name}/{key}{_mark(value)}"] = _as_tensor(value, what)
    if type(optimizer) not in (Adam, SGD):
        for i, group in enumerate(optimizer.param_groups):
            for key, value in group.items():
                if key not in ("params", "lr", FIXED) and value is not optimizer.defaults.get(key):
                    what = f"{type(optimizer).__name__}: {key!r} of group {i}"
                    found[f"group {i}/{key}{_mark(value)}"] = _as_tensor(value, what)
    return found


def load_optimizer(net: nn.Module, optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore the result of ``optimizer_tensors``; each moment gets the memory layout of its parameter.

    Raises:
        KeyError: a tensor belongs to no parameter of ``net``, or the state is that of another optimizer.
    """
    kinds = {name.rpartition("/")[2] for name in tensors}
    if kinds and type(optimizer) in (Adam, SGD) and ("exp_avg" in kinds) != isinstance(optimizer, Adam):
        raise KeyError(f"{type(optimizer).__name__} cannot resume with {', '.join(sorted(kinds))}")
    parameters = dict(net.named_parameters())
    groups = dict(enumerate(optimizer.param_groups))
    optimizer.state.clear()
    for name, tensor in tensors.items():
        owner, _, key = name.rpartition("/")
        value = tensor.item() if key.endswith(NUMBER) else tensor
        key = key.removesuffix(NUMBER)
        if owner not in parameters and (match := re.fullmatch(r"group (\d+)", owner)):
            groups[int(match[1])][key] = value
            continue
        parameter = parameters[owner]
        if isinstance(value, Tensor) and tensor.shape == parameter.shape and key != "step":
            value = torch.empty_like(parameter, dtype=tensor.dtype, requires_grad=False).copy_(tensor)
        elif isinstance(value, Tensor) and (tensor.dim() or optimizer.defaults.get("fused", False)):
            # Adam's step count stays on the CPU unless the fused kernel wants it beside the parameter
            value = value.to(parameter.device)
        optimizer.state[parameter][key] = value


def _as_tensor(value: Any, what: str) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, int | float):
        return torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else torch.int64)
    raise UserError(f"{what} is a {type(value).__name__}; only tensors and numbers can be saved, so it cannot resume")


def _mark(value: Any) -> str:
    return "" if isinstance(value, Tensor) else NUMBER
