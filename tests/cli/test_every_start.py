"""What does not compute does not wait for torch: CPU time of whole processes, relative to ``import torch``."""

from __future__ import annotations

import resource
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.fixtures.runs import ROOT, environment

pytestmark = pytest.mark.slow

MODEL = "sprites-srngan"


def cpu_time(*words: str, code: int = 0) -> float:
    """CPU time of a process [s]."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=environment())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == code, done.stderr
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@cache
def torch_time() -> float:
    return min(cpu_time(sys.executable, "-c", "import torch") for _ in range(2))


# The limit for commands that need torch to know their answer is 1.5; those that do not need it take a tenth of it, and
# their limit leaves room for slow disks and other processes.
WITHOUT_TORCH, WITH_TORCH = 0.4, 1.5


@pytest.mark.parametrize(
    ("line", "code", "limit"),
    [
        ("--help", 0, WITHOUT_TORCH),
        ("--version", 0, WITHOUT_TORCH),
        ("sample x --truncation 2", 2, WITHOUT_TORCH),
        ("evaluate x --precision half", 2, WITHOUT_TORCH),
        ("train configs/demo.yaml --dryrun", 2, WITHOUT_TORCH),
        ("evaluate absent", 2, WITHOUT_TORCH),
        ("compare absent", 2, WITHOUT_TORCH),
        ("train absent.yaml", 2, WITHOUT_TORCH),
        ("config configs/demo.yaml", 0, WITH_TORCH),
        ("discover --help", 0, WITH_TORCH),
        (f"evaluate {MODEL} --metrics fud", 2, WITH_TORCH),
        (f"evaluate {MODEL} --metrics accuracy,fid", 2, WITH_TORCH),
        (f"disentangle {MODEL} --metrics vpp", 2, WITH_TORCH),
        (f"discover {MODEL} --method seffa", 2, WITH_TORCH),
        (f"sample {MODEL} --seeds 3-x", 2, WITH_TORCH),
        ("study --list", 0, WITH_TORCH),
    ],
)
def test_refusals_and_help_are_quick(line: str, code: int, limit: float) -> None:
    words = [sys.executable, "-m", "orthogan", *line.split()]
    # the first try may have to compile modules to bytecode
    assert any(cpu_time(*words, code=code) < limit * torch_time() for _ in range(2))


def test_a_command_imports_what_it_needs_when_it_runs(tmp_path: Path) -> None:
    code = "import sys; from orthogan.cli.parser import parsers; parsers(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not {"torch", "numpy", "pydantic", "yaml", "argcomplete"} & set(done.stdout.split())
