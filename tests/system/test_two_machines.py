"""One process on each of two machines: the same bits as two processes on one, also after a machine has failed.

The machines are namespaces of this one, connected by a virtual cable, and the commands are those of the guide.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.fixtures.forked import start_two, tiny_arguments
from tests.fixtures.machines import two_machines
from tests.fixtures.runs import ROOT, tensors

pytestmark = [pytest.mark.slow, pytest.mark.machines]

GUIDE = ROOT / "docs" / "guides" / "several-gpus.md"
PATIENCE = 1200.0
STEPS, FIRST = 15, 3  # of the whole run, and at the first checkpoint
SETTINGS = (f"training.steps={STEPS}", "checkpoint.keep=99")


@pytest.fixture(autouse=True, scope="module")
def possible(tmp_path_factory: pytest.TempPathFactory) -> None:
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only the superuser of Linux can make machines out of namespaces")
    try:
        with two_machines(tmp_path_factory.mktemp("machines")):
            pass
    except OSError as error:
        pytest.skip(f"no namespaces here: {error}")


@pytest.fixture(scope="module")
def one_host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of two processes on this machine."""
    folder = tmp_path_factory.mktemp("host")
    ended = [process.end(PATIENCE) for process in start_two(folder, tiny_arguments(folder, *SETTINGS))]
    assert [code for code, _ in ended] == [0, 0], ended
    return folder / "run"


def on_both(folder: Path, script: list[str], sign: Path | None = None) -> list[tuple[int, str]]:
    """(exit code, output) of a command on each of two new machines; the first fails as soon as ``sign`` exists."""
    assert "--rdzv_backend c10d" in GUIDE.read_text("utf-8")
    torchrun = [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1"),
        *("--rdzv_backend", "c10d", "--rdzv_endpoint", "node0:29500"),
    ]
    with two_machines(folder) as machines:
        outputs = [folder / f"{machine.name}.txt" for machine in machines]
        started = [
            machine.start([*torchrun, *script], output) for machine, output in zip(machines, outputs, strict=True)
        ]
        deadline = time.monotonic() + PATIENCE
        if sign is not None:
            while not sign.exists():
                assert all(process.poll() is None for process in started), [file.read_text() for file in outputs]
                assert time.monotonic() < deadline, [file.read_text() for file in outputs]
                time.sleep(0.005)
            machines[0].fail()
        try:
            codes = [process.wait(max(deadline - time.monotonic(), 1.0)) for process in started]
        except subprocess.TimeoutExpired:
            pytest.fail(str([file.read_text(errors="replace") for file in outputs]))
    return list(zip(codes, [file.read_text(errors="replace") for file in outputs], strict=True))


def different(one: Path, two: Path, step: int) -> list[str]:
    a, b = tensors(one, step), tensors(two, step)
    assert len(a) > 50
    return [name for name in {*a, *b} if name not in a or name not in b or not torch.equal(a[name], b[name])]


def test_a_run_is_that_of_one_host_and_survives_a_machine(tmp_path: Path, one_host: Path) -> None:
    _, *arguments = tiny_arguments(tmp_path, *SETTINGS)
    script, run = [str(ROOT / "train.py"), *arguments], tmp_path / "run"
    ended = on_both(tmp_path, script, run / "checkpoints" / f"step-{FIRST:09d}")
    assert all(code != 0 for code, _ in ended), ended
    assert "process 0 of 2 has ended without a message; the same command resumes" in ended[1][1]
    assert not (run / "checkpoints" / f"step-{STEPS:09d}").exists()
    assert different(one_host, run, FIRST) == []
    again = on_both(tmp_path, script)
    assert [code for code, _ in again] == [0, 0], again
    assert "Resuming at step" in again[0][1] + again[1][1]
    assert different(one_host, run, STEPS) == []
