"""What a shell offers after Tab."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orthogan.cli.main import main
from tests.fixtures.runs import ROOT, environment

# what bash calls when Tab is pressed, on the line $1, whose last word is the one to complete
TAB = """
eval "$(orthogan completion bash)"
COMP_LINE="$1" COMP_POINT=${#1} COMP_TYPE=9
_python_argcomplete orthogan
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("orthogan tr", ["train", "traverse"]),
        ("orthogan sample x --cla", ["--classes"]),
        ("orthogan sample sprites-s", ["sprites-sngan"]),
        ("orthogan train configs/de", ["configs/demo.yaml"]),
        ("orthogan train configs/demo.yaml training.steps", ["training.steps="]),
        ("orthogan evaluate x --precision ", ["fp32", "bf16", "auto"]),
        ("orthogan evaluate x --nor", []),  # the name of version 0.1 is read, but not offered
        ("orthogan evaluate x --metrics fid,ki", ["fid,kid", "fid,kid_full"]),
        ("orthogan discover x --method sefa,jac", ["sefa,jacobian"]),
        ("orthogan study ke", ["kernel-orthogonality"]),
    ],
)
def test_tab_in_bash(line: str, offered: list[str]) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    words = ["bash", "-c", TAB, "tab", line]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=environment() | {"PATH": path})
    assert done.returncode == 0, done.stderr
    assert [word.strip() for word in done.stdout.split("\n") if word.strip()] == offered


@pytest.mark.parametrize(
    ("shell", "code"), [("bash", "complete -o"), ("zsh", "compdef"), ("fish", "complete --command orthogan")]
)
def test_every_shell_gets_its_code(shell: str, code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert code in capsys.readouterr().out
