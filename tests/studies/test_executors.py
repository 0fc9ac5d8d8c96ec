"""Cells on other executors: any of concurrent.futures, and a Dask cluster of which a worker is killed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orthogan.cli.main import main
from orthogan.errors import UserError
from orthogan.studies.executors import ExecutorRequest
from orthogan.studies.outcome import load
from orthogan.studies.run_study import Request, run_study
from tests.fixtures.runs import ROOT, environment
from tests.fixtures.stub import PATIENCE

THREADS = ExecutorRequest("concurrent.futures:ThreadPoolExecutor", options={"max_workers": 2})


def wait_for(path: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert path.exists()


@pytest.mark.slow
def test_cells_run_on_an_executor_and_only_once(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(UserError, match="3 of 5 runs failed"):
            run_study(Request("tests.fixtures.stub:FAILING", seeds=1, out=tmp_path, executor=THREADS))
    root = tmp_path / "stub" / "smoke"
    found = {m: load(root / "cells" / m / "seed-0") for m in ("base", "second", "third", "fourth", "fifth")}
    assert {method: outcome and outcome.status for method, outcome in found.items()} == {
        "base": "done",
        "second": "diverged",
        "third": "error",
        "fourth": "error",
        "fifth": "error",
    }
    ran = {method: (root / "cells" / method / "seed-0" / "ran.txt").read_text().count("ran") for method in found}
    assert ran == {"base": 1, "second": 1, "third": 2, "fourth": 2, "fifth": 2}
    assert not list(root.glob(".stop-*"))


@contextmanager
def cluster(folder: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler and two workers of one thread each, as processes of their own, on loopback."""
    file = folder / "scheduler.json"
    common = {"cwd": folder, "env": environment() | {"PYTHONPATH": str(ROOT)}, "stderr": subprocess.DEVNULL}
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    started = [subprocess.Popen([*dask, "--no-dashboard", "--scheduler-file", str(file)], **common)]
    try:
        wait_for(file)
        worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(file), "--no-dashboard"]
        started += [subprocess.Popen([*worker, "--nthreads", "1", "--no-nanny"], **common) for _ in range(2)]
        from distributed import Client

        with Client(scheduler_file=str(file), set_as_default=False) as client:
            client.wait_for_workers(2, timeout=PATIENCE)
            address = client.scheduler.address  # pyright: ignore
        yield address, started[1:]
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_a_worker_of_a_dask_cluster_is_killed_and_nothing_is_lost_or_run_twice(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    psutil = pytest.importorskip("psutil")
    cells = tmp_path / "stub" / "smoke" / "cells"
    with cluster(tmp_path) as (address, workers):
        command = [sys.executable, "-m", "orthogan", "study", "tests.fixtures.stub:WAITING", "--seeds", "1"]
        command += ["--out", str(tmp_path), "--executor", "dask", "--scheduler", address]
        study = subprocess.Popen(command, cwd=tmp_path, env=environment() | {"PYTHONPATH": str(ROOT)})
        try:
            wait_for(cells / "second" / "seed-0" / "waited.txt")
            wait_for(cells / "base" / "seed-0" / "measures.json")

            def busy() -> list[subprocess.Popen[bytes]]:
                # the worker whose cell waits has a process of ours, and that one has the cell's
                return [one for one in workers if len(psutil.Process(one.pid).children(recursive=True)) > 1]

            end = time.monotonic() + PATIENCE
            while len(busy()) != 1 and time.monotonic() < end:  # the other one may still be ending its process
                time.sleep(0.1)
            (victim,) = busy()
            victim.kill()
            assert study.wait(PATIENCE) == 0
        finally:
            study.kill()
            study.wait()
    outcomes = [load(cells / method / "seed-0") for method in ("base", "second")]
    assert [outcome and outcome.status for outcome in outcomes] == ["done", "done"]
    ran = [(cells / method / "seed-0" / "ran.txt").read_text().count("ran") for method in ("base", "second")]
    assert ran == [1, 2]  # the interrupted run was resumed elsewhere; the finished one was left alone
    assert "saved" in (cells / "second" / "seed-0" / "output.txt").read_text()


def test_what_no_executor_can_do_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["study", "tests.fixtures.stub:STUDY", "--out", str(tmp_path)]
    for words, message in (
        (["--executor", "dassk"], "unknown executor 'dassk'; did you mean 'dask'"),
        (["--scheduler", "tcp://127.0.0.1:1"], "need --executor"),
        (["--executor", "dask"], "give the address of its scheduler"),
        (["--executor", "dask", "--executor-option", "x"], "write NAME=VALUE"),
        (
            ["--executor", "tests.fixtures.stub:run", "--executor-option", "workers=2"],
            "cannot be called with these options: missing a required argument: 'config'",
        ),
        (["--executor", "os:getcwd"], "--executor os:getcwd: returns a str, which has no method submit"),
    ):
        assert main([*line, *words]) == 2
        assert message in capsys.readouterr().err
