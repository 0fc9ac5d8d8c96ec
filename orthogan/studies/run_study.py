"""``orthogan study``: run the missing cells, then write the report of all cells."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orthogan.config.files import differences
from orthogan.config.read import read_yaml
from orthogan.config.schema import Config
from orthogan.errors import Stopped, UserError
from orthogan.io import checkpoint
from orthogan.io.lock import locked
from orthogan.io.terminal import shell_word
from orthogan.io.weights import Damaged
from orthogan.io.write import append_json, disk_errors
from orthogan.studies.cells import CELLS, PLACE, StudyRun, finished, list_runs, missing, study_folder
from orthogan.studies.executors import ExecutorRequest, run_on
from orthogan.studies.outcome import FILE, Outcome, load, recover, sittings
from orthogan.studies.pool import run_cells
from orthogan.studies.report import Report, write
from orthogan.studies.search import FOLDER, Candidate, Choice, candidates, choose, tuned
from orthogan.studies.study import SCALES, Keys, Scale, ScaleName, Study, get_study
from orthogan.studies.table import Entry, Table, panel
from orthogan.studies.verdict import judge, power_note
from orthogan.training.resume import read_records

OVERLAYS = "overlays"  # folder of pictures
REDONE = "redone.jsonl"  # which runs were deleted, when, and their numbers
SEED = re.compile(r"seed-(\d+)")
PENDING = "unfinished"


@dataclass(frozen=True)
class Request:
    """The arguments of ``run_study``.

    ``name``: of a study, or ``module:STUDY``. ``seeds``: number of seeds; None uses that of the scale. ``jobs``: cells
    at a time. ``overrides``: ``key=value``, over the scale's own keys. ``redo``: methods whose runs are deleted first.
    ``executor``: where the cells run, instead of this machine.
    """

    name: str
    scale: str = "smoke"
    seeds: int | None = None
    out: Path = Path("runs/studies")
    jobs: int = 1
    overrides: Sequence[str] = ()
    redo: Sequence[str] = ()
    executor: ExecutorRequest | None = None

    @property
    def command(self) -> str:
        """Return the equivalent command line."""
        words = ["orthogan", "study", self.name, "--scale", self.scale]
        words += ["--seeds", str(self.seeds)] if self.seeds else []
        words += ["--out", shell_word(self.out), "--jobs", str(self.jobs), *map(shlex.quote, self.overrides)]
        words += map(shlex.quote, self.executor.words) if self.executor else []
        return " ".join(words)


def run_study(request: Request) -> Path:
    """Run the missing cells of a study and report all of them; return the path of the report.

    Raises:
        UserError: runs failed (see the report); there is no such study, scale, method, data or library; existing runs
            have another definition; another process runs the study; or numbers of different protocols would share a
            column.
        Stopped: a signal came; the report shows what is finished, and the same call resumes.
    """
    refuse_seed_and_out(word.partition("=")[0] for word in request.overrides)
    study = get_study(request.name)
    scale = _scale(study, request.scale)
    study = study.at(scale)
    request = replace(request, seeds=request.seeds or study.scales[scale].seeds)
    tried = candidates(study, scale, request.out, request.overrides, named=request.name)
    cells = _cells(study, scale, request)
    root = study_folder(request.out, study, scale)
    check_data(cell.config for cell in (*cells, *(one.cell for one in tried)))
    for need in study.needs:
        need()
    _check_methods(study, request.redo)
    print(power_note(request.seeds or 0, study.claims, len(study.scales[scale].settings)), file=sys.stderr)
    with locked(root, "choose another --out"):
        _redo(root, request.redo)
        choices = _search(study, scale, request, tried)
        if choices:
            study = tuned(study, choices)
            cells = _cells(study, scale, request)
        title = f"{study.name} {scale}"
        stopped = run_missing(study, cells, root, request.jobs, title, request.executor, what=f"study {study.name}")
        path = report(study, scale, root, cells, request.command, choices)
    if stopped is not None:
        raise stopped
    say_failed(cells, path, f"study {study.name}")
    return path


def _cells(study: Study, scale: ScaleName, request: Request) -> list[StudyRun]:
    return list_runs(study, scale, range(request.seeds or 0), request.out, request.overrides, named=request.name)


def _search(study: Study, scale: ScaleName, request: Request, tried: Sequence[Candidate]) -> list[Choice]:
    """Run what is missing of the searches and return their choices. Raises ``Stopped``."""
    cells = [one.cell for one in tried]
    root, what = study_folder(request.out, study, scale), f"study {study.name}, search"
    title = f"{study.name} {scale}, search"
    if stopped := run_missing(study, cells, root, request.jobs, title, request.executor, what=what, redo=False):
        raise stopped
    say_failed(cells, root / FOLDER, what)
    return choose(study, tried)


def refuse_seed_and_out(keys: Iterable[str]) -> None:
    """Raise ``UserError`` for keys that every run of a study or sweep has from the command."""
    given = set(keys)
    for key, option in (("seed", "--seeds N"), ("out", "--out FOLDER")):
        if key in given:
            raise UserError(f"{key}: each run has its own; use {option} instead")


def run_missing(
    study: Study,
    cells: Sequence[StudyRun],
    root: Path,
    jobs: int,
    title: str,
    executor: ExecutorRequest | None,
    *,
    what: str,
    redo: bool = True,
) -> Stopped | None:
    """Run what is missing of ``cells``, ``jobs`` at a time or on an executor; return the signal that stopped them.

    ``what``, ``redo``: see ``refuse_changed``, which raises ``UserError``.
    """
    outcomes = {cell.folder: recover(cell.folder) for cell in cells}
    refuse_changed(what, cells, outcomes, redo=redo)
    todo = [cell for cell in cells if not finished(study, outcomes[cell.folder])]
    try:
        if todo and executor is not None:
            run_on(executor, todo, root, title)
        elif todo:
            run_cells(todo, jobs, title)
    except Stopped as why:
        return why
    return None


def say_failed(cells: Sequence[StudyRun], path: Path, what: str) -> None:
    """Raise ``UserError`` if a cell failed; ``path``: of the report."""
    if failed := [cell for cell in cells if (made := load(cell.folder)) is not None and made.status == "error"]:
        raise UserError(
            f"{what}: {len(failed)} of {len(cells)} runs failed, such as {failed[0].name}; for the "
            f"reasons see {path}; the same command tries them again"
        )


def report(
    study: Study,
    scale: ScaleName,
    root: Path,
    cells: Sequence[StudyRun],
    command: str,
    choices: Sequence[Choice] = (),
) -> Path:
    """Write the report of all runs below ``root``; return its path. ``choices``: of the searches.

    Raises:
        UserError: numbers of different protocols would share a column.
    """
    size = study.scales[scale]
    panels = gather_tables(study, size, root, cells)
    by_setting = dict(zip(size.settings, panels, strict=True))
    return write(
        Report(
            f"{study.title} (scale {scale})",
            study.about + (f" {size.note}" if size.note else ""),
            command,
            panels,
            [*_remarks(study, scale, panels, root), *map(str, choices)],
            judge(study.claims, by_setting),
            claims=True,
            overlays={panel.setting: _overlays(study, panel, root) for panel in panels},
            more={
                "study": study.name,
                "scale": scale,
                "search": [one.facts() for one in choices],
                "configs": {str(cell.folder): cell.config.model_dump() for cell in cells},
            },
        ),
        root,
    )


def _overlays(study: Study, panel: Table, root: Path) -> list[tuple[str, Path]]:
    """Return (caption, file) of the pictures of all methods of a setting, for the first measured seed."""
    seeds = [entry.seed for entry in panel.entries if entry.status == "done"]
    if not seeds or not study.overlays:
        return []
    runs = {row: e.folder for row in panel.rows for e in panel.of(row, "done") if e.seed == min(seeds)}
    with disk_errors(root / OVERLAYS):
        (root / OVERLAYS).mkdir(exist_ok=True)
    return [
        (
            ", ".join(filter(None, (panel.setting, caption, f"seed {min(seeds)}"))),
            draw(runs, root / OVERLAYS / f"{slug(panel.setting, caption)}.png"),
        )
        for caption, draw in study.overlays.items()
    ]


def slug(*words: str) -> str:
    """Return a name for a file: letters of any script, without their accents, and digits."""
    letters = unicodedata.normalize("NFKD", " ".join(words)).lower()
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return re.sub(r"[\W_]+", "-", plain).strip("-")


def _remarks(study: Study, scale: ScaleName, panels: Sequence[Any], root: Path) -> list[str]:
    remarks = []
    if scale == "smoke":
        remarks.append("**Smoke scale**: a check that everything runs. The numbers are meaningless.")
    pending = sum(entry.status == PENDING for panel in panels for entry in panel.entries)
    if pending:
        remarks.append(f"**Not complete**: {pending} runs are missing; the same command trains them.")
    file = root / REDONE
    remarks += [_deleted(record) for record in read_records(file, _deleted)] if file.is_file() else []
    return remarks


def _deleted(record: Mapping[str, Any]) -> str:
    numbers = ", ".join(f"{name} {value}" for name, value in record["numbers"].items()) or record["reason"]
    return f"Deleted on {record['date']} and run again: {record['folder']} ({record['status']}; {numbers})"


def _scale(study: Study, name: str) -> ScaleName:
    for known in SCALES:
        if known == name and known in study.scales:
            return known
    known = ", ".join(study.scales)
    raise UserError(f"--scale {name}: the study {study.name} has no such scale; choose one of {known}")


def check_data(configs: Iterable[Config]) -> None:
    """Raise ``UserError`` if the images of a config do not exist."""
    for config in configs:
        path = config.data.path
        if path is not None and not Path(path).exists():
            raise UserError(f"data.path: {path} does not exist; add data.path=FOLDER at the end of the command")


def refuse_changed(
    what: str, cells: Sequence[StudyRun], outcomes: Mapping[Path, Outcome | None], *, redo: bool = True
) -> None:
    """Refuse runs that were made with another config: they are not reused, and not deleted without consent."""
    found: dict[str, list[str]] = {}
    folders: list[Path] = []
    for cell in cells:
        old = _config_of(cell, outcomes[cell.folder])
        if old is not None and (lines := _changes(old, cell.config)):
            found.setdefault("\n    ".join(lines), []).append(cell.method)
            folders.append(cell.folder)
    if found:
        methods = list(dict.fromkeys(method for of in found.values() for method in of))
        listing = "\n".join(f"  {', '.join(dict.fromkeys(of))}:\n    {lines}" for lines, of in found.items())
        words = " ".join(f"--redo {method}" for method in methods)
        delete = f"delete {folders[0]}" if len(folders) == 1 else f"delete their folders, such as {folders[0]}"
        raise UserError(
            f"{what}: some runs were trained with another config:\n{listing}\n"
            + (f"To delete and repeat them: {words}. " if redo else f"To repeat them: {delete}. ")
            + "To keep them: choose another --out."
        )


def _config_of(cell: StudyRun, outcome: Outcome | None) -> dict[str, Any] | None:
    """Return the config of the run in the cell's folder; None if nothing was trained or it is the current one."""
    if outcome is not None and outcome.status != "error":
        return None if outcome.definition == cell.definition() else dict(outcome.config)
    file = cell.folder / "config.yaml"
    with suppress(UserError):  # damaged: training compares the config with that of its checkpoint
        return read_yaml(file) if checkpoint.steps(cell.folder) and file.is_file() else None
    return None


