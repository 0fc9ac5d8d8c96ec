"""Tiny runs for the tests: a net of a few thousand weights on a few hundred sprites."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from orthogan.config.files import load_config
from orthogan.config.schema import Config

ROOT = Path(__file__).parents[2]
TINY = [
    "data.source=sprites",
    "data.count=96",
    "data.channels=1",
    "model.generator.channels=8",
    "model.generator.latent_dim=8",
    "model.discriminator.channels=8",
    "model.discriminator.norm.kind=stable_rank",
    "model.discriminator.norm.c=0.3",
    "training.batch_size=8",
    "training.generator_batch_size=8",
    "training.n_dis=2",
    "training.device=cpu",
    "training.precision=fp32",
    "training.schedule.kind=linear",
    "logging.every=2",
    "logging.samples=4",
    "logging.tensorboard=false",
    "evaluation.every=0",
    "checkpoint.every=3",
]


def tiny(out: Path, *overrides: str) -> Config:
    """The config of a tiny run into ``out``."""
    return load_config(None, [*TINY, f"out={out}", *overrides])


def command(out: Path, *overrides: str, processes: int = 1) -> list[str]:
    """The same run as a command, on one or several processes."""
    empty = out.parent / "empty.yaml"
    out.parent.mkdir(parents=True, exist_ok=True)
    empty.touch()
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--master_port", "0"]
        start += ["--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0"]
    return [*start, str(ROOT / "train.py"), str(empty), *TINY, f"out={out}", *overrides]


def environment() -> dict[str, str]:
    """One thread a process: sums of floats then have one order on any machine."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def finish(out: Path, *overrides: str, processes: int = 1) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        command(out, *overrides, processes=processes), env=environment(), capture_output=True, text=True, timeout=240
    )


def tensors(out: Path, step: int) -> dict[str, Tensor]:
    """Everything a checkpoint holds, by file and name."""
    folder = out / "checkpoints" / f"step-{step:09d}"
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        # copies: what is read may be a view of the file, which a test may harm
        found |= {f"{file.stem}/{name}": tensor.clone() for name, tensor in load_file(file).items()}
    return found
