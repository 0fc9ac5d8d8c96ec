"""Shared by all tests: no GPU test without a GPU, one thread a process, nothing written beside the tree."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # as the command line does; forked commands inherit it
os.environ["HF_HUB_OFFLINE"] = "1"  # a name that looks like one of the Hub is not looked up there
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # onnxruntime is imported by tests, too
import torch

# the same examples on every machine, however slow it is
settings.register_profile(
    "orthogan",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("orthogan")


def pytest_configure() -> None:
    torch.set_num_threads(1)  # tiny nets lose time to threads, and sums keep one order


LONGEST = ("test_fault_harness.py", "test_every_smoke_run.py", "test_compiled.py")  # first, so that none ends alone


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
    if torch.cuda.is_available():
        return
    absent = pytest.mark.skip(reason="no CUDA device here")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(absent)


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches of a developer's machine neither help nor suffer; the processes of one run of the tests share theirs."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    monkeypatch.setenv("ORTHOGAN_CACHE", str(shared / "orthogan-cache"))


@pytest.fixture(autouse=True)
def _no_modules_of_other_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A module that a test has written is imported by that test alone."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None and Path(file).is_relative_to(tmp_path_factory.getbasetemp()):
            del sys.modules[name]
