"""Names that a package imports on first use."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from orthogan.lazy import lazy_names
from tests.fixtures.runs import ROOT, environment

PACKAGES = ("orthogan", "orthogan.data", "orthogan.evaluation", "orthogan.models", "orthogan.training")


def test_a_name_is_that_of_its_module_also_under_another_name() -> None:
    get, names = lazy_names("orthogan", {"errors": ("UserError", "Bad=UserError")}, modules=("stats",))
    errors, stats = importlib.import_module("orthogan.errors"), importlib.import_module("orthogan.stats")
    assert get("UserError") is get("Bad") is errors.UserError
    assert get("stats") is stats
    assert {"UserError", "Bad", "stats", "__doc__", "__version__"} <= set(names())
    with pytest.raises(AttributeError, match="module 'orthogan' has no attribute 'Worse'"):
        get("Worse")


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_offers_exactly_the_names_that_it_lists(name: str) -> None:
    package = importlib.import_module(name)
    public = {one for one in dir(package) if not one.startswith("__")}
    assert public == {one for one in package.__all__ if not one.startswith("__")}
    assert all(getattr(package, one) is not None for one in public)


def test_importing_the_packages_does_not_import_torch() -> None:
    code = f"import sys; [__import__(name) for name in {PACKAGES}]; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), cwd=ROOT)
    assert done.stdout.strip() == "False", done.stderr
