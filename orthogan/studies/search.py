"""Hyperparameters of families of methods, chosen on held-out training images before a study is run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orthogan.errors import UserError
from orthogan.stats import format_number
from orthogan.studies.cells import StudyRun, config_of, study_folder
from orthogan.studies.outcome import load
from orthogan.studies.study import Keys, Method, ScaleName, Search, Study

FOLDER = "search"
SEED = 1000  # of the runs of a search; those of a study begin at 0


@dataclass(frozen=True)
class Candidate:
    """A candidate of a search in one setting, and its run."""

    search: Search
    name: str
    setting: str
    cell: StudyRun

    def value(self) -> tuple[float, str] | None:
        """Return the number that decides and the side where it is better; None if the run has no such number."""
        outcome = load(self.cell.folder)
        number = None if outcome is None else outcome.numbers.get(self.search.number)
        return None if number is None or not math.isfinite(number.value) else (number.value, number.better)


@dataclass(frozen=True)
class Choice:
    """The candidates of a search in one setting with their numbers, and the best of them."""

    best: Candidate
    values: Mapping[str, float | None]

    @property
    def keys(self) -> Keys:
        """The config keys of the best candidate."""
        return self.best.search.candidates[self.best.name]

    def __str__(self) -> str:
        """Return the choice in words, for the report."""
        search, setting = self.best.search, self.best.setting
        tried = ", ".join(
            f"{name} {'failed' if value is None else format_number(value)}" for name, value in self.values.items()
        )
        where = f" in {setting}" if setting else ""
        first, *others = search.methods
        verb = "use" if others else "uses"
        return (
            f"**Search**{where}: {search.number} of {first} on held-out training images, random seed "
            f"{SEED}: {tried}. {', '.join(search.methods)} {verb} {self.best.name}."
        )

    def facts(self) -> dict[str, Any]:
        """Return the choice for ``table.json``."""
        search = self.best.search
        return {
            "setting": self.best.setting,
            "methods": search.methods,
            "number": search.number,
            "values": self.values,
            "best": self.best.name,
        }


def candidates(
    study: Study, scale: ScaleName, out: Path, overrides: Iterable[str] = (), *, named: str | None = None
) -> list[Candidate]:
    """Return the candidates of all searches of a scale; the arguments are those of ``list_runs``.

    Raises:
        UserError: an invalid config; the message names the candidate.
    """
    chosen, root = study.scales[scale], study_folder(out, study, scale) / FOLDER
    methods, found = study.at(scale).methods, []
    for search in chosen.searches:
        method = search.methods[0]
        for setting, place in chosen.settings.items():
            for name, keys in search.candidates.items():
                folder = root.joinpath(method, *([setting] if setting else []), name)
                last = {"seed": SEED, "out": str(folder)}
                own = methods[method].over(setting)
                where = f"{method} with {name}" + (f" in {setting}" if setting else "")
                parts = [chosen.keys, *overrides, place.keys, own, keys, search.keys, last]
                config = config_of(study, where, parts)
                cell = StudyRun(named or study.name, scale, f"{method} with {name}", setting, SEED, folder, config)
                found.append(Candidate(search, name, setting, cell))
    return found


def choose(study: Study, found: Sequence[Candidate]) -> list[Choice]:
    """Return the best candidate of each search in each setting, once all of them have been run.

    Raises:
        UserError: no run of a search has the number that decides, or the number has no better direction.
    """
    groups: dict[tuple[str, str], list[Candidate]] = {}
    for one in found:
        groups.setdefault((one.search.methods[0], one.setting), []).append(one)
    choices = []
    for (method, setting), group in groups.items():
        values = {one.name: one.value() for one in group}
        known = [(one, value) for one in group if (value := values[one.name]) is not None]
        if not known:
            place = f" in {setting}" if setting else ""
            raise UserError(
                f"study {study.name}: no candidate of the search of {method}{place} has {group[0].search.number!r}; see"
                f" {group[0].cell.folder}"
            )
        better = known[0][1][1]
        if not better:
            raise UserError(f"study {study.name}: {group[0].search.number!r} has no better direction to search by")
        sign = -1 if better == "higher" else 1
        best = min(known, key=lambda pair: sign * pair[1][0])[0]
        choices.append(Choice(best, {name: None if value is None else value[0] for name, value in values.items()}))
    return choices


def tuned(study: Study, choices: Sequence[Choice]) -> Study:
    """Return the study, its methods with the keys that the searches chose."""
    best = {(method, one.best.setting): one.keys for one in choices for method in one.best.search.methods}
    return replace(study, methods={name: _tuned(name, method, best) for name, method in study.methods.items()})


def _tuned(name: str, method: Method, best: Mapping[tuple[str, str], Keys]) -> Method:
    return Method(lambda setting: {**method.over(setting), **best.get((name, setting), {})}, method.note)
