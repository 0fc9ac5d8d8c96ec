"""Running several cells at a time in separate processes, under one progress bar, until all finish or a signal comes."""

from __future__ import annotations

import os
import re
import select
import sys
from collections import deque
from collections.abc import Sequence

from tqdm import tqdm

from orthogan.background import Worker, WorkerEnded
from orthogan.errors import EXIT_DONE, Diverged, Stopped
from orthogan.io.threads import GIVEN, cores, threads_per_process
from orthogan.studies.cells import StudyRun
from orthogan.studies.outcome import Outcome, load, save
from orthogan.training.run_log import LOG
from orthogan.training.stop import StopSignal
from orthogan.words import counted

WORKER = "orthogan.studies.worker"
LOOK = 0.5  # seconds between looks at the cells
TAIL = 1 << 16  # bytes read from the end of a log, more than a line
STOP = "stop"  # the message that makes a cell save and exit
THREADS = (*GIVEN, "OPENBLAS_NUM_THREADS")
FORM = "{l_bar}{bar}| {n:.1f}/{total:.0f} runs [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


def run_cells(cells: Sequence[StudyRun], jobs: int, title: str) -> None:
    """Run ``cells``, ``jobs`` at a time, each with its share of the cores.

    The outcome of each cell is stored in its folder; a failed cell does not stop the others.

    Raises:
        Stopped: a signal came. The running cells have saved their state; the same call resumes.
    """
    # computed from ``jobs``, not from the number of cells, so that a cell that is run alone later has the same threads
    threads = threads_per_process(jobs)
    waiting, failed = deque(cells), 0
    workers = [CellWorker(threads, jobs) for _ in range(min(jobs, len(cells)))]
    bar = progress_of(cells, title)
    done, earlier = 0, {cell.folder: progress(cell) for cell in cells}
    try:
        bar.initial = bar.n = sum(earlier.values())  # progress of earlier sessions does not count as speed
        with bar, StopSignal() as stop:
            while True:
                for worker in workers:
                    if worker.cell is None and waiting and stop.name is None:
                        worker.give(waiting.popleft())
                busy = [worker for worker in workers if worker.cell is not None]
                if not busy:
                    break
                if stop.name is not None:
                    bar.set_postfix_str(f"stopping; {counted(len(busy), 'run')} to save")
                    for worker in busy:
                        worker.stop()
                for worker in _answering(busy):
                    cell, code = worker.answer(stopping=stop.name is not None)
                    done += code != Stopped.exit_code and stop.name is None
                    if code not in (EXIT_DONE, Stopped.exit_code) and stop.name is None:
                        failed += 1
                        tqdm.write(f"{cell.name}: {why_failed(cell, code)}", file=sys.stderr)
                if stop.name is None:
                    shares = [progress(worker.cell) for worker in workers if worker.cell is not None]
                    bar.set_postfix_str(_state(shares.count(1.0), failed), refresh=False)
                    bar.update(max(0.0, done + sum(shares) + sum(earlier[cell.folder] for cell in waiting) - bar.n))
            if stop.name is not None:
                left = len(cells) - done
                raise Stopped(f"stopped by {stop.name}, {counted(left, 'run')} left; the same command resumes")
    finally:
        for worker in workers:
            worker.close()


def progress_of(cells: Sequence[StudyRun], title: str) -> tqdm:
    """Return the progress bar of ``cells``, which may be partly done."""
    return tqdm(
        total=len(cells), desc=title, unit="run", bar_format=FORM, disable=None, dynamic_ncols=True, mininterval=0.5
    )


class CellWorker:
    """A worker process that runs cells one after the other, in the folder ``cwd``; it is replaced if it dies."""

    def __init__(self, threads: int, jobs: int, cwd: str | None = None) -> None:
        self.cwd = cwd
        self.facts = {"threads": threads, "cells at a time": jobs}
        self.cell: StudyRun | None = None
        self._told = False  # whether it was asked to stop
        self._worker = Worker(WORKER, dict.fromkeys(THREADS, str(threads)))

    def fileno(self) -> int:
        """Return the descriptor that answers come from, for ``select``."""
        return self._worker.fileno()

    def give(self, cell: StudyRun) -> None:
        """Send the next cell."""
        self.cell = cell
        fields = vars(cell) | {"folder": str(cell.folder), "config": cell.config.model_dump()}
        self._worker.send({"cell": fields, "facts": self.facts, "cwd": self.cwd})

    def stop(self) -> None:
        """Ask the running cell to save and stop."""
        if not self._told:
            self._worker.send(STOP)
            self._told = True

    def answer(self, *, stopping: bool) -> tuple[StudyRun, int]:
        """Return the cell that was running and its exit code; if it was killed, record that in its folder."""
        assert self.cell is not None
        cell, self.cell = self.cell, None
        try:
            code, ended = self._worker.receive()["code"], False
            why = f"its process was ended by signal {-code} (out of memory?)" if code < 0 else f"exit code {code}"
        except WorkerEnded as error:
            code, ended, why = error.code, True, f"the worker ended {error}"
        if not stopping and (code < 0 or ended or load(cell.folder) is None) and code != Stopped.exit_code:
            outcome = Outcome("error", cell.definition(), cell.config.model_dump(), f"{why}; see output.txt")
            save(cell.folder, outcome)
            code = code or 1
        return cell, code

    def close(self) -> None:
        """End the process; a running cell is killed and keeps its last checkpoint."""
        self._worker.close() if self.cell is None else self._worker.kill()


def progress(cell: StudyRun) -> float:
    """Return the completed fraction of a cell's training, from its log [0-1]."""
    try:
        with (cell.folder / LOG).open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - TAIL))
            steps = re.findall(rb'^\{"step": (\d+)', stream.read(), re.MULTILINE)
    except OSError:
        return 0.0
    return min(1.0, int(steps[-1]) / cell.config.training.steps) if steps else 0.0


def _answering(busy: Sequence[CellWorker]) -> list[CellWorker]:
    """Return the workers that have answered; wait up to ``LOOK`` seconds for the first."""
    return select.select(busy, [], [], LOOK)[0]


def _state(measured: int, failed: int) -> str:
    """Format the counts that are shown beside the progress bar."""
    counts = {"being measured": measured, "failed": failed}
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def why_failed(cell: StudyRun, code: int) -> str:
    """Return the reason in the folder of a cell that failed."""
    outcome = load(cell.folder)
    reason = outcome.reason if outcome is not None else f"exit code {code}"
    return f"diverged: {reason}" if code == Diverged.exit_code else f"failed: {reason}"


def default_jobs(gpu: bool) -> int:
    """Return the number of cells to run at a time: one on a GPU, else one per core, at most eight."""
    return 1 if gpu else min(8, cores())
