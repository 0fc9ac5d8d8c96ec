"""The CPU time of whole commands, as a ratio to ``import torch``: ``python -m benchmarks.run --tables starts``.

Which packages each command imports is tested (tests/cli/test_every_start.py); this table says what they cost.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import timing
from orthogan.models.shipped import shipped_names

BASE = "import torch"
ROOT = Path(__file__).resolve().parents[1]
# MODEL: a shipped model. The largest allowed ratio; None: torch is not imported, so it is far below 1
LINES: dict[str, float | None] = {
    "--help": None,
    "train --help": None,
    "sample absent": None,
    "train absent.yaml": None,
    "evaluate --help": 1.2,
    "study --list": 1.2,
    "config demo": 1.2,
    "evaluate MODEL --metrics fud": 1.2,
    "disentangle MODEL --metrics vpp": 1.2,
    "sample MODEL --seeds 3-x": 1.2,
    "discover MODEL --method seffa": 1.2,
    "sample MODEL --seeds 0-3": 1.6,
}
WITHOUT_TORCH = 0.2


def cpu_time(words: Sequence[str], folder: str) -> float:
    """CPU time of a process [s], one thread."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # users have compiled files after the first round
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, cwd=folder, env=environment, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def starts(rounds: int) -> dict[str, Any]:
    """The table: every line once per round, with ``import torch``. The first round, which may compile, is omitted."""
    model = next(iter(shipped_names()))
    commands = {BASE: [sys.executable, "-c", BASE]}
    for line in LINES:
        commands[f"orthogan {line}"] = [sys.executable, "-m", "orthogan", *line.replace("MODEL", model).split()]
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    found = timing.Readings(seconds, dict.fromkeys(commands, 1), {name: [] for name in commands})
    with tempfile.TemporaryDirectory() as folder, tqdm(total=(rounds + 1) * len(commands), desc="starts") as bar:
        for number in range(rounds + 1):
            found.load.append(timing.load_average())
            for name, words in commands.items():
                took = cpu_time(words, folder)
                if number:
                    seconds[name].append(took)
                bar.update()
    targets = []
    for line, most in LINES.items():
        spread, limit = found.ratio(f"orthogan {line}", BASE), most or WITHOUT_TORCH
        asked = f"orthogan {line}, CPU time over import torch: at most {limit}"
        targets.append({"target": asked, **asdict(spread), "met": spread.median <= limit})
    text = timing.markdown(found, BASE)
    return {
        "table": "starts",
        "model": model,
        "readings": asdict(found),
        "absent": {},
        "targets": targets,
        "text": text,
    }
