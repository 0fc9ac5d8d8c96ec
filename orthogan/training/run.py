"""Training a config: opens the data, builds the task, and runs the loop."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.state import PartialState
from accelerate.utils import broadcast_object_list

from orthogan.arguments import checked
from orthogan.config.files import Overrides, check_run_folder, listed, load_config
from orthogan.config.schema import Config
from orthogan.data import open_configured
from orthogan.errors import UserError
from orthogan.io.checkpoint import sweep
from orthogan.io.lock import locked
from orthogan.io.read import printable
from orthogan.io.write import disk_errors
from orthogan.named_code import Trust
from orthogan.process_group import fail_together, first_process
from orthogan.training.classifier.task import ClassifierTask, open_sources
from orthogan.training.expected import find_expected
from orthogan.training.gan.task import GanTask
from orthogan.training.loop import train_task, try_out
from orthogan.training.precision import make_accelerator
from orthogan.training.resume import check_run
from orthogan.training.schedules import resolved
from orthogan.training.scoring import is_finished, is_scored
from orthogan.training.task import Task
from orthogan.training.trackers.tracker import check_trackers


@checked
def train(
    config: Config | str | Path,
    overrides: Overrides = (),
    *,
    allow_config_change: bool = False,
    trust: Trust = False,
    **keys: Any,
) -> Path:
    """Train to the end of ``config``, resuming an existing run; returns the run folder.

    With ``torchrun`` or ``accelerate launch``, every process calls this.

    Args:
        config: a config; or the path of a YAML file, or the name of a shipped config, with ``overrides`` as in
            ``load_config``.
        keys: further overrides: ``seed=3``, ``training={"steps": 500}`` or ``training__steps=500``.
        trust: which external classes, in addition to those in ``config``, the file of ``config.model.init`` (or the
            ``config.yaml`` of a run folder) may name.

    Raises:
        UserError: the config, the data or the run folder cannot be used.
        Diverged: training produced NaN or infinite values; the last good checkpoint is kept.
        Stopped: by SIGINT or SIGTERM, after saving the state; the same call resumes.

    Example:
        >>> import orthogan
        >>> tiny = ["data.source=sprites", "data.channels=1", "data.count=16", "model.generator.channels=4"]
        >>> tiny += ["model.discriminator.channels=4", "training.batch_size=4", "training.steps=1"]
        >>> config = orthogan.load_config(None, [*tiny, "evaluation.every=0", "logging.tensorboard=false", "out=run"])
        >>> run = orthogan.train(config)  # doctest: +ELLIPSIS
        data: sprites-16, 16 images of 32 px; ...
        >>> orthogan.load(run).resolution
        32
        >>> orthogan.train("cifar10/srngan", seed=3, training__steps=2000)  # doctest: +SKIP
    """
    if keys:
        overrides = [*listed(overrides), {key.replace("__", "."): _plain(value) for key, value in keys.items()}]
    config = _read(config, overrides, trust)
    run = Path(str(config.out))
    with fail_together("the same command resumes from the newest checkpoint"), ExitStack() as stack:
        check_place(run)
        check_trackers(config.logging.trackers)
        if first_process() and int(os.environ.get("WORLD_SIZE", "1")) == 1 and is_finished(run, config):
            with suppress(UserError), locked(run, ""):  # it may be on a read-only disk
                sweep(run)
            return run
        if first_process():
            stack.enter_context(locked(run, "choose another folder with out=..."))
        accelerator = stack.enter_context(_processes(config))
        finished = accelerator.num_processes > 1 and first_process() and is_finished(run, config)
        if accelerator.num_processes > 1 and broadcast_object_list([finished])[0]:
            return run
        task = stack.enter_context(_task(config, trust, accelerator))
        return train_task(task, config, accelerator, allow_config_change=allow_config_change)


@checked
def dry_run(
    config: Config | str | Path,
    overrides: Overrides = (),
    *,
    allow_config_change: bool = False,
    trust: Trust = False,
) -> dict[str, Any]:
    """Build everything, make the checks of ``train``, run a few steps, and report sizes, losses, memory and time.

    Nothing is written. The arguments are those of ``train``.

    Raises:
        UserError, Diverged: as ``train``.

    Example:
        >>> import orthogan
        >>> from orthogan.training import dry_run
        >>> tiny = ["data.source=sprites", "data.channels=1", "data.count=16", "model.generator.channels=4"]
        >>> tiny += ["model.discriminator.channels=4", "training.batch_size=4", "out=run", "evaluation.every=0"]
        >>> report = dry_run(orthogan.load_config(None, tiny))
        >>> "D/loss" in report, "peak memory" in report
        (True, True)
    """
    config = _read(config, overrides, trust)
    with fail_together("start all of them again"):
        run = Path(str(config.out))
        check_place(run)
        with _processes(config) as accelerator, _task(config, trust, accelerator) as task:
            check_trackers(config.logging.trackers)
            check_run(run, task, config, allow_config_change=allow_config_change)
            if is_scored(config.evaluation):
                task.check_evaluation()
            facts = try_out(task, config, accelerator)
            return facts | ({"expected": expected.target()} if (expected := find_expected(config)) else {})


def check_place(run: Path) -> None:
    """Raise ``CannotWrite`` if ``run`` cannot be created or written, ``UserError`` if its name is not UTF-8."""
    try:
        str(run).encode()
    except UnicodeEncodeError as error:
        text = f"out: {printable(run)} is not valid UTF-8, which safetensors files need; choose another name"
        raise UserError(text) from error
    with disk_errors(run):
        place = next(place for place in (run, *run.absolute().parents) if exists(place))
        if not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        tempfile.TemporaryFile(dir=place).close()  # os.access is not reliable for the superuser


def exists(path: Path) -> bool:
    """Whether there is something at ``path``. Raises OSError for a name that no file can have, and the like."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _read(config: Config | str | Path, overrides: Overrides, trust: Trust) -> Config:
    if not isinstance(config, Config):
        if not isinstance(config, str | os.PathLike):
            raise TypeError(
                "expected a Config, the path of a YAML file or the name of a shipped config, not "
                f"{type(config).__name__}; orthogan.load_config(None, overrides) makes one from the defaults"
            )
        several = listed(overrides)  # it is read twice
        read = load_config(config, several, trust=trust)
        check_run_folder(config, several, read)
        return read
    if overrides:
        raise TypeError("overrides need the path of a YAML file; pass them to orthogan.load_config instead")
    return config


@contextmanager
def _processes(config: Config) -> Iterator[Accelerator]:
    """Set up the device and the processes of the training."""
    accelerator = make_accelerator(config.training)
    try:
        yield accelerator
    finally:
        if accelerator.num_processes > 1:
            PartialState().destroy_process_group()


@contextmanager
def _task(config: Config, trust: Trust, accelerator: Accelerator) -> Iterator[Task]:
    resolved(config.training.schedule)  # a mistake in the user's own is reported before the data is opened
    task: Task
    if config.task == "classifier":
        with accelerator.main_process_first():  # one process downloads or decodes; the others use the result
            source, test = open_sources(config)
        task = ClassifierTask(config, source, test, accelerator)
    else:
        with accelerator.main_process_first():
            source = open_configured(config.data)
        task = GanTask(config, source, accelerator, trust=trust)
    try:
        yield task
    finally:
        task.close()
