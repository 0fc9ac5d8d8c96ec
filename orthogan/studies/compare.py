"""``orthogan compare``: any runs in one table, with the same report as a study.

Runs that differ only in seed and folder share a row, named by the keys in which the rows differ. The comparison is at
the end of each run: the scores of training at its last step, and those that ``orthogan evaluate`` and ``orthogan
disentangle`` wrote beside it. Unfinished runs are counted but contribute no numbers. Numbers of different protocols
get separate columns, named by what differs, and no difference is taken between two columns.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orthogan.config.files import flatten
from orthogan.errors import UserError
from orthogan.evaluation import MetricResult
from orthogan.io.terminal import shell_word
from orthogan.models.generate import model_hash
from orthogan.studies import measures
from orthogan.studies.finished import FinishedRun
from orthogan.studies.outcome import load
from orthogan.studies.report import Report, write
from orthogan.studies.table import Entry, Table, panel
from orthogan.studies.values import MeasureResult, Value, standing, text
from orthogan.training.resume import METRICS, read_records
from orthogan.words import counted

MOST_KEYS = 3  # rows that differ in more keys are named by their runs
APART = ("seed", "out")  # keys in which two runs of one row may differ
DISENTANGLEMENT = "disentanglement.jsonl"


def compare(folders: Sequence[Path], out: Path) -> tuple[Path, Table]:
    """Write the report on the runs in ``folders`` to ``out``; return its path and the table.

    Raises:
        UserError: a folder is not a run, a run is given twice, or two runs have the same config and seed.
    """
    table = compare_runs(folders)
    found = write(
        Report(
            "Comparison of runs",
            f"{counted(len(table.entries), 'run')} in {counted(len(table.rows), 'row')}. Differences are to the first "
            f"row, {table.baseline}.",
            "orthogan compare " + " ".join(map(shell_word, folders)) + f" --out {shell_word(out)}",
            [table],
        ),
        out,
    )
    return found, table


def compare_runs(folders: Sequence[Path]) -> Table:
    """Return the table of the runs in ``folders``; the row of the first run is the baseline.

    Raises:
        UserError: as ``compare``.
    """
    runs = [FinishedRun(folder) for folder in folders]
    configs = [_apart(run) for run in runs]
    kinds: dict[str, list[FinishedRun]] = {}
    for run, config in zip(runs, configs, strict=True):
        kinds.setdefault(_key(config), []).append(run)
    settings = dict(zip(kinds, row_names([_apart(of[0]) for of in kinds.values()]), strict=True))
    names = _by_runs(kinds) if any(name.count(", ") >= MOST_KEYS for name in settings.values()) else settings
    notes = {names[key]: f"{', '.join(str(run.folder) for run in of)} ({settings[key]})" for key, of in kinds.items()}
    seen: dict[tuple[str, int], FinishedRun] = {}
    entries = []
    for run, config in zip(runs, configs, strict=True):
        row, seed = names[_key(config)], run.config.seed
        if (row, seed) in seen:
            raise UserError(
                f"{run.folder} and {seen[row, seed].folder} have the same config and seed {seed}; give only one of them"
            )
        seen[row, seed] = run
        entries.append(_entry(run, row))
    rows = list(names.values())
    return panel(entries, rows=rows, baseline=rows[0], notes=notes, split=True)


def row_names(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a name per flat config, from the keys that differ: ``discriminator.norm.kind=stable_rank``.

    A key is shortened from the left as long as it is unique.
    """
    keys = list(dict.fromkeys(key for config in configs for key in config))
    apart = [key for key in keys if len({text(config.get(key)) for config in configs}) > 1]
    if not apart:
        return ["all runs"] * len(configs)
    short = {key: shortest(key, keys) for key in apart}
    return [", ".join(f"{short[key]}={_value(config.get(key))}" for key in apart) for config in configs]


def _by_runs(kinds: Mapping[str, Sequence[FinishedRun]]) -> dict[str, str]:
    """Name rows by the common start of the runs' folders; if that is ambiguous, by the first folder."""
    folders = {key: [str(run.folder) for run in of] for key, of in kinds.items()}
    common = {key: os.path.commonprefix(of).rstrip("/-_.") for key, of in folders.items()}  # noqa: RUF071
    clear = all(common.values()) and len({*common.values()}) == len(common)
    return common if clear else {key: of[0] for key, of in folders.items()}


