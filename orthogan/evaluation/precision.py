"""Precision of sampling and features; statistics are always float64."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.nn.utils import parametrize

from orthogan.device import fast_bf16
from orthogan.errors import UserError

EvaluationPrecision = Literal["fp32", "bf16", "auto"]


@dataclass(frozen=True)
class Precision:
    """Whether the generator and the feature network run under bfloat16 autocast; resizing stays float32."""

    sampling: bool
    features: bool


def resolve_precision(name: str, device: torch.device) -> Precision:
    """Return the precision: "bf16" for both parts; "auto" only for sampling, if the hardware multiplies bf16 natively.

    ``python -m benchmarks.evaluation --noise`` on sprites, 1,000 images per side: sampling in bf16 changes every metric
    by less than its spread over seeds; features in bf16 change FD by as much as the spread, and precision by more.

    Raises:
        UserError: unknown precision.
    """
    if name not in get_args(EvaluationPrecision):
        raise UserError(f"precision {name!r}: choose one of {', '.join(get_args(EvaluationPrecision))}")
    if name == "auto":
        return Precision(sampling=fast_bf16(device.type), features=False)
    return Precision(name == "bf16", name == "bf16")


def autocast(device: torch.device, bf16: bool) -> torch.autocast:
    """Context with bfloat16 autocast, or without autocast regardless of the surrounding context."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)


def describe_precision(precision: Precision, device: torch.device, drawn: bool) -> str:
    """Describe the number formats for a protocol; CUDA may use TF32 within convolutions.

    ``drawn``: whether there is a generator.
    """
    parts = {"sampling": precision.sampling, "features": precision.features}
    if not drawn:
        del parts["sampling"]
    formats = {part: "bfloat16" if bf16 else f"float32{_tf32(device)}" for part, bf16 in parts.items()}
    if not any(parts.values()):
        return f"float32{_tf32(device)}, statistics float64"
    return ", ".join([*(f"{part} {form}" for part, form in formats.items()), "statistics float64"])


@contextmanager
def prepare_net(net: nn.Module) -> Iterator[None]:
    """Context with channels-last kernels and constrained weights that are computed once, not for every batch.

    Afterward every tensor is the original one, so training continues bit for bit. Weights must not change within the
    context.
    """
    before = [(tensor, tensor.data) for tensor in [*net.parameters(), *net.buffers()] if tensor.dim() == 4]
    try:
        for tensor, data in before:
            tensor.data = data.contiguous(memory_format=torch.channels_last)
        with parametrize.cached():
            yield
    finally:
        for tensor, data in before:
            tensor.data = data


def _tf32(device: torch.device) -> str:
    cudnn: Any = torch.backends.cudnn  # its type stubs lack the submodules
    return " (TF32 convolutions)" if device.type == "cuda" and cudnn.conv.fp32_precision == "tf32" else ""
