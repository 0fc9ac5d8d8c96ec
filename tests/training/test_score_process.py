"""The queue of scores, with a worker that answers at once, fails, dies, or never answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthogan.config.schema import Config
from orthogan.errors import Stopped, UserError
from orthogan.evaluation import MetricResult
from orthogan.io import checkpoint
from orthogan.training import score_process, train
from orthogan.training.resume import METRICS, forget_scores, own_scores
from orthogan.training.stop import StopSignal
from tests.fixtures.runs import tiny

# Its score of a step is (step - 4)^2, so that step 4 is the best.
STUB = """
import json, os, signal, sys, time
from pathlib import Path
plan = json.loads(Path(__file__).with_suffix(".json").read_text())
json.loads(sys.stdin.readline())
for line in sys.stdin:
    job = json.loads(line)
    with Path(__file__).with_suffix(".asked").open("a") as stream:
        stream.write(f"{job['step']} {Path(job['folder']).is_dir()}\\n")
    what = plan.get(str(job["step"]), "score")
    if what == "die":
        os._exit(9)
    if what == "terminate":
        os.kill(os.getppid(), signal.SIGTERM)
    if what in ("terminate", "sleep"):
        time.sleep(600)
    protocol = {"samples": 2, "reference": "stub", "step": str(job["step"]), "seconds": 0.0}
    result = {"label": "FD[stub]", "metric": "fid", "value": (job["step"] - 4.0) ** 2, "extractor": "stub",
              "std": None, "parts": {}, "protocol": protocol}
    print(json.dumps({"error": "no luck"} if what == "fail" else {"results": [result]}), flush=True)
"""


class Stub:
    """A worker by plan: step -> fail | die | sleep | terminate (the run)."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        (folder / "stub_worker.py").write_text(STUB)
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setattr(score_process, "WORKER", "stub_worker")
        monkeypatch.setattr(score_process, "FAREWELL", 0.2)
        self.plan()

    def plan(self, **steps: str) -> None:
        (self.folder / "stub_worker.json").write_text(json.dumps({k.removeprefix("step"): v for k, v in steps.items()}))

    @property
    def asked(self) -> list[tuple[int, bool]]:
        """(step, whether its checkpoint was there) of every job so far."""
        lines = (self.folder / "stub_worker.asked").read_text().splitlines()
        return [(int(step), there == "True") for step, there in (line.split() for line in lines)]


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stub:
    return Stub(tmp_path, monkeypatch)


def config(run: Path, *overrides: str) -> Config:
    return tiny(
        run,
        "training.steps=8",
        "evaluation={every: 2, samples: 4, background: true, extractor: 'tests.fixtures.extractor:Moments'}",
        "checkpoint={every: 8, keep: 1}",
        *overrides,
    )


def values(run: Path) -> dict[int, float]:
    """step -> score; a step must not be there twice."""
    lines = (run / METRICS).read_text().splitlines() if (run / METRICS).exists() else []
    found = [(int(r["protocol"]["step"]), r["value"]) for r in map(json.loads, lines)]
    assert len(dict(found)) == len(found)
    return dict(found)


def kept(run: Path) -> list[int]:
    return [step for step, _ in checkpoint.steps(run)]


def test_scores_are_made_in_turn_from_checkpoints_that_stay_until_then(tmp_path: Path, stub: Stub) -> None:
    run = train(config(tmp_path / "run"))
    assert stub.asked == [(2, True), (4, True), (6, True), (8, True)]
    assert values(run) == {2: 4.0, 4: 0.0, 6: 4.0, 8: 16.0}
    assert (run / "best").resolve().name == "step-000000004"
    assert kept(run) == [4, 8]
    train(config(tmp_path / "run"))
    assert len(stub.asked) == 4


