"""Timing of several steps in one run, in alternation, so that other work on the machine affects all of them equally.

It also computes ratios with their spread, tables, and a description of the machine.
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

LEAST = 0.2  # minimum length of a measurement [seconds]; short steps are repeated
MOST_REPEATS = 500
PACKAGES = ("torchvision", "numpy", "geotorch")


@dataclass
class Readings:
    """For each step by name: seconds per call in each round; on CUDA, the peak memory above the start [bytes]."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    repeats: dict[str, int] = field(default_factory=dict)
    peak: dict[str, list[int]] = field(default_factory=dict)
    load: list[float] = field(default_factory=list)  # 1 min load average at the start of each round, and at the end

    def ratio(self, name: str, to: str) -> Spread:
        """The ratio of ``name`` to ``to`` in each round; both were measured within the same minute."""
        return Spread.of([a / b for a, b in zip(self.seconds[name], self.seconds[to], strict=True)])


@dataclass(frozen=True)
class Spread:
    """Median, minimum, and maximum over the rounds."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of one or more ``values``."""
        return cls(statistics.median(values), min(values), max(values))

    def in_words(self) -> str:
        """The median, with minimum and maximum in parentheses, to two decimals."""
        return f"{self.median:.2f} ({self.min:.2f}–{self.max:.2f})"


def measure(steps: Mapping[str, Callable[[], None]], rounds: int, device: torch.device, title: str) -> Readings:
    """Time every step once per round; every second round runs in reverse order.

    Before that, each step is called twice to warm up (once if it takes more than a second). The last of these calls
    determines how many times it is repeated per measurement.
    """
    found = Readings({name: [] for name in steps}, {}, {name: [] for name in steps})
    with tqdm(total=len(steps) * (rounds + 1), desc=title, dynamic_ncols=True) as bar:
        for name, step in steps.items():
            bar.set_postfix_str(f"{name}, warm-up")
            once = _seconds(step, 1, device)
            if once < 1:
                once = _seconds(step, 1, device)
            found.repeats[name] = max(1, min(MOST_REPEATS, math.ceil(LEAST / once)))
            bar.update()
        for number in range(rounds):
            found.load.append(load_average())
            for name in reversed(list(steps)) if number % 2 else list(steps):
                bar.set_postfix_str(name)
                standing = _forget_peak(device)
                found.seconds[name].append(_seconds(steps[name], found.repeats[name], device))
                if standing is not None:
                    found.peak[name].append(torch.cuda.max_memory_allocated(device) - standing)
                bar.update()
    found.load.append(load_average())
    return found


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def machine(device: torch.device) -> dict[str, Any]:
    """A description of the machine: processor, device, threads, and versions."""
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "absent"
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "device": device.type,
        "gpu": gpu,
        "cuda": torch.version.cuda if gpu else None,
        "tf32": torch.backends.cuda.matmul.allow_tf32 if gpu else None,
        "versions": versions,
    }


def markdown(readings: Readings, base: str) -> str:
    """A table with the seconds of each step, and their ratio to those of ``base``."""
    memory = any(readings.peak.values())
    head = ["", "ratio", "min–max", "ms"] + (["peak MiB"] if memory else [])
    lines = [head, ["---"] + ["---:"] * (len(head) - 1)]
    for name, seconds in readings.seconds.items():
        ratio = readings.ratio(name, base)
        line = [name, digits(ratio.median), f"{digits(ratio.min)}–{digits(ratio.max)}"]
        line.append(digits(1e3 * statistics.median(seconds)))
        lines.append(line + ([f"{max(readings.peak[name]) / 2**20:.0f}"] if memory else []))
    return joined(lines)


def joined(lines: Sequence[Sequence[str]]) -> str:
    """Format cells as a Markdown table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def show(one: Mapping[str, Any]) -> None:
    """Print a table of ``benchmarks.weights`` as Markdown, then its targets."""
    what = "weights alone" if one["table"] == "weights" else f"whole training step, batch {one['batch']}"
    load = one["readings"]["load"]
    print(f"\n### {one['net']}, {what}, {one['precision']} (load average {load[0]:.1f} to {load[-1]:.1f})\n")
    print(one["text"] + "\n")
    show_outcome(one["absent"], one["targets"])


def show_outcome(absent: Mapping[str, str], targets: Sequence[Mapping[str, Any]]) -> None:
    """Print the absent contenders with reasons, and the targets that were met or missed."""
    for name, reason in absent.items():
        print(f"- {name}: {reason}")
    for target in targets:
        spread = f"{target['median']:.3f} ({target['min']:.3f}–{target['max']:.3f})"
        print(f"- Target {target['target']}: {spread}, {'met' if target['met'] else 'MISSED'}")


def write(result: Mapping[str, Any], path: Path | None) -> None:
    """Write to the file, if one was given; this is done after each table, so that finished tables are kept."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")


def digits(value: float) -> str:
    """Format with two decimals below ten, one below a hundred, otherwise none."""
    return f"{value:,.2f}" if value < 10 else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def load_average() -> float:
    """The load average over the last minute."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan  # not on Windows


def _seconds(step: Callable[[], None], repeats: int, device: torch.device) -> float:
    synchronize(device)
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    synchronize(device)
    return (time.perf_counter() - start) / repeats


def _forget_peak(device: torch.device) -> int | None:
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()