def _changes(old: dict[str, Any], new: Config) -> list[str]:
    """Return the keys that differ, without ``out``; keys added by a later version count as their defaults."""
    with suppress(ValidationError):
        old = Config.model_validate(old).model_dump()
    return differences({k: v for k, v in old.items() if k not in PLACE}, new.model_dump(exclude=PLACE))


def _check_methods(study: Study, methods: Sequence[str]) -> None:
    for method in methods:
        if method not in study.methods:
            raise UserError(f"--redo {method}: {study.name} has no such method; choose {', '.join(study.methods)}")


def _redo(root: Path, methods: Sequence[str]) -> None:
    """Delete the runs of ``methods`` and record their numbers, which the report shows."""
    for method in methods:
        folder = root / CELLS / method
        for file in sorted(folder.glob(f"**/{FILE}")):
            outcome = recover(file.parent)
            if outcome is None:  # damaged
                continue
            record = {
                "date": datetime.now(UTC).date().isoformat(),
                "folder": str(file.parent.relative_to(root)),
                "status": outcome.status,
                "reason": outcome.reason,
                "numbers": {name: f"{number.value:.4g}" for name, number in outcome.numbers.items()},
            }
            append_json(root / REDONE, [record])
        if folder.is_dir():
            with disk_errors(folder):
                shutil.rmtree(folder)
            print(f"deleted: {folder}")


