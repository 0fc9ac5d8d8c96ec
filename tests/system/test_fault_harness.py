"""The short cut of ``make faults``: the same few kills, flips, full disks and bad inputs each time, all survived."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.runs import ROOT


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it looks at processes in /proc")
def test_nothing_is_lost_or_different_and_there_is_no_traceback(tmp_path: Path) -> None:
    # in a process of its own: its children are forks, which must not inherit the threads of other tests
    command = [sys.executable, "-m", "tests.faults", "--out", str(tmp_path), "--cut"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=3600)
    print(done.stdout[-6000:])
    assert done.returncode == 0, done.stderr[-3000:]
    assert "| kill -9, one process | 1 | " in done.stdout
