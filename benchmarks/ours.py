"""orthogan as a contender: its usual task and loop, with the gate before each step."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from accelerate import Accelerator

from benchmarks.gate import Gate
from benchmarks.scoring import scorer
from benchmarks.setting import Setting, source_of
from orthogan.config.files import load_config
from orthogan.config.schema import Config
from orthogan.data import ImageSource
from orthogan.training.gan.task import GanTask
from orthogan.training.loop import train_task
from orthogan.training.precision import make_accelerator
from orthogan.training.task import Phase

# averages, logging, and the check for NaNs stay on; infrequent work of a run is omitted
QUIET = (
    "checkpoint.every=1000000000",
    "evaluation.every=0",
    "evaluation.at_start=false",
    "logging.samples_every=0",
    "logging.spectrum_every=0",
    "logging.tensorboard=false",
)


class GatedTask(GanTask):
    """A GAN task whose steps wait for their turn."""

    def __init__(self, config: Config, source: ImageSource, accelerator: Accelerator, gate: Gate) -> None:
        super().__init__(config, source, accelerator)
        self.gate = gate

    def phases(self, step: int) -> Iterator[Phase]:
        """The phases of a GAN, after the gate; each is a part of the step."""
        self.gate()
        for phase in super().phases(step):
            yield phase
            self.gate.part(phase.net)


def config_of(setting: Setting, overrides: Sequence[str], out: str, config: str = "") -> Config:
    """The config: the defaults, then the setting, then ``overrides``; or the file ``config``, then ``overrides``.

    Raises:
        UserError: a key or value does not exist in this version.
    """
    # fixed: contenders take turns, and the work of the others is not a reason for fewer threads
    quiet = [*QUIET, f"training.threads={torch.get_num_threads()}"]
    if config:
        chosen = [f"seed={setting.seed}", f"training.device={setting.device}"]
        return load_config(config, [*quiet, *chosen, f"out={out}", *overrides])
    return load_config(None, [*quiet, *setting.overrides(), f"out={out}", *overrides])


def run(setting: Setting, gate: Gate, overrides: Sequence[str], config: str = "") -> None:
    """Train until the gate requests no more steps; the run folder is deleted.

    Args:
        config: a file that replaces all of the setting but its images, device and random seed.

    Raises:
        UserError: see ``config_of``.
    """
    with tempfile.TemporaryDirectory(prefix="orthogan-race-") as folder:
        chosen = config_of(setting, overrides, folder, config)
        source = source_of(setting)
        accelerator = make_accelerator(chosen.training)
        task = GatedTask(chosen, source, accelerator, gate)
        try:
            gate.facts = facts(task)
            gate.score = scorer(lambda: task.shown, source, task.device)
            train_task(task, chosen, accelerator)
        finally:
            task.close()


def facts(task: GanTask) -> dict[str, Any]:
    """Facts about the contender."""
    sizes = {f"{name} parameters": sum(p.numel() for p in net.parameters()) for name, net in task.nets.items()}
    training = task.config.training
    sizes["reals per step"] = training.batch_size * training.d_steps_per_g_step
    return sizes | {"precision": task.accelerator.mixed_precision, "training": training.model_dump()}
