"""The cells of a study: one run per method, setting and seed; listing, training and measuring them."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from orthogan import memory
from orthogan.config.base import names_in
from orthogan.config.files import load_config
from orthogan.config.schema import Config
from orthogan.device import machine
from orthogan.errors import EXIT_BUG, EXIT_DONE, Diverged, Stopped, UserError
from orthogan.io import checkpoint
from orthogan.studies.finished import CheckpointGone, FinishedRun
from orthogan.studies.outcome import Outcome, Status, add_sitting, load, save
from orthogan.studies.study import ScaleName, Study
from orthogan.studies.values import MeasureResult

CELLS = "cells"
PLACE = {"out"}  # keys that do not define a run


@dataclass(frozen=True)
class StudyRun:
    """One run of a study; ``folder`` holds the run and its measures."""

    study: str
    scale: ScaleName
    method: str
    setting: str
    seed: int
    folder: Path
    config: Config

    @property
    def name(self) -> str:
        """Return the name, such as ``opt-qr, seed 0``."""
        return ", ".join([self.method, *([self.setting] if self.setting else []), f"seed {self.seed}"])

    def definition(self) -> str:
        """Return a short hash of the config without ``out``."""
        text = json.dumps(self.config.model_dump(exclude=PLACE), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def study_folder(out: Path, study: Study, scale: ScaleName) -> Path:
    """Return the folder of the cells and the report of a study at one scale."""
    return out / study.name / scale


def cell_folder(root: Path, method: str, setting: str, seed: int) -> Path:
    """Return ROOT/cells/METHOD/SETTING/seed-S; an unnamed setting has no folder."""
    return root.joinpath(CELLS, method, *([setting] if setting else []), f"seed-{seed}")


def list_runs(
    study: Study,
    scale: ScaleName,
    seeds: Sequence[int],
    out: Path,
    overrides: Iterable[str] = (),
    *,
    named: str | None = None,
) -> list[StudyRun]:
    """Return all cells, ordered by seed, so that a study that was stopped early can compare complete rounds.

    A search of the scale is not a part of them (``orthogan.studies.search``).

    Args:
        overrides: ``key=value``; they override the scale's keys, and settings and methods override them.
        named: the name that the study was requested by, if it differs from its own (``module:STUDY``).

    Raises:
        UserError: an invalid config; the message names the method.
    """
    chosen = study.scales[scale]
    root = study_folder(out, study, scale)
    cells = []
    for seed in seeds:
        for setting, place in chosen.settings.items():
            for method, how in study.at(scale).methods.items():
                folder = cell_folder(root, method, setting, seed)
                last = {"seed": seed, "out": str(folder)}
                where = f"{method} in {setting}" if setting else method
                config = config_of(study, where, [chosen.keys, *overrides, place.keys, how.over(setting), last])
                cells.append(StudyRun(named or study.name, scale, method, setting, seed, folder, config))
    return cells


def config_of(study: Study, where: str, parts: Sequence[Mapping[str, Any] | str]) -> Config:
    """Return the config of a cell from the defaults and ``parts``; an error names ``where``.

    Raises:
        UserError: an invalid key or value.
    """
    try:
        return load_config(None, parts)
    except UserError as error:
        raise UserError(f"study {study.name}, {where}: {error}") from None


def run_cell(study: Study, cell: StudyRun, facts: Mapping[str, Any]) -> int:
    """Run or resume ``cell``; return its exit code.

    Each measure is stored as soon as it is computed, so that the next call computes only the missing ones. Afterward
    the cell keeps only its newest and its best checkpoint.

    Args:
        facts: recorded with this session: threads, cells at a time.
    """
    cell.folder.mkdir(parents=True, exist_ok=True)
    try:
        try:
            _train_and_measure(study, cell, facts)
        except CheckpointGone as gone:
            if _known(cell):  # the measure is new: the user decides whether to train again for it
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
    except Exception as error:  # the other cells continue
        traceback.print_exc()
        return _failed(cell, "error", f"{type(error).__name__}: {error}", EXIT_BUG)
    return EXIT_DONE


def _train_and_measure(study: Study, cell: StudyRun, facts: Mapping[str, Any]) -> None:
    with _sitting(cell, facts):
        study.run(cell.config)
    _measure(study, cell)


def missing(study: Study, outcome: Outcome) -> list[str]:
    """Return the measures that ``outcome`` lacks."""
    return [measure.identity for measure in study.measures if measure.identity not in outcome.found]


def finished(study: Study, outcome: Outcome | None) -> bool:
    """Return whether a cell needs no more work: it is fully measured, or it diverged."""
    if outcome is None or outcome.status == "error":
        return False
    return outcome.status == "diverged" or not missing(study, outcome)


def _measure(study: Study, cell: StudyRun) -> None:
    """Store the results of all measures of the study; drop results of measures that it no longer has."""
    run, known = FinishedRun(cell.folder, trust=names_in(cell.config)), _known(cell)
    wanted = [measure.identity for measure in study.measures]
    found = {identity: known[identity] for identity in wanted if identity in known}
    for measure in study.measures:
        if measure.identity not in found:
            found[measure.identity] = measure.of(run)
            save(cell.folder, _outcome(cell, "done", "", found))
    save(cell.folder, _outcome(cell, "done", "", found))


def _failed(cell: StudyRun, status: Status, reason: str, code: int) -> int:
    """Store the reason for the failure beside the results so far; return ``code``."""
    save(cell.folder, _outcome(cell, status, reason, _known(cell)))
    return code


def _outcome(cell: StudyRun, status: Status, reason: str, found: Mapping[str, MeasureResult]) -> Outcome:
    return Outcome(status, cell.definition(), cell.config.model_dump(), reason, found)


def _known(cell: StudyRun) -> Mapping[str, MeasureResult]:
    """Return the results that were measured under the current definition of the cell."""
    known = load(cell.folder)
    return known.found if known is not None and known.definition == cell.definition() else {}


@contextmanager
def _sitting(cell: StudyRun, facts: Mapping[str, Any]) -> Iterator[None]:
    """Record machine, versions, time and memory of the training in this context, however it ends."""
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
    """Return the step of the newest checkpoint."""
    return max((step for step, _ in checkpoint.steps(cell.folder)), default=-1)


def peak_memory() -> float:
    """Return the peak memory so far [MiB]: of the GPU if this process has used one, else of the process."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**20
    return memory.peak_memory()
