"""Copy the reports of finished studies into docs/results and their verdicts into docs/results.md.

    orthogan study NAME --scale cpu --seeds 3    # or --scale decide; each of them, in a folder where runs/studies is
    python docs/publish_studies.py runs/studies

The report, its pictures (at most three) and its numbers are copied; the networks and the HTML page are not. At the
scale decide, the measures of the runs are packed too. Unpacked, they continue the study elsewhere:

    mkdir -p runs/studies/NAME/decide
    tar xf docs/results/NAME-decide/runs.tar.xz -C runs/studies/NAME/decide
    orthogan study NAME --scale decide

A study at this scale takes days. Of one that has not all of its runs, no report is published, only these measures:
docs/results/unfinished/NAME-decide.tar.xz.

Without a folder, the verdicts of the published reports are made again from their numbers, by the rules of this version.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orthogan.io.json_lines import jsonable
from orthogan.stats import Estimate, format_number
from orthogan.studies import outcome
from orthogan.studies.cells import finished, list_runs
from orthogan.studies.report import verdict_blocks, verdict_facts
from orthogan.studies.study import Claim, get_study
from orthogan.studies.verdict import ABSENT, Finding, decide

DOCS = Path(__file__).parent
BEGIN, END = "<!-- studies -->\n", "<!-- end of studies -->\n"
SCALES = {"cpu": "", "decide": "-decide"}  # scale -> the end of its folder
HEAD = (
    "| published claim | paper's numbers | strongest comparison here: mean | n | corrected interval "
    "| verdict | all | study |"
)
RULE = "|---|---|---|---:|---|---|---|---|"


def publish(studies: Path) -> None:
    """All studies below ``studies`` that have a report at one of the scales, and the runs of unfinished ones."""
    for made in sorted(path for scale in SCALES for path in studies.glob(f"*/{scale}")):
        target = DOCS / "results" / (made.parent.name + SCALES[made.name])
        unfinished = DOCS / "results" / "unfinished" / f"{target.name}.tar.xz"
        if made.name == "decide" and (left := runs_left(made)):
            unfinished.parent.mkdir(parents=True, exist_ok=True)
            pack(made, unfinished)
            print(f"{made}: {left} runs left, so no report is published; the others are in {unfinished}")
            continue
        if not (made / "table.json").is_file():
            continue
        unfinished.unlink(missing_ok=True)
        if target.exists():
            shutil.rmtree(target)
        target.mkdir(parents=True)
        for file in (made / "REPORT.md", *made.glob("*.png")):
            shutil.copy(file, target)
        facts = json.loads((made / "table.json").read_text(encoding="utf-8"))
        facts.pop("configs")  # every run's whole config; the report has the keys that make each method
        (target / "table.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")
        if facts["scale"] == "decide":
            pack(made, target / "runs.tar.xz")
    write_page()


def runs_left(made: Path) -> int:
    """The number of runs at the scale decide that need more work."""
    study = get_study(made.parent.name)
    runs = list_runs(study, "decide", range(study.scales["decide"].seeds), made.parent.parent)
    return sum(not finished(study, outcome.load(run.folder)) for run in runs)


def pack(made: Path, target: Path) -> None:
    """The measures, sessions and measured pictures of all measured runs, without owners and times."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.mtime = member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    with tarfile.open(target, "w:xz", preset=9) as archive:
        for file in sorted(made.rglob(outcome.FILE)):
            found = outcome.load(file.parent)
            for name in (outcome.FILE, outcome.SITTINGS, *(found.pictures if found else ())):
                archive.add(file.parent / name, str((file.parent / name).relative_to(made)), filter=plain)


