"""Each study from its command to its report, at the smallest scale: everything runs, every claim finds its numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orthogan.studies import STUDIES
from orthogan.studies.papers.latent_measures import DCI, MIG
from orthogan.studies.run_study import Request, run_study
from orthogan.studies.verdict import ABSENT, NO_SETTING

pytestmark = pytest.mark.slow

TOO_FEW = {"latent": (MIG, DCI)}  # numbers that need more images than this scale has


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_runs_from_its_command_to_its_report(name: str, tmp_path: Path) -> None:
    report = run_study(Request(name, out=tmp_path, jobs=1))
    text, table = report.read_text(encoding="utf-8"), json.loads((report.parent / "table.json").read_text())
    assert "**Smoke scale**" in text
    assert f"orthogan study {name} --scale smoke --seeds 1" in text
    runs = [run for panel in table["tables"] for row in panel["rows"] for run in row["runs"]]
    assert {run["status"] for run in runs} == {"done"}
    assert all((Path(run["folder"]) / "config.yaml").is_file() for run in runs)
    for claim in table["verdict"]:
        for finding in claim["findings"]:  # a setting may be missing at this scale, a number not
            excused = finding["why"] == NO_SETTING or finding["says"].startswith(TOO_FEW.get(name, "-"))
            assert finding["verdict"] != ABSENT or excused, finding
    assert text.rindex("## Verdict") > text.rindex("## Machine and versions")
    assert (report.parent / "report.html").stat().st_size > 10_000
