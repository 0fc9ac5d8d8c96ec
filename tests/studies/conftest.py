"""Fixtures of the studies' tests."""

from __future__ import annotations

import pytest

from orthogan.studies import run_study as module
from orthogan.studies.cells import StudyRun, run_cell


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Cells run in this process, one after the other; returns the names of those that ran."""
    ran: list[str] = []

    def run_cells(cells: list[StudyRun], jobs: int, title: str) -> None:
        for cell in cells:
            ran.append(cell.name)
            run_cell(module.get_study(cell.study), cell, {"threads": 1, "cells at a time": jobs})

    monkeypatch.setattr(module, "run_cells", run_cells)
    return ran
