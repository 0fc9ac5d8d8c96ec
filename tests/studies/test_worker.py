"""The process that runs cells has imported what they need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from orthogan.studies.run_study import Request, run_study
from tests.fixtures.runs import ROOT, environment

SCRIPT = """
import sys
from pathlib import Path
from orthogan.studies import worker
worker._import_all()
before = set(sys.modules)
from orthogan.training import train
from tests.fixtures.runs import tiny
train(tiny(Path(sys.argv[1]), "training.steps=2"))
print(*{"accelerate", "sympy", "torch._dynamo", "torchvision", "orthogan.training.loop"} & (set(sys.modules) - before))
"""


@pytest.mark.slow
def test_a_cell_imports_no_large_package_again(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment(), check=True, timeout=600)
    assert done.stdout.splitlines()[-1] == ""


OWN = """
from dataclasses import replace
from tests.fixtures import stub
def run(config):
    import takes_long
    return stub.run(config)
STUDY = replace(stub.STUDY, run=run, imports=("takes_long",))
"""


def test_what_each_run_of_a_study_imports_is_imported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = tmp_path / "imported.txt"
    (tmp_path / "own_study.py").write_text(OWN)
    (tmp_path / "takes_long.py").write_text(f"open({str(record)!r}, 'a').write('imported ')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    report = run_study(Request("own_study:STUDY", out=tmp_path / "studies", seeds=2, jobs=1)).read_text("utf-8")
    assert "| second | n = 2 | 0 |" in report
    assert record.read_text() == "imported "