def gather_tables(study: Study, scale: Scale, root: Path, cells: Sequence[StudyRun]) -> list[Table]:
    """Return a table per setting: of ``cells``, and of other runs below ``root`` from earlier commands.

    Raises:
        UserError: numbers of different protocols would share a column, or a file cannot be read.
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
    """Return the row entry of the run in ``folder``, finished or not."""
    worked = sittings(folder)
    try:
        outcome = load(folder)
    except Damaged as damage:
        return Entry(method, seed, folder, PENDING, str(damage), sittings=worked)
    if outcome is None or (outcome.status == "done" and missing(study, outcome)):
        why = "interrupted; the same command resumes it" if worked else "not run yet"
        return Entry(method, seed, folder, PENDING, why, sittings=worked)
    if outcome.status != "done":
        return Entry(method, seed, folder, outcome.status, outcome.reason, sittings=worked)
    # in the order of the study: a changed measure was taken later
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
    """Yield (method, setting, seed, folder) of each cell below ``root`` with an outcome."""
    for file in sorted((root / CELLS).glob(f"**/seed-*/{FILE}")):
        method, *setting, last = file.parent.relative_to(root / CELLS).parts
        if (match := SEED.fullmatch(last)) and len(setting) < 2:
            yield method, "".join(setting), int(match[1]), file.parent


def describe_protocol(note: str, keys: Keys) -> str:
    """Return the note of a method, and its config keys."""
    words = "; ".join(f"`{key}={json.dumps(value)}`" for key, value in keys.items())
    return " ".join(part for part in (note, f"({words})" if words else "(as the base)") if part)
