"""Every public object explains itself with an Example, and every Example in the package runs."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import inspect
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import orthogan
from orthogan.registry import Registry
from tests.fixtures.runs import ROOT

ROOMS = [
    "orthogan",
    *(f"orthogan.{name}" for name in orthogan.__all__ if inspect.ismodule(getattr(orthogan, name))),
    "orthogan.latent.discovery",
    "orthogan.models.classifiers",
]
OTHERS = {"orthogan.errors": ["UserError", "Diverged", "Stopped"], "orthogan.registry": ["Registry", "did_you_mean"]}
EXTENDED: list[Registry[Any]] = [orthogan.penalties.PENALTIES, orthogan.disentanglement.METRICS]  # by examples
WITH_EXAMPLES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "orthogan").rglob("*.py")
    if ">>> " in path.read_text("utf-8")
)


def public() -> dict[str, Any]:
    """The functions and classes that the reference describes."""
    rooms = {room: getattr(importlib.import_module(room), "__all__", OTHERS.get(room, [])) for room in ROOMS} | OTHERS
    found = {
        f"{room}.{name}": getattr(importlib.import_module(room), name)
        for room, names in rooms.items()
        for name in names
    }
    return {name: thing for name, thing in found.items() if inspect.isclass(thing) or inspect.isroutine(thing)}


def test_every_public_object_has_an_example() -> None:
    objects = public()
    assert len(objects) > 220
    assert [name for name, thing in objects.items() if ">>> " not in (inspect.getdoc(thing) or "")] == []


@pytest.fixture
def nothing_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An empty folder to write in; and what an example registers is forgotten."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    torch.manual_seed(0)
    kept = [set(registry) for registry in EXTENDED]
    yield
    for registry, names in zip(EXTENDED, kept, strict=True):
        for name in set(registry) - names:
            del registry._found[name]


@pytest.mark.usefixtures("nothing_stays")
@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_of_a_module_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # some write files
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner()
    report = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        for test in doctest.DocTestFinder(exclude_empty=True).find(module):
            runner.run(test, out=report.write)
    assert not runner.failures, report.getvalue()
