"""Cells in processes of their own: one that dies takes nothing with it, and a signal stops them all cleanly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from orthogan.errors import Stopped, UserError
from orthogan.studies.cells import list_runs
from orthogan.studies.outcome import FILE, load, sittings
from orthogan.studies.pool import default_jobs, progress, run_cells
from orthogan.studies.run_study import Request, run_study
from tests.fixtures import stub


def request(out: Path, name: str, **more: int) -> Request:
    return Request(f"tests.fixtures.stub:{name}", out=out, **more)


def test_a_cell_that_is_killed_is_a_failure_and_the_others_go_on(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"3 of 5 runs failed, such as third, seed 0; for the reasons see .*REPORT\.md"):
        run_study(request(tmp_path, "FAILING", seeds=1, jobs=2))
    report = (tmp_path / "stub" / "smoke" / "REPORT.md").read_text(encoding="utf-8")
    root = tmp_path / "stub" / "smoke" / "cells"
    found = {m: load(root / m / "seed-0") for m in ("base", "second", "third", "fourth", "fifth")}
    status = {method: outcome.status for method, outcome in found.items() if outcome is not None}
    assert status == {"base": "done", "second": "diverged", "third": "error", "fourth": "error", "fifth": "error"}
    for part in ("| base | n = 1 | 0 |", "| second | n = 0 | 1 diverged |", "| fourth | n = 0 | 1 error |"):
        assert part in report
    assert "ended by signal 9 (out of memory?); see output.txt" in report
    assert "ZeroDivisionError" in (root / "third" / "seed-0" / "output.txt").read_text()
    facts = sittings(root / "base" / "seed-0")[0]
    assert facts["cells at a time"] == 2
    assert facts["peak memory [MiB]"] > 10


def test_a_signal_stops_all_cells_cleanly_and_the_same_command_goes_on(tmp_path: Path) -> None:
    root = tmp_path / "stub" / "smoke"
    waiting = root / "cells" / "second" / "seed-0"

    def interrupt() -> None:
        end = time.monotonic() + stub.PATIENCE
        while not (waiting / "waited.txt").exists() and time.monotonic() < end:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(Stopped, match=r"stopped by SIGTERM, 3 runs left; the same command resumes"):
        run_study(request(tmp_path, "WAITING", seeds=2, jobs=1))
    thread.join()
    assert not (waiting / FILE).exists()
    assert "saved" in (waiting / "output.txt").read_text()
    assert "**Not complete**: 3 runs" in (root / "REPORT.md").read_text(encoding="utf-8")
    later = root / "cells" / "second" / "seed-1"
    later.mkdir(parents=True, exist_ok=True)
    (later / "waited.txt").touch()  # it need not wait too
    report = run_study(request(tmp_path, "WAITING", seeds=2, jobs=2)).read_text(encoding="utf-8")
    assert "**Not complete**" not in report
    assert "| second | n = 2 | 0 |" in report
    ran = (root / "cells" / "base" / "seed-0" / "ran.txt").read_text()
    assert ran == "ran\n"


def test_progress_is_read_off_the_log_also_when_a_line_is_cut(tmp_path: Path) -> None:
    cell = list_runs(stub.STUDY, "smoke", [0], tmp_path, ["training.steps=200"])[0]
    assert progress(cell) == 0.0
    cell.folder.mkdir(parents=True)
    lines = [json.dumps({"step": step, "images": 8 * step}) for step in range(0, 151, 50)]
    (cell.folder / "log.jsonl").write_text("\n".join([*lines, '{"step": 1']))
    assert progress(cell) == pytest.approx(0.005)
    (cell.folder / "log.jsonl").write_text("\n".join(lines) + "\n")
    assert progress(cell) == pytest.approx(0.75)


def test_nothing_to_run_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    run_cells([], 2, "nothing")


def test_jobs_are_few_on_a_gpu_and_bounded_elsewhere() -> None:
    assert default_jobs(gpu=True) == 1
    assert 1 <= default_jobs(gpu=False) <= 8
