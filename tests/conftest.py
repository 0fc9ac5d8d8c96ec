"""Shared by all tests: no GPU test without a GPU, one thread a process, nothing written beside the tree."""

from __future__ import annotations

import pytest
import torch


def pytest_configure() -> None:
    torch.set_num_threads(1)  # tiny nets lose time to threads, and sums keep one order


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    absent = pytest.mark.skip(reason="no CUDA device here")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(absent)


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches of a developer's machine neither help nor suffer."""
    monkeypatch.setenv("ORTHOGAN_CACHE", str(tmp_path_factory.getbasetemp() / "orthogan-cache"))
