"""How a batch is divided, over time or over processes, does not change the gradient."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from orthogan.training import train
from tests.fixtures.gradients import NONE, SHOW, assert_close, gradients
from tests.fixtures.runs import finish, tensors, tiny


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["loss.gradient_penalty.kind=r1+r2"],
        ["loss.gradient_penalty.kind=r1", "loss.gradient_penalty.interval=2"],
        ["loss.kind=wasserstein", "loss.gradient_penalty.kind=wgan-gp"],
        ["loss.kind=relativistic", "model.generator.kind=r3gan", "model.discriminator.kind=r3gan", NONE],
        ["data.labels=true"],
    ],
    ids=["hinge", "r1+r2", "lazy-r1", "wgan-gp", "relativistic", "conditional"],
)
def test_accumulation_is_neutral_for_both_nets(tmp_path: Path, options: list[str]) -> None:
    train(tiny(tmp_path / "whole", *SHOW, *options))
    train(tiny(tmp_path / "parts", *SHOW, *options, "training.accumulate=4"))
    assert_close(gradients(tmp_path / "whole"), gradients(tmp_path / "parts"))


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    train(tiny(tmp_path / "one", *SHOW))
    result = finish(tmp_path / "two", *SHOW, processes=2)
    assert result.returncode == 0, result.stderr
    assert_close(gradients(tmp_path / "one"), gradients(tmp_path / "two"))
    one, two = tensors(tmp_path / "one", 2), tensors(tmp_path / "two", 2)
    for name in one:  # the batch statistics are those of the joined batch
        if "running_" in name:
            torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_what_the_main_process_does_by_itself_waits_for_no_other(tmp_path: Path) -> None:
    often = ["evaluation.every=12", "evaluation.samples=16", "evaluation.reference_samples=16", "training.steps=12"]
    often += [
        "evaluation.extractor=auto",
        "logging.watch_every=3",
        "logging.spectrum_every=3",
        "logging.samples_every=3",
    ]
    result = finish(tmp_path / "two", *often, processes=2)  # a score is timed, since the first is at the end
    assert result.returncode == 0, result.stderr
    assert "Warning" not in result.stderr, result.stderr
