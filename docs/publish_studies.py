"""Copy the reports of finished studies into docs/results and their verdicts into docs/results.md.

    orthogan study NAME --scale cpu --seeds 3    # each of them, in a folder where runs/studies is
    python docs/publish_studies.py runs/studies

The report, its pictures (at most three) and its numbers are copied; the runs and the HTML page are not.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
BEGIN, END = "<!-- studies -->\n", "<!-- end of studies -->\n"
SCALE = "cpu"


def publish(studies: Path) -> None:
    """All studies below ``studies`` that have a report at the scale."""
    parts = []
    for table in sorted(studies.glob(f"*/{SCALE}/table.json")):
        made, target = table.parent, DOCS / "results" / table.parent.parent.name
        if target.exists():
            shutil.rmtree(target)
        target.mkdir(parents=True)
        for file in (made / "REPORT.md", *made.glob("*.png")):
            shutil.copy(file, target)
        facts = json.loads(table.read_text(encoding="utf-8"))
        facts.pop("configs")  # every run's whole config; the report has the keys that make each method
        (target / "table.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")
        parts.append(section(facts))
    page = DOCS / "results.md"
    head, rest = page.read_text(encoding="utf-8").split(BEGIN)
    page.write_text(head + BEGIN + "\n" + "\n".join(parts) + "\n" + END + rest.split(END)[1], encoding="utf-8")


def section(facts: dict[str, Any]) -> str:
    """The verdicts of one study."""
    rows = [row["runs"] for panel in facts["tables"] for row in panel["rows"]]
    runs = [run for row in rows for run in row]
    least, most = min(map(len, rows)), max(map(len, rows))
    seeds = f"{most} seed{'s' * (most > 1)} each" if least == most else f"{least} to {most} seeds each: not complete"
    lost = sum(run["status"] != "done" for run in runs)
    lines = [
        f"### {facts['study']}",
        "",
        f"{len(runs)} runs, {seeds}, {lost} without a result: [report](results/{facts['study']}/REPORT.md).",
        "",
        "| published claim | here | comparisons |",
        "|---|---|---|",
    ]
    lines.extend(f"| {claim['claim']} | {claim['verdict']} | {claim['counts']} |" for claim in facts["verdict"])
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    publish(Path(sys.argv[1]))
