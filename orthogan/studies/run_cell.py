"""One cell in this process: train it, measure it, write down what became of it."""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from orthogan.config.base import names_in
from orthogan.errors import EXIT_BUG, EXIT_DONE, Diverged, Stopped, UserError
from orthogan.io import checkpoint
from orthogan.studies.cells import StudyRun
from orthogan.studies.finished import CheckpointGone, FinishedRun
from orthogan.studies.machine import machine, peak_memory
from orthogan.studies.outcome import Outcome, Status, add_sitting, load, save
from orthogan.studies.study import MeasureResult, Study


def run_cell(study: Study, cell: StudyRun, facts: Mapping[str, Any]) -> int:
    """Run ``cell`` to its end, or go on with it; returns the exit code of what happened.

    Each measure is stored when it is made, so that the next sitting makes only those that are missing. Once all are
    there, the cell keeps its newest checkpoint and the best alone.

    Args:
        facts: for the notes on this sitting: threads, cells at a time.
    """
    cell.folder.mkdir(parents=True, exist_ok=True)
    try:
        try:
            _train_and_measure(study, cell, facts)
        except CheckpointGone as gone:
            if _known(cell):  # a measure is new: to train again for it is the user's decision
                raise
            print(f"orthogan: {gone}: its measures were lost, so it is trained again", flush=True)
            shutil.rmtree(cell.folder / checkpoint.FOLDER)
            _train_and_measure(study, cell, facts)
        checkpoint.prune(cell.folder, keep=1)
    except Stopped as stopped:
        print(f"orthogan: {stopped}", flush=True)
        return Stopped.exit_code
    except Diverged as error:
        return _failed(cell, "diverged", str(error), Diverged.exit_code)
    except UserError as error:
        return _failed(cell, "error", str(error), UserError.exit_code)
    except Exception as error:  # whatever it is, the other cells go on
        traceback.print_exc()
        return _failed(cell, "error", f"{type(error).__name__}: {error}", EXIT_BUG)
    return EXIT_DONE


def _train_and_measure(study: Study, cell: StudyRun, facts: Mapping[str, Any]) -> None:
    with _sitting(cell, facts):
        study.run(cell.config)
    _measure(study, cell)


def missing(study: Study, outcome: Outcome) -> list[str]:
    """The measures that ``outcome`` lacks."""
    return [measure.identity for measure in study.measures if measure.identity not in outcome.found]


def _measure(study: Study, cell: StudyRun) -> None:
    """Store what all measures of the study find, and nothing of measures that it no longer has."""
    run, known = FinishedRun(cell.folder, trust=names_in(cell.config)), _known(cell)
    wanted = [measure.identity for measure in study.measures]
    found = {identity: known[identity] for identity in wanted if identity in known}
    for measure in study.measures:
        if measure.identity not in found:
            found[measure.identity] = measure.of(run)
            save(cell.folder, _outcome(cell, "done", "", found))
    save(cell.folder, _outcome(cell, "done", "", found))


def _failed(cell: StudyRun, status: Status, reason: str, code: int) -> int:
    """Store why there is no result, beside what was measured already; returns ``code``."""
    save(cell.folder, _outcome(cell, status, reason, _known(cell)))
    return code


def _outcome(cell: StudyRun, status: Status, reason: str, found: Mapping[str, MeasureResult]) -> Outcome:
    return Outcome(status, cell.definition(), cell.config.model_dump(), reason, found)


def _known(cell: StudyRun) -> Mapping[str, MeasureResult]:
    """What was measured of the cell as it is defined now."""
    known = load(cell.folder)
    return known.found if known is not None and known.definition == cell.definition() else {}


@contextmanager
def _sitting(cell: StudyRun, facts: Mapping[str, Any]) -> Iterator[None]:
    """Note machine, versions, time and memory of the training within, however it ends."""
    began, before = time.monotonic(), _step(cell)
    about: dict[str, Any] = {"began": datetime.now(UTC).isoformat(timespec="seconds"), **machine(), **facts}
    try:
        yield
    finally:
        about |= {
            "trained": _step(cell) != before,
            "seconds": round(time.monotonic() - began, 1),
            "peak memory [MiB]": round(peak_memory(), 1),
        }
        add_sitting(cell.folder, about)


def _step(cell: StudyRun) -> int:
    """The step of the newest checkpoint."""
    return max((step for step, _ in checkpoint.steps(cell.folder)), default=-1)
