"""Checkpoints: whole or not there, and a damaged one is told apart and passed over."""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from orthogan.errors import CannotWrite, UserError
from orthogan.io import checkpoint
from orthogan.io.checkpoint import Damaged, Part


def parts(value: float = 1.0) -> dict[str, Part]:
    return {
        "net": Part({"w": torch.full((3, 4), value), "n": torch.tensor(7)}, {"kind": "test"}),
        "empty": Part({}, {}),
    }


def test_round_trip(tmp_path: Path) -> None:
    folder = checkpoint.save(tmp_path, 12, parts(2.5), {"seconds": 1.25, "best": None})
    assert folder == tmp_path / "checkpoints" / "step-000000012"
    assert checkpoint.verify(folder) == {"seconds": 1.25, "best": None}
    tensors = checkpoint.read(folder, "net")
    assert torch.equal(tensors["w"], torch.full((3, 4), 2.5))
    assert tensors["n"].dtype == torch.int64
    assert checkpoint.read(folder, "empty") == {}


def test_channels_last_tensors_come_back_equal(tmp_path: Path) -> None:
    weight = torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last)
    folder = checkpoint.save(tmp_path, 0, {"net": Part({"w": weight}, {})}, {})
    assert torch.equal(checkpoint.read(folder, "net")["w"], weight)


