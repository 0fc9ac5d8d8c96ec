"""Inspecting a network without changing it: its device, and a context with eval mode and no gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn

from orthogan.errors import UserError


def get_device(module: nn.Module) -> torch.device:
    """Return the device of the tensors of ``module``; the CPU if it has none."""
    return next((tensor.device for tensor in [*module.parameters(), *module.buffers()]), torch.device("cpu"))


def need_numbers(module: nn.Module) -> None:
    """Raise ``UserError`` for a module on the meta device, whose tensors have shapes but no values."""
    if get_device(module).type == "meta":
        name = type(module).__name__
        raise UserError(f"{name} is on the meta device, which holds no data; load its weights first")


def get_dtype(module: nn.Module) -> torch.dtype:
    """Return the precision of the parameters of ``module``; float32 if it has none."""
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Put every submodule in eval mode within a context (running statistics and power iterations are not updated).

    In the context, a module in a precision other than float32 also takes float32 input. The ``training`` flag of each
    submodule is restored at the end, even if the flags differ.
    """
    modes = [(part, part.training) for part in module.modules()]
    dtype = get_dtype(module)
    hook = None if dtype == torch.float32 else module.register_forward_pre_hook(partial(_converted, dtype))
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        if hook is not None:
            hook.remove()
        for part, training in modes:
            part.training = training


def _converted(dtype: torch.dtype, module: nn.Module, inputs: tuple[object, ...]) -> tuple[object, ...]:
    return tuple(x.to(dtype) if isinstance(x, torch.Tensor) and x.dtype == torch.float32 else x for x in inputs)
