"""Harm one file of a stopped run and resume it; harm a file that is read by itself and use it.

A run must come to its end bitwise equal whatever happened to one of its files. A file that is given by its name must
be refused, or give what the whole file gives.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults import contents
from tests.faults.child import Child
from tests.faults.findings import Findings
from tests.faults.runs import PATIENCE, ROOT, SETTINGS

SHORT = SETTINGS["short"]
STOPPED = 6  # the step of the newest checkpoint of the stopped run; the one before it is that of step 3
NEWEST = f"checkpoints/step-{STOPPED:09d}"
# a place where no harm may end the run with anything but code 0, unless it is one of these, which may be refused
MAY_BE_REFUSED = ("config.yaml", "checkpoints")
MODEL = ROOT / "pretrained" / "sprites-sngan" / "generator.safetensors"


def flipped_run(index: int, seed: int, out: Path) -> Findings:
    """One bit of one file of the run."""
    draw = random.Random(seed)
    folder = _stopped_copy(out)
    files = [p for p in sorted((folder / "run").rglob("*")) if p.is_file() and not p.is_symlink() and p.stat().st_size]
    # each kind of file as often as the others, since there are many more files of tensors
    kind = draw.choice(("state.json", "log.jsonl", "metrics.jsonl", "config.yaml", ".safetensors", ".safetensors", ""))
    path = draw.choice([p for p in files if p.name.endswith(kind) and "best" not in p.parts])
    where = flip(path, draw)
    return _resumed(folder, path, f"{where} of {path.relative_to(folder / 'run')}", out)


def replaced(index: int, seed: int, out: Path) -> Findings | None:
    """A file or folder of the run cut, deleted, emptied, overwritten, or replaced by a folder or a symlink loop."""
    base = _stopped(out)
    names = [p.name for p in sorted((base / "run" / NEWEST).iterdir())]
    paths = [*(f"{NEWEST}/{name}" for name in names), NEWEST, "config.yaml", "log.jsonl", "metrics.jsonl"]
    paths += ["best", "tensorboard", "checkpoints", "reals.png", "fakes_init.png"]
    cases = [(path, how) for path in paths for how in HARMS]
    random.Random(0).shuffle(cases)
    if index >= len(cases):
        return None
    name, how = cases[index]
    folder = _stopped_copy(out)
    path = folder / "run" / name
    HARMS[how](path, random.Random(seed))
    return _resumed(folder, path, f"{name}: {how}", out)


def flipped_file(index: int, seed: int, out: Path) -> Findings:
    """One bit of a model file, a checkpoint's file, directions, cached statistics, or measures of a study's cell."""
    uses = (_model, _checkpoint_file, _directions, _cache, _measures)
    return uses[index % len(uses)](random.Random(seed), out)


def flip(path: Path, draw: random.Random) -> str:
    """Flip a random bit; returns which."""
    data = bytearray(path.read_bytes())
    # half of the flips in the first 64 KiB, where headers are
    place = draw.randrange(len(data) if draw.random() < 0.5 else min(len(data), 1 << 16))
    bit = draw.randrange(8)
    data[place] ^= 1 << bit
    path.write_bytes(data)
    return f"bit {bit} of byte {place} of {len(data)}"


def _cut(path: Path, draw: random.Random) -> None:
    if path.is_file():
        os.truncate(path, draw.randrange(path.stat().st_size))
    else:
        _delete(path, draw)


def _delete(path: Path, draw: random.Random) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _emptied(path: Path, draw: random.Random) -> None:
    _delete(path, draw)
    path.write_bytes(b"")


def _garbage(path: Path, draw: random.Random) -> None:
    _delete(path, draw)
    path.write_bytes(draw.randbytes(300) + b"\n{}\n[1]\n" + draw.randbytes(300))


def _folder(path: Path, draw: random.Random) -> None:
    _delete(path, draw)
    path.mkdir()
    (path / "note.txt").write_text("of somebody")


def _loop(path: Path, draw: random.Random) -> None:
    _delete(path, draw)
    path.symlink_to(path.name)


HARMS: dict[str, Callable[[Path, random.Random], None]] = {
    "cut": _cut,
    "deleted": _delete,
    "an empty file": _emptied,
    "random bytes": _garbage,
    "a folder": _folder,
    "a symlink loop": _loop,
}


def _stopped(out: Path) -> Path:
    """A folder with the run killed soon after the checkpoint of ``STOPPED``; made once."""
    SHORT.reference(out)
    folder = out / "stopped"
    while not (folder / "whole").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (child,) = SHORT.start(folder)
        while not (folder / "run" / NEWEST).exists() and not child.ended():
            time.sleep(0.001)
        child.kill()
        if sorted(contents.checkpoints(folder / "run"))[-2:] == [3, STOPPED]:
            (folder / "whole").touch()
    return folder


def _stopped_copy(out: Path) -> Path:
    folder = out / "work"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(_stopped(out), folder, symlinks=True)
    (folder / "output.txt").unlink()
    return folder


def _resumed(folder: Path, harmed: Path, what: str, out: Path) -> Findings:
    """Resume the run and compare it, except for what the harm has certainly cost."""
    found, run = Findings(tried=1), folder / "run"
    name, *inner = harmed.relative_to(run).parts
    harmed_step = int(inner[0].removeprefix("step-")) if name == "checkpoints" and inner else -1
    before = contents.checkpoints(run).get(harmed_step)
    (child,) = SHORT.finish(folder)
    allowed = (0, 2) if name in MAY_BE_REFUSED and not inner else (0,)
    if not found.ended(child, what, allowed) or child.code:
        return found
    reference = SHORT.reference(out)
    compared = Findings()
    contents.compare(
        run,
        reference,
        SHORT.steps,
        compared,
        logs=name not in ("log.jsonl", "metrics.jsonl"),
        board=name not in ("tensorboard", "metrics.jsonl"),  # a score that is lost is made, and plotted, again
        shown=harmed.suffix != ".png",
        best=name not in ("best", "metrics.jsonl"),
        spared={harmed_step: before} if before is not None else {},
    )
    if name == "log.jsonl" and harmed.is_file():
        lines = len(contents.log(reference)) - len(contents.log(run))
        if "bit" in what and not -2 <= lines <= 2:
            compared.add("lost", f"log.jsonl: {lines} lines")
    found.counts, found.problems = compared.counts, [f"{what}: {problem}" for problem in compared.problems]
    return found


def _used(
    words: list[str], folder: Path, what: str, result: Callable[[], object], right: object, *, refused: bool = True
) -> Findings:
    """Run a command on a harmed file: it is refused where it may be, or its result is the right one."""
    found = Findings(tried=1)
    child = Child(words, folder)
    child.wait(PATIENCE)
    if found.ended(child, what, (0, 2) if refused else (0,)) and not child.code and (have := result()) != right:
        found.add("different", f"{what}: accepted, {str(have)[:100]} instead of {str(right)[:100]}")
    return found


def _fresh(out: Path) -> Path:
    folder = out / "work"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _once(out: Path, name: str, words: list[str], result: Callable[[Path], object], files: list[Path]) -> object:
    """What a command gives on whole files; made once below ``out``."""
    folder = out / "whole" / name
    if not (folder / "result.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file in files:
            shutil.copy(file, folder)
        child = Child(words, folder)
        assert child.wait(PATIENCE) == 0, child.said()[-2000:]
        (folder / "result.json").write_text(json.dumps(result(folder)))
    return json.loads((folder / "result.json").read_text())


def _picture(name: str) -> Callable[[Path], object]:
    def result(folder: Path) -> object:
        return contents.pictures(folder)[name]

    return result


def _drawn(file: Path, draw: random.Random, out: Path, name: str) -> Findings:
    words = ["sample", file.name, "--seeds", "0-3", "--out", "drawn.png", "--device", "cpu"]
    right = _once(out, name, words, _picture("drawn.png"), [file])
    folder = _fresh(out)
    shutil.copy(file, folder)
    what = f"{flip(folder / file.name, draw)} of a {name}"
    return _used(words, folder, what, lambda: _picture("drawn.png")(folder), right)


def _model(draw: random.Random, out: Path) -> Findings:
    return _drawn(MODEL, draw, out, "model file")


def _checkpoint_file(draw: random.Random, out: Path) -> Findings:
    folder = SHORT.reference(out) / "checkpoints" / f"step-{SHORT.steps:09d}"
    return _drawn(folder / "generator-ema.safetensors", draw, out, "checkpoint's file")


def _directions(draw: random.Random, out: Path) -> Findings:
    found = [
        "discover",
        MODEL.name,
        "--method",
        "sefa",
        "--components",
        "3",
        "--out",
        "d.safetensors",
    ]
    _once(out, "directions", [*found, "--device", "cpu"], lambda _: 0, [MODEL])
    words = ["traverse", MODEL.name, "--directions", "d.safetensors", "--steps", "3", "--out", "drawn.png"]
    words += ["--device", "cpu"]
    files = [MODEL, out / "whole" / "directions" / "d.safetensors"]
    right = _once(out, "traversal", words, _picture("drawn.png"), files)
    folder = _fresh(out)
    for file in files:
        shutil.copy(file, folder)
    what = f"{flip(folder / 'd.safetensors', draw)} of a Directions file"
    return _used(words, folder, what, lambda: _picture("drawn.png")(folder), right)


def _cache(draw: random.Random, out: Path) -> Findings:
    words = ["evaluate", MODEL.name, "--samples", "16", "--reference-samples", "32", "--batch-size", "16", "--json"]
    words += ["--extractor", "tests.fixtures.extractor:Moments", "--data", "data.yaml", "--device", "cpu"]
    folder = _fresh(out)
    shutil.copy(MODEL, folder)
    (folder / "data.yaml").write_text("data: {source: sprites, count: 64, resolution: 32, channels: 1}\n")
    cache = folder / "cache"

    def number(output: str) -> object:
        child = Child(words, folder, output=output, environment={"ORTHOGAN_CACHE": str(cache)})
        code = child.wait(PATIENCE)
        lines = [line for line in child.said().splitlines() if line.startswith("{")]
        found.ended(child, what, (0,))
        return json.loads(lines[-1])["value"] if code == 0 and lines else None

    found, what = Findings(tried=1), "before a flip in cached statistics"
    right = number("first.txt")
    files = [path for path in sorted(cache.rglob("*")) if path.is_file()]
    what = f"{flip(draw.choice(files), draw)} of cached statistics"
    if (have := number("second.txt")) != right:
        found.add("different", f"{what}: {have} instead of {right}")
    return found


def _measures(draw: random.Random, out: Path) -> Findings:
    from orthogan.studies.outcome import Outcome, save
    from orthogan.studies.values import MeasureResult, Value

    folder = _fresh(out)
    shutil.copytree(SHORT.reference(out), folder / "run", symlinks=True)
    numbers = {f"number {i}": Value(10.0**i / 3, "lower", {"samples": 100 * i, "seed": 0}) for i in range(8)}
    save(folder / "run", Outcome("done", "0123456789abcdef", {"seed": 0}, "", {"measure": MeasureResult(numbers)}))
    words = ["compare", "run", "--out", "comparison"]

    def result() -> object:
        table = contents.json_of(folder / "comparison" / "table.json")
        return json.dumps(table["tables"], sort_keys=True)

    child = Child(words, folder)
    assert child.wait(PATIENCE) == 0, child.said()
    right = result()
    child.output.unlink()
    what = f"{flip(folder / 'run' / 'measures.json', draw)} of a cell's measures"
    return _used(words, folder, what, result, right)
