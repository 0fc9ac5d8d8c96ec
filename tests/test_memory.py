"""Freed memory stays with the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from orthogan.memory import keep_freed_memory

CODE = """
import resource, sys
import torch
from orthogan.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
faults = []
for _ in range(24):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(1 << 24).add_(1)  # 64 MiB
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(sum(faults[16:]))
"""


def faults(how: str) -> int:
    found = subprocess.run([sys.executable, "-c", CODE, how], capture_output=True, text=True, timeout=600, check=True)
    return int(found.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is of Linux")
def test_a_block_that_was_freed_is_given_out_again_without_new_pages() -> None:
    given_back, kept = faults("give back"), faults("keep")
    assert given_back > 8 * 30  # each of the eight blocks is made of fresh pages, be they large ones
    assert kept < given_back / 10


def test_elsewhere_nothing_is_done_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()
