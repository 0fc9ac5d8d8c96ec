"""Progress bars are for terminals: a log file or a pipe gets none."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import orthogan
from orthogan.evaluation import evaluate, traversal_length
from orthogan.evaluation.critic.critic import Recipe
from orthogan.evaluation.critic.neural_divergence import neural_divergence
from orthogan.training import train
from tests.fixtures.runs import tiny
from tests.fixtures.scored import EXTRACTOR, Patches, source

PACKAGE = Path(orthogan.__file__).parent


def test_every_bar_of_the_package_is_drawn_on_terminals_alone() -> None:
    found = 0
    for file in PACKAGE.rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
                continue
            found += call.func.id == "progress_bar"
            if call.func.id == "tqdm" and file.name != "progress.py":
                disable = next((ast.unparse(word.value) for word in call.keywords if word.arg == "disable"), "")
                assert disable == "None", f"{file}:{call.lineno}: tqdm(disable={disable}); use progress_bar"
    assert found > 15


def test_nothing_is_drawn_without_a_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    net = Patches()
    evaluate(net, source(), metrics=["fid", "pixel_path_length"], samples=20, extractor=EXTRACTOR)
    traversal_length(net, distance="pixel", samples=2, steps=2)
    neural_divergence(net, source(), recipe=Recipe(steps=2, batch_size=8, width=2), samples=16)
    train(tiny(tmp_path / "run", "training.steps=2"))
    assert "%|" not in "".join(capfd.readouterr())
