"""The tree of the tests follows that of the package, and tests import helpers from ``tests/fixtures`` alone."""

from __future__ import annotations

import re
from pathlib import Path

from tests.fixtures.runs import ROOT

TESTS = ROOT / "tests"
FILES = sorted(TESTS.rglob("test_*.py"))


def test_each_file_of_tests_belongs_to_a_module_a_room_or_the_whole_system() -> None:
    strays = []
    for file in FILES:
        room, name = file.parent.relative_to(TESTS), file.stem.removeprefix("test_")
        home = ROOT / room if room.parts[:1] == ("benchmarks",) else ROOT / "orthogan" / room
        module = (home / f"{name}.py").is_file() or (home / name / "__init__.py").is_file()
        if not (module or (name.startswith("every_") and home.is_dir()) or room == Path("system")):
            strays.append(file.relative_to(ROOT).as_posix())
    assert FILES
    assert strays == []


def test_no_test_imports_another_one() -> None:
    imported = re.compile(r"^\s*(?:from|import) tests\.(?!fixtures|faults)", re.MULTILINE)
    assert [file.name for file in FILES if imported.search(file.read_text(encoding="utf-8"))] == []