def test_a_failed_score_stops_nothing_and_is_tried_again(
    tmp_path: Path, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.plan(step2="fail", step4="die")
    with pytest.raises(
        UserError, match=r"2 of its scores could not be computed:\s+step 2: no luck\s+step 4: .* code 9"
    ):
        train(config(tmp_path / "run"))
    run = tmp_path / "run"
    assert values(run) == {6: 4.0, 8: 16.0}
    assert kept(run) == [2, 4, 6, 8]
    assert "step 2 could not be scored: no luck" in capsys.readouterr().out
    warnings = [r for r in map(json.loads, (run / "log.jsonl").read_text().splitlines()) if "warning" in r]
    assert [r["step"] for r in warnings] == [2, 4]
    assert (run / "best").resolve().name == "step-000000006"
    stub.plan()
    train(config(run))
    assert values(run) == {2: 4.0, 4: 0.0, 6: 4.0, 8: 16.0}
    assert kept(run) == [4, 8]
    assert (run / "best").resolve().name == "step-000000004"


@pytest.mark.parametrize("at", ["while training", "after the last step"])
def test_what_a_stop_cut_off_is_scored_once_on_continuing(
    tmp_path: Path, stub: Stub, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        if at == "while training":
            stub.plan(step2="sleep")
            patch.setattr(StopSignal, "agree", lambda self, accelerator, done: done == 6)
            message = "after step 6"
        else:
            stub.plan(step4="terminate")
            patch.setattr(StopSignal, "agree", lambda self, accelerator, done: False)
            message = "stopped by SIGTERM after the last step, with 3 scores left"
        with pytest.raises(Stopped, match=message):
            train(config(run))
    assert set(values(run)) == (set() if at == "while training" else {2})
    assert kept(run) == ([2, 4, 6] if at == "while training" else [2, 4, 6, 8])
    stub.plan()
    train(config(run))
    assert values(run) == {2: 4.0, 4: 0.0, 6: 4.0, 8: 16.0}
    assert kept(run) == [4, 8]


@pytest.mark.parametrize("when", ["before the score is written", "before best is marked", "amid its line"])
def test_a_kill_at_any_moment_loses_no_score_and_doubles_none(tmp_path: Path, stub: Stub, when: str) -> None:
    run = train(config(tmp_path / "run", "checkpoint.keep=9"))
    lines = (run / METRICS).read_text().splitlines(keepends=True)
    (run / "best").unlink()
    if when == "before the score is written":
        (run / METRICS).write_text("".join(lines[:2]))
    if when == "amid its line":
        (run / METRICS).write_text("".join(lines[:3]) + lines[3][:40])
    train(config(run, "checkpoint.keep=9"))
    assert values(run) == {2: 4.0, 4: 0.0, 6: 4.0, 8: 16.0}
    assert (run / "best").resolve().name == "step-000000004"


def test_a_step_that_is_trained_again_is_scored_again_and_stands_once(tmp_path: Path, stub: Stub) -> None:
    run = train(config(tmp_path / "run", "checkpoint.keep=9"))
    for step in (6, 8):
        (checkpoint.checkpoint_folder(run, step) / "state.json").write_text("{}")
    foreign = {"label": "FID", "metric": "fid", "value": 1.0, "protocol": {"step": "8", "subject": "runs/x"}}
    with (run / METRICS).open("a") as stream:
        stream.write(json.dumps(foreign) + "\n")
    train(config(run, "checkpoint.keep=9"))
    records = [json.loads(line) for line in (run / METRICS).read_text().splitlines()]
    assert [(r["protocol"]["step"], "subject" in r["protocol"]) for r in records] == [
        ("2", False),
        ("4", False),
        ("8", True),
        ("6", False),
        ("8", False),
    ]


@given(
    steps=st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=12),
    last=st.integers(-1, 10),
    cut=st.integers(0, 30),
)
def test_forgetting_drops_training_s_own_later_scores_alone(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, bool]], last: int, cut: int
) -> None:
    path = tmp_path_factory.mktemp("scores") / METRICS
    lines = []
    for number, (step, own) in enumerate(steps):
        protocol: dict[str, Any] = {"step": str(step)} if own else {"step": str(step), "subject": "x"}
        lines.append(json.dumps(MetricResult("fid", float(number), "stub", protocol=protocol).as_dict()) + "\n")
    path.write_text("".join(lines) + '{"label": "FID", "metric": "fid"'[:cut])
    expected = [line for line, (step, own) in zip(lines, steps, strict=True) if not own or step <= last]
    assert [(step, r.value) for step, r in own_scores(path, last)] == [
        (step, float(n)) for n, (step, own) in enumerate(steps) if own and step <= last
    ]
    forget_scores(path, last)
    assert path.read_text() == "".join(expected)
