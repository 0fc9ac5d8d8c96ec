"""Runs side by side: a row per method, a column per number and protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orthogan.errors import UserError
from orthogan.stats import Estimate, paired_difference
from orthogan.studies.values import Value, alike, differing, standing
from orthogan.words import counted


@dataclass(frozen=True)
class Entry:
    """One run in the table.

    ``status``: "done", or why there are no final numbers: "diverged", "error", "unfinished"; ``reason``: in words.
    ``numbers``: (name, value); a name can occur again under another protocol.
    """

    row: str
    seed: int
    folder: Path
    status: str = "done"
    reason: str = ""
    numbers: Sequence[tuple[str, Value]] = ()
    curves: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    pictures: Sequence[str] = ()
    sittings: Sequence[Mapping[str, Any]] = ()


Holder = tuple[Entry, Value]


@dataclass(frozen=True)
class Column:
    """Numbers of one name under one protocol; all of them share ``protocol`` and ``place``."""

    name: str
    number: str
    better: str
    protocol: Mapping[str, Any]
    place: Mapping[str, Any]
    values: Mapping[tuple[str, int], float]  # (row, seed) -> value

    def of(self, row: str) -> dict[int, float]:
        """Return seed -> value of a row."""
        return {seed: value for (name, seed), value in self.values.items() if name == row}

    def estimate(self, row: str) -> Estimate:
        """Return mean and interval over the seeds of ``row``."""
        found = self.of(row)
        return Estimate.of([found[seed] for seed in sorted(found)])

    def difference(self, row: str, baseline: str) -> Estimate:
        """Return ``row`` minus ``baseline`` on equal seeds."""
        return paired_difference(self.of(row), self.of(baseline))


@dataclass(frozen=True)
class Table:
    """All runs of one setting, including failures. ``notes``: descriptions of rows; ``about``: of the setting."""

    setting: str
    rows: Sequence[str]
    baseline: str
    entries: Sequence[Entry]
    columns: Sequence[Column]
    notes: Mapping[str, str] = field(default_factory=dict)
    about: str = ""

    @property
    def title(self) -> str:
        """Return the setting and its description."""
        return f"{self.setting}: {self.about}" if self.about else self.setting

    def column(self, number: str) -> Column | None:
        """Return the column of that number; None if no run has it, or several columns share the name."""
        found = [column for column in self.columns if column.number == number]
        return found[0] if len(found) == 1 else None

    def of(self, row: str, status: str = "") -> list[Entry]:
        """Return the runs of a row, by seed; with ``status``, only those."""
        found = [e for e in self.entries if e.row == row and (not status or e.status == status)]
        return sorted(found, key=lambda entry: entry.seed)

    def failures(self, row: str) -> str:
        """Return the failures, such as ``1 diverged, 1 unfinished``; empty if none failed."""
        kinds = dict.fromkeys(e.status for e in self.of(row) if e.status != "done")
        return ", ".join(f"{len(self.of(row, kind))} {kind}" for kind in kinds)


def panel(
    entries: Sequence[Entry],
    *,
    rows: Sequence[str],
    baseline: str,
    setting: str = "",
    about: str = "",
    notes: Mapping[str, str] | None = None,
    split: bool,
) -> Table:
    """Return all ``entries`` as one table.

    Numbers that depend on the machine (seconds, memory) get a column per machine, named by what differs.

    Args:
        split: numbers of different protocols get separate columns, named by what differs; else they are an error.

    Raises:
        UserError: protocols differ without ``split``; the message names the keys that differ, and the runs.
    """
    done = [entry for entry in entries if entry.status == "done"]
    names = dict.fromkeys(name for entry in done for name, _ in entry.numbers)
    columns = [column for name in names for column in _columns(name, done, setting, split=split)]
    return Table(setting, rows, baseline, entries, columns, notes or {}, about)


def _columns(name: str, done: Sequence[Entry], setting: str, *, split: bool) -> list[Column]:
    holders = [(entry, number) for entry in done for known, number in entry.numbers if known == name]
    protocols = [number.protocol for _, number in holders]
    keys = differing(protocols)
    if keys and not split:
        raise UserError(_refusal(name, keys, holders, setting))
    places = [number.place for _, number in holders]
    there = differing(places)
    groups: dict[tuple[str, ...], list[Holder]] = {}
    for holder, by_protocol, by_place in zip(holders, alike(protocols, keys), alike(places, there), strict=True):
        groups.setdefault((*by_protocol, *by_place), []).append(holder)
    found = []
    for values, members in groups.items():
        words = ", ".join(f"{key} {value}" for key, value in zip([*keys, *there], values, strict=True))
        first = members[0][1]
        numbers = {(entry.row, entry.seed): number.value for entry, number in members}
        title = f"{name} ({words})" if words else name
        found.append(Column(title, name, first.better, standing(first.protocol), dict(first.place), numbers))
    return found


def _refusal(name: str, keys: Sequence[str], holders: Sequence[Holder], setting: str) -> str:
    lines = []
    for key in keys:
        values: dict[tuple[str, ...], list[Entry]] = {}
        for (entry, _), value in zip(holders, alike([n.protocol for _, n in holders], [key]), strict=True):
            values.setdefault(value, []).append(entry)
        kinds = "; ".join(
            f"{value[0]} in {counted(len(of), 'run')}, such as {of[0].folder}" for value, of in values.items()
        )
        lines.append(f"  {key}: {kinds}")
    where = f" in {setting}" if setting else ""
    return (
        f"{name}{where}: measured under different protocols, which cannot share a column:\n"
        + "\n".join(lines)
        + "\nMeasure them under one protocol: delete the smaller group with --redo METHOD, or choose another --out."
    )
