"""Scaling of training with batch, width, resolution, and processes: ``python -m benchmarks.scale``.

One factor changes at a time, starting from SN-GAN at 32 px with batch 64. Each run is a separate process (or two,
connected by gloo), so that its peak memory can be measured. The benchmark also times the mean of the gradients over two
processes as a function of bytes and fits a straight line, latency + bytes / bandwidth. ``docs`` uses this line in the
model for many GPUs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks import timing

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Point:
    """One run. ``width``: feature maps of D; G has twice as many. ``batch``: of D, summed over processes."""

    batch: int = 64
    width: int = 128
    resolution: int = 32
    processes: int = 1

    @property
    def label(self) -> str:
        """A description in words."""
        return f"batch {self.batch}, width {self.width}, {self.resolution} px, {self.processes} processes"


BASE = Point()
FACTORS: dict[str, tuple[int, ...]] = {
    "batch": (16, 32, 64, 128, 256, 512),
    "width": (32, 64, 128, 256),
    "resolution": (32, 64, 128),
    "processes": (1, 2),
}
NUMBERS = (10_000, 100_000, 1_000_000, 4_000_000, 16_000_000)  # sizes of gradients averaged over processes
SMALL = Point(batch=4, width=4)
SMALL_FACTORS = {"batch": (4, 8), "processes": (2,)}


def points(base: Point, factors: dict[str, tuple[int, ...]]) -> list[tuple[str, Point]]:
    """(factor, point), with one factor changed at a time; the base point occurs once per factor."""
    return [(name, replace(base, **{name: value})) for name, values in factors.items() for value in values]


def launch(job: dict[str, Any], processes: int) -> dict[str, Any]:
    """The result of ``job`` from the first of ``processes`` new processes (``benchmarks.scale_run``).

    Raises:
        RuntimeError: the job failed; the message has the end of its output.
    """
    with tempfile.TemporaryDirectory(prefix="orthogan-scale-") as folder:
        answer = Path(folder) / "answer.json"
        start = [sys.executable]
        if processes > 1:
            start += ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
            start += ["--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0"]
        start += ["-m", "benchmarks.scale_run", json.dumps(job | {"folder": folder}), str(answer)]
        # all processes together use as many threads as there are cores
        threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes))}
        done = subprocess.run(start, cwd=ROOT, capture_output=True, text=True, env=os.environ | threads)
        if done.returncode or not answer.exists():
            raise RuntimeError(f"{job}: {done.stderr[-2000:]}")
        return json.loads(answer.read_text())


def straight_line(nbytes: Sequence[float], seconds: Sequence[float]) -> tuple[float, float]:
    """(latency [s], bandwidth [bytes/s]) of seconds = latency + nbytes / bandwidth, by relative least squares."""
    x, y = np.asarray(nbytes, np.float64), np.asarray(seconds, np.float64)
    design = np.stack([np.ones_like(x), x], axis=1) / y[:, None]
    latency, slope = np.linalg.lstsq(design, np.ones_like(y), rcond=None)[0]
    return float(latency), float(1 / slope)


def training_table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown, one line per point."""
    head = "| factor | | images/s | min–max | peak MiB | MiB before training |"
    lines = [head, "| --- | ---: | ---: | ---: | ---: | ---: |"]
    for row in rows:
        if "failed" in row:
            lines.append(f"| {row['factor']} | {row['point'][row['factor']]} | failed | | | |")
            continue
        rates = [row["images"] / s for s in row["seconds"]]
        spread = timing.Spread.of(rates)
        lines.append(
            f"| {row['factor']} | {row['point'][row['factor']]} | {timing.digits(spread.median)} "
            f"| {timing.digits(spread.min)}–{timing.digits(spread.max)} "
            f"| {row['peak MiB']:,.0f} | {row['before MiB']:,.0f} |"
        )
    return "\n".join(lines)


def reduce_table(found: dict[str, Any]) -> str:
    """Markdown: bytes and milliseconds, then the line fitted to them."""
    lines = ["| MB | ms | min–max |", "| ---: | ---: | ---: |"]
    for nbytes, seconds in zip(found["bytes"], found["seconds"], strict=True):
        spread = timing.Spread.of([1e3 * s for s in seconds])
        lines.append(f"| {nbytes / 1e6:g} | {spread.median:.2f} | {spread.min:.2f}–{spread.max:.2f} |")
    line = f"latency {1e3 * found['latency']:.2f} ms, bandwidth {found['bandwidth'] / 1e9:.2f} GB/s"
    return "\n".join([*lines, "", f"Fitted line: {line}."])


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run everything, print the tables, and write JSON if requested; returns the same data."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="device of the runs (default: cpu)")
    parser.add_argument(
        "--steps", type=int, default=3, help="timed steps per run, after two warm-up steps (default: 3)"
    )
    parser.add_argument("--compile", default="none", help="training.compile of the runs (default: none)")
    parser.add_argument(
        "--only", default="", help="factors, comma-separated: batch, width, resolution, processes, reduce"
    )
    parser.add_argument("--quick", action="store_true", help="tiny networks, only as a check")
    parser.add_argument("--json", type=Path, help="file for the raw numbers")
    options = parser.parse_args(arguments)
    base, factors = (SMALL, SMALL_FACTORS) if options.quick else (BASE, FACTORS)
    names = [word.strip() for word in options.only.split(",") if word.strip()] or [*factors, "reduce"]
    if unknown := set(names) - {*factors, "reduce"}:
        parser.error(f"--only: {', '.join(sorted(unknown))} is none of {', '.join([*factors, 'reduce'])}")
    # gloo connects processes on CPUs; two processes on GPUs need two GPUs
    if options.device == "cuda" and torch.cuda.device_count() < 2:
        factors = {name: values for name, values in factors.items() if name != "processes"}
    rows: list[dict[str, Any]] = []
    wanted = points(base, {name: values for name, values in factors.items() if name in names})
    job = {"kind": "train", "device": options.device, "steps": options.steps, "compile": options.compile}
    for factor, point in (bar := tqdm(wanted, desc="scale", dynamic_ncols=True)):
        bar.set_postfix_str(point.label)
        row: dict[str, Any] = {"factor": factor, "point": asdict(point)}
        try:
            row |= launch(job | {"point": asdict(point)}, point.processes)
        except RuntimeError as error:  # most likely out of memory; the other points are still measured
            row["failed"] = str(error)
        rows.append(row)
    result: dict[str, Any] = {
        "machine": timing.machine(torch.device(options.device)),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "compile": options.compile,
        "training": rows,
    }
    print(f"\n{training_table(rows)}\n")
    if "reduce" in names:
        numbers = NUMBERS[:2] if options.quick else NUMBERS
        found = launch({"kind": "reduce", "numbers": numbers, "device": "cpu"}, 2)
        medians = [float(np.median(seconds)) for seconds in found["seconds"]]
        found["latency"], found["bandwidth"] = straight_line(found["bytes"], medians)
        result["reduce"] = found
        print(f"{reduce_table(found)}\n")
    for row in rows:
        if "failed" in row:
            print(f"- failed: {row['failed'].splitlines()[-1]}")
    timing.write(result, options.json)
    return result


if __name__ == "__main__":
    main()
