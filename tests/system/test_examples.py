"""The scripts in examples/ run, small, and print or draw what they promise."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.fixtures.runs import ROOT

EXAMPLES = ROOT / "examples"
SMALL = ["data.count=32", "training.steps=2", "training.batch_size=8", "training.generator_batch_size=8"]
SMALL += [
    "evaluation.every=0",
    "evaluation.at_start=false",
    "logging.tensorboard=false",
    "logging.samples_every=0",
    "checkpoint.every=2",
]


Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a script in an empty folder (or in ``folder`` below it) and returns what it prints."""

    def start(name: str, *words: str, folder: str = ".") -> str:
        monkeypatch.chdir(tmp_path / folder)
        monkeypatch.setattr(sys, "argv", [name, *words])
        with torch.random.fork_rng():
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return start


def test_every_script_is_listed_and_short() -> None:
    readme = (EXAMPLES / "README.md").read_text("utf-8")
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert len(scripts) == 6
    for script in scripts:
        assert f"[{script.name}]({script.name})" in readme
        assert 20 <= len(script.read_text("utf-8").splitlines()) <= 90


def test_a_loop_of_your_own(run: Run, tmp_path: Path) -> None:
    said = run("srn_in_your_loop.py", "--steps", "3")
    assert re.search(r"step 3: loss of D \d", said)
    assert len(re.findall(r"layer \d: norm \d\.\d+, stable rank \d+\.\d \((?:bounded|free)\)", said)) == 4
    with Image.open(tmp_path / "srn-samples.png") as picture:
        assert picture.size == (512, 512)


def test_muon_for_kernels(run: Run) -> None:
    said = run("nog_as_muon.py", "--steps", "25", "--test", "500")
    adam, muon = (float(number) for number in re.findall(r": +(0\.\d+)$", said, re.MULTILINE))
    assert muon > adam > 1 / 23  # in so few steps the difference is large


def test_the_spectrum_of_a_timm_model(run: Run) -> None:
    said = run("spectrum_of_timm.py", "resnet10t", "--layers", "conv")
    assert "layer4.0.conv2" in said
    assert re.search(r"stable rank \d+\.\d of \d+ \(\d+%\)", said)
    assert re.search(r"log10 of the product of operator norms: -?\d", said)


def test_a_vae_of_your_own(run: Run) -> None:
    said = run("disentangle_your_vae.py", "--steps", "5", "--samples", "900")
    assert re.search(r"step 5: reconstruction \d", said)
    scores = re.findall(r"^(\w+): \d\.\d+ \(rotated at random: \d\.\d+\)$", said, re.MULTILINE)
    assert scores == ["MIG", "DCI", "SAP"]


@pytest.mark.slow
def test_fine_tuning(run: Run, tmp_path: Path) -> None:
    said = run("finetune_shipped_model.py", "--steps", "2", "--set", "data.options.fixed={glasses: dark01}", *SMALL)
    assert re.search(r"after: .*after\.png", said)
    before, after = (np.asarray(Image.open(tmp_path / "runs" / "finetuned" / f"{n}.png")) for n in ("before", "after"))
    assert before.shape == after.shape
    assert (before != after).any()
    assert np.abs(before.astype(float) - after).mean() < 20  # two steps do not make another model


@pytest.mark.slow
def test_a_penalty_from_yaml(run: Run, tmp_path: Path) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "examples").mkdir()
    for name in ("penalty_from_yaml.py", "penalty_from_yaml.yaml"):
        (tmp_path / "examples" / name).symlink_to(EXAMPLES / name)
    widths = ["model.generator.channels=4", "model.discriminator.channels=8", "optimizer.discriminator.lr=0.01"]
    words = ["--set", *SMALL, *widths, "training.steps=20", "checkpoint.every=20"]
    said = run("penalty_from_yaml.py", *words, folder="examples")
    without, with_it = (float(number) for number in re.findall(r"convolutions: (\d\.\d+)$", said, re.MULTILINE))
    assert with_it < without
