"""The process that runs cells has imported what they need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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
