"""The Python code of the README and the docs runs, their commands parse, and what they name exists."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from pathlib import Path

import pytest
import yaml
from accelerate.commands.launch import launch_command_parser
from torch.distributed.run import get_args_parser as torchrun

from docs import config_table, gallery, publish_studies
from orthogan.cli.main import main
from orthogan.cli.parser import parse
from orthogan.config.files import load_config
from orthogan.config.schema import Config
from orthogan.models.card import shipped_cards
from orthogan.models.shipped import shipped_names
from orthogan.studies.study import get_study
from tests.fixtures.pages import PAGES, REPORTS, blocks, commands, name
from tests.fixtures.runs import ROOT

CHEAP = ("completion", "config", "mix", "models", "sample", "spectrum", "traverse")
OTHER_PROGRAMS = {  # which are not ours, and of which nothing is checked
    "cd", "curl", "eval", "git", "npm", "pre-commit", "pytest", "rsync", "scontrol", "source", "tensorboard"
}  # fmt: skip


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name)
def test_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pretrained").symlink_to(ROOT / "pretrained")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "docs"}
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), names)


@pytest.mark.parametrize("page", [page for page in PAGES if [*commands(page)]], ids=name)
def test_every_command_and_option_exists(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(with_own_files(page, tmp_path))
    for words in commands(page):
        check(words)


def check(words: list[str]) -> None:
    """Fail unless the program, its options, and the configs, models, files and extras that it names exist."""
    program, *rest = words
    program = program.removeprefix(".venv/bin/")
    if program in ("srun", "nice"):
        return check(rest)
    if program == "orthogan":
        arguments = parse(rest)
        if arguments.command in ("train", "config"):
            load_config(arguments.config, arguments.overrides, only="none")
        assert [word for word in rest if word.startswith(("pretrained/", "configs/")) and not Path(word).exists()] == []
        subject = getattr(arguments, "subject", "")
        names = {one for one in ([subject] if isinstance(subject, str) else subject) if re.fullmatch(r"[\w-]+", one)}
        assert names <= set(shipped_names()), f"{words}: no such model"
    elif program in ("torchrun", "accelerate"):
        known = torchrun() if program == "torchrun" else launch_command_parser()
        found = known.parse_args(rest[program == "accelerate" :])
        script, arguments = found.training_script, found.training_script_args
        if found.module:
            return check([script, *arguments])
        assert (ROOT / script).is_file(), script
        check(["orthogan", "train", *arguments])
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        assert set(rest) <= set(targets), rest
    elif program in ("python", "python3"):
        module = rest[1] if rest[0] == "-m" else ""
        file = ROOT / (module.replace(".", "/") + ".py" if module else rest[0])
        file = file.with_suffix("") / "__main__.py" if file.with_suffix("").is_dir() else file
        if module.split(".")[0] in ("build", "pip", "playwright", "pytest", "twine", "venv"):
            return None
        assert file.is_file() or Path(rest[0]).is_file(), words
        if module:
            text = file.read_text("utf-8")
            assert [word for word in rest if word.startswith("--") and word != "--help" and word not in text] == []
    elif program in ("pip", "pip3"):
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
        named = re.findall(r"\[([\w,-]+)\]", " ".join(rest))
        assert {extra for group in named for extra in group.split(",")} <= set(extras), rest
    else:
        assert program in OTHER_PROGRAMS, f"{program}: not a command that the tests know"
    return None


def with_own_files(page: Path, folder: Path) -> Path:
    """``folder`` with what the commands of ``page`` read: the repository's files, and those that the page shows."""
    for shared in ("configs", "pretrained", "train.py", "examples", "docs"):
        if (ROOT / shared).exists():
            (folder / shared).symlink_to(ROOT / shared)
    for block in blocks(page, "python", "yaml"):
        if found := re.match(r"# ([\w-]+\.(?:py|yaml))\n", block):
            (folder / found[1]).write_text(block, encoding="utf-8")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if [*commands(page)]], ids=name)
def test_cheap_commands_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(with_own_files(page, tmp_path))
    for program, *rest in commands(page):
        if program == "orthogan" and rest[0] in CHEAP and all(map(available, needed(rest))):
            assert main(rest) == 0, rest


def needed(rest: list[str]) -> list[str]:
    """What a command opens."""
    files = [rest[rest.index(option) + 1] for option in ("--directions", "--latent") if option in rest]
    return files if rest[0] in ("completion", "models") else [rest[1], *files]


def available(subject: str) -> bool:
    """Whether a command of a page can open ``subject`` here."""
    return subject in shipped_names() or subject.startswith("torchvision") or Path(subject).exists()


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "yaml")], ids=name)
def test_configs_are_valid(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(with_own_files(page, tmp_path))
    for block in blocks(page, "yaml"):
        tree = yaml.safe_load(block)
        if isinstance(tree, dict) and set(tree) <= {"base", *Config.model_fields}:
            Path("shown.yaml").write_text(block, encoding="utf-8")
            load_config("shown.yaml", only="none")


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
        scale = json.loads((report.parent / "table.json").read_text(encoding="utf-8"))["scale"]
        runs = {"runs.tar.xz"} if scale == "decide" else set()
        assert {path.name for path in report.parent.iterdir()} == {"REPORT.md", "table.json"} | pictures | runs


def test_every_shipped_model_has_a_card_and_is_small() -> None:
    models = list(shipped_cards())
    assert models
    total = 0
    for model, path, card in models:
        files = list(path.rglob("*")) if path.is_dir() else [path]
        size = sum(file.stat().st_size for file in files)
        total += size
        assert size < 10_000_000, model
        assert card.summary, model
        if path.is_dir():
            assert card.facts is not None, model
            assert card.facts.scores, model
            assert card.facts.data["license"], model
            assert {"samples.png", "traversal.png", "discriminator.safetensors"} <= {file.name for file in files}
    assert total < 40_000_000


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


@pytest.mark.parametrize("table", sorted((ROOT / "docs" / "results").glob("*/table.json")), ids=lambda p: p.parent.name)
def test_every_claim_of_a_published_study_is_on_the_page_of_results(table: Path) -> None:
    facts = json.loads(table.read_text(encoding="utf-8"))
    texts = [claim.text for claim in get_study(facts["study"]).claims]
    assert [one["claim"] for one in facts["verdict"]] == texts
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert [text for text in texts if f"\n| {text} |" not in page] == []


def test_a_renamed_claim_of_a_published_study_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "results" / "srn-gan"
    shutil.copytree(ROOT / "docs" / "results" / "srn-gan", target)
    shutil.copy(ROOT / "docs" / "results.md", tmp_path)
    monkeypatch.setattr(publish_studies, "DOCS", tmp_path)
    publish_studies.rejudge()
    assert (tmp_path / "results.md").read_text(encoding="utf-8").count("[srn-gan, cpu]") == 5
    table = target / "table.json"
    table.write_text(table.read_text(encoding="utf-8").replace("improves FID over SN", "lowers FID"), encoding="utf-8")
    before = table.read_text(encoding="utf-8")
    with pytest.raises(SystemExit, match="no claim 'SRN on the discriminator lowers FID'; rename it in this file"):
        publish_studies.rejudge()
    assert table.read_text(encoding="utf-8") == before
