"""Choice of the device, and capabilities of the hardware."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch import nn

from orthogan import __version__
from orthogan.errors import UserError
from orthogan.io.read import describe_error, shown
from orthogan.io.threads import cores
from orthogan.process_group import join, several


def fast_bf16(device: str) -> bool:
    """Whether the hardware multiplies bfloat16 natively, so that autocast saves time."""
    if device != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_capability() >= (8, 0)
    if device == "mps":
        return False
    if (
        not torch.ops.mkldnn._is_mkldnn_bf16_supported()
    ):  # oneDNN respects DNNL_MAX_CPU_ISA, unlike the flags of the processor
        return False
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def memory_format(net: nn.Module, *, channels_last: bool) -> torch.memory_format:
    """Return the memory format for ``net`` and its images: NHWC if ``channels_last``, unless that would crash.

    Where oneDNN has AVX2 but not AVX512 (seen with torch 2.14.1), the backward pass of a strided 1x1 convolution of
    fewer than eight channels in NHWC writes outside its memory.
    """
    if channels_last and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        convs = [m for m in net.modules() if isinstance(m, nn.Conv2d) and next(m.parameters()).device.type == "cpu"]
        if any(m.kernel_size == (1, 1) and m.stride != (1, 1) and m.in_channels < 8 for m in convs):
            return torch.contiguous_format
    return torch.channels_last if channels_last else torch.contiguous_format


def chosen_device(name: str | torch.device | None, what: str = "--device") -> torch.device:
    """Return the device of this name; None: the fastest available device (of this process, if there are several).

    ``what``: the name of the option or argument, for messages.

    Raises:
        UserError: the device is not available.
    """
    if name is None:
        gpu = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else ""
        # accelerate is slow to import, and a single process does not need it
        if several() or dist.is_initialized() or "accelerate" in sys.modules:
            return join(cpu=not gpu).device or torch.device("cpu")
        return torch.device(gpu or "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"{what} {shown(name)}: unknown device; choose cpu, cuda, cuda:1 or mps") from None
    if device.type == "meta":
        raise UserError(f"{what} meta: this device holds no data; choose cpu, cuda or mps")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ImportError, ValueError, NotImplementedError) as error:
        reason = describe_error(error).partition(". ")[0]
        raise UserError(
            f"{what} {name}: not available here ({reason}); omit it for the fastest device of this machine"
        ) from None
    return device


def machine() -> dict[str, Any]:
    """Return processor, cores, memory [GiB], GPU, system and versions."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": _processor(),
        "cores": cores(),
        "memory [GiB]": round(memory),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "orthogan": __version__,
    }


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()
