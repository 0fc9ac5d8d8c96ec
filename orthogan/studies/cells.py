"""The cells of a study: one run for each method, setting and seed, and the folder it lies in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from orthogan.config.files import load_config
from orthogan.config.schema import Config
from orthogan.errors import UserError
from orthogan.studies.study import ScaleName, Study

CELLS = "cells"
PLACE = {"out"}  # where a run lies is not what it is


@dataclass(frozen=True)
class StudyRun:
    """One run of a study; ``folder`` holds it and what was measured of it."""

    study: str
    scale: ScaleName
    method: str
    setting: str
    seed: int
    folder: Path
    config: Config

    @property
    def name(self) -> str:
        """``opt-qr, seed 0``."""
        return ", ".join([self.method, *([self.setting] if self.setting else []), f"seed {self.seed}"])

    def definition(self) -> str:
        """A short hash of the config, but for its place."""
        text = json.dumps(self.config.model_dump(exclude=PLACE), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def study_folder(out: Path, study: Study, scale: ScaleName) -> Path:
    """Where the cells and the report of a study at one scale lie."""
    return out / study.name / scale


def cell_folder(root: Path, method: str, setting: str, seed: int) -> Path:
    """ROOT/cells/METHOD/SETTING/seed-S; a setting without a name has no folder."""
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
    """All cells, seed after seed: a study that was stopped early has whole rounds to compare.

    Args:
        overrides: ``key=value``, over the scale's keys and under those of settings and methods.
        named: how the study was asked for, where that is not by its own name (``module:STUDY``).

    Raises:
        UserError: a config that cannot be; it says of which method.
    """
    chosen = study.scales[scale]
    root = study_folder(out, study, scale)
    cells = []
    for seed in seeds:
        for setting, place in chosen.settings.items():
            for method, how in study.methods.items():
                folder = cell_folder(root, method, setting, seed)
                last = {"seed": seed, "out": str(folder)}
                try:
                    config = load_config(None, [chosen.keys, *overrides, place.keys, how.over(setting), last])
                except UserError as error:
                    where = f"{method} in {setting}" if setting else method
                    raise UserError(f"study {study.name}, {where}: {error}") from None
                cells.append(StudyRun(named or study.name, scale, method, setting, seed, folder, config))
    return cells
