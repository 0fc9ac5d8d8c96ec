"""Commands and their workers wait with short spins, set before torch is loaded; the user's own settings win."""

from __future__ import annotations

import subprocess
import sys

import pytest

from orthogan.waiting import SETTINGS, short_spins
from tests.fixtures.runs import ROOT, environment

LOOK = """
import os, sys
from orthogan.__main__ import run
import atexit
atexit.register(lambda: print(os.environ.get("GOMP_SPINCOUNT"), "torch" in sys.modules, flush=True))
assert "GOMP_SPINCOUNT" not in os.environ or os.environ["GOMP_SPINCOUNT"] == "7"
run(["--version"])
"""


@pytest.mark.parametrize(
    ("own", "seen"), [({}, "3000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")]
)
def test_a_command_sets_it_before_torch_is_imported(own: dict[str, str], seen: str) -> None:
    variables = {name: value for name, value in environment().items() if name not in SETTINGS}
    done = subprocess.run(
        [sys.executable, "-c", LOOK], capture_output=True, text=True, env=variables | own, cwd=ROOT, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{seen} False"


def test_nothing_of_the_user_is_replaced() -> None:
    assert short_spins({"OMP_WAIT_POLICY": "passive"}) == {}
    assert short_spins({"GOMP_SPINCOUNT": "1"}) == {}
    assert list(short_spins({"OMP_NUM_THREADS": "1"})) == ["GOMP_SPINCOUNT"]
