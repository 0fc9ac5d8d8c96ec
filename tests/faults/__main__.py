"""``python -m tests.faults``: harm runs and files of orthogan in every way we know, and count what does not survive.

The table and every problem are printed at the end; the exit code is 1 where there was a fault. It can be stopped at
any time: the same command continues, since each case is a function of the seed and its index.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults import damage, disk, inputs, kills
from tests.faults.child import end_all, warm
from tests.faults.findings import Findings, store, stored, table
from tests.faults.runs import ROOT, environment_for

RESULTS = "results.jsonl"


@dataclass(frozen=True)
class Section:
    """``case``: (index, seed, folder) -> findings, or None where there is no such case. ``share``: of the time.
    ``cut``: how many cases the test suite runs.
    """

    case: Callable[[int, int, Path], Findings | None]
    share: float
    cut: int


SECTIONS = {
    "kill -9, one process": Section(kills.one_process, 0.22, 1),
    "kill -9, two processes": Section(kills.two_processes, 0.14, 1),
    "Ctrl-C and SIGTERM": Section(kills.stops, 0.1, 1),
    "one bit flipped in a run": Section(damage.flipped_run, 0.14, 3),
    "file of a run cut, deleted or replaced": Section(damage.replaced, 0.12, 4),
    "one bit flipped in another file": Section(damage.flipped_file, 0.1, 4),
    "disk full, file too large, read-only": Section(disk.full, 0.08, 3),
    "bad input": Section(inputs.bad, 0.1, 20),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases; returns 1 where there was a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/faults"), help="folder (default: runs/faults)")
    parser.add_argument("--minutes", type=float, default=25.0, help="time over all calls (default: 25)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the cases (default: 0)")
    parser.add_argument("--cut", action="store_true", help="the few cases of the test suite, whatever time they take")
    parser.add_argument("--case", type=int, help="this case alone, of each section; OUT/work is left as it is")
    parser.add_argument("--only", help="the sections whose name contains this text")
    chosen = parser.parse_args(arguments)
    out = chosen.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    same_code(out)
    environment_for(out)
    warm()
    if chosen.cut:
        kills.MOST = 4
    sections = {name: s for name, s in SECTIONS.items() if chosen.only is None or chosen.only in name}
    if chosen.case is not None:
        for name, section in sections.items():
            print(name, section.case(chosen.case, _seed(chosen.seed, chosen.case), out))
        return 0
    try:
        _run(sections, out, chosen.seed, math.inf if chosen.cut else chosen.minutes * 60)
    except KeyboardInterrupt:
        end_all()
        print("stopped; the same command continues")
    records = stored(out / RESULTS)
    print(table(records, sections))
    problems = [f"{record['section']}, case {record['index']}: {p}" for record in records for p in record["problems"]]
    print("\n".join(problems))
    return int(bool(problems))


def same_code(out: Path) -> None:
    """End the process where ``out`` holds results of other code: its runs are not to be compared with these."""
    sources = [*sorted((ROOT / "orthogan").rglob("*.py")), *sorted((ROOT / "tests" / "faults").glob("*.py"))]
    code = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    file = out / "code.txt"
    if not file.exists():
        file.write_text(code)
    if file.read_text() != code:
        sys.exit(f"{out}: holds results of another version of the code; delete it, or choose another --out")


def _seed(seed: int, index: int) -> int:
    return 1_000_003 * seed + index


def _run(sections: dict[str, Section], out: Path, seed: int, seconds: float) -> None:
    """The section that is furthest behind its share of the time has the next case; the cut has no limit of time."""
    spent, next_index = dict.fromkeys(sections, 0.0), dict.fromkeys(sections, 0)
    for record in stored(out / RESULTS):
        if record["section"] in sections:
            spent[record["section"]] += record["seconds"]
            next_index[record["section"]] = record["index"] + 1
    going = dict(sections)
    while going and sum(spent.values()) < seconds:
        name = min(going, key=lambda name: spent[name] / going[name].share)
        index, began = next_index[name], time.monotonic()
        if math.isinf(seconds) and index >= going[name].cut:
            del going[name]
            continue
        try:
            found = going[name].case(index, _seed(seed, index), out)
        except Exception:  # of the harness itself, or a state of a run that it did not foresee
            found = Findings()
            found.add("other", traceback.format_exc()[-1500:])
        if found is None:
            del going[name]
            continue
        took = time.monotonic() - began
        spent[name] += took
        next_index[name] += 1
        store(out / RESULTS, name, index, took, found)
        clock = f"{sum(spent.values()) / 60:.1f}" + ("" if math.isinf(seconds) else f" of {seconds / 60:.0f}") + " min"
        print(f"[{clock}] {name}, case {index}: {found.tried} tried, {took:.1f} s", flush=True)
        for problem in found.problems:
            print(f"       {problem}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
