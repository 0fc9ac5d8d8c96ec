"""Everything that lies in a study's folder, as tables: each run in its row, whatever became of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from orthogan.io.sealed import Damaged
from orthogan.studies.cells import CELLS, StudyRun
from orthogan.studies.outcome import FILE, Outcome, load, sittings
from orthogan.studies.run_cell import missing
from orthogan.studies.study import Keys, Scale, Study
from orthogan.studies.table import Entry, Table, panel

SEED = re.compile(r"seed-(\d+)")
PENDING = "unfinished"


def gather_tables(study: Study, scale: Scale, root: Path, cells: Sequence[StudyRun]) -> list[Table]:
    """A table for each setting: the asked ``cells``, and what else lies below ``root`` from earlier, other commands.

    Raises:
        UserError: numbers of unlike protocols would come into one column, or a file does not read.
    """
    entries: dict[str, list[Entry]] = {setting: [] for setting in scale.settings}
    asked = {cell.folder for cell in cells}
    for cell in cells:
        entries[cell.setting].append(read_entry(study, cell.method, cell.seed, cell.folder))
    for method, setting, seed, folder in found(root):
        if folder not in asked and setting in entries:
            entries[setting].append(read_entry(study, method, seed, folder))
    tables = []
    for setting, of in entries.items():
        rows = [*study.methods, *dict.fromkeys(e.row for e in of if e.row not in study.methods)]
        notes = {name: describe_protocol(method.note, method.over(setting)) for name, method in study.methods.items()}
        about = scale.settings[setting].note
        tables.append(
            panel(of, rows=rows, baseline=study.baseline, setting=setting, about=about, notes=notes, split=False)
        )
    return tables


def read_entry(study: Study, method: str, seed: int, folder: Path) -> Entry:
    """The run in ``folder``, or that there is none."""
    worked = sittings(folder)
    try:
        outcome = load(folder)
    except Damaged as damage:
        return Entry(method, seed, folder, PENDING, str(damage), sittings=worked)
    if outcome is None or (outcome.status == "done" and missing(study, outcome)):
        why = "interrupted; the same command continues" if worked else "not run yet"
        return Entry(method, seed, folder, PENDING, why, sittings=worked)
    if outcome.status != "done":
        return Entry(method, seed, folder, outcome.status, outcome.reason, sittings=worked)
    # in the study's order, which is not that of measuring where a measure was changed
    outcome = replace(outcome, found={measure.identity: outcome.found[measure.identity] for measure in study.measures})
    return Entry(
        method,
        seed,
        folder,
        numbers=tuple(outcome.numbers.items()),
        curves=outcome.curves,
        pictures=outcome.pictures,
        sittings=worked,
    )


def found(root: Path) -> Iterator[tuple[str, str, int, Path]]:
    """(method, setting, seed, folder) of each cell below ``root`` with an outcome."""
    for file in sorted((root / CELLS).glob(f"**/seed-*/{FILE}")):
        method, *setting, last = file.parent.relative_to(root / CELLS).parts
        if (match := SEED.fullmatch(last)) and len(setting) < 2:
            yield method, "".join(setting), int(match[1]), file.parent


def describe_protocol(note: str, keys: Keys) -> str:
    """A method's note, and the keys that make it."""
    words = "; ".join(f"`{key}={json.dumps(value)}`" for key, value in keys.items())
    return " ".join(part for part in (note, f"({words})" if words else "(as the base)") if part)


def finished(study: Study, outcome: Outcome | None) -> bool:
    """Whether a cell needs nothing more: measured in full, or diverged."""
    if outcome is None or outcome.status == "error":
        return False
    return outcome.status == "diverged" or not missing(study, outcome)
