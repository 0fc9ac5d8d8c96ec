"""One process on each of two machines: the same bits as two processes on one, also after a machine has failed.

The machines are namespaces of this one, connected by a virtual cable, and the commands are those of the guide.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.fixtures.forked import start_two, tiny_arguments
from tests.fixtures.machines import two_machines
from tests.fixtures.pages import blocks
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


def torchrun(number: int, folder: Path) -> list[str]:
    assert "--rdzv_backend c10d" in GUIDE.read_text("utf-8")
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1"),
        *("--rdzv_backend", "c10d", "--rdzv_endpoint", "node0:29500"),
    ]


def accelerate(number: int, folder: Path) -> list[str]:
    """With the config file of the guide, for two machines with one process each."""
    (block,) = blocks(GUIDE, "yaml")
    file = folder / f"accelerate-{number}.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(block) | {"num_processes": 2, "mixed_precision": "no"}))
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(file)]
    return [*launch, "--machine_rank", str(number)]


Launcher = Callable[[int, Path], list[str]]


def on_both(
    folder: Path, launcher: Launcher, script: list[str], victim: int | None = None, sign: Path | None = None
) -> list[tuple[int, str]]:
    """(exit code, output) of a command on each of two new machines; the ``victim`` fails as soon as ``sign`` exists."""
    with two_machines(folder) as machines:
        outputs = [folder / f"{machine.name}.txt" for machine in machines]
        started = [
            machine.start([*launcher(number, folder), *script], output)
            for number, (machine, output) in enumerate(zip(machines, outputs, strict=True))
        ]
        deadline = time.monotonic() + PATIENCE
        if victim is not None and sign is not None:
            while not sign.exists():
                assert all(process.poll() is None for process in started), [file.read_text() for file in outputs]
                assert time.monotonic() < deadline, [file.read_text() for file in outputs]
                time.sleep(0.005)
            machines[victim].fail()
        try:
            codes = [process.wait(max(deadline - time.monotonic(), 1.0)) for process in started]
        except subprocess.TimeoutExpired:
            pytest.fail(str([file.read_text(errors="replace") for file in outputs]))
    return list(zip(codes, [file.read_text(errors="replace") for file in outputs], strict=True))


def different(one: Path, two: Path, step: int) -> list[str]:
    a, b = tensors(one, step), tensors(two, step)
    assert len(a) > 50
    return [name for name in {*a, *b} if name not in a or name not in b or not torch.equal(a[name], b[name])]


@pytest.mark.parametrize(("launcher", "victim"), [(torchrun, 0), (accelerate, 1)], ids=["torchrun", "accelerate"])
def test_a_run_is_that_of_one_host_and_survives_a_machine(
    tmp_path: Path, one_host: Path, launcher: Launcher, victim: int
) -> None:
    _, *arguments = tiny_arguments(tmp_path, *SETTINGS)
    script, run = [str(ROOT / "train.py"), *arguments], tmp_path / "run"
    ended = on_both(tmp_path, launcher, script, victim, run / "checkpoints" / f"step-{FIRST:09d}")
    assert all(code != 0 for code, _ in ended), ended
    assert f"process {victim} of 2 has ended without a message; the same command resumes" in ended[1 - victim][1]
    assert not (run / "checkpoints" / f"step-{STEPS:09d}").exists()
    assert different(one_host, run, FIRST) == []
    again = on_both(tmp_path, launcher, script)
    assert [code for code, _ in again] == [0, 0], again
    assert "Resuming at step" in again[0][1] + again[1][1]
    assert different(one_host, run, STEPS) == []


def test_a_score_is_that_of_one_host(tmp_path: Path, one_host: Path) -> None:
    words = f"evaluate {one_host} --metrics fid,prc --samples 20 --reference-samples 30 --extractor".split()
    words.append("tests.fixtures.extractor:Moments")
    ended = [process.end(PATIENCE) for process in start_two(tmp_path, words)]
    assert [code for code, _ in ended] == [0, 0], ended
    ended = on_both(tmp_path, torchrun, ["-m", "orthogan", *words])
    assert [code for code, _ in ended] == [0, 0], ended
    scores: list[dict[str, Any]] = [json.loads(line) for line in (one_host / "metrics.jsonl").read_text().splitlines()]
    for score in scores:
        assert score["protocol"].pop("seconds") >= 0
    here, there = scores[: len(scores) // 2], scores[len(scores) // 2 :]
    assert {score["metric"] for score in here} == {"fid", "prc"}
    assert here == there
