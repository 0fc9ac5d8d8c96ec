"""Checkpoints: whole or not there, and a damaged one is told apart and passed over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from orthogan import checkpoint
from orthogan.checkpoint import Damaged, Part


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
        state.write_text(state.read_text().replace('"format": 1', '"format": 99'))
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


def test_not_a_number_in_the_state_is_refused_before_anything_is_published(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        checkpoint.save(tmp_path, 1, parts(), {"loss": float("nan")})
    assert checkpoint.steps(tmp_path) == []


KILLED = """
import sys, torch
from pathlib import Path
from orthogan import checkpoint
from orthogan.checkpoint import Part
run, step = Path(sys.argv[1]), 0
print("go", flush=True)
while True:
    step += 1
    checkpoint.save(run, step, {"net": Part({"w": torch.full((200_000,), float(step))}, {})}, {"step": step})
    checkpoint.prune(run, 2)
"""


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
