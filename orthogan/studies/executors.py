"""Running cells on an executor: the machines of a Dask cluster, jobs of SLURM, or any executor of concurrent.futures.

All machines must see the same folder. Each cell runs in a process of its own there, keeps its checkpoints in its
folder, and holds a lock on it: if a machine is lost, the cell resumes elsewhere from its newest checkpoint, and no cell
runs twice.
"""

from __future__ import annotations

import inspect
import os
import select
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from orthogan.errors import EXIT_BUG, EXIT_DONE, Stopped, UserError, install
from orthogan.io.read import describe_error
from orthogan.io.threads import threads_per_process
from orthogan.io.write import disk_errors
from orthogan.registry import Registry
from orthogan.studies.cells import StudyRun
from orthogan.studies.outcome import Outcome, load, save
from orthogan.studies.pool import LOOK, CellWorker, progress, progress_of, why_failed
from orthogan.studies.worker import read_cell
from orthogan.training.stop import StopSignal
from orthogan.words import counted

PATIENCE = 60.0  # seconds to reach a scheduler


@dataclass(frozen=True)
class ExecutorRequest:
    """Where cells run.

    ``name``: of an executor, or ``module:function`` that returns one of your own. ``scheduler``: address of a Dask
    scheduler. ``options``: of the executor, such as ``{"slurm_partition": "gpu"}``.

    Example:
        >>> from orthogan.studies.executors import ExecutorRequest
        >>> ExecutorRequest("dask", "tcp://10.0.0.1:8786").words
        ['--executor', 'dask', '--scheduler', 'tcp://10.0.0.1:8786']
    """

    name: str
    scheduler: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def words(self) -> list[str]:
        """The equivalent words of a command line."""
        pairs = [f"{key}={value}" for key, value in self.options.items()]
        return [
            *("--executor", self.name),
            *(("--scheduler", self.scheduler) if self.scheduler else ()),
            *(word for pair in pairs for word in ("--executor-option", pair)),
        ]


def _adopt(thing: Any) -> Any:
    if not callable(thing):
        raise TypeError("expected a function without arguments that returns an executor of concurrent.futures")

    @contextmanager
    def own(request: ExecutorRequest, root: Path) -> Iterator[Any]:
        try:
            inspect.signature(thing).bind(**request.options)
        except TypeError as error:
            raise UserError(
                f"--executor {request.name}: cannot be called with these options: {error}; change --executor-option"
            ) from None
        except ValueError:  # written in C; it has no signature
            pass
        made: Any = thing(**request.options)
        if not callable(getattr(made, "submit", None)):
            raise UserError(
                f"--executor {request.name}: returns a {type(made).__name__}, which has no method submit; return an "
                "executor of concurrent.futures"
            )
        with made if hasattr(made, "__enter__") else nullcontext(made) as executor:
            yield executor

    return own


# An executor is a function (request, folder of the study) -> context of an object with ``submit``.
EXECUTORS: Registry[Callable[[ExecutorRequest, Path], AbstractContextManager[Any]]] = Registry("executor", adopt=_adopt)


@EXECUTORS.register("dask")
@contextmanager
def dask(request: ExecutorRequest, root: Path) -> Iterator[Any]:
    """The workers of a Dask cluster."""
    try:
        from distributed import Client
    except ImportError:
        raise UserError(f"--executor dask needs {install('dask')}") from None
    if not request.scheduler:
        raise UserError("--executor dask: give the address of its scheduler, such as --scheduler tcp://10.0.0.1:8786")
    try:
        client = Client(request.scheduler, timeout=PATIENCE, set_as_default=False, **request.options)
    except (OSError, ValueError) as error:
        raise UserError(
            f"--scheduler {request.scheduler}: no Dask scheduler answers ({describe_error(error)})"
        ) from None
    with client:
        yield client.get_executor(pure=False)


@EXECUTORS.register("slurm")
@contextmanager
def slurm(request: ExecutorRequest, root: Path) -> Iterator[Any]:
    """One job of SLURM per cell, through submitit; all jobs of a command are one job array."""
    try:
        import submitit
    except ImportError:
        raise UserError(f"--executor slurm needs {install('slurm')}") from None
    options = {"name": "orthogan", "timeout_min": 24 * 60, **request.options}
    try:
        executor = submitit.AutoExecutor(folder=root / "slurm", cluster=options.pop("cluster", "slurm"))
        executor.update_parameters(**options)
    except (RuntimeError, TypeError, ValueError, NameError) as error:
        raise UserError(f"--executor slurm: {describe_error(error)}") from None
    yield executor


