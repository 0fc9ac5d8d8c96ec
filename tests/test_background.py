"""Workers: answers in turn, nothing printed is taken for one, and an end is told, whatever it was."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from orthogan.background import Worker, WorkerEnded

CODE = """
import os, signal, subprocess, sys, time
from orthogan.background import open_replies, read_messages, write_message
replies = open_replies()
greeting = None
for message in read_messages():
    print("noise", flush=True)
    match message:
        case {"hello": name}:
            greeting = name
        case "who":
            variables = [os.environ.get(name) for name in ("ADDED", "REMOVED")]
            write_message(replies, [greeting, *variables, os.getsid(0) == os.getpid()])
        case "exit":
            sys.exit(9)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "sleep":
            child = subprocess.Popen(["sleep", "60"])
            write_message(replies, [os.getpid(), child.pid])
            time.sleep(60)
        case other:
            write_message(replies, other)
"""


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    (tmp_path / "a_worker.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("REMOVED", "x")
    return Worker("a_worker", {"ADDED": "y", "REMOVED": None}, {"hello": "z"})


def test_answers_come_in_turn_and_the_environment_is_its_own(worker: Worker) -> None:
    worker.send("who")
    assert worker.receive() == ["z", "y", None, True]
    large = {"text": "é" * 100_000}
    worker.send(large)
    assert worker.receive() == large
    for number in range(3):
        worker.send(number)
    assert [worker.receive() for _ in range(3)] == [0, 1, 2]
    assert worker.close() == 0
    assert worker.close() == 0


@pytest.mark.parametrize(("how", "code", "words"), [("exit", 9, "with exit code 9"), ("kill", -9, "by signal 9")])
def test_an_end_without_an_answer_is_told_and_the_next_message_has_a_new_worker(
    worker: Worker, how: str, code: int, words: str
) -> None:
    worker.send(how)
    with pytest.raises(WorkerEnded, match=words) as ended:
        worker.receive()
    assert ended.value.code == code
    worker.send("who")
    assert worker.receive()[0] == "z"
    worker.close()


def test_a_worker_that_does_not_end_is_killed_and_with_kill_its_children_too(worker: Worker) -> None:
    worker.send("sleep")
    worker.receive()
    assert worker.close(0.1) == -signal.SIGKILL
    worker.send("sleep")
    pids = worker.receive()
    worker.kill()
    end = time.monotonic() + 300
    while any(_alive(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(_alive(pid) for pid in pids)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
