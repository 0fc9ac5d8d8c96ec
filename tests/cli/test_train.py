"""What `orthogan train` prints: the report of a finished run and of a dry run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orthogan.cli.main import main
from tests.fixtures.runs import TINY

SHORT = [*TINY, "training.steps=1", "evaluation.at_start=true", "evaluation.samples=16"]
SHORT += ["evaluation.reference_samples=16", "evaluation.extractor=efficientnet-lite0"]


def test_one_step_and_one_score_are_not_several(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.yaml").touch()
    words = ["train", str(tmp_path / "empty.yaml"), *SHORT, f"out={tmp_path / 'a run'}"]
    assert main([*words, "--dry-run"]) == 0
    tried = capsys.readouterr().out
    assert "(1 step of " in tried
    assert "1 score of " in tried
    assert re.search(r"G/loss: -?\d+\.\d+\n", tried)
    assert not re.search(r"\d\.\d{6}", tried)  # losses have four digits
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "complete, 1 step in" in said
    (scores,) = re.findall(r"^FD\[efficientnet-lite0\]: (.*)$", said, re.MULTILINE)
    assert re.fullmatch(r"\d+\.\d\d \(step 0\)", scores)
    assert f"orthogan sample '{tmp_path / 'a run'}'" in said
