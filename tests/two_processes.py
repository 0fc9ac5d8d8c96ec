"""Runs a few lines on two gloo processes and sees that both came to the end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.training.runs import environment

END = """
print("reached the end")
dist.barrier()
dist.destroy_process_group()
sys.stdout.flush()
os._exit(0)  # gloo's threads sometimes abort the interpreter's own end
"""


def both_finish(script: str, folder: Path) -> None:
    """``script`` imports os, sys and torch.distributed as dist, and starts the gloo group; its asserts must hold."""
    file = folder / "two.py"
    file.write_text(script + END)
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d"]
    start += ["--rdzv_endpoint", "localhost:0", str(file)]
    done = subprocess.run(start, capture_output=True, text=True, env=environment(), timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("reached the end") == 2
