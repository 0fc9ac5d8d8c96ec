"""The command that chooses the length of the average after training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import orthogan
from orthogan.cli.main import main
from orthogan.training import train
from orthogan.training.post_hoc_ema import PostHocEma
from tests.fixtures.runs import tiny
from tests.fixtures.scored import EXTRACTOR


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    power = ("training.ema.kind=power", "training.ema.snapshot_every=1", "training.steps=6", "data.labels=true")
    scores = ("evaluation.samples=8", f"evaluation.extractor={EXTRACTOR}")
    return train(tiny(tmp_path_factory.mktemp("ema") / "run", *power, *scores))


def test_a_length_becomes_a_model_file(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model.safetensors"
    assert main(["ema", str(run), "--length", "0.08", "--out", str(out)]) == 0
    assert f"{out}: average of length 0.08 at 96 images" in capsys.readouterr().out
    net = orthogan.load(out)
    expected = PostHocEma.open(run).tensors(0.08)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in net.state_dict().items())
    assert net.num_classes == orthogan.load(run).num_classes > 0


def test_a_search_scores_each_length_and_writes_the_best(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "best.safetensors"
    command = ["ema", str(run), "--search", "0.05-0.1", "--points", "3", "--out", str(out), "--trust"]
    assert main(command) == 0
    said = capsys.readouterr().out
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    scores = {r["protocol"]["weights"]: r["value"] for r in records if r["protocol"].get("subject") == str(run)}
    assert list(scores) == [f"ema of length {length}" for length in ("0.05", "0.0707", "0.1")]
    best = min(scores, key=lambda name: scores[name]).rpartition(" ")[2]
    assert f"average of length {best} " in said
    assert said.splitlines()[0].split()[0] == "length"
    expected = PostHocEma.open(run).tensors(float(best))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in orthogan.load(out).state_dict().items())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give either --length"),
        (["--length", "0.1", "--search", "0.1-0.2"], "give either --length"),
        (["--search", "0.2"], "--search 0.2"),
        (["--search", "0.2-0.1"], "--search 0.2-0.1"),
        (["--length", "0.001"], "length 0.001"),
        (["--length", "0.1", "--out", "model.pt"], "--out model.pt"),
    ],
)
def test_what_makes_no_sense_is_refused(
    run: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ema", str(run), *arguments]) == 2
    assert says in capsys.readouterr().err
