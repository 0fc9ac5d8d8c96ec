"""Device, precision and memory format of a run; by default the fastest."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState

from orthogan.device import fast_bf16
from orthogan.errors import UserError
from orthogan.memory import keep_freed_memory
from orthogan.process_group import join
from orthogan.training.config import TrainingConfig


def make_accelerator(config: TrainingConfig) -> Accelerator:
    """Create the Accelerator of a run (one per process of ``accelerate launch`` or ``torchrun``).

    Raises:
        UserError: the requested device is not available.
    """
    wanted = config.device
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("training.device is 'cuda', but no CUDA device is available; use 'auto' or 'cpu'")
    if wanted == "mps" and not torch.backends.mps.is_available():
        raise UserError("training.device is 'mps', but MPS is not available; use 'auto' or 'cpu'")
    cpu = wanted == "cpu" or (
        wanted == "auto" and not torch.cuda.is_available() and not torch.backends.mps.is_available()
    )
    bf16 = config.precision == "bf16" or (config.precision == "auto" and fast_bf16("cpu" if cpu else wanted))
    if cpu:
        keep_freed_memory()
    elif torch.cuda.is_available():
        torch.backends.cudnn.benchmark = (
            True  # the shapes of a run never change, so the search for kernels is made once
        )
    # Accelerate keeps one state per process; a second run in it may need another precision
    if PartialState._shared_state and PartialState().num_processes == 1:
        AcceleratorState._reset_state(reset_partial_state=True)
    join(cpu=cpu)
    return Accelerator(cpu=cpu, mixed_precision="bf16" if bf16 else "no")