@pytest.mark.parametrize("harm", ["flip", "truncate", "delete", "state", "nonsense", "format"])
def test_every_damage_is_found_and_the_one_before_wins(
    tmp_path: Path, harm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint.save(tmp_path, 1, parts(1.0), {"good": True})
    newest = checkpoint.save(tmp_path, 2, parts(2.0), {"good": True})
    victim = newest / "net.safetensors"
    state = newest / "state.json"
    if harm == "flip":
        data = bytearray(victim.read_bytes())
        data[-3] ^= 1
        victim.write_bytes(data)
    elif harm == "truncate":
        os.truncate(victim, victim.stat().st_size - 1)
    elif harm == "delete":
        victim.unlink()
    elif harm == "state":
        state.unlink()
    elif harm == "nonsense":
        state.write_text("{")
    else:
        state.write_text(state.read_text().replace('"format": 2', '"format": 1'))
    with pytest.raises(Damaged, match=str(newest)):
        checkpoint.verify(newest)
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found[0].name == "step-000000001"
    assert str(newest) in capsys.readouterr().err


def test_nothing_there(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path) is None
    assert checkpoint.steps(tmp_path) == []


def test_pruning_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    folders = [checkpoint.save(tmp_path, step, parts(), {}) for step in (1, 2, 3, 4)]
    checkpoint.mark_best(tmp_path, folders[0])
    checkpoint.mark_best(tmp_path, folders[1])  # a better one replaces it
    checkpoint.prune(tmp_path, 1)
    assert [step for step, _ in checkpoint.steps(tmp_path)] == [2, 4]
    assert checkpoint.verify(tmp_path / "best") == {}
    assert (tmp_path / "best").resolve() == folders[1].resolve()


def test_a_step_written_twice_is_replaced(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 5, parts(1.0), {"n": 1})
    folder = checkpoint.save(tmp_path, 5, parts(2.0), {"n": 2})
    assert checkpoint.verify(folder) == {"n": 2}
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1


def test_numbers_that_json_does_not_have_come_back(tmp_path: Path) -> None:
    state = {"eps": math.inf, "list": [-math.inf, {"x": math.nan}], "none": None}
    folder = checkpoint.save(tmp_path, 1, parts(), state)
    found = checkpoint.verify(folder)
    assert found["eps"] == math.inf
    assert found["list"][0] == -math.inf
    assert math.isnan(found["list"][1]["x"])
    assert not {"NaN", "Infinity"} & set((folder / "state.json").read_text().replace('"', " ").split())


def flipped(data: bytes, position: int, bit: int) -> bytes:
    return data[:position] + bytes([data[position] ^ (1 << bit)]) + data[position + 1 :]


def test_a_flipped_bit_anywhere_in_the_state_is_damage_or_changes_nothing(tmp_path: Path) -> None:
    state = {"seconds": 1.5, "config": {"lr": 2e-4, "kind": "none", "on": True}}
    folder = checkpoint.save(tmp_path, 1, parts(), state)
    file = folder / "state.json"
    data = file.read_bytes()
    found = 0
    for position in range(len(data)):
        for bit in (position % 7, 7):
            file.write_bytes(flipped(data, position, bit))
            try:
                assert checkpoint.verify(folder) == state
            except Damaged:
                found += 1
    assert found > 0.8 * 2 * len(data)  # the rest is layout


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


FOREIGN = {
    "a list": "[]",
    "a number": "1",
    "nothing": "",
    "no UTF-8": b"\xff\xfe",
    "deep": nested(100_000),
    "deep inside": '{"format": 1, "step": 1, "state": {}, "files": ' + nested(900) + "}",
    "files is a list": '{"format": 1, "step": 1, "files": [], "state": {}}',
    "a file is a list": '{"format": 1, "step": 1, "files": {"a": []}, "state": {}}',
    "a file of another folder": '{"format": 1, "step": 1, "files": {"../a": {"bytes": 1, "sha256": "a"}}, "state": {}}',
    "a size in words": '{"format": 1, "step": 1, "files": {"a": {"bytes": "x", "sha256": "a"}}, "state": {}}',
    "state is a number": '{"format": 1, "step": 1, "files": {}, "state": 3}',
    "without a seal": '{"format": 2, "step": 1, "files": {}, "state": {}}',
    "an old one with a key more": '{"format": 1, "step": 1, "files": {}, "state": {}, "sha257": "a"}',
    "a huge number": '{"format": 1, "step": 1, "files": {"a": {"bytes": 1e999, "sha256": ""}}, "state": {}}',
}


@pytest.mark.parametrize("text", FOREIGN.values(), ids=FOREIGN)
def test_a_state_that_is_not_ours_is_damage(tmp_path: Path, text: str | bytes) -> None:
    checkpoint.save(tmp_path, 1, parts(), {"good": True})
    folder = checkpoint.save(tmp_path, 2, parts(), {})
    (folder / "state.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(Damaged, match=str(folder)):
        checkpoint.verify(folder)
    found = checkpoint.newest(tmp_path, aside=True)
    assert found is not None
    assert found[1] == {"good": True}
    assert names(tmp_path) == ["damaged-step-000000002", "step-000000001"]


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_checkpoints_of_version_0_1_load(tmp_path: Path) -> None:
    folder = checkpoint.save(tmp_path, 1, parts(), {"good": True})
    record = json.loads((folder / "state.json").read_text())
    del record["sha256"]
    (folder / "state.json").write_text(json.dumps(record | {"format": 1}, indent=1))
    assert checkpoint.verify(folder) == {"good": True}


def test_a_checkpoint_of_a_later_version_is_refused_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path, 1, parts(), {})
    monkeypatch.setattr(checkpoint, "FORMAT", 3)
    checkpoint.save(tmp_path, 2, parts(), {})
    monkeypatch.undo()
    with pytest.raises(UserError, match="format 3"):
        checkpoint.newest(tmp_path, aside=True)
    assert names(tmp_path) == ["step-000000001", "step-000000002"]


def damage(folder: Path) -> None:
    file = folder / "net.safetensors"
    file.write_bytes(flipped(file.read_bytes(), -5 % file.stat().st_size, 0))


OBSTACLES: dict[str, Callable[[Path], object]] = {
    "a damaged checkpoint": lambda path: damage(checkpoint.save(path.parents[1], int(path.name[5:]), parts(), {})),
    "a file": lambda path: path.write_text("x"),
    "an empty folder": lambda path: path.mkdir(),
    "a link to itself": lambda path: path.symlink_to(path),
    "a folder without a state": lambda path: (path.mkdir(), (path / "x").touch()),
}


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("obstacle", OBSTACLES.values(), ids=OBSTACLES)
def test_what_is_no_whole_checkpoint_never_costs_one(
    tmp_path: Path, obstacle: Callable[[Path], object], keep: int
) -> None:
    checkpoint.save(tmp_path, 3, parts(3.0), {"n": 3})
    obstacle(checkpoint.checkpoint_folder(tmp_path, 9))
    obstacle(checkpoint.checkpoint_folder(tmp_path, 12))
    found = checkpoint.newest(tmp_path, aside=True)
    assert found is not None
    assert found[1] == {"n": 3}
    for step in (6, 9, 10):
        checkpoint.save(tmp_path, step, parts(), {"n": step})
        checkpoint.prune(tmp_path, keep)
        again = checkpoint.newest(tmp_path, aside=True)
        assert again is not None
        assert again[1] == {"n": step}
    whole = [step for step, folder in checkpoint.steps(tmp_path) if checkpoint.verify(folder)]
    assert whole == [9, 10][-keep:]


def test_a_name_that_is_written_otherwise_is_no_checkpoint(tmp_path: Path) -> None:
    folder = checkpoint.save(tmp_path, 3, parts(), {})
    for name in ("step-12", "step-0000000012", "step-", "step-x", "step-٣", "damaged-step-000000004"):
        shutil.copytree(folder, folder.with_name(name))
    assert [step for step, _ in checkpoint.steps(tmp_path)] == [3]


@pytest.mark.parametrize("there", ["file", "folder", "loop", "dangling", "nothing"])
def test_the_best_is_marked_whatever_is_in_its_place(tmp_path: Path, there: str) -> None:
    folder = checkpoint.save(tmp_path, 3, parts(), {})
    link = tmp_path / "best"
    if there == "file":
        link.write_text("x")
    elif there == "folder":
        link.mkdir()
        (link / "mine").touch()
    elif there != "nothing":
        link.symlink_to("best" if there == "loop" else "checkpoints/step-000000009")
    checkpoint.prune(tmp_path, 1)
    checkpoint.mark_best(tmp_path, folder)
    assert checkpoint.best_checkpoint(tmp_path) == folder.resolve()
    assert there != "folder" or (tmp_path / "damaged-best" / "mine").exists()


def test_a_full_disk_leaves_no_half_checkpoint_and_the_others_whole(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, parts(), {"n": 1})
    large = {"net": Part({"w": torch.zeros(10_000)}, {})}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(CannotWrite, match=r"net\.safetensors: File too large"):
            checkpoint.save(tmp_path, 2, large, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(tmp_path) == ["step-000000001"]
    checkpoint.save(tmp_path, 2, large, {"n": 2})
    assert names(tmp_path) == ["step-000000001", "step-000000002"]


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").touch()
    assert checkpoint.steps(tmp_path) == []
    with pytest.raises(CannotWrite, match="checkpoints"):
        checkpoint.save(tmp_path, 2, parts(), {})


def test_leftovers_of_killed_processes_are_swept(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, parts(), {})
    (tmp_path / "checkpoints" / ".writing-step-000000003").mkdir()
    (tmp_path / ".fakes-0000003.png.123.part").touch()
    (tmp_path / ".config.yaml.writing").mkdir()
    (tmp_path / ".mine").touch()
    checkpoint.sweep(tmp_path)
    assert names(tmp_path) == ["step-000000001"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine", "checkpoints"]


KILLED = """
import sys, torch
from pathlib import Path
from orthogan.io import checkpoint
from orthogan.io.checkpoint import Part
run, step = Path(sys.argv[1]), 0
print("go", flush=True)
while True:
    step += 1
    checkpoint.save(run, step, {"net": Part({"w": torch.full((200_000,), float(step))}, {})}, {"step": step})
    checkpoint.prune(run, 2)
"""


@pytest.mark.slow
def test_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    newest = 0
    for delay in (0.05, 0.13, 0.21):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        found = checkpoint.newest(tmp_path)
        if found is None:
            continue
        folder, state = found
        assert torch.equal(checkpoint.read(folder, "net")["w"], torch.full((200_000,), float(state["step"])))
        newest = max(newest, state["step"])
    assert newest >= 1