def run_on(request: ExecutorRequest, cells: Sequence[StudyRun], root: Path, title: str) -> None:
    """Run ``cells`` as ``pool.run_cells`` does, but on an executor, which decides how many run at a time.

    Raises:
        Stopped: a signal came. The running cells have saved their state; the same call resumes.
        UserError: there is no such executor, or it cannot be reached.
    """
    make = EXECUTORS.get(request.name, "--executor")
    mark = root / f".stop-{uuid.uuid4().hex}"  # all machines see this folder
    earlier, failed = {cell.folder: progress(cell) for cell in cells}, 0
    bar = progress_of(cells, title)
    for old in root.glob(".stop-*"):  # of a command that was killed
        old.unlink(missing_ok=True)
    futures: list[tuple[Any, StudyRun]] = []
    try:
        with make(request, root) as executor, bar, StopSignal() as stop:
            bar.initial = bar.n = sum(earlier.values())
            with getattr(executor, "batch", nullcontext)():  # of submitit: one job array
                futures += [(executor.submit(run_job, job_of(cell, mark)), cell) for cell in cells]
            while futures:
                if stop.name is not None and not mark.exists():
                    bar.set_postfix_str("stopping, the current runs are saving")
                    _write(mark)
                    for future, _ in futures:
                        if getattr(future, "state", "") == "PENDING":  # a job of SLURM may wait for hours
                            future.cancel()
                for future, cell in [pair for pair in futures if pair[0].done()]:
                    futures.remove((future, cell))
                    code = _code(future, cell, stopping=stop.name is not None)
                    if code not in (EXIT_DONE, Stopped.exit_code) and stop.name is None:
                        failed += 1
                        tqdm.write(f"{cell.name}: {why_failed(cell, code)}", file=sys.stderr)
                if stop.name is None:
                    going = [cell for _, cell in futures]
                    bar.set_postfix_str(f"{failed} failed" if failed else "", refresh=False)
                    bar.update(max(0.0, len(cells) - len(going) + sum(map(progress, going)) - bar.n))
                if futures:
                    time.sleep(LOOK)
    finally:
        if futures:  # an error, or a second Ctrl-C: nobody waits for these cells
            _write(mark)
        else:
            mark.unlink(missing_ok=True)
    if stop.name is not None:
        left = sum(load(cell.folder) is None for cell in cells)
        raise Stopped(f"stopped by {stop.name}, {counted(left, 'run')} left; the same command resumes")


def _write(mark: Path) -> None:
    with disk_errors(mark):
        mark.touch()


def _code(future: Any, cell: StudyRun, *, stopping: bool) -> int:
    """Return the exit code of a cell; if its machine failed for good, record that in its folder."""
    try:
        return future.result()
    except BaseException as error:  # an executor raises its own errors
        if isinstance(error, KeyboardInterrupt):
            raise
        if stopping:
            return Stopped.exit_code
        if load(cell.folder) is None:
            reason = f"its executor failed: {describe_error(error)}"
            save(cell.folder, Outcome("error", cell.definition(), cell.config.model_dump(), reason))
        return EXIT_BUG


def job_of(cell: StudyRun, mark: Path) -> dict[str, Any]:
    """Return what ``run_job`` needs on another machine, as JSON."""
    fields = vars(cell) | {"folder": str(cell.folder.absolute()), "config": cell.config.model_dump()}
    return {"cell": fields, "mark": str(mark.absolute()), "cwd": os.getcwd()}


def run_job(job: Mapping[str, Any]) -> int:
    """Run or resume the cell of ``job`` in a process of its own, on any machine; return its exit code.

    The process saves and stops as soon as the file ``job["mark"]`` exists, or if this one is lost.
    """
    mark, cell, slots = Path(job["mark"]), read_cell(job), _slots()
    if mark.exists():
        return Stopped.exit_code
    worker = CellWorker(threads_per_process(slots), slots, job["cwd"])
    try:
        worker.give(cell)
        while not select.select([worker], [], [], LOOK)[0]:
            if mark.exists():
                worker.stop()
        return worker.answer(stopping=mark.exists())[1]
    finally:
        worker.close()


def _slots() -> int:
    """Return how many cells this machine runs at a time: the threads of a Dask worker, else one."""
    if "distributed" in sys.modules:
        from distributed import get_worker

        with suppress(ValueError):  # not in a worker
            return get_worker().state.nthreads
    return 1
