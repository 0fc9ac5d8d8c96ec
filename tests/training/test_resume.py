"""A run that was killed, stopped or damaged continues to the very same bits."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from orthogan.errors import Stopped, UserError
from orthogan.training import train
from orthogan.training.schedules import keys_of_length
from tests.fixtures.runs import command, environment, finish, tensors, tiny

STEPS = "training.steps=8"
LONG = "training.steps=24"


def assert_same_bits(a: Path, b: Path, step: int = 8) -> None:
    one, two = tensors(a, step), tensors(b, step)
    assert one.keys() == two.keys()
    assert len(one) > 60
    different = [name for name in one if not torch.equal(one[name], two[name])]
    assert different == []


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 600
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def interrupted(out: Path, number: signal.Signals, *overrides: str) -> tuple[int, str]:
    """Start the run, send it ``number`` as soon as its first checkpoint is there; exit code and stderr."""
    process = subprocess.Popen(
        command(out, *overrides),
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(out / "checkpoints" / "step-000000003", process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=600)
    return process.returncode, errors


@pytest.mark.slow
def test_kill_dash_nine_costs_nothing_but_time(tmp_path: Path) -> None:  # of two processes: tests/faults
    # ADA, lazy R1 and an average: everything that carries state from step to step
    options = [
        LONG,
        "augment.kind=ada",
        "augment.interval=3",
        "augment.images_to_one=200",
        "loss.gradient_penalty.kind=r1",
        "loss.gradient_penalty.interval=3",
        "data.flip=true",
    ]
    train(tiny(tmp_path / "straight", *options))
    code, _ = interrupted(tmp_path / "killed", signal.SIGKILL, *options)
    assert code != 0
    assert not (tmp_path / "killed" / "checkpoints" / "step-000000024").exists()
    again = finish(tmp_path / "killed", *options)
    assert again.returncode == 0, again.stderr
    assert_same_bits(tmp_path / "straight", tmp_path / "killed", 24)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.slow
def test_a_signal_saves_and_exits_with_its_own_code(tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "stopped"
    code, errors = interrupted(out, number, "training.steps=500")
    assert code == 4, errors
    assert f"stopped by {number.name} after step" in errors
    newest = max(int(p.name[5:]) for p in (out / "checkpoints").glob("step-*"))
    assert 3 <= newest < 500
    assert (out / "checkpoints" / f"step-{newest:09d}" / "generator.safetensors").exists()


def test_stop_and_resume_in_process_is_bitwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tiny(tmp_path / "straight", STEPS))
    from orthogan.training.stop import StopSignal

    with monkeypatch.context() as patch:
        patch.setattr(StopSignal, "agree", lambda self, accelerator, step: step == 5)
        with pytest.raises(Stopped, match="after step 5"):
            train(tiny(tmp_path / "stopped", STEPS))
    train(tiny(tmp_path / "stopped", STEPS))
    assert_same_bits(tmp_path / "straight", tmp_path / "stopped")
    records = [json.loads(line) for line in (tmp_path / "stopped" / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if "D/loss" in r] == [2, 4, 6, 8]


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny(tmp_path / "run", STEPS)
    train(config)
    expected = tensors(tmp_path / "run", 8)
    victim = tmp_path / "run" / "checkpoints" / "step-000000008" / "discriminator.safetensors"
    victim.write_bytes(victim.read_bytes()[:-1])
    train(config)
    assert str(victim) in capsys.readouterr().err
    again = tensors(tmp_path / "run", 8)
    assert all(torch.equal(again[name], expected[name]) for name in expected)


def test_all_checkpoints_damaged_is_an_error_that_keeps_them(tmp_path: Path) -> None:
    config = tiny(tmp_path / "run", "training.steps=3")
    train(config)
    state = tmp_path / "run" / "checkpoints" / "step-000000003" / "state.json"
    state.write_text("{}")
    with pytest.raises(UserError, match="every checkpoint of this run is damaged"):
        train(config)
    assert state.exists()


def test_another_config_is_listed_key_by_key_and_refused(tmp_path: Path) -> None:
    train(tiny(tmp_path / "run", "training.steps=3"))
    changed = tiny(tmp_path / "run", "training.steps=4", "optimizer.generator.lr=1e-3", "training.d_steps_per_g_step=1")
    with pytest.raises(UserError) as caught:
        train(changed)
    message = str(caught.value)
    assert "training.steps" not in message
    assert "training.d_steps_per_g_step: 2 -> 1" in message
    assert "optimizer.generator.lr: 0.0002 -> 0.001" in message
    assert "--allow-config-change" in message
    train(changed, allow_config_change=True)
    assert (tmp_path / "run" / "checkpoints" / "step-000000004").exists()


def test_keys_that_came_with_a_later_version_are_no_difference(tmp_path: Path) -> None:
    config = tiny(tmp_path / "run", "training.steps=3")
    train(config)
    folder = tmp_path / "run" / "checkpoints" / "step-000000003"
    record = json.loads((folder / "state.json").read_text())
    del record["state"]["config"]["loss"]["latent_penalty"], record["state"]["config"]["model"]["init"]
    del record["files"]["latent.safetensors"]
    del record["sha256"]
    (folder / "state.json").write_text(json.dumps(record | {"format": 1}))
    (folder / "latent.safetensors").unlink()
    assert train(config) == tmp_path / "run"
    with pytest.raises(UserError, match=r"loss\.latent_penalty\.weight: None -> 0\.1"):
        train(tiny(tmp_path / "run", "training.steps=3", "loss.latent_penalty={kind: hessian, weight: 0.1}"))


def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    config = tiny(tmp_path / "run", "training.steps=3")
    train(config)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*.safetensors")}
    train(config)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*.safetensors")} == before


def test_a_finished_run_is_lengthened_without_consent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steady = "training.schedule.kind=constant"
    whole = train(tiny(tmp_path / "whole", steady, "training.steps=6"))
    run = train(tiny(tmp_path / "run", steady, "training.steps=3"))
    capsys.readouterr()
    train(tiny(run, steady, "training.kimg=0.096"))  # 6 steps of 16 images
    assert capsys.readouterr().err == ""
    one, two = tensors(whole, 6), tensors(run, 6)
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
    train(tiny(run, steady, "training.steps=6"))  # the same length in other words
    with pytest.raises(UserError, match=r"training\.kimg: 0\.096 -> 0\.08(.|\n)*--allow-config-change"):
        train(tiny(run, steady, "training.kimg=0.08"))


@pytest.mark.parametrize(
    ("overrides", "follow"),
    [
        ([], ["training.schedule"]),
        (
            ["loss.latent_penalty={kind: orojar, weight: 1, ramp: 0.1}"],
            ["training.schedule", "loss.latent_penalty.ramp"],
        ),
        (
            ["loss.latent_penalty={kind: orojar, weight: 1, start: 0.5}"],
            ["training.schedule", "loss.latent_penalty.start"],
        ),
        (
            [
                "model.generator.codes.continuous=2",
                "loss.information.weight=1",
                "loss.contrastive={weight: 1, start: 0.2, gap: 0.5}",
            ],
            ["training.schedule", "loss.contrastive.start", "loss.contrastive.gap_until"],
        ),
        (["training.schedule.kind=constant"], []),
    ],
)
def test_every_key_that_follows_the_length_of_a_run(tmp_path: Path, overrides: list[str], follow: list[str]) -> None:
    assert keys_of_length(tiny(tmp_path, *overrides)) == follow


def test_lengthening_says_what_follows_the_length(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    penalty = "model.discriminator.penalties=[{kind: srip, schedule: [[0, 1], [0.5, 2]]}]"
    run = train(tiny(tmp_path / "run", "training.steps=3", penalty))
    capsys.readouterr()
    train(tiny(run, "training.steps=4", penalty))
    assert capsys.readouterr().err == (
        "orthogan: the run now ends at step 4, not at 3, and training.schedule, "
        "model.discriminator.penalties.0.schedule follow the share of the run; the learning rate, which was at 0 times "
        "lr, continues at 0.25 times lr\n"
    )
