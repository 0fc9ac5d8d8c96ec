"""Ctrl-C and SIGTERM amid the imports of a command are one line and an exit code, never a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orthogan.errors import Terminated
from orthogan.interrupts import Interrupts
from orthogan.training.stop import StopSignal
from tests.fixtures.runs import ROOT, environment

# says when the command line was read, which is before torch is imported
START = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs with this signal ignored
import orthogan.memory
real = orthogan.memory.keep_freed_memory
def keep():
    print("ready", flush=True)
    return real()
orthogan.memory.keep_freed_memory = keep
from orthogan.__main__ import run
run(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "command", "subject", "code"),
    [
        (signal.SIGINT, "train", "configs/demo.yaml", 130),
        (signal.SIGTERM, "train", "configs/demo.yaml", 4),
        (signal.SIGTERM, "sample", "pretrained/sprites-sngan/generator.safetensors", 143),
    ],
)
def test_a_signal_amid_the_imports(
    tmp_path: Path, number: signal.Signals, command: str, subject: str, code: int
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", START, command, str(ROOT / subject)],
        cwd=tmp_path,
        env=environment() | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.3)
    process.send_signal(number)
    _, error = process.communicate(timeout=600)
    assert process.returncode == code, error
    assert error.count("\n") == 1
    assert error.startswith("orthogan: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "command", "line", "code"),
    [
        (signal.SIGHUP, "sample", "stopped by SIGHUP", 129),
        (signal.SIGTERM, "sample", "stopped by SIGTERM", 143),
        (signal.SIGHUP, "train", "stopped by SIGHUP outside the training loop; the same command resumes", 4),
    ],
)
def test_a_closed_terminal_is_like_sigterm(number: int, command: str, line: str, code: int) -> None:
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with Interrupts() as interrupts:
            interrupts.command = command
            with pytest.raises(Terminated) as caught:
                os.kill(os.getpid(), number)
            assert interrupts.outcome(caught.value) == (line, code)
            with StopSignal() as stop:  # in training
                os.kill(os.getpid(), number)
                os.kill(os.getpid(), number)
                assert stop.name == signal.Signals(number).name
    finally:
        signal.signal(number, before)


def test_nohup_ignores_a_closed_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts(), StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.name is None
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