def _entry(run: FinishedRun, row: str) -> Entry:
    found = _found(run)
    complete = run.reached == run.steps
    return Entry(
        row,
        run.config.seed,
        run.folder,
        "done" if complete else "unfinished",
        "" if complete else f"stopped at step {run.reached} of {run.steps}",
        _numbers(run, found) if complete else (),
        {name: curve for part in found for name, curve in part.curves.items()},
        last_pictures(run),
        run.sittings,
    )


def _found(run: FinishedRun) -> list[MeasureResult]:
    """Return the results of orthogan's measures and, for a cell of a study, of the study's measures."""
    known = load(run.folder)
    studied = list(known.found.values()) if known is not None else []
    return [measures.scores(run), measures.cost(run), measures.spectra(run), *studied]


def _numbers(run: FinishedRun, found: Sequence[MeasureResult]) -> tuple[tuple[str, Value], ...]:
    """Return all numbers at the end of the run; the last one if several have the same name and protocol."""
    pairs = [(name, number) for part in found for name, number in part.numbers.items()]
    pairs += _evaluated(run) + _disentangled(run)
    last = {(name, text(standing(number.protocol)), text(number.place)): (name, number) for name, number in pairs}
    return tuple(last.values())


def _evaluated(run: FinishedRun) -> list[tuple[str, Value]]:
    """Return the results of ``orthogan evaluate`` for the last step."""
    file = run.folder / METRICS
    found = []
    for record in read_records(file, _score) if os.path.lexists(file) else []:
        score, protocol = _score(record), record["protocol"]
        if "subject" in protocol and str(protocol.get("step")) == str(run.steps):
            found.append((score.label, measures.as_value(score)))
    return found


def _disentangled(run: FinishedRun) -> list[tuple[str, Value]]:
    """Return the results of ``orthogan disentangle`` for the generator at the end, not for earlier checkpoints."""
    file = run.folder / DISENTANGLEMENT
    read = read_records(file, _labelled) if os.path.lexists(file) else []
    records = [record for record in read if record.get("value") is not None]
    measured = [dict(record.get("facts") or {}).get("model") for record in records]
    last = model_hash(run.net()) if any(measured) else ""
    # early versions did not write which generator they measured
    return [_labelled(one) for one, model in zip(records, measured, strict=True) if last.startswith(model or "")]


def _score(record: Mapping[str, Any]) -> MetricResult:
    """Return the score in a line of ``metrics.jsonl``. Raises a KeyError, TypeError or the like if there is none."""
    score = MetricResult(**{key: value for key, value in record.items() if key != "label"})
    if not isinstance(score.value, int | float) or not isinstance(score.protocol, dict):
        raise TypeError("not a score")
    return score


def _labelled(record: Mapping[str, Any]) -> tuple[str, Value]:
    """Return the label and score in a line of ``disentanglement.jsonl``, as ``_score`` does."""
    value = math.nan if record["value"] is None else float(record["value"])
    return str(record["label"]), Value(value, "", dict(record.get("protocol", {})))


def last_pictures(run: FinishedRun) -> list[str]:
    """Return the last grid of fakes, for a report."""
    fakes = sorted(path.name for path in run.folder.glob("fakes-*.png"))
    return fakes[-1:]


def _apart(run: FinishedRun) -> dict[str, Any]:
    return {key: value for key, value in flatten(run.config.model_dump()).items() if key not in APART}


def _key(config: Mapping[str, Any]) -> str:
    return json.dumps(config, sort_keys=True)


def shortest(key: str, others: Sequence[str]) -> str:
    """Return the shortest ending of a dotted key that is unique."""
    parts = key.split(".")
    for start in range(len(parts) - 1, -1, -1):
        end = ".".join(parts[start:])
        if not any(other != key and f".{other}".endswith(f".{end}") for other in others):
            return end
    return key


def _value(value: Any) -> str:
    return json.dumps(value) if isinstance(value, list | dict) else str(value)
