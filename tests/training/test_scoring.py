"""Scores made in a process of its own are those made beside training, whatever stops the run."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orthogan.config.schema import Config
from orthogan.errors import Stopped, UserError
from orthogan.training import train
from orthogan.training.score_process import WORKER
from orthogan.training.stop import StopSignal
from tests.fixtures.runs import environment, finish, tensors, tiny, tiny_classifier

SCORED = [
    "training.steps=6",
    "evaluation.every=2",
    "evaluation.samples=16",
    "evaluation.extractor=tests.fixtures.extractor:Moments",
]


def scores(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, without how long they took."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        assert record["protocol"].pop("seconds") >= 0
    return records


def assert_same_bits(a: Path, b: Path, step: int = 6) -> None:
    one, two = tensors(a, step), tensors(b, step)
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


def stop_after(step: int, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(StopSignal, "agree", lambda self, accelerator, done: done == step)
        with pytest.raises(Stopped):
            train(config)


def test_background_scores_are_those_made_beside_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = [*SCORED, "evaluation.metrics=[fid,prc]", "evaluation.at_start=true", "data.labels=true"]
    options += ["evaluation.samples=128", "data.count=150", "checkpoint.keep=1"]
    beside, behind = tmp_path / "beside", tmp_path / "behind"
    train(tiny(beside, *options, "evaluation.background=false"))
    background = tiny(behind, *options, "evaluation.background=true")
    stop_after(2, background, monkeypatch)  # with the score of step 2 due, and perhaps one being made
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    train(background)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]
    expected = scores(beside)
    assert [(r["metric"], r["protocol"]["step"]) for r in expected] == [
        (metric, step) for step in "0246" for metric in ("fid", "prc")
    ]
    assert scores(behind) == expected
    assert (behind / "best").resolve().name == (beside / "best").resolve().name
    kept = [sorted(p.name for p in (run / "checkpoints").iterdir()) for run in (beside, behind)]
    assert kept[0] == kept[1]
    assert_same_bits(beside, behind)


def test_a_classifier_is_scored_in_the_background_too(tmp_path: Path) -> None:
    options = ["training.steps=4", "evaluation.every=2", "evaluation.samples=50"]
    runs = []
    for background in ("false", "true"):
        out = tmp_path / background
        runs.append(train(tiny_classifier(out, *options, f"evaluation.background={background}")))
    assert len(scores(runs[0])) == 4
    assert scores(runs[1]) == scores(runs[0])
    assert (runs[1] / "best").resolve().name == (runs[0] / "best").resolve().name
    assert_same_bits(*runs, step=4)


@pytest.mark.slow
def test_the_scoring_process_ends_when_its_run_is_gone(tmp_path: Path) -> None:
    config = tiny(tmp_path / "run", *SCORED, "training.steps=1", "evaluation.every=0")
    run = train(config)
    endless = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"samples": 10**7})})
    about = {"config": endless.model_dump(), "device": "cpu", "threads": 1}
    job = {"folder": str(run / "checkpoints" / "step-000000001"), "step": 1}
    worker = subprocess.Popen(
        [sys.executable, "-m", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), text=True
    )
    printed, _ = worker.communicate(f"{json.dumps(about)}\n{json.dumps(job)}\n", timeout=600)  # and closes its input
    assert (worker.returncode, printed) == (0, "")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evaluation={metrics: [isc], best: isc}", "extractor Moments is not a classifier"),
        ("evaluation.extractor=tests.fixtures.extractor:Gone", "Gone"),
        ("evaluation={metrics: [ppl_nog], best: ppl_nog}", "has no subspaces"),
        ("evaluation.reference_samples=1", "reference_samples is 1: input should be greater than or equal to 2"),
        ("evaluation={background: true, device: 'cuda:77'}", "evaluation.device is 'cuda:77'"),
    ],
)
def test_what_would_spoil_a_score_is_found_before_training(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        train(tiny(tmp_path / "run", *SCORED, "evaluation.every=6", override))
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_a_device_is_of_the_scoring_process_alone(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"evaluation\.device: 'cpu' applies only to a separate scoring process"):
        tiny(tmp_path, "evaluation.device=cpu")
    with pytest.raises(UserError, match=r"evaluation\.device is 'tpu'"):
        tiny(tmp_path, "evaluation={background: true, device: tpu}")


@pytest.mark.slow
def test_of_several_processes_one_hands_its_checkpoints_over(tmp_path: Path) -> None:
    for background in ("false", "true"):
        done = finish(tmp_path / background, *SCORED, f"evaluation.background={background}", processes=2)
        assert done.returncode == 0, done.stderr
    beside, behind = scores(tmp_path / "false"), scores(tmp_path / "true")
    for one, two in zip(beside, behind, strict=True):
        assert two.pop("value") == pytest.approx(one.pop("value"), rel=1e-4)  # batches of other sizes round otherwise
        assert two == one
    assert_same_bits(tmp_path / "false", tmp_path / "true")
