"""The Python code of the README and the docs runs, their commands parse, and what they name exists."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from docs import config_table, gallery
from orthogan.cli.parser import parse
from orthogan.config.files import load_config
from orthogan.models.card import shipped_cards

ROOT = Path(__file__).parents[2]
REPORTS = sorted((ROOT / "docs" / "results").glob("*/REPORT.md"))
PAGES = [ROOT / "README.md", *(p for p in sorted((ROOT / "docs").rglob("*.md")) if p not in REPORTS)]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name)
def test_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pretrained").symlink_to(ROOT / "pretrained")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "docs"}
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), names)


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "extend.md" and blocks(p, "bash")], ids=name)
def test_commands_parse_and_their_configs_and_files_exist(page: Path) -> None:
    for block in blocks(page, "bash"):
        for line in block.splitlines():
            words = line.split("#")[0].split()
            if "train.py" in words:
                words = ["orthogan", "train", *words[words.index("train.py") + 1 :]]
            if words[:1] != ["orthogan"]:
                continue
            arguments = parse(words[1:])
            if arguments.command in ("train", "config"):
                load_config(ROOT / arguments.config, arguments.overrides)
            for word in words:
                if word.startswith("pretrained/"):
                    assert (ROOT / word).exists(), word


@pytest.mark.parametrize("page", [*PAGES, *REPORTS], ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_files_that_the_architecture_page_names_exist() -> None:
    named = re.findall(r"`([\w/]+(?:\.py|/))`", (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))
    assert len(named) > 30
    known = [path.relative_to(ROOT).as_posix() for path in (ROOT / "orthogan").rglob("*")]
    ours = [name for name in named if not name.startswith(("tests/", "orthogan/ROOM"))]
    assert [name for name in ours if not any(path.endswith(f"/{name.rstrip('/')}") for path in known)] == []


def test_a_published_study_is_a_report_its_numbers_and_at_most_three_pictures() -> None:
    assert REPORTS
    for report in REPORTS:
        pictures = {path.name for path in report.parent.glob("*.png")}
        assert len(pictures) <= 3
        assert {path.name for path in report.parent.iterdir()} == {"REPORT.md", "table.json"} | pictures


def test_every_shipped_model_has_a_card() -> None:
    models = sorted((ROOT / "pretrained").glob("*.safetensors"))
    assert models
    for model in models:
        assert model.with_suffix(".md").is_file()
        assert model.stat().st_size < 10_000_000


def test_the_gallery_is_that_of_the_shipped_models_and_has_every_picture() -> None:
    assert gallery.PAGE.read_text(encoding="utf-8") == gallery.page(), "run: python -m docs.gallery"
    for model, path, _ in shipped_cards():
        for kind in gallery.PICTURES:
            assert gallery.picture(path, model, kind).is_file(), "run: python -m docs.gallery"


def test_the_tables_of_configs_are_those_of_the_configs() -> None:
    text = config_table.PAGE.read_text(encoding="utf-8")
    shown = text.split(config_table.BEGIN)[1].split(config_table.END)[0]
    assert shown == f"\n{config_table.tables()}\n", "run: python -m docs.config_table"
    costs = json.loads(config_table.COSTS.read_text(encoding="utf-8"))
    assert {*costs["measured"], *costs["scores"]} <= set(config_table.configs())
