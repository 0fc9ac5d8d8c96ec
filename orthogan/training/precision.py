"""Which device, number format and memory layout a run uses: what is fastest where nothing was chosen."""

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
    """The Accelerator of a run (one for each process of ``accelerate launch`` or ``torchrun``).

    Raises:
        UserError: the device that was asked for is not here.
    """
    wanted = config.device
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("training.device is 'cuda', but no CUDA device is here; use 'auto' or 'cpu'")
    if wanted == "mps" and not torch.backends.mps.is_available():
        raise UserError("training.device is 'mps', but there is none here; use 'auto' or 'cpu'")
    cpu = wanted == "cpu" or (
        wanted == "auto" and not torch.cuda.is_available() and not torch.backends.mps.is_available()
    )
    bf16 = config.precision == "bf16" or (config.precision == "auto" and fast_bf16("cpu" if cpu else wanted))
    if cpu:
        keep_freed_memory()
    elif torch.cuda.is_available():
        torch.backends.cudnn.benchmark = True  # a run's shapes never change, so the search for kernels is made once
    # Accelerate keeps one state a process; a second run in it may want another format
    if PartialState._shared_state and PartialState().num_processes == 1:
        AcceleratorState._reset_state(reset_partial_state=True)
    join(cpu=cpu)
    return Accelerator(cpu=cpu, mixed_precision="bf16" if bf16 else "no")
