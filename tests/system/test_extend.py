"""Each recipe of ``docs/extend.md`` works as it stands there, from a file outside of the package."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from orthogan.cli.main import main
from tests.fixtures.runs import ROOT

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
RECIPES = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
SMALL = "data.count=64 training.steps=2 training.batch_size=8 training.generator_batch_size=8 training.device=cpu"
SMALL += " model.generator.channels=8 model.discriminator.channels=8 logging.tensorboard=false logging.samples=4"
SMALL += " evaluation.at_start=false"
SCORING = ("A metric", "A feature extractor")
SCORED = "evaluation.every=2 evaluation.samples=16 evaluation.reference_samples=16"


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("title", RECIPES)
def test_a_recipe_works_in_yaml_and_on_the_command_line(
    title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("configs", "pretrained"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORTHOGAN_CACHE", str(tmp_path / "cache"))
    files = [block for language in ("python", "yaml") for block in blocks(RECIPES[title], language)]
    for block in files:
        Path(block.splitlines()[0].removeprefix("# ")).write_text(block)
    modules = {block.splitlines()[0].removeprefix("# ") for block in blocks(RECIPES[title], "python")}
    for line in "".join(blocks(RECIPES[title], "bash")).splitlines():
        words = shlex.split(line)[1:]
        if words[0] == "train":
            words += [*SMALL.split(), *(SCORED if title in SCORING else "evaluation.every=0").split()]
        ran: set[str] = set()
        sys.setprofile(lambda frame, *_, ran=ran: ran.add(frame.f_code.co_filename))
        try:
            code = main(words)
        finally:
            sys.setprofile(None)
        assert code == 0, f"{line}: {capsys.readouterr().err}"
        assert any(Path(name).name in modules for name in ran), f"{line}: the code of the recipe was not called"
