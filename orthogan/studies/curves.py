"""The curves of runs over training: for each row the mean over its seeds and the range they span."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from orthogan.drawing.chart import Axes, Line, chart
from orthogan.studies.table import Table

FEW = 6  # lines in one chart, beside the baseline


def list_curves(panel: Table) -> list[str]:
    """The curves that the runs of a panel have, in order of appearance."""
    return list(dict.fromkeys(name for entry in panel.entries for name in entry.curves))


def curve(panel: Table, row: str, name: str) -> Line | None:
    """Mean, least and greatest over the seeds of ``row``, at the places that all of them have."""
    found = [dict(entry.curves[name]) for entry in panel.of(row) if entry.curves.get(name)]
    if not found:
        return None
    places = sorted(set.intersection(*(set(curve) for curve in found)))
    points = []
    for x in places:
        values = [curve[x] for curve in found]
        points.append((x, min(values), statistics.fmean(values), max(values)))
    return Line(row, points, base=row == panel.baseline) if points else None


def charts(panel: Table, name: str, x_label: str) -> list[str]:
    """SVG charts of one curve of all rows: a few methods and the baseline in each, on the same axes."""
    lines = [line for row in panel.rows if (line := curve(panel, row, name)) is not None]
    axes = Axes.around(lines)
    base = [line for line in lines if line.base]
    others = [line for line in lines if not line.base]
    groups = _even(others, FEW) or [[]]
    return [chart([*base, *group], axes, title=name, x_label=x_label) for group in groups]


def _even(lines: Sequence[Line], most: int) -> list[Sequence[Line]]:
    """Groups of at most ``most``, as equal as can be."""
    count = -(-len(lines) // most)
    size = -(-len(lines) // count) if count else 0
    return [lines[start : start + size] for start in range(0, len(lines), size)] if size else []