def rejudge() -> None:
    """Make the verdicts of all published reports again.

    Raises:
        SystemExit: a published claim that its study no longer has, which would be lost.
    """
    for table in sorted((DOCS / "results").glob("*/table.json")):
        facts = json.loads(table.read_text(encoding="utf-8"))
        study = get_study(facts["study"])
        gone = {one["claim"] for one in facts["verdict"]} - {claim.text for claim in study.claims}
        if gone:
            raise SystemExit(f"{table}: the study {study.name} has no claim {gone.pop()!r}; rename it in this file")
        verdicts = [decide(claim, list(_findings(claim, facts))) for claim in study.claims]
        facts["verdict"] = verdict_facts(verdicts)
        table.write_text(json.dumps(jsonable(facts)) + "\n", encoding="utf-8")
        report = table.parent / "REPORT.md"
        text = report.read_text(encoding="utf-8").split("## Verdict\n")[0]
        report.write_text(text + "\n\n".join(verdict_blocks(verdicts)) + "\n", encoding="utf-8")
    write_page()


def _findings(claim: Claim, facts: dict[str, Any]) -> Iterator[Finding]:
    """The published estimates of a claim, for the hypotheses that the study still has."""
    contrasts = {contrast.says: contrast for contrast in claim.contrasts}
    published = [kept for one in facts["verdict"] if one["claim"] == claim.text for kept in one["findings"]]
    for kept in published:
        contrast = contrasts[kept["says"]]
        estimate = Estimate.of([math.nan if value is None else value for value in kept["values"]])
        why = "" if estimate.n else kept["why"]
        yield Finding(contrast, kept["setting"], estimate, why=why, without=kept["without"])
    if not published:
        yield from (Finding(one, "", Estimate.of([]), why="newer than these runs") for one in claim.contrasts)


def write_page() -> None:
    """Write the claims of all published studies into docs/results.md, as one table.

    A claim that was tested at both scales has one row, that of the scale that decides.
    """
    tables = sorted((DOCS / "results").glob("*/table.json"))
    facts = [json.loads(table.read_text(encoding="utf-8")) for table in tables]
    found = {(one["study"], claim["claim"]): (one["scale"], claim) for one in facts for claim in claims(one)}
    rows = [HEAD, RULE, *(row(study, scale, claim) for (study, _), (scale, claim) in found.items())]
    lines = ["", *rows, "", "Runs: " + "; ".join(runs(study) for study in facts) + ".", ""]
    page = DOCS / "results.md"
    head, rest = page.read_text(encoding="utf-8").split(BEGIN)
    page.write_text(head + BEGIN + "\n".join(lines) + "\n" + END + rest.split(END)[1], encoding="utf-8")


def claims(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """The claims of a study; at the scale that decides, only those that it tests."""
    return [one for one in facts["verdict"] if facts["scale"] == "cpu" or one["verdict"] != ABSENT]


def row(study: str, scale: str, claim: dict[str, Any]) -> str:
    """One claim, with the numbers of its comparison that has the most evidence (the one that failed, if one failed)."""
    tested = [one for one in claim["findings"] if "corrected" in one]
    shown = [one for one in tested if one["verdict"] == claim["verdict"]] or tested
    cells = ["–", "–", "–"]
    if shown:
        best = min(shown, key=lambda one: one["p"])
        low, high = (format_number(best["corrected"][end]) for end in ("low", "high"))
        where = f" ({best['setting']})" if best["setting"] else ""
        cells = [f"{best['says']}{where}: {format_number(best['mean'])}", str(best["n"]), f"[{low}, {high}]"]
    found = [claim["claim"], claim.get("published") or "–", *cells, claim["verdict"], claim["counts"]]
    found.append(f"[{study}, {scale}](results/{study}{SCALES[scale]}/REPORT.md)")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in found) + " |"


def runs(facts: dict[str, Any]) -> str:
    """The number of runs of one study."""
    rows = [row["runs"] for panel in facts["tables"] for row in panel["rows"]]
    made = [run for row in rows for run in row]
    least, most = min(map(len, rows)), max(map(len, rows))
    seeds = f"{most} seed{'s' * (most > 1)} each" if least == most else f"{least} to {most} seeds each: not complete"
    lost = sum(run["status"] != "done" for run in made)
    return f"`{facts['study']}` ({facts['scale']}) {len(made)}, {seeds}, {lost} without a result"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        publish(Path(sys.argv[1]))
    else:
        rejudge()
