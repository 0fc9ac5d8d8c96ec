"""One cell of a study's smallest scale, trained and measured in this process."""

from __future__ import annotations

from pathlib import Path

from orthogan.named_code import names_in
from orthogan.studies.cells import Cell, cells_of
from orthogan.studies.finished import FinishedRun
from orthogan.studies.study import EVERY, Found, Study


def measured(study: Study, method: str, setting: str, out: Path, *overrides: str) -> tuple[Cell, dict[str, Found]]:
    """The cell, and what each measure of the study found."""
    cells = cells_of(study, "smoke", [0], out, overrides)
    cell = next(cell for cell in cells if (cell.method, cell.setting) == (method, setting))
    study.run(cell.config)
    run = FinishedRun(cell.folder, trust=names_in(cell.config))
    return cell, {measure.name: measure.of(run) for measure in study.measures}


def claimed(study: Study, setting: str) -> set[str]:
    """The numbers that the study's claims are about in a setting."""
    contrasts = [contrast for claim in study.claims for contrast in claim.contrasts]
    return {term.number for contrast in contrasts for term in contrast.terms if term.setting in (EVERY, setting)}
