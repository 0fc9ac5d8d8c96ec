"""Read rates of data sets that are not in memory, compared with disk and decoder: ``python -m benchmarks.data``.

"Rows": one large file of uint8 images, read at random offsets; the page cache is dropped before each measurement. They
are compared with raw reads of the same file without orthogan: in order, one after the other at random offsets
(``pread``), and with the offsets announced to the operating system (``posix_fadvise``). "Pictures": folders of files,
compared with a plain Pillow loop in the same number of processes. All steps alternate in one run; the ratios are ratios
of rates. "Memory": the memory of a streaming process, measured in a separate process, for a data set and for one four
times as large.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from benchmarks import timing
from benchmarks.data_files import copy_to_h5, write_pictures, write_rows
from orthogan.data import Batches, ImageSource, open_source

BATCH = 64
REST = 0.3  # seconds after a step in which its workers finish prefetching
CPU = torch.device("cpu")


class Pool:
    """Runs ``work`` (of an increasing number) in ``count`` processes at once; a call returns when all have finished."""

    def __init__(self, work: Callable[[int], None], count: int) -> None:
        self.work, self.turn, self.pipes, self.processes = work, 0, [], []
        context = multiprocessing.get_context("fork")
        for _ in range(count):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(work, there), daemon=True)
            process.start()
            self.pipes.append(here)
            self.processes.append(process)

    def __call__(self) -> None:
        for pipe in self.pipes:
            pipe.send(self.turn)
            self.turn += 1
        for pipe in self.pipes:
            pipe.recv()

    def close(self) -> None:
        """End the processes."""
        for pipe, process in zip(self.pipes, self.processes, strict=True):
            pipe.send(None)
            process.join()


def _serve(work: Callable[[int], None], pipe: Connection) -> None:
    while (turn := pipe.recv()) is not None:
        work(turn)
        pipe.send(None)


class Raw:
    """Raw reads of rows of ``row`` bytes from a file."""

    def __init__(self, path: Path, offset: int, row: int, count: int) -> None:
        self.handle, self.offset, self.row, self.count = os.open(path, os.O_RDONLY), offset, row, count

    def places(self, turn: int, number: int) -> list[int]:
        """Offsets of ``number`` random rows [bytes]."""
        rows = np.random.default_rng([7, turn]).integers(0, self.count, number)
        return (self.offset + rows * self.row).tolist()

    def in_order(self, turn: int, number: int) -> None:
        """Read the bytes of ``number`` rows in order from a random offset, one megabyte at a time."""
        nbytes = min(number, self.count) * self.row
        start = self.places(turn, 1)[0] % max(1, self.count * self.row - nbytes)
        for place in range(start, start + nbytes, 1 << 20):
            os.pread(self.handle, 1 << 20, place)

    def one_by_one(self, turn: int, number: int) -> None:
        """Read one row after the other, each after the previous one has arrived."""
        for place in self.places(turn, number):
            os.pread(self.handle, self.row, place)

    def told_ahead(self, turn: int, number: int) -> None:
        """Announce the rows of a batch, then read them."""
        places = self.places(turn, number)
        for first in range(0, number, BATCH):
            batch = places[first : first + BATCH]
            for place in batch:
                os.posix_fadvise(self.handle, place, self.row, os.POSIX_FADV_WILLNEED)
            for place in batch:
                os.pread(self.handle, self.row, place)


@dataclass
class Step:
    """The function that is timed, and its preparation, which is not timed."""

    work: Callable[[], None]
    before: Callable[[], None] = lambda: None


def forget(path: Path) -> None:
    """Drop a file from the page cache, as far as the operating system allows."""
    handle = os.open(path, os.O_RDONLY)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(handle)


class Reading:
    """Each call reads the next ``number`` images of a source's stream, with worker processes."""

    def __init__(self, source: ImageSource, workers: int, number: int) -> None:
        self.batches = Batches(source, batch_size=BATCH, seed=workers, resident="stream", workers=workers)
        self.number, self.workers, self.position = number, workers, 0

    def __call__(self) -> None:
        self.take(self.number // BATCH)

    def take(self, count: int) -> None:
        """Read this many batches."""
        for _ in range(count):
            self.batches.at(self.position)
            self.position += BATCH

    def warm_up(self) -> None:
        """Use up the batches that the workers have prefetched, so that the measurement includes their cost."""
        self.take(2 * self.workers + 1)

    def close(self) -> None:
        """End the workers."""
        self.batches.close()


def measure(steps: Mapping[str, Step], rounds: int, title: str) -> timing.Readings:
    """Time every step once per round, every second round in reverse order; the first round is not counted."""
    found = timing.Readings({name: [] for name in steps}, dict.fromkeys(steps, 1), {})
    with tqdm(total=len(steps) * (rounds + 1), desc=title, dynamic_ncols=True) as bar:
        for number in range(rounds + 1):
            if number:
                found.load.append(os.getloadavg()[0])
            for name in reversed(list(steps)) if number % 2 else list(steps):
                bar.set_postfix_str(name)
                steps[name].before()
                start = time.perf_counter()
                steps[name].work()
                if number:
                    found.seconds[name].append(time.perf_counter() - start)
                bar.update()
                time.sleep(REST)
    return found


def rows_case(folder: Path, side: int, nbytes: int, number: int, workers: Sequence[int], rounds: int) -> dict[str, Any]:
    """Rows of one file of ``nbytes`` bytes, ``number`` per measurement."""
    path, row = folder / f"rows-{side}.npy", side * side * 3
    count = write_rows(path, side, nbytes)
    os.sync()
    raw = Raw(path, path.stat().st_size - count * row, row, count)
    processes = max(1, *workers)
    share = number // processes
    pool = Pool(lambda turn: raw.told_ahead(turn, share), processes)
    turns = iter(range(1_000_000, 2_000_000))
    drop = partial(forget, path)
    steps = {
        "raw, in order": Step(lambda: raw.in_order(next(turns), number), drop),
        "raw, one by one": Step(lambda: raw.one_by_one(next(turns), number), drop),
        "raw, told ahead": Step(lambda: raw.told_ahead(next(turns), number), drop),
        f"raw, told ahead, {processes} processes": Step(pool, drop),
    }

    def after_drop(reading: Reading, path: Path) -> Step:
        def before() -> None:
            forget(path)
            reading.warm_up()

        return Step(reading, before)

    source = open_source("array", path=str(path), resolution=side, channels=3, in_memory_limit=0)
    open_ones = [Reading(source, w, number) for w in workers]
    for w, reading in zip(workers, open_ones, strict=True):
        steps[f"npy, workers {w}"] = after_drop(reading, path)
    for kind in ("block", "chunks"):
        stored = folder / f"rows-{side}-{kind}.h5"
        copy_to_h5(stored, path, kind == "chunks")
        reading = Reading(
            open_source("array", path=str(stored), resolution=side, channels=3, in_memory_limit=0), 0, number
        )
        steps[f"h5 in {kind}, workers 0"] = after_drop(reading, stored)
        open_ones.append(reading)
    os.sync()
    try:
        found = measure(steps, rounds, f"rows of {side} px")
    finally:
        pool.close()
        for reading in open_ones:
            reading.close()
    bases = dict.fromkeys(steps, "raw, one by one")
    return _table(f"Rows of {side} px, {count * row / 2**20:.0f} MiB", found, number, row, bases)


def pictures_case(
    folder: Path, kind: tuple[str, int, int], side: int, files: int, workers: Sequence[int], rounds: int
) -> dict[str, Any]:
    """A folder of ``files`` pictures of ``kind`` (extension, width, height), resized to ``side`` pixels."""
    ending, width, height = kind
    where = folder / f"{ending}-{width}x{height}"
    write_pictures(where, ending, (width, height), files)
    names = sorted(where.iterdir())
    number = files // BATCH * BATCH
    source = open_source("folder", path=str(where), resolution=side, channels=3, in_memory_limit=0)
    steps: dict[str, Step] = {}
    bases: dict[str, str] = {}
    to_close: list[Pool | Reading] = []
    for w in workers:
        processes = max(1, w)
        bare, ours = f"bare loop, {processes} processes", f"orthogan, workers {w}"
        if bare not in steps:
            share = number // processes
            pool = Pool(lambda turn, share=share: _bare(names, turn, share, side), processes)
            steps[bare], bases[bare] = Step(pool), bare
            to_close.append(pool)
        reading = Reading(source, w, number)
        steps[ours], bases[ours] = Step(reading, reading.warm_up), bare
        to_close.append(reading)
    try:
        found = measure(steps, rounds, f"{ending} {width}x{height} to {side} px")
    finally:
        for one in to_close:
            one.close()
    mean = sum(name.stat().st_size for name in names) / len(names)
    return _table(f"Pictures {ending} {width}x{height} to {side} px", found, number, mean, bases)


def _bare(names: Sequence[Path], turn: int, number: int, side: int) -> None:
    """Open, crop to the central square, resize, and convert to an array, with Pillow only."""
    for name in np.random.default_rng([3, turn]).choice(len(names), number):
        with Image.open(names[name]) as opened:
            picture = opened.convert("RGB")
        width, height = picture.size
        if width != height:
            edge = min(width, height)
            left, top = (width - edge) // 2, (height - edge) // 2
            picture = picture.crop((left, top, left + edge, top + edge))
        if picture.size != (side, side):
            picture = picture.resize((side, side), Image.Resampling.LANCZOS)
        np.array(picture)


def memory_case(folder: Path, side: int, nbytes: int, workers: int) -> dict[str, Any]:
    """MiB used by the streaming process and its workers after one pass, for a quarter of the set and for all of it."""
    found: dict[str, Any] = {"table": "Memory", "workers": workers, "sets": []}
    for size in (nbytes // 4, nbytes):
        path = folder / f"rows-{side}-{size}.npy"
        count = write_rows(path, side, size)
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=_stream_once, args=(path, side, workers, there))
        process.start()
        found["sets"].append({"MiB": path.stat().st_size / 2**20, "images": count, "held MiB": here.recv()})
        process.join()
    held = [one["held MiB"] for one in found["sets"]]
    lines = [f"| {one['MiB']:.0f} | {one['images']:,} | {one['held MiB']:.1f} |" for one in found["sets"]]
    found["growth MiB"] = held[1] - held[0]
    found["text"] = "\n".join(["| set [MiB] | images | held [MiB] |", "| ---: | ---: | ---: |", *lines])
    return found


def _stream_once(path: Path, side: int, workers: int, reply: Connection) -> None:
    torch.set_num_threads(1)
    source = open_source("array", path=str(path), resolution=side, channels=3, in_memory_limit=0)
    most = 0.0
    with Batches(source, batch_size=BATCH, seed=0, workers=workers) as batches:
        for number in range(len(source) // BATCH):
            batches.at(number * BATCH)
            if number % 200 == 0:
                children = [child.pid for child in multiprocessing.active_children()]
                most = max(most, sum(_held(pid) for pid in (os.getpid(), *children) if pid))
    reply.send(most)


def _held(pid: int) -> float:
    """Anonymous memory, with shared pages divided among processes [MiB]; file pages belong to the page cache."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon", "Pss_Shmem"))) / 2**10


def _table(title: str, found: timing.Readings, number: int, nbytes: float, bases: dict[str, str]) -> dict[str, Any]:
    lines = ["| | images/s | MB/s | ratio | min–max |", "| --- | ---: | ---: | ---: | ---: |"]
    ratios: dict[str, Any] = {}
    for name, seconds in found.seconds.items():
        rate = number / float(np.median(seconds))
        spread = found.ratio(bases[name], name)  # the inverse of a ratio of times is a ratio of rates
        ratios[name] = asdict(spread) | {"to": bases[name]}
        numbers = f"{rate:,.0f} | {rate * nbytes / 1e6:,.1f} | {timing.digits(spread.median)}"
        lines.append(f"| {name} | {numbers} | {timing.digits(spread.min)}–{timing.digits(spread.max)} |")
    return {"table": title, "images": number, "readings": asdict(found), "ratios": ratios, "text": "\n".join(lines)}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run all cases, print their tables, and write JSON if requested; returns the same data."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data", description=__doc__)
    parser.add_argument("--folder", type=Path, help="folder for the data sets (default: a temporary one)")
    parser.add_argument("--mib", type=int, default=1024, help="size of the large files [MiB] (default: 1024)")
    parser.add_argument("--files", type=int, default=2048, help="pictures per folder (default: 2048)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each step (default: 5)")
    parser.add_argument("--workers", default="0,1,2", help="numbers of worker processes (default: 0,1,2)")
    parser.add_argument("--quick", action="store_true", help="tiny data sets and one round, only as a check")
    parser.add_argument("--json", type=Path, help="file for the raw numbers")
    options = parser.parse_args(arguments)
    if options.quick:
        options.mib, options.files, options.rounds = 1, BATCH, 1
    workers = [int(word) for word in options.workers.split(",")]
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        nbytes, number = options.mib << 20, BATCH * (2 if options.quick else 192)
        tables = [rows_case(folder, side, nbytes, number, workers, options.rounds) for side in (32, 64)]
        pictures = [(("png", 32, 32), 32), (("jpg", 64, 64), 64), (("jpg", 178, 218), 64)]
        for kind, side in pictures:
            tables.append(pictures_case(folder, kind, side, options.files, workers, options.rounds))
        tables.append(memory_case(folder, 32, nbytes, max(workers)))
    for one in tables:
        print(f"\n### {one['table']}\n\n{one['text']}")
    result = {"machine": timing.machine(CPU), "tables": tables}
    timing.write(result, options.json)
    return result


if __name__ == "__main__":
    main()
