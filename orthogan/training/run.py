"""From a config to a trained run: opens the data, builds the task, hands both to the loop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.state import PartialState

from orthogan.config import Config
from orthogan.config_file import Overrides, load_config
from orthogan.data import open_configured
from orthogan.named_code import Trust
from orthogan.training.classifier import ClassifierTask, open_sources
from orthogan.training.gan import GanTask
from orthogan.training.loop import train_task, try_out
from orthogan.training.precision import make_accelerator
from orthogan.training.task import Task


def train(
    config: Config | str | Path,
    overrides: Overrides = (),
    *,
    allow_config_change: bool = False,
    trust: Trust = False,
) -> Path:
    """Train to the end of ``config``, continuing what its run folder holds; returns the run folder.

    Under ``torchrun`` or ``accelerate launch`` every process calls this.

    Args:
        config: a config, or the path of a YAML file, for which ``overrides`` are as of ``load_config``.
        trust: which classes that ``config`` does not name the file of ``config.model.init`` (or the ``config.yaml`` of
            a run folder) may name.

    Raises:
        UserError: the config, the data or the run folder cannot be used.
        Diverged: training met a NaN or an infinity; the last good checkpoint is kept.
        Stopped: SIGINT or SIGTERM came; the state was saved, the same call continues.
    """
    config = _read(config, overrides, trust)
    with _task(config, trust) as (task, accelerator):
        return train_task(task, config, accelerator, allow_config_change=allow_config_change)


def dry_run(config: Config | str | Path, overrides: Overrides = (), *, trust: Trust = False) -> dict[str, Any]:
    """Build everything, do one step of each phase, and report sizes, losses and memory; writes nothing.

    Raises:
        UserError, Diverged: as ``train``.
    """
    config = _read(config, overrides, trust)
    with _task(config, trust) as (task, accelerator):
        return try_out(task, accelerator)


def _read(config: Config | str | Path, overrides: Overrides, trust: Trust) -> Config:
    if not isinstance(config, Config):
        return load_config(config, overrides, trust=trust)
    if overrides:
        raise TypeError("overrides belong to the path of a YAML file; give them to orthogan.load_config")
    return config


@contextmanager
def _task(config: Config, trust: Trust) -> Iterator[tuple[Task, Accelerator]]:
    accelerator = make_accelerator(config.training)
    task: Task
    if config.task == "classifier":
        with accelerator.main_process_first():  # one process downloads or decodes, the others find it done
            source, test = open_sources(config)
        task = ClassifierTask(config, source, test, accelerator)
    else:
        with accelerator.main_process_first():
            source = open_configured(config.data)
        task = GanTask(config, source, accelerator, trust=trust)
    try:
        yield task, accelerator
    finally:
        task.close()
        if accelerator.num_processes > 1:
            PartialState().destroy_process_group()
