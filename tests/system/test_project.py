"""The files around the package agree: versions, workflows, the citation, and the word list."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from types import ModuleType

import pytest
import yaml

import orthogan
from tests.fixtures.runs import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_the_version_is_in_one_place() -> None:
    assert "version" in PROJECT["dynamic"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == orthogan.__version__
    assert citation["license"] == PROJECT["license"]
    assert citation["repository-code"] == PROJECT["urls"]["Repository"]
    assert f"\n## {orthogan.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_citation_names_the_papers_of_the_docs() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "papers").glob("[!i]*.md"))
    cited = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    for number in ("1906.04659", "2207.02119", "2212.05599", "2004.04690", "2306.09939"):
        assert f"https://arxiv.org/abs/{number}" in pages
        assert f"https://arxiv.org/abs/{number}" in cited


def test_the_workflows_test_every_version_of_python_that_is_declared_and_the_lowest_dependencies() -> None:
    declared = {c.rpartition(" ")[2] for c in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", c)}
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8"))["jobs"]
    matrix = jobs["tests"]["strategy"]["matrix"]
    assert set(matrix["python"]) == declared
    lowest = PROJECT["requires-python"].removeprefix(">=")
    assert {"python": lowest, "resolution": "lowest-direct"} in matrix["include"]
    assert {"lint", "tests", "wheel"} <= set(jobs)


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_workflows_call_only_targets_that_the_makefile_has(file: object) -> None:
    called = re.findall(r"run: make ([\w-]+)", ROOT.joinpath(str(file)).read_text(encoding="utf-8"))
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert called
    assert set(called) <= targets


def test_every_dependency_has_a_lowest_version() -> None:
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    for line in [*PROJECT["dependencies"], *extras]:
        assert re.search(r"[>=]=\d", line) or line.startswith("orthogan["), line


def words() -> ModuleType:
    spec = importlib.util.spec_from_file_location("words", ROOT / "tools" / "words.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_word_list_finds_phrases_in_texts_and_not_in_names(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    tool = words()
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    known = tool.rules(["# a comment\n", "\n", "at hand -> available\n", "colou?r -> spell it color\n"])
    lines = [
        "colour = 1  # the Colour, not ``colour``",
        'NAME = f"is at\\n hand {colour}"',
        'DOC = """one',
        "at",
        'hand"""',
        "free = 2  # colour (words: allow)",
    ]
    code = "\n".join(lines) + "\n"
    file = tmp_path / "code.py"
    file.write_text(code, encoding="utf-8")
    assert list(tool.problems(file, known)) == [
        "code.py:1: 'Colour': write spell it color",
        "code.py:4: 'at hand': write available",
    ]
    page = tmp_path / "page.md"
    page.write_text("No GPU was at\nhand.\nhandy, colourful\n", encoding="utf-8")
    assert list(tool.problems(page, known)) == ["page.md:1: 'at hand': write available"]


def test_a_line_of_the_word_list_that_says_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="write 'bad -> good'"):
        words().rules(["colour\n"])


def test_the_word_list_can_be_read() -> None:
    tool = words()
    assert len(tool.rules(tool.LIST.read_text(encoding="utf-8").splitlines())) > 40
    assert sum(1 for _ in tool.files()) > 300


def test_the_extra_all_has_every_extra_that_users_may_need() -> None:
    extras = PROJECT["optional-dependencies"]
    (line,) = extras["all"]
    left_out = {"all", "datasets", "dev", "docs", "trackers"}
    assert set(re.findall(r"[\w-]+", line.partition("[")[2])) == {*extras} - left_out


def test_no_text_says_to_install_orthogan_from_an_index_that_does_not_have_it() -> None:
    wrong = re.compile(r"pip install (?:-U |--upgrade |--quiet )?['\"]?orthogan(?![\w\]\[,]* @ )")
    places = [file for room in ("orthogan", "docs", "examples", "pretrained") for file in (ROOT / room).rglob("*")]
    texts = [file for file in [*places, *ROOT.glob("*.md")] if file.suffix in (".py", ".md", ".ipynb", ".html")]
    assert len(texts) > 300
    assert [file for file in texts if wrong.search(file.read_text(encoding="utf-8"))] == []
