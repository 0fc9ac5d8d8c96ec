"""What a report says: tables, differences, curves, pictures, how it was made, and at the end the verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orthogan.disentanglement.result import jsonable
from orthogan.io.write import disk_errors, write_text
from orthogan.studies.curves import charts, list_curves
from orthogan.studies.document import Block, Bullets, Code, Drawings, Grid, Heading, Pictures, Words, slug
from orthogan.studies.intervals import Estimate, plain
from orthogan.studies.report_html import write_html
from orthogan.studies.report_markdown import write_markdown
from orthogan.studies.table import Table
from orthogan.studies.verdict import Verdict

MACHINE = ("processor", "cores", "memory [GiB]", "gpu", "threads", "cells at a time", "system", "python", "torch")
ARROWS = {"lower": " ↓", "higher": " ↑", "": ""}
NOT_CORRECTED = (
    "Mean ± half of the 95 % interval of the mean (Student's t over n seeds); with `n = 1` there is none. Intervals "
    "are not corrected for the number of comparisons: of twenty true zeros about one interval will miss 0. ↓ lower is "
    "better, ↑ higher is better. Runs that failed are counted and are in no mean, so the mean of such a row is that of "
    "the survivors."
)


@dataclass(frozen=True)
class Report:
    """All that is told.

    ``command``: what made it. ``remarks``: what a reader must know first (runs still missing, what was thrown away).
    ``overlays``: by setting, (caption, file) of pictures of all rows. ``more``: further facts for ``table.json``.
    """

    title: str
    about: str
    command: str
    panels: Sequence[Table]
    remarks: Sequence[str] = ()
    verdicts: Sequence[Verdict] = ()
    claims: bool = False  # whether there is something to judge
    overlays: Mapping[str, Sequence[tuple[str, Path]]] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)


def write(report: Report, folder: Path) -> Path:
    """``REPORT.md`` with its curves, ``report.html`` and ``table.json`` in ``folder``; returns the first.

    Raises:
        CannotWrite: the folder cannot be written.
    """
    blocks = list_blocks(report)
    with disk_errors(folder, advice="choose another place with --out"):
        text = json.dumps(jsonable(as_dict(report)), indent=1, allow_nan=False)
        write_text(folder / "table.json", text + "\n")
        write_html(blocks, folder, report.title)
        return write_markdown(blocks, folder)


def list_blocks(report: Report) -> list[Block]:
    """The whole, in order."""
    blocks: list[Block] = [Heading(report.title, 1), Words(report.about)]
    if report.remarks:
        blocks.append(Bullets(report.remarks))
    blocks += [Code(report.command, "bash"), Words(NOT_CORRECTED)]
    for panel in report.panels:
        blocks += _panel(panel, report.overlays.get(panel.setting, ()))
    blocks += [*_rows(report), *_making(report)]
    if report.claims:
        blocks += _verdict(report.verdicts)
    return blocks


def grid(panel: Table) -> Grid:
    """The table: every row with its runs, failures and numbers."""
    head = ["", "runs", "failed", *(column.name + ARROWS[column.better] for column in panel.columns)]
    lines = []
    for row in panel.rows:
        n = len(panel.of(row, "done"))
        cells = [_cell(column.estimate(row), n) for column in panel.columns]
        lines.append([row, f"n = {n}", panel.failures(row) or "0", *cells])
    return Grid(head, lines)


def differences(panel: Table) -> Grid | None:
    """Every row less the baseline, seed by seed, of the numbers that have a better side; None with nothing to show."""
    columns = [c for c in panel.columns if c.better and c.of(panel.baseline)]
    others = [row for row in panel.rows if row != panel.baseline and any(c.of(row) for c in columns)]
    if not columns or not others:
        return None
    lines = []
    for row in others:
        found = [column.difference(row, panel.baseline) for column in columns]
        n = max(one.n for one in found)
        cells = [_cell(one, n) + _side(one, column.better) for one, column in zip(found, columns, strict=True)]
        lines.append([row, f"n = {n}", *cells])
    return Grid(["", "pairs", *(column.name + ARROWS[column.better] for column in columns)], lines)


def _cell(found: Estimate, n: int) -> str:
    """The estimate; its own n where that is not the row's."""
    return f"{found} (n = {found.n})" if found.n not in (0, n) else str(found)


def _side(found: Estimate, better: str) -> str:
    """A mark where the interval of a difference leaves 0 out."""
    if found.low is None or found.high is None or found.low <= 0 <= found.high:
        return ""
    good = (found.high < 0) == (better == "lower")
    return " **better**" if good else " **worse**"


