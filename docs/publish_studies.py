"""Copy the reports of finished studies into docs/results and their verdicts into docs/results.md.

    orthogan study NAME --scale cpu --seeds 3    # each of them, in a folder where runs/studies is
    python docs/publish_studies.py runs/studies

The report, its pictures (at most three) and its numbers are copied; the runs and the HTML page are not. Without a
folder, the verdicts of the published reports are made again from their numbers, by the rules of this version.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orthogan.io.json_lines import jsonable
from orthogan.stats import Estimate
from orthogan.studies.report import verdict_blocks, verdict_facts
from orthogan.studies.study import Claim, get_study
from orthogan.studies.verdict import Finding, decide

DOCS = Path(__file__).parent
BEGIN, END = "<!-- studies -->\n", "<!-- end of studies -->\n"
SCALE = "cpu"


def publish(studies: Path) -> None:
    """All studies below ``studies`` that have a report at the scale."""
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
    write_page()


def rejudge() -> None:
    """Make the verdicts of all published reports again."""
    for table in sorted((DOCS / "results").glob("*/table.json")):
        facts = json.loads(table.read_text(encoding="utf-8"))
        study = get_study(facts["study"])
        verdicts = [decide(claim, list(_findings(claim, facts))) for claim in study.claims]
        facts["verdict"] = verdict_facts([one for one in verdicts if one.findings])
        table.write_text(json.dumps(jsonable(facts)) + "\n", encoding="utf-8")
        report = table.parent / "REPORT.md"
        text = report.read_text(encoding="utf-8").split("## Verdict\n")[0]
        blocks = verdict_blocks([one for one in verdicts if one.findings])
        report.write_text(text + "\n\n".join(blocks) + "\n", encoding="utf-8")
    write_page()


def _findings(claim: Claim, facts: dict[str, Any]) -> Iterator[Finding]:
    """The estimates of a published claim, for the hypotheses that the study still has."""
    contrasts = {contrast.says: contrast for contrast in claim.contrasts}
    for one in facts["verdict"]:
        if one["claim"] == claim.text:
            for kept in one["findings"]:
                contrast = contrasts[kept["says"]]
                estimate = Estimate.of([math.nan if value is None else value for value in kept["values"]])
                yield Finding(
                    contrast, kept["setting"], estimate, why="" if estimate.n else kept["why"], without=kept["without"]
                )


def write_page() -> None:
    """Write the verdicts of all published studies into docs/results.md."""
    tables = sorted((DOCS / "results").glob("*/table.json"))
    parts = [section(json.loads(table.read_text(encoding="utf-8"))) for table in tables]
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
    if len(sys.argv) > 1:
        publish(Path(sys.argv[1]))
    else:
        rejudge()
