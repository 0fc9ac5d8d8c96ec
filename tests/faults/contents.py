"""What a run folder holds, as plain values that can be compared with those of an uninterrupted run."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.faults.findings import Findings


def tensors(path: Path) -> str:
    """A hash of the tensors and of the header of a .safetensors file, whose entries lie in no fixed order."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.dumps(json.loads(raw[8 : 8 + length]), sort_keys=True).encode()
    return hashlib.sha256(header + raw[8 + length :]).hexdigest()


def checkpoints(run: Path) -> dict[int, dict[str, str]]:
    """Step -> file -> hash, of every checkpoint folder; of a file that does not read "damaged"."""
    found: dict[int, dict[str, str]] = {}
    for folder in sorted((run / "checkpoints").glob("step-*")):
        files: dict[str, str] = {}
        for path in sorted(folder.glob("*.safetensors")):
            try:
                files[path.name] = tensors(path)
            except (OSError, ValueError):
                files[path.name] = "damaged"
        found[int(folder.name.removeprefix("step-"))] = files
    return found


def log(run: Path) -> list[str]:
    """The records of ``log.jsonl`` without times; a line that is no JSON stands as it is."""
    return [_without(line, "seconds") for line in _lines(run / "log.jsonl")]


def scores(run: Path) -> list[str]:
    """The records of ``metrics.jsonl`` without times."""
    return [_without(line, "protocol", "seconds") for line in _lines(run / "metrics.jsonl")]


def pictures(run: Path) -> dict[str, str]:
    """Hashes of the pictures."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(run.glob("*.png"))}


def points(run: Path) -> Counter[tuple[str, int, float]]:
    """(tag, step, value) of TensorBoard, as TensorBoard itself reads them."""
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it warns of every resumed run
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return Counter((tag, e.step, e.value) for tag in events.Tags()["scalars"] for e in events.Scalars(tag))


def leftovers(run: Path) -> list[str]:
    """Temporary files and folders: whatever is hidden, but for the lock, or is called ``.part``."""
    found = []
    for folder, folders, files in os.walk(run):
        hidden = [name for name in (*folders, *files) if name.startswith(".") or name.endswith((".part", ".tmp"))]
        found += [os.path.relpath(os.path.join(folder, name), run) for name in hidden if name != ".lock"]
    return sorted(found)


def compare(
    run: Path,
    reference: Path,
    steps: int,
    found: Findings,
    *,
    logs: bool = True,
    board: bool = True,
    shown: bool = True,
    best: bool = True,
    spared: Mapping[int, dict[str, str]] | None = None,
) -> None:
    """Note where a finished run is not bitwise the uninterrupted ``reference``, which kept all its checkpoints.

    Args:
        logs, board, shown, best: compare the logs, the TensorBoard points, the pictures, the link ``best``.
        spared: harmed checkpoints, which may still be there as they are.
    """
    right, have = checkpoints(reference), checkpoints(run)
    if steps not in have:
        found.add("lost", f"no checkpoint of step {steps}: {sorted(have)}")
    have = {step: files for step, files in have.items() if (spared or {}).get(step) != files}
    checkpoints_agree(have, right, found)
    if shown and pictures(run) != pictures(reference):
        found.add("different", f"pictures: {sorted(pictures(run).items() ^ pictures(reference).items())[:4]}")
    if logs:
        for name, lines in (("log.jsonl", log), ("metrics.jsonl", scores)):
            _lines_agree(name, lines(run), lines(reference), found)
    if board:
        have_points, right_points = points(run), points(reference)
        if missing := right_points - have_points:
            found.add("lost", f"{missing.total()} of {right_points.total()} TensorBoard points", missing.total())
        if more := have_points - right_points:
            found.add("different", f"{more.total()} TensorBoard points too many, such as {next(iter(more))}")
    links = [os.readlink(folder / "best") if (folder / "best").is_symlink() else None for folder in (run, reference)]
    if best and links[0] != links[1]:
        found.add("different", f"best: {links[0]} instead of {links[1]}")
    if left := leftovers(run):
        found.add("other", f"left behind: {left}", len(left))


def checkpoints_agree(have: dict[int, dict[str, str]], right: dict[int, dict[str, str]], found: Findings) -> None:
    """Note each checkpoint that is not the one of the uninterrupted run; a signal makes some at other steps."""
    for step, files in have.items():
        if step in right and files != right[step]:
            names = [name for name in files | right[step] if files.get(name) != right[step].get(name)]
            found.add("different", f"checkpoint of step {step}: {', '.join(names)}")


def _lines_agree(name: str, have: list[str], right: list[str], found: Findings) -> None:
    missing, more = Counter(right) - Counter(have), Counter(have) - Counter(right)
    if missing:
        found.add("lost", f"{name}: {missing.total()} lines, such as {next(iter(missing))[:160]}", missing.total())
    if more:
        text = f"{name}: {more.total()} doubled or strange lines, such as {next(iter(more))[:160]}"
        found.add("different", text, more.total())
    if have != right and not missing and not more:
        found.add("different", f"{name}: another order")


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []


def _without(line: str, *keys: str) -> str:
    """The record of a line, sorted, less the value at a path of keys."""
    try:
        record = inner = json.loads(line)
        for key in keys[:-1]:
            inner = inner[key]
        inner.pop(keys[-1], None)
    except (ValueError, KeyError, TypeError, AttributeError):
        return line
    return json.dumps(record, sort_keys=True)


def json_of(path: Path) -> Any:
    """The content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))