def _panel(panel: Table, overlays: Sequence[tuple[str, Path]]) -> list[Block]:
    blocks: list[Block] = [Heading(panel.title or "Table"), grid(panel)]
    protocols: dict[str, list[str]] = {}
    for column in panel.columns:
        if column.protocol:
            said = ", ".join(f"{key} {_said(value)}" for key, value in column.protocol.items())
            protocols.setdefault(said, []).append(column.name)
    gains = differences(panel)
    if gains is not None:
        blocks += [
            Heading(f"Differences to {panel.baseline}", 3),
            Words(
                f"Each row less {panel.baseline} on equal seeds; **better** and **worse** where the interval leaves 0 "
                "out."
            ),
            gains,
        ]
    if failed := [entry for entry in panel.entries if entry.status != "done"]:
        blocks.append(Heading("Runs without a result", 3))
        blocks.append(Bullets([f"{e.row}, seed {e.seed}: **{e.status}**. {e.reason}" for e in failed]))
    if protocols:
        lines = [f"{'; '.join(names)}: {said}" for said, names in protocols.items()]
        blocks += [Heading("Protocol", 3), Bullets(lines)]
    if names := list_curves(panel):
        blocks.append(Heading("Over training", 3))
        for name in names:
            caption = f"{name}: mean over seeds, band from the smallest to the largest seed."
            shown = charts(panel, name, "images seen")
            blocks.append(Drawings(slug(panel.setting, name), shown, caption))
    if overlays:
        blocks += [Heading("All rows together", 3), Pictures(overlays, "")]
    first = min((entry.seed for entry in panel.entries), default=0)
    pictures = [
        (f"{row}, seed {entry.seed}", entry.folder / path)
        for row in panel.rows
        for entry in panel.of(row, "done")
        for path in entry.pictures
        if entry.seed == first
    ]
    if pictures:
        blocks += [Heading("Pictures", 3), Pictures(pictures, f"Of the first seed, {first}; chosen by nothing else.")]
    return blocks


def _rows(report: Report) -> list[Block]:
    """What each row is."""
    notes = {row: note for panel in report.panels for row, note in panel.notes.items() if note}
    if not notes:
        return []
    return [Heading("Rows"), Bullets([f"**{row}**: {note}" for row, note in notes.items()])]


def _making(report: Report) -> list[Block]:
    """Machines, versions, and how one run is made alone."""
    sittings = [sitting for panel in report.panels for entry in panel.entries for sitting in entry.sittings]
    blocks: list[Block] = [Heading("How it was made")]
    runs = sum(len(panel.entries) for panel in report.panels)
    minutes = sum(float(sitting.get("seconds", 0)) for sitting in sittings) / 60
    long = f"{minutes / 60:.1f} hours" if minutes > 120 else f"{minutes:.1f} minutes"
    facts = [f"{runs} runs" + (f", {long} of training in all" if sittings else "")]
    for key in (*MACHINE, "orthogan"):
        values = dict.fromkeys(_said(sitting[key]) for sitting in sittings if key in sitting)
        if values:
            facts.append(f"{key}: {', '.join(values)}")
    blocks.append(Bullets(facts))
    folders = [entry.folder for panel in report.panels for entry in panel.entries]
    if folders:
        blocks += [
            Words("Each run is an ordinary one of orthogan, with its whole config in its folder; alone it is made by"),
            Code(f"orthogan train {folders[0]}/config.yaml", "bash"),
        ]
    return blocks


def _verdict(verdicts: Sequence[Verdict]) -> list[Block]:
    blocks: list[Block] = [
        Heading("Verdict"),
        Words(
            "A claim holds here where the 95 % intervals of all its comparisons lie on its side, and does not hold "
            "where one of them lies on the other. It is said of these nets, data and lengths of training, no others."
        ),
    ]
    for verdict in verdicts:
        blocks.append(Heading(f"{verdict.claim.text}: {verdict.verdict}", 3))
        blocks.append(Words(f"Claimed in: {verdict.claim.source}. Here: {verdict.counts()}."))
        blocks.append(Bullets([str(finding) for finding in verdict.findings]))
    if not verdicts:
        blocks.append(Words("This study checks no published claim."))
    return blocks


def as_dict(report: Report) -> dict[str, Any]:
    """The raw numbers, for JSON."""
    return {
        "title": report.title,
        "command": report.command,
        "remarks": list(report.remarks),
        **report.more,
        "tables": [_table(panel) for panel in report.panels],
        "verdict": [
            {
                "claim": verdict.claim.text,
                "source": verdict.claim.source,
                "verdict": verdict.verdict,
                "counts": verdict.counts(),
                "findings": [
                    {
                        "says": finding.says,
                        "setting": finding.setting,
                        "verdict": finding.verdict,
                        "why": finding.why,
                        "without": finding.without,
                        **finding.estimate.as_dict(),
                    }
                    for finding in verdict.findings
                ],
            }
            for verdict in report.verdicts
        ],
    }


def _table(panel: Table) -> dict[str, Any]:
    return {
        "setting": panel.setting,
        "baseline": panel.baseline,
        "columns": [
            {"name": c.name, "better": c.better, "protocol": dict(c.protocol), "place": dict(c.place)}
            for c in panel.columns
        ],
        "rows": [
            {
                "name": row,
                "note": panel.notes.get(row, ""),
                "numbers": {column.name: column.estimate(row).as_dict() for column in panel.columns},
                "differences": {
                    column.name: column.difference(row, panel.baseline).as_dict() for column in panel.columns
                },
                "runs": [
                    {
                        "seed": entry.seed,
                        "status": entry.status,
                        "reason": entry.reason,
                        "folder": str(entry.folder),
                        "numbers": [{"name": name, "value": number.value} for name, number in entry.numbers],
                    }
                    for entry in panel.of(row)
                ],
            }
            for row in panel.rows
        ],
    }


def _said(value: Any) -> str:
    """A fact in words."""
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{key} {_said(inner)}" for key, inner in value.items()) + ")"
    if isinstance(value, float):
        return plain(value)
    return str(value)
