"""Two processes of one run: one checkpoint for both, and what ends one ends the other with the same words."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from orthogan.errors import UserError
from orthogan.io import checkpoint
from tests.fixtures.forked import Started, start, start_two, tiny_arguments

pytestmark = pytest.mark.slow

STEPS = "training.steps=6"


def ends(started: list[Started], seconds: float = 300.0) -> list[tuple[int, str]]:
    """(code, output) of each; none may show a traceback."""
    found = [process.end(seconds) for process in started]
    assert not any("Traceback" in text for _, text in found), found
    return found


def at_step(number: int, act: Callable[[], object]) -> Callable[[], None]:
    """A patch that acts at the end of a step."""

    def patch() -> None:
        from orthogan.training.gan.task import GanTask

        real = GanTask.finish_step

        def finish_step(self: GanTask, step: int) -> None:
            real(self, step)
            if step + 1 == number:
                act()

        GanTask.finish_step = finish_step

    return patch


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail() -> None:
    raise UserError("x.png: cannot be read")


def no_data() -> None:
    import orthogan.training.run

    def refused(*_: object) -> None:
        raise UserError("data.path: nothing there")

    orthogan.training.run.open_configured = refused


@pytest.mark.parametrize("rank", [0, 1])
def test_the_survivor_names_the_process_that_is_gone_and_both_resume(tmp_path: Path, rank: int) -> None:
    arguments = tiny_arguments(tmp_path, STEPS)
    patches: list[Callable[[], object] | None] = [None, None]
    patches[rank] = at_step(4, kill)
    found = ends(start_two(tmp_path, arguments, patches))
    assert found[rank][0] == -signal.SIGKILL
    code, text = found[1 - rank]
    assert code == 4
    assert f"process {rank} of 2 has ended without a message; the same command resumes" in text
    again = ends(start_two(tmp_path, arguments))
    assert [code for code, _ in again] == [0, 0]
    assert "Resuming at step 3 of 6" in again[0][1]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("patch", [no_data, at_step(2, fail)], ids=["before training", "in training"])
def test_an_error_of_one_process_ends_both_with_its_message(
    tmp_path: Path, rank: int, patch: Callable[[], None]
) -> None:
    patches: list[Callable[[], object] | None] = [None, None]
    patches[rank] = patch
    message = "data.path: nothing there" if patch is no_data else "x.png: cannot be read"
    found = ends(start_two(tmp_path, tiny_arguments(tmp_path, STEPS), patches))
    assert [code for code, _ in found] == [2, 2]
    assert f"orthogan: {message}" in found[rank][1]
    assert f"orthogan: process {rank} of 2: {message}" in found[1 - rank][1]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_never_comes_is_not_waited_for_long(tmp_path: Path, rank: int) -> None:
    def hurried() -> None:
        import orthogan.process_group

        orthogan.process_group.MEETING = timedelta(seconds=1.5)

    patches: list[Callable[[], object]] = [hurried, hurried]
    patches[rank] = lambda: os._exit(0)
    found = ends(start_two(tmp_path, tiny_arguments(tmp_path, STEPS), patches))
    code, text = found[1 - rank]
    assert code == 2
    assert "process 1 of 2 did not start" in text if rank else "cannot connect to the first one" in text
    assert not (tmp_path / "run").exists()


def before_the_group(act: Callable[[], object]) -> Callable[[], None]:
    """A patch that acts when all processes have met, and have not yet made the group."""

    def patch() -> None:
        from orthogan import process_group

        real = process_group.PrefixStore

        def store(prefix: str, of: object) -> object:
            if prefix == "group":
                act()
            return real(prefix, of)

        process_group.PrefixStore = store

    return patch


def hurry() -> None:
    from orthogan import process_group

    process_group.MEETING = timedelta(seconds=1)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_killed_before_the_group_is_made_is_not_waited_for_long(tmp_path: Path, rank: int) -> None:
    patches = [before_the_group(hurry)] * 2
    patches[rank] = before_the_group(kill)
    found = ends(start_two(tmp_path, tiny_arguments(tmp_path, STEPS), patches))
    assert found[rank][0] == -signal.SIGKILL
    code, text = found[1 - rank]
    assert code == 4
    assert f"orthogan: process {rank} of 2 has ended without a message; the same command resumes" in text
    assert len(text.strip().splitlines()) == 1


def test_the_first_process_is_not_waited_for_long_when_it_is_killed_while_another_one_connects(tmp_path: Path) -> None:
    def it_listened() -> None:
        from orthogan import process_group

        process_group.ANSWER = timedelta(seconds=0.5)
        process_group.MEETING = timedelta(hours=1)
        process_group._reach = lambda *_: None

    found = ends(start_two(tmp_path, tiny_arguments(tmp_path, STEPS), [kill, it_listened]))
    code, text = found[1]
    assert code == 2
    assert "process 1 of 2 cannot connect to the first one" in text


def test_a_process_that_waits_for_the_first_one_can_be_interrupted(tmp_path: Path) -> None:
    def interrupted() -> None:
        import socket

        real = socket.create_connection

        def connect(*arguments: Any, **options: Any) -> socket.socket:
            os.kill(os.getpid(), signal.SIGINT)
            return real(*arguments, **options)

        socket.create_connection = connect

    found = ends(start_two(tmp_path, tiny_arguments(tmp_path, STEPS), [kill, interrupted]))
    assert found[1] == (130, "orthogan: interrupted\n")


def test_the_processes_of_a_group_may_wait_for_each_other_as_long_as_torch_lets_them(tmp_path: Path) -> None:
    def patch() -> None:
        import torch.distributed
        from torch.distributed.constants import default_pg_timeout

        import orthogan.training.run

        def train(*_: object, **__: object) -> None:
            backend = torch.distributed.distributed_c10d._get_default_group()._get_backend(torch.device("cpu"))
            raise UserError(f"as ever: {backend.options._timeout == default_pg_timeout}")

        orthogan.training.run.train_task = train

    found = ends(start_two(tmp_path, tiny_arguments(tmp_path, STEPS), [patch, patch]))
    assert all("as ever: True" in text for _, text in found)


def elsewhere(folder: Path) -> Callable[[], None]:
    def patch() -> None:
        folder.mkdir()
        os.chdir(folder)

    return patch


def unlike(folder: Path, change: Callable[[Path], object]) -> Callable[[], None]:
    """A patch that gives the process a copy of the run on a disk of its own."""

    def patch() -> None:
        shutil.copytree("run", folder / "run", symlinks=True)
        change(folder / "run")
        os.chdir(folder)

    return patch


def state_flip(run: Path) -> None:
    file = checkpoint.checkpoint_folder(run, 3) / "state.json"
    file.write_bytes(file.read_bytes().replace(b'"seconds"', b'"sedonds"'))


def weight_flip(run: Path) -> None:
    file = checkpoint.checkpoint_folder(run, 3) / "generator.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")


def gone(run: Path) -> None:
    shutil.rmtree(checkpoint.checkpoint_folder(run, 3))


@pytest.mark.parametrize("change", [None, state_flip, weight_flip, gone])
def test_processes_that_do_not_see_the_same_checkpoint_do_not_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], object] | None
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [*tiny_arguments(tmp_path, "training.steps=3"), "out=run"]
    assert start(tmp_path, arguments).end()[0] == 0
    before = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    other = tmp_path / "other"
    patch = elsewhere(other) if change is None else unlike(other, change)
    found = ends(start_two(tmp_path, [*arguments, STEPS], [None, patch]))
    assert [code for code, _ in found] == [2, 2]
    for _, text in found:
        assert re.search(r"process 1 does not see the checkpoint .*step-000000003", text)
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == before


def test_a_copy_of_the_run_on_another_disk_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [*tiny_arguments(tmp_path, "training.steps=3"), "out=run"]
    assert start(tmp_path, arguments).end()[0] == 0
    found = ends(start_two(tmp_path, [*arguments, "training.steps=4"], [None, unlike(tmp_path / "other", str)]))
    assert [code for code, _ in found] == [0, 0]
    assert "processes: 1 -> 2" in found[0][1]


def test_the_main_process_alone_looks_for_damage(tmp_path: Path) -> None:
    arguments = tiny_arguments(tmp_path, STEPS, "checkpoint.every=2")
    assert ends(start_two(tmp_path, arguments, [at_step(5, kill), None]))[0][0] == -signal.SIGKILL
    folder = checkpoint.checkpoint_folder(tmp_path / "run", 4)
    file = folder / "generator.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    found = ends(start_two(tmp_path, arguments))
    assert [code for code, _ in found] == [0, 0]
    assert "Resuming at step 2 of 6" in found[0][1]
    assert "damaged checkpoint" not in found[1][1]


def test_a_second_run_in_the_folder_is_refused_with_the_number_of_the_first(tmp_path: Path) -> None:
    arguments = tiny_arguments(tmp_path, "training.steps=100000")
    first = start(tmp_path, arguments)
    deadline = time.monotonic() + 600
    while not checkpoint.steps(tmp_path / "run"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    code, text = start(tmp_path, [*arguments, "seed=1"], name="second.txt").end()
    assert code == 2
    assert f"process {first.pid} on " in text
    first.kill()
    first.end()
    assert (tmp_path / "run" / ".lock").exists()
    third = start(tmp_path, arguments, name="third.txt")
    while not third.output.exists() or "Resuming at step" not in third.output.read_text():
        assert time.monotonic() < deadline + 600
        time.sleep(0.01)
    third.kill()
    third.end()


def building(number: int) -> Callable[[], None]:
    """A patch that sends a signal while the nets are built."""

    def patch() -> None:
        import orthogan.training.run
        from orthogan.training.gan.task import GanTask

        def task(*_: object, **__: object) -> GanTask:
            os.kill(os.getpid(), number)
            raise AssertionError("the signal came too late")

        orthogan.training.run.GanTask = task

    return patch


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 4)])
def test_a_signal_before_the_loop_is_one_line(tmp_path: Path, number: int, expected: int) -> None:
    [(code, text)] = ends([start(tmp_path, tiny_arguments(tmp_path, STEPS), patch=building(number))])
    assert code == expected
    assert len(text.strip().splitlines()) == 1
    assert text.startswith("orthogan: ")
    assert not (tmp_path / "run").exists()
