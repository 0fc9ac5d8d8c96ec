"""Reports: tables, differences, pictures, provenance, and the verdict on each claim.

A report is written once, as Markdown; the HTML page is converted from it.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from orthogan.drawing.grid import save_png, tile_pictures
from orthogan.drawing.plots import Line, plot_curves
from orthogan.io.json_lines import jsonable
from orthogan.io.read import UnreadableFile, describe_error, read_regular
from orthogan.io.terminal import shell_word
from orthogan.io.write import disk_errors, write_text
from orthogan.stats import Estimate, format_number
from orthogan.studies.table import Entry, Table
from orthogan.studies.verdict import NO_SETTING, Finding, Verdict

CURVES, OVERLAYS, SAMPLES = "curves.png", "overlays.png", "samples.png"  # the pictures of a report
MACHINE = ("processor", "cores", "memory [GiB]", "gpu", "threads", "cells at a time", "system", "python", "torch")
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.5 system-ui, sans-serif; color: light-dark(#222226, #ececf0);
  background: light-dark(#fff, #17171a); max-width: 1440px; margin: 2em auto; padding: 0 1em;
  overflow-wrap: anywhere; }}
a {{ color: light-dark(#0645ad, #8ab4f8); }}
p, ul {{ max-width: 60em; }}
h1, h2, h3 {{ line-height: 1.2; margin-top: 1.6em; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; }}
th, td {{ padding: .25em .7em; border-bottom: 1px solid light-dark(#e4e4e8, #3a3a42); text-align: right;
  vertical-align: top; }}
td {{ white-space: nowrap; overflow-wrap: normal; }}
th {{ overflow-wrap: normal; }}
th:first-child, td:first-child {{ text-align: left; }}
thead :is(th, td) {{ border-bottom: 2px solid #aaa; }}
pre {{ background: light-dark(#f5f5f7, #26262b); padding: .8em; overflow-x: auto; }}
code {{ font-size: 13px; }}
p:has(img) {{ max-width: none; }}
img {{ max-width: 100%; height: auto; }}
</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""
ARROWS = {"lower": " ↓", "higher": " ↑", "": ""}
NOT_CORRECTED = (
    "Mean ± half the width of its 95 % interval (Student's t over n seeds); no interval with `n = 1`. Intervals in "
    "the tables are not corrected for multiple comparisons: about one in twenty excludes 0 although there is no "
    "difference. The verdicts are corrected. ↓ lower is better, ↑ higher is better. The mean of a row with failed runs "
    "is that of its other runs."
)


@dataclass(frozen=True)
class Report:
    """The content of a report.

    ``command``: the command line that made it. ``remarks``: warnings at the top (missing runs, deleted runs).
    ``overlays``: by setting, (caption, file) of pictures of all rows. ``more``: further entries of ``table.json``.
    """

    title: str
    about: str
    command: str
    panels: Sequence[Table]
    remarks: Sequence[str] = ()
    verdicts: Sequence[Verdict] = ()
    claims: bool = False  # whether the report has a verdict
    overlays: Mapping[str, Sequence[tuple[str, Path]]] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)


def write(report: Report, folder: Path) -> Path:
    """Write ``REPORT.md`` with up to 3 pictures, ``report.html`` and ``table.json`` to ``folder``; return the first.

    Raises:
        CannotWrite: the folder is not writable.
    """
    with disk_errors(folder, advice="choose another place with --out"):
        text = json.dumps(jsonable(as_dict(report)), indent=1, allow_nan=False)
        write_text(folder / "table.json", text + "\n")
        markdown = "\n\n".join(_blocks(report, folder)) + "\n"
        markdown = markdown.encode("utf-8", "backslashreplace").decode()  # file names can contain any bytes
        write_text(folder / "report.html", to_html(markdown, report.title, folder))
        return write_text(folder / "REPORT.md", markdown)


def _blocks(report: Report, folder: Path) -> list[str]:
    """Return all Markdown blocks, in order; draw the pictures."""
    blocks = [f"# {report.title}", report.about, *_bullets(report.remarks), _code(report.command), NOT_CORRECTED]
    for panel in report.panels:
        blocks += _panel(panel)
    blocks += [*_pictures(report, folder), *_rows(report), *_making(report)]
    return blocks + (verdict_blocks(report.verdicts) if report.claims else [])


def _bullets(items: Sequence[str]) -> list[str]:
    """Return a list; empty without items."""
    return ["\n".join(f"- {' '.join(item.split())}" for item in items)] if items else []


def _code(command: str) -> str:
    return f"```bash\n{command}\n```"


def _grid(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table; the first column holds text, the others numbers."""
    rows = [head, ["---", *["---:"] * (len(head) - 1)], *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def numbers_table(panel: Table) -> str:
    """Return the table as Markdown: per row the runs, failures and numbers."""
    head = ["", "runs", "failed", *(column.name + ARROWS[column.better] for column in panel.columns)]
    lines = []
    for row in panel.rows:
        n = len(panel.of(row, "done"))
        cells = [_cell(column.estimate(row), n) for column in panel.columns]
        lines.append([row, f"n = {n}", panel.failures(row) or "0", *cells])
    return _grid(head, lines)


def differences_table(panel: Table) -> str | None:
    """Subtract the baseline from every row on equal seeds, for numbers with a better direction; None if none."""
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
    return _grid(["", "pairs", *(column.name + ARROWS[column.better] for column in columns)], lines)


def _cell(found: Estimate, n: int) -> str:
    """Format the estimate, with its own n if that differs from the n of the row."""
    return f"{found} (n = {found.n})" if found.n not in (0, n) else str(found)


def _side(found: Estimate, better: str) -> str:
    """Return a mark if the interval of a difference excludes 0."""
    if found.low is None or found.high is None or found.low <= 0 <= found.high:
        return ""
    good = (found.high < 0) == (better == "lower")
    return " **better**" if good else " **worse**"


def _panel(panel: Table) -> list[str]:
    blocks = [f"## {panel.title or 'Table'}", numbers_table(panel)]
    gains = differences_table(panel)
    if gains is not None:
        blocks += [
            f"### Differences to {panel.baseline}",
            f"Each row minus {panel.baseline} on equal seeds; **better** and **worse** if the interval excludes 0.",
            gains,
        ]
    if failed := [entry for entry in panel.entries if entry.status != "done"]:
        lines = [f"{e.row}, seed {e.seed}: **{e.status}**. {_plain(e.reason)}" for e in failed]
        blocks += ["### Runs without a result", *_bullets(lines)]
    protocols: dict[str, list[str]] = {}
    for column in panel.columns:
        if column.protocol:
            said = ", ".join(f"{key} {_said(value)}" for key, value in column.protocol.items())
            protocols.setdefault(said, []).append(column.name)
    if protocols:
        lines = [_plain(f"{'; '.join(names)}: {said}") for said, names in protocols.items()]
        blocks += ["### Protocol", *_bullets(lines)]
    return blocks


def curve(panel: Table, row: str, name: str) -> Line | None:
    """Return mean, minimum and maximum over the seeds of ``row``, at the points that all of them have."""
    found = [dict(entry.curves[name]) for entry in panel.of(row) if entry.curves.get(name)]
    if not found:
        return None
    points = []
    for x in sorted(set.intersection(*(set(curve) for curve in found))):
        values = [curve[x] for curve in found]
        points.append((x, min(values), statistics.fmean(values), max(values)))
    return Line(row, points, base=row == panel.baseline) if points else None


def curves(panel: Table) -> dict[str, list[Line]]:
    """Return lines by name, in order of appearance: one for each row that has it."""
    names = dict.fromkeys(name for entry in panel.entries for name in entry.curves)
    lines = {name: [line for row in panel.rows if (line := curve(panel, row, name)) is not None] for name in names}
    return {name: of for name, of in lines.items() if of}


def _pictures(report: Report, folder: Path) -> list[str]:
    """Draw the pictures and return the blocks that show them; report a picture that cannot be read."""
    for name in (CURVES, OVERLAYS, SAMPLES):
        (folder / name).unlink(missing_ok=True)
    blocks: list[str] = []
    lines = {
        f"{panel.setting}: {name}" if panel.setting else name: of
        for panel in report.panels
        for name, of in curves(panel).items()
    }
    if lines:
        plot_curves(lines, folder / CURVES, x_label="images seen")
        caption = "Mean over seeds, band from the smallest to the largest seed."
        blocks += ["## Over training", f"![Over training: {', '.join(lines)}]({CURVES})", caption]
    overlays = [picture for panel in report.panels for picture in report.overlays.get(panel.setting, ())]
    blocks += _sheet("All rows together", overlays, folder / OVERLAYS, 1200)
    done = [(panel, entry) for panel in report.panels for entry in panel.entries if entry.status == "done"]
    first = min((entry.seed for panel in report.panels for entry in panel.entries), default=0)
    samples = [
        (f"{panel.setting}: {_run(entry)}" if panel.setting else _run(entry), entry.folder / path)
        for panel, entry in sorted(done, key=lambda pair: list(pair[0].rows).index(pair[1].row))
        for path in entry.pictures
        if entry.seed == first
    ]
    return blocks + _sheet(f"Pictures of the first seed, {first}", samples, folder / SAMPLES, 800)


def _run(entry: Entry) -> str:
    return f"{entry.row}, seed {entry.seed}"


def _sheet(heading: str, files: Sequence[tuple[str, Path]], target: Path, most: int) -> list[str]:
    """Draw all ``files`` (caption, path) in one picture, each at most ``most`` pixels per side."""
    found: list[tuple[str, Image.Image]] = []
    lost = []
    for words, path in files:
        try:
            found.append((words, Image.open(io.BytesIO(read_regular(path))).convert("RGB")))
        except UnreadableFile as error:
            lost.append(f"{words}: {error.reason}")
        except Exception as error:  # a damaged picture can raise many kinds of error
            lost.append(f"{words}: not a picture ({describe_error(error)})")
    blocks = [f"## {heading}"] if files else []
    if found:
        save_png(tile_pictures(found, most=most), target)
        blocks.append(f"![{', '.join(words for words, _ in found)}]({target.name})")
    return blocks + _bullets(lost)


def _rows(report: Report) -> list[str]:
    """Return the description of each row."""
    notes = {row: note for panel in report.panels for row, note in panel.notes.items() if note}
    return ["## Rows", *_bullets([f"**{row}**: {note}" for row, note in notes.items()])] if notes else []


def _making(report: Report) -> list[str]:
    """Return machines, versions, and how to make a single run."""
    sittings = [sitting for panel in report.panels for entry in panel.entries for sitting in entry.sittings]
    runs = sum(len(panel.entries) for panel in report.panels)
    minutes = sum(float(sitting.get("seconds", 0)) for sitting in sittings) / 60
    long = f"{minutes / 60:.1f} hours" if minutes > 120 else f"{minutes:.1f} minutes"
    facts = [f"{runs} runs" + (f", {long} of training in all" if sittings else "")]
    for key in (*MACHINE, "orthogan"):
        values = dict.fromkeys(_said(sitting[key]) for sitting in sittings if key in sitting)
        if values:
            facts.append(_plain(f"{key}: {', '.join(values)}"))
    blocks = ["## Machine and versions", *_bullets(facts)]
    folders = [entry.folder for panel in report.panels for entry in panel.entries]
    if folders:
        blocks += [
            "Each run is an ordinary orthogan run, with its complete config in its folder. To train one alone:",
            _code(f"orthogan train {shell_word(Path(folders[0], 'config.yaml'))}"),
        ]
    return blocks


def verdict_blocks(verdicts: Sequence[Verdict]) -> list[str]:
    """Return the last section of a report."""
    blocks = [
        "## Verdict",
        "A claim holds here if the corrected intervals of all its comparisons are on its side, and does not hold if "
        "one of them is on the other side. Corrected intervals and p-values allow for the number of comparisons of "
        "the claim (Holm 1979), so that a wrong decision about a claim has a probability of at most 5 %. Detectable: "
        "the smallest difference that the comparison finds with probability 0.8 at the measured spread. The verdict "
        "applies to these nets, data sets and training lengths only.",
    ]
    for verdict in verdicts:
        blocks.append(f"### {verdict.claim.text}: {verdict.verdict}")
        published = f" The paper's numbers: {verdict.claim.published}." if verdict.claim.published else ""
        blocks.append(f"Claimed in: {verdict.claim.source}.{published} Here: {verdict.counts()}.")
        blocks += _bullets([_plain(str(finding)) for finding in verdict.findings if finding.why != NO_SETTING])
    return blocks if verdicts else [*blocks, "This study checks no published claim."]


def _plain(text: str) -> str:
    """Return ``text`` on one line, with characters escaped that Markdown would interpret."""
    return re.sub(r"([\\`*<])", r"\\\1", " ".join(text.split()))


def to_html(markdown: str, title: str, folder: Path) -> str:
    """Return ``markdown`` as one self-contained page: the pictures in ``folder`` are embedded."""
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    numbers = itertools.count(1)
    wide = '<div class="wide" role="region" aria-label="Table {}" tabindex="0"><table>'  # keyboards can scroll it
    body = re.sub("<table>", lambda _: wide.format(next(numbers)), body).replace("</table>", "</table></div>")
    body = body.replace("<th></th>", "<td></td>").replace("<pre>", '<pre tabindex="0">')

    def inline(match: re.Match[str]) -> str:
        data = base64.b64encode((folder / match[1]).read_bytes()).decode("ascii")
        return f'<img src="data:image/png;base64,{data}"'

    names = "|".join(map(re.escape, (CURVES, OVERLAYS, SAMPLES)))
    body = re.sub(f'<img src="({names})"', inline, body)
    return PAGE.format(title=escape(title), body=body)


def as_dict(report: Report) -> dict[str, Any]:
    """Return the raw numbers, for JSON."""
    return {
        "title": report.title,
        "command": report.command,
        "remarks": list(report.remarks),
        **report.more,
        "tables": [_table(panel) for panel in report.panels],
        "verdict": verdict_facts(report.verdicts),
    }


def verdict_facts(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Return the verdicts and their findings, for JSON."""
    return [
        {
            "claim": verdict.claim.text,
            "source": verdict.claim.source,
            "published": verdict.claim.published,
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
                    **_corrected(finding),
                }
                for finding in verdict.findings
            ],
        }
        for verdict in verdicts
    ]


def _corrected(finding: Finding) -> dict[str, Any]:
    if finding.corrected is None:
        return {}
    numbers = {"low": finding.corrected.low, "high": finding.corrected.high, "confidence": finding.confidence}
    return {"corrected": numbers, "p": finding.p, "detectable": finding.detectable}


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
                "curves": {
                    name: [[float(f"{value:.6g}") for value in point] for point in line.points]  # x, low, mean, high
                    for name in dict.fromkeys(name for entry in panel.of(row) for name in entry.curves)
                    if (line := curve(panel, row, name)) is not None
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
    """Format a value as text."""
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{key} {_said(inner)}" for key, inner in value.items()) + ")"
    if isinstance(value, float):
        return format_number(value)
    return str(value)
