"""``orthogan sweep``: one config with several values of some keys, over random seeds, in one table.

Every combination of values is a row of a study (``run_study``): it resumes, never repeats a finished run, and writes
the same report. With a sampler, optuna chooses the values of each trial from those of the trials before.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orthogan.config.files import all_keys, holds_list, load_config
from orthogan.config.schema import Config
from orthogan.errors import Stopped, UserError
from orthogan.io.json_lines import jsonable
from orthogan.io.lock import locked
from orthogan.io.read import shown
from orthogan.io.terminal import text_table
from orthogan.io.write import append_json
from orthogan.named_code import Trust
from orthogan.stats import format_number
from orthogan.studies import measures
from orthogan.studies.cells import StudyRun, cell_folder, finished
from orthogan.studies.compare import last_pictures, shortest
from orthogan.studies.executors import ExecutorRequest
from orthogan.studies.finished import FinishedRun
from orthogan.studies.outcome import load
from orthogan.studies.report import Report, write
from orthogan.studies.run_study import (
    check_data,
    gather_tables,
    refuse_seed_and_out,
    run_missing,
    say_failed,
)
from orthogan.studies.samplers import SAMPLERS, import_optuna
from orthogan.studies.study import Measure, Method, Scale, Study
from orthogan.studies.table import Table
from orthogan.studies.values import MeasureResult
from orthogan.training.resume import read_records
from orthogan.training.scoring import is_scored
from orthogan.words import counted

TRIALS = "trials.jsonl"  # the values of each trial of a sampler
RANGE = re.compile(r"([^.,:]+(?:\.\d+)?(?:e[-+]?\d+)?)\.\.([^,:]+)(:log)?")
LONGEST = 100  # characters of a row's name, which is also that of a folder
MOST = 10_000  # combinations
PARTS = re.compile(r"""(?:[^,\[\]{}"']|\[[^\]]*\]|\{[^}]*\}|"[^"]*"|'[^']*')+""")  # brackets and quotes protect commas
SWEEP = Study(
    name="sweep",
    title="Sweep",
    about="",
    baseline="base",
    methods={"base": Method({})},
    scales={"full": Scale({})},
    measures=[
        Measure("scores", measures.scores),
        Measure("cost", measures.cost),
        Measure("spectra", measures.spectra),
        Measure("pictures", lambda run: MeasureResult(pictures=last_pictures(run))),
    ],
)
NAME = f"{__name__}:SWEEP"


@dataclass(frozen=True)
class SweepRequest:
    """The arguments of ``run_sweep``.

    ``config``: a YAML file or the name of a shipped config. ``words``: ``key=a,b,c`` (or ``key=low..high`` for a
    sampler), and ``key=value`` for all runs. ``seeds``: runs per combination. ``sampler``: in ``SAMPLERS``, with
    ``trials`` combinations; None runs every combination.
    """

    config: str
    words: Sequence[str]
    seeds: int = 1
    out: Path = Path("runs/sweep")
    jobs: int = 1
    sampler: str | None = None
    trials: int = 20
    executor: ExecutorRequest | None = None
    trust: Trust = False

    @property
    def command(self) -> str:
        """Return the equivalent command line."""
        words = ["orthogan", "sweep", self.config, *self.words, "--seeds", str(self.seeds), "--out", str(self.out)]
        words += ["--jobs", str(self.jobs)]
        words += ["--sampler", self.sampler, "--trials", str(self.trials)] if self.sampler else []
        words += self.executor.words if self.executor else []
        return shlex.join(words)


@dataclass(frozen=True)
class Axis:
    """A key with several values: ``choices`` as texts, or a range with bounds and a scale."""

    key: str
    choices: Sequence[str] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    def distribution(self, optuna: Any) -> Any:
        """Return it as optuna's."""
        if self.choices:
            return optuna.distributions.CategoricalDistribution(list(self.choices))
        if self.whole:
            return optuna.distributions.IntDistribution(int(self.low), int(self.high), log=self.log)
        return optuna.distributions.FloatDistribution(self.low, self.high, log=self.log)


@dataclass(frozen=True)
class Plan:
    """What a sweep runs: the keys with several values, and the overrides of all runs."""

    axes: Sequence[Axis]
    fixed: Sequence[str] = field(default_factory=tuple)


def read_words(words: Iterable[str]) -> Plan:
    """Read ``key=a,b``, ``key=low..high``, ``key=low..high:log`` and ``key=value``.

    Brackets and quotes protect commas. A key that holds a list separates its alternatives by ``|``.

    Raises:
        UserError: a word without "=", a key twice, or an empty value or range.

    Example:
        >>> from orthogan.studies.sweep import read_words
        >>> plan = read_words(["data.flip=true", "training.batch_size=16,32", "optimizer.generator.lr=1e-5..1e-3:log"])
        >>> [axis.key for axis in plan.axes], plan.axes[0].choices, plan.fixed
        (['training.batch_size', 'optimizer.generator.lr'], ('16', '32'), ('data.flip=true',))
    """
    axes: list[Axis] = []
    fixed: list[str] = []
    seen: set[str] = set()
    for word in words:
        key, sign, text = word.partition("=")
        if not sign:
            raise UserError(f"{shown(word)}: write key=a,b,c for a key with several values, or key=value")
        if key in seen:
            raise UserError(f"{key} is given twice; write all its values after one =")
        seen.add(key)
        if match := RANGE.fullmatch(text):
            axes.append(_range(key, *match.groups()))
            continue
        parts = text.split("|") if "|" in text or holds_list(key) else PARTS.findall(text)
        if len(parts) < 2:
            fixed.append(word)
            continue
        values = [part.strip() for part in parts]
        if "" in values or len({*values}) < len(values):
            raise UserError(f"{shown(word)}: one of the values is empty or given twice")
        axes.append(Axis(key, tuple(values)))
    refuse_seed_and_out(seen)
    return Plan(tuple(axes), tuple(fixed))


def _range(key: str, first: str, last: str, log: str | None) -> Axis:
    try:
        low, high = float(first), float(last)
    except ValueError:
        raise UserError(f"{key}={first}..{last}: the bounds of a range must be numbers") from None
    if not (low < high and math.isfinite(high - low)) or (log and low <= 0):
        raise UserError(f"{key}={first}..{last}: the first bound must be less than the second, and above 0 with :log")
    whole = all(re.fullmatch(r"[-+]?\d+", text.strip()) for text in (first, last))
    return Axis(key, (), low, high, bool(log), whole)


def row_name(values: Mapping[str, Any]) -> str:
    """Return the name of a combination, which is also that of its folder: ``c=0.5,latent_dim=16``."""
    keys = list(dict.fromkeys([*all_keys(), *values]))
    words = ",".join(f"{shortest(key, keys)}={_short(value)}" for key, value in values.items())
    plain = re.sub(r"[^a-z0-9.+=,_-]+", "-", words.lower()).lstrip("-.+=,_")
    if plain == words and len(plain) <= LONGEST:
        return plain
    digest = hashlib.sha256(json.dumps(dict(values)).encode()).hexdigest()[:6]
    return f"{plain[:LONGEST]}-{digest}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def run_sweep(request: SweepRequest) -> Path:
    """Run the missing runs of a sweep and report all of them; return the path of the report.

    Raises:
        UserError: invalid words or configs, nothing to vary, a config without scores, or failed runs (see the report).
        Stopped: a signal came; the report shows what is finished, and the same call resumes.
    """
    plan = read_words(request.words)
    if not plan.axes:
        raise UserError("sweep: no key has several values; write for example training.batch_size=16,32,64")
    base = load_config(request.config, plan.fixed, trust=request.trust)
    if not is_scored(base.evaluation):
        raise UserError(f"{request.config}: computes no scores to compare; add evaluation.every=N, such as the steps")
    ranges = [axis.key for axis in plan.axes if not axis.choices]
    if ranges and request.sampler is None:
        raise UserError(f"{ranges[0]}: a range needs --sampler, such as --sampler tpe --trials 20; or list its values")
    if request.sampler is not None:
        SAMPLERS.get(request.sampler, "--sampler")
    check_values(request, plan)
    check_data([base])
    run = _Sweep(request, plan)
    if request.sampler is None:
        run.add_grid()
    with locked(request.out, "choose another --out"):
        stopped = None
        try:
            run.search() if request.sampler else run.grid()
        except Stopped as why:
            stopped = why
        path = run.report(base)
    if stopped is not None:
        raise stopped
    say_failed(run.cells, path, "sweep")
    return path


def check_values(request: SweepRequest, plan: Plan) -> None:
    """Check every value of every key, and both ends of every range, before the first run.

    Raises:
        UserError: one of them is not possible, whatever the values of the other keys.
    """
    for axis in plan.axes:
        ends = (int(axis.low), int(axis.high)) if axis.whole else (axis.low, axis.high)
        for value in axis.choices or ends:
            try:
                load_config(request.config, [*plan.fixed, f"{axis.key}={value}"], trust=request.trust)
            except UserError as error:
                if f": {axis.key} is " in str(error):  # else it may be possible beside other values of other keys
                    raise


class _Sweep:
    """The combinations so far, and their runs."""

    def __init__(self, request: SweepRequest, plan: Plan) -> None:
        self.request, self.plan = request, plan
        self.rows: dict[str, Mapping[str, Any]] = {}
        self.cells: list[StudyRun] = []

    @property
    def study(self) -> Study:
        """The study whose methods are the combinations."""
        methods = {name: Method(values) for name, values in self.rows.items()}
        return replace(SWEEP, methods=methods, baseline=next(iter(methods)))

    def add(self, name: str, values: Mapping[str, Any]) -> list[StudyRun]:
        """Add a combination; return its runs, one per seed."""
        self.rows[name] = values
        words = [f"{key}={value}" for key, value in values.items()]
        made = []
        for seed in range(self.request.seeds):
            folder = cell_folder(self.request.out, name, "", seed)
            last = {"seed": seed, "out": str(folder)}
            config = load_config(self.request.config, [*self.plan.fixed, *words, last], trust=self.request.trust)
            made.append(StudyRun(NAME, "full", name, "", seed, folder, config))
        self.cells += made
        return made

    def run(self, cells: Sequence[StudyRun], title: str) -> None:
        """Run what is missing of ``cells``. Raises ``Stopped``."""
        request = self.request
        if stopped := run_missing(
            SWEEP, cells, request.out, request.jobs, title, request.executor, what="sweep", redo=False
        ):
            raise stopped

    def add_grid(self) -> None:
        """Add every combination."""
        count = math.prod(len(axis.choices) for axis in self.plan.axes)
        if count > MOST:
            raise UserError(f"sweep: {count:,} combinations are too many; use fewer values, or --sampler")
        for combination in itertools.product(*(axis.choices for axis in self.plan.axes)):
            values = dict(zip((axis.key for axis in self.plan.axes), combination, strict=True))
            self.add(row_name(values), values)

    def grid(self) -> None:
        """Run every combination, seed by seed, so that a sweep that is stopped early has compared complete rounds."""
        self.run(sorted(self.cells, key=lambda cell: cell.seed), "sweep")

    def search(self) -> None:
        """Run the trials of a sampler, as many at a time as there are jobs.

        Their values are written down before they run, so that the same command resumes with them.
        """
        optuna, file = import_optuna(), self.request.out / TRIALS
        space = {axis.key: axis.distribution(optuna) for axis in self.plan.axes}
        known = read_records(file, check_trial) if file.is_file() else []
        trials = [self.trial(number, record["values"], space) for number, record in enumerate(known)]
        at_once = max(1, self.request.jobs // self.request.seeds)
        while True:
            open_ones = [cells for cells in trials if not all(finished(SWEEP, load(cell.folder)) for cell in cells)]
            tried = [cells for cells in open_ones if all(load(cell.folder) is not None for cell in cells)]
            waiting = [cells for cells in open_ones if cells not in tried]  # errors are tried again by the next command
            if not waiting and len(trials) >= self.request.trials:
                break
            fresh = min(at_once - len(waiting), self.request.trials - len(trials))
            if fresh > 0:
                asked = self.ask(optuna, space, trials, fresh)
                append_json(file, [{"trial": len(trials) + i, "values": values} for i, values in enumerate(asked)])
                made = [self.trial(len(trials) + i, values, space) for i, values in enumerate(asked)]
                trials += made
                waiting += made
            title = f"trials {len(trials) - len(waiting) + 1}-{len(trials)} of {self.request.trials}"
            self.run([cell for cells in waiting[:at_once] for cell in cells], title)

    def trial(self, number: int, values: Mapping[str, Any], space: Mapping[str, Any]) -> list[StudyRun]:
        """Add a trial. Raises ``UserError`` if it is one of another sweep."""
        if set(values) != set(space):
            raise UserError(
                f"{self.request.out / TRIALS}: these are trials over {', '.join(values)}, not {', '.join(space)}; "
                "choose another --out"
            )
        return self.add(f"t{number:03d},{row_name(values)}", values)

    def ask(self, optuna: Any, space: Any, trials: Sequence[Sequence[StudyRun]], count: int) -> list[dict[str, Any]]:
        """Return the values of the next ``count`` trials, which depend on the earlier trials alone."""
        better = {"lower": "minimize", "higher": "maximize"}
        scored = [self.objective(cells) for cells in trials]
        direction = next((way for _, way in scored if way), "lower")
        sampler = SAMPLERS.get(str(self.request.sampler))(len(trials))
        if not isinstance(sampler, optuna.samplers.BaseSampler):
            raise UserError(
                f"--sampler {self.request.sampler}: returns a {type(sampler).__name__}, expected a sampler of optuna"
            )
        study = optuna.create_study(direction=better[direction], sampler=sampler)
        if isinstance(sampler, optuna.samplers.QMCSampler):
            # its sequence does not depend on scores and starts again in each study, so the earlier points are skipped
            points = []
            for _ in range(len(trials) + count):
                points.append(study.ask(dict(space)))
                study.tell(points[-1], 0.0)  # it leaves its random first point only after a trial with a value
            return [dict(point.params) for point in points[len(trials) :]]
        for cells, (value, _) in zip(trials, scored, strict=True):
            bad = value is None or not math.isfinite(value)
            state = optuna.trial.TrialState.FAIL if bad else optuna.trial.TrialState.COMPLETE
            params = dict(self.rows[cells[0].method])
            done = optuna.trial.create_trial(
                params=params, distributions=dict(space), value=None if bad else value, state=state
            )
            study.add_trial(done)
        return [dict(study.ask(dict(space)).params) for _ in range(count)]

    def objective(self, cells: Sequence[StudyRun]) -> tuple[float | None, str]:
        """Return the mean over seeds of the score that decides, and which values of it are better."""
        values, direction = [], ""
        for cell in cells:
            found = load(cell.folder)
            if found is None or found.status != "done":
                return None, direction
            score = FinishedRun(cell.folder, trust=True).scores_of(cell.config.evaluation.best)[-1][1]
            values.append(score.value)
            direction = score.direction
        return sum(values) / len(values), direction

    def report(self, base: Config) -> Path:
        """Write the report and print the ranking."""
        study = self.study
        (table,) = gather_tables(study, study.scales["full"], self.request.out, self.cells)
        label = _decisive(table, self.cells, base.evaluation.best)
        ranking = _ranking(table, label)
        if ranking:
            print(text_table(ranking, "rlrr", ["", "values", label, "runs"]))
        pending = sum(entry.status == "unfinished" for entry in table.entries)
        remarks = [f"**Best** {label}: {ranking[0][1]} ({ranking[0][2]})."] if ranking else []
        if pending:
            remarks.append(f"**Not complete**: {counted(pending, 'run')} not finished; the same command continues.")
        keys = "; ".join(_describe(axis) for axis in self.plan.axes)
        seeds = counted(self.request.seeds, "random seed")
        configs = {str(cell.folder): cell.config.model_dump() for cell in self.cells}
        return write(
            Report(
                f"Sweep of {self.request.config}",
                f"{counted(len(self.rows), 'combination')} of {keys}, {seeds} each. Differences are to the first row.",
                self.request.command,
                [table],
                remarks,
                more={"rows": jsonable(self.rows), "configs": configs},
            ),
            self.request.out,
        )


def check_trial(record: Mapping[str, Any]) -> None:
    """Raise a KeyError, TypeError or ValueError for a line of ``trials.jsonl`` that no sweep wrote."""
    for key, value in dict(record["values"]).items():
        if not isinstance(value, str | int | float):
            raise TypeError(f"{key} is {shown(value)}: expected a number or text")


def _describe(axis: Axis) -> str:
    if axis.choices:
        return f"`{axis.key}` ({', '.join(axis.choices)})"
    return f"`{axis.key}` ({axis.low:g} to {axis.high:g}{', log scale' if axis.log else ''})"


def _decisive(table: Table, cells: Sequence[StudyRun], metric: str) -> str:
    """Return the name of the column that ranks the rows: that of ``evaluation.best``; "" if no run has finished."""
    for cell in cells:
        if (found := load(cell.folder)) is not None and found.status == "done":
            scores = FinishedRun(cell.folder, trust=True).scores_of(metric)
            return scores[-1][1].label if scores else ""
    return ""


def _ranking(table: Table, label: str) -> list[list[str]]:
    """Return place, row, mean with interval, and number of runs, best first; empty without scores.

    Rows with a score that is not finite, or with a run that diverged, are last: the other runs alone would be a choice.
    """
    columns = [column for column in table.columns if column.name == label]
    if not columns:
        return []
    column = columns[0]
    rows = [(row, column.estimate(row)) for row in table.rows if column.of(row)]
    sign = -1 if column.better == "higher" else 1
    rows.sort(key=lambda pair: (bool(table.of(pair[0], "diverged")), *_order(sign * pair[1].mean)))
    return [
        [str(i + 1), row, format_number(found.mean) if found.n == 1 else str(found), _runs(table, row, found.n)]
        for i, (row, found) in enumerate(rows)
    ]


def _order(value: float) -> tuple[bool, float]:
    return not math.isfinite(value), value if math.isfinite(value) else 0.0


def _runs(table: Table, row: str, counted: int) -> str:
    """Return the number of runs that count, and of those that do not: ``2, 1 diverged``."""
    return ", ".join([str(counted), *filter(None, [table.failures(row)])])
