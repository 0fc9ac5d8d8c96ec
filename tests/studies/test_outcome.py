"""Damaged, lost and unwritable files of a study: it heals what it can, and names the file where it cannot."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthogan.config.schema import Config
from orthogan.errors import CannotWrite, UserError
from orthogan.io import checkpoint
from orthogan.io.weights import HASH, Damaged
from orthogan.io.write import append_json
from orthogan.studies import run_study as module
from orthogan.studies import worker
from orthogan.studies.cells import run_cell
from orthogan.studies.compare import compare_runs
from orthogan.studies.finished import CheckpointGone, FinishedRun
from orthogan.studies.outcome import FILE, SITTINGS, Outcome, load, save, sittings
from orthogan.studies.pool import run_cells
from orthogan.studies.report import Report, as_dict
from orthogan.studies.run_study import run_study
from orthogan.studies.study import Measure
from orthogan.studies.values import MeasureResult, Value
from tests.fixtures import stub
from tests.fixtures.stub_runs import request, runs, use

OUTCOME = Outcome(
    "done",
    "0123456789abcdef",
    {"seed": 0, "training": {"steps": 4}},
    "",
    {
        "one": MeasureResult(
            {"error [%]": Value(12.25, "lower", {"samples": 100})}, {"loss": [(8.0, 0.5)]}, ["picture.png"]
        ),
        "two": MeasureResult({"none": Value(float("nan"), "", {"seed": 1}, {"processor": "a"})}),
    },
)


def test_no_flipped_bit_changes_what_is_read_from_a_cell(tmp_path: Path) -> None:
    save(tmp_path, OUTCOME)
    path = tmp_path / FILE
    whole, right = path.read_bytes(), repr(load(tmp_path))
    draw = random.Random(0)
    messages = []
    for place in range(len(whole)):
        data = bytearray(whole)
        data[place] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        try:
            assert repr(load(tmp_path)) == right
        except Damaged as error:
            messages.append(str(error))
    assert len(messages) > 0.6 * len(whole)  # the others are white space and the name of the hash
    assert all(str(path) in message and len(message) < len(str(path)) + 200 for message in messages)


def test_an_outcome_of_an_early_version_has_no_hash_and_is_read(tmp_path: Path) -> None:
    save(tmp_path, OUTCOME)
    right = repr(load(tmp_path))
    tree = json.loads((tmp_path / FILE).read_text())
    del tree[HASH]
    (tmp_path / FILE).write_text(json.dumps(tree))
    assert repr(load(tmp_path)) == right


@pytest.mark.parametrize(
    "text", ["", "5", "[]", "null", '{"status": "done"}', "[" * 100_000, '{"measures": 5}', "\x00"]
)
def test_a_damaged_cell_is_renamed_and_measured_again_alone(
    tmp_path: Path,
    here: list[str],
    capsys: pytest.CaptureFixture[str],
    text: str,
) -> None:
    before = run_study(request(tmp_path, seeds=1)).read_text(encoding="utf-8")
    folder = tmp_path / "stub" / "smoke" / "cells" / "base" / "seed-0"
    (folder / FILE).write_text(text)
    after = run_study(request(tmp_path, seeds=1)).read_text(encoding="utf-8")
    assert here[2:] == ["base, seed 0"]
    assert before.splitlines()[:20] == after.splitlines()[:20]
    assert (folder / f"{FILE}.damaged").read_text() == text
    assert f"{folder / FILE}: damaged" in capsys.readouterr().err


def test_a_damaged_cell_that_was_not_asked_for_is_unfinished_and_named(tmp_path: Path, here: list[str]) -> None:
    run_study(request(tmp_path, seeds=2))
    file = tmp_path / "stub" / "smoke" / "cells" / "base" / "seed-1" / FILE
    file.write_bytes(b"\xff")
    report = run_study(request(tmp_path, seeds=1)).read_text(encoding="utf-8")
    assert f"base, seed 1: **unfinished**. {file}: damaged" in report


def test_damaged_sittings_and_configs_cost_only_themselves(tmp_path: Path, here: list[str]) -> None:
    run_study(request(tmp_path, seeds=1))
    folder = tmp_path / "stub" / "smoke" / "cells" / "base" / "seed-0"
    with (folder / SITTINGS).open("ab") as stream:
        stream.write(b'\xff\xfe\n5\n[1]\n{"threads": 7}\n{"cut')
    assert [sitting["threads"] for sitting in sittings(folder)] == [1, 7]
    (folder / "config.yaml").write_bytes(b"\xff{")
    (folder / FILE).unlink()
    run_study(request(tmp_path, seeds=1))
    assert here[2:] == ["base, seed 0"]


def _with_checkpoints(config: Config) -> Path:
    """The stub's run, with two checkpoints where it starts from nothing."""
    folder = stub.run(config)
    if not checkpoint.steps(folder):
        for step in (2, 4):
            checkpoint.save(folder, step, {}, {})
    return folder


def _of_all_checkpoints(run: FinishedRun) -> MeasureResult:
    if [step for step, _ in run.checkpoints()] != [2, 4]:
        raise CheckpointGone(f"{run.folder}: the checkpoint of step 2 is gone")
    return MeasureResult({"checkpoints": Value(2.0)})


def test_a_cell_that_lost_its_measures_is_trained_again_where_that_is_needed(
    tmp_path: Path,
    here: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = replace(stub.study(), run=_with_checkpoints, measures=(Measure("all", _of_all_checkpoints),))
    use(monkeypatch, study)
    folder = tmp_path / "stub" / "smoke" / "cells" / "base" / "seed-0"
    run_study(request(tmp_path, seeds=1))
    assert [step for step, _ in checkpoint.steps(folder)] == [4]
    (folder / FILE).unlink()
    run_study(request(tmp_path, seeds=1))
    outcome = load(folder)
    assert outcome is not None
    assert (outcome.status, outcome.numbers["checkpoints"].value, runs(folder)) == ("done", 2.0, 3)
    # a new measure of a cell whose other measures stand is the user's decision
    use(monkeypatch, replace(study, measures=(*study.measures, Measure("more", _of_all_checkpoints))))
    with pytest.raises(UserError, match="1 of 1 runs failed"):
        run_study(request(tmp_path, seeds=1))
    outcome = load(folder)
    assert outcome is not None
    assert "the checkpoint of step 2 is gone" in outcome.reason
    assert runs(folder) == 4


def test_a_wrong_method_leaves_no_folder(tmp_path: Path, here: list[str]) -> None:
    with pytest.raises(UserError, match="--redo nope: stub has no such method; choose base, second"):
        run_study(request(tmp_path / "runs", redo=["nope"]))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["table.json", "report.html", "REPORT.md", "curves.png", "samples.png"])
def test_a_report_on_a_full_disk_names_the_file_and_leaves_no_part_of_it(
    tmp_path: Path,
    here: list[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.name.endswith(name):
            write(path, data[:1])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(CannotWrite, match=f"cannot write .*{name}: No space left on device; free some space"):
        run_study(request(tmp_path, seeds=1))
    root = tmp_path / "stub" / "smoke"
    assert not [path for path in root.rglob("*") if path.name.endswith(name) and "cells" not in path.parts]
    assert not list(root.rglob("*.writing"))
    monkeypatch.undo()
    assert run_study(request(tmp_path, seeds=1)).is_file()


def test_a_second_interrupt_ends_a_study_at_once(tmp_path: Path) -> None:
    cells = module.list_runs(stub.STUBBORN, "smoke", [0], tmp_path, named="tests.fixtures.stub:STUBBORN")
    waiting = cells[1].folder / "waited.txt"
    times: list[float] = []

    def interrupt() -> None:
        end = time.monotonic() + stub.PATIENCE
        while not waiting.exists() and time.monotonic() < end:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1.0)
        times.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run_cells(cells[1:], 1, "stubborn")
    took = time.monotonic() - times[0]
    thread.join()
    assert took < stub.PATIENCE / 2  # the cell itself would have gone on for that long twice
    pid = int(waiting.read_text())
    end = time.monotonic() + 300
    while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(("told", "code"), [(b"stop\n", 3), (b"", -signal.SIGKILL)])
def test_a_cell_has_its_time_to_save_but_not_when_the_study_was_killed(
    monkeypatch: pytest.MonkeyPatch, told: bytes, code: int
) -> None:
    """The child ends one second after SIGTERM; the worker's input says stop, or is closed."""
    monkeypatch.setattr(worker, "GRACE", 0.2)
    output, source = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(source[1])
        signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), os._exit(3)))
        os.write(output[1], b"x")
        time.sleep(60)
        os._exit(0)
    os.read(output[0], 1)  # the handler is there
    standard = os.dup(0)
    os.dup2(source[0], 0)
    try:
        if told:
            os.write(source[1], told)
        else:
            os.close(source[1])
        assert worker._wait(child) == code
    finally:
        os.dup2(standard, 0)


def test_a_study_on_a_disk_that_is_not_writable_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        run_study(request(tmp_path / "file" / "below", seeds=1))
    shutil.rmtree(tmp_path)


LINES = (
    *(b"", b"5", b"null", b"[1]", b"{}", b"\xff", b"\x00", b'{"a', b"[" * 5000, b'{"protocol": 5}'),
    *(b'{"step": "x", "images": 1}', b'{"step": 1e400, "images": 1}', b'{"step": 1, "images": 8, "C/loss": "x"}'),
    *(b'{"step": 1, "images": 8, "spectrum": {"a": 5}}', b'{"metric": "fid", "value": "x", "protocol": {}}'),
    b'{"label": [], "value": {}}',
)


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished cell of the stub with a log, scores and everything else that a comparison reads."""
    root = tmp_path_factory.mktemp("cell")
    cells = module.list_runs(stub.STUDY, "smoke", [0], root, named="tests.fixtures.stub:STUDY")
    run_cell(stub.STUDY, cells[0], {"threads": 1})
    folder = cells[0].folder
    protocol = {"step": 4, "samples": 10, "subject": "run"}
    record = {"metric": "fid", "value": 1.5, "protocol": protocol, "label": "FD"}
    append_json(folder / "metrics.jsonl", [record])
    append_json(folder / "disentanglement.jsonl", [{"label": "MIG", "value": 0.5, "protocol": {"seed": 0}}])
    return folder


@given(
    name=st.sampled_from(["log.jsonl", "metrics.jsonl", "disentanglement.jsonl", SITTINGS, FILE, "config.yaml"]),
    line=st.sampled_from(LINES),
    place=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), max_size=4),
)
@settings(max_examples=150, deadline=None)
def test_a_comparison_reads_harmed_files_or_refuses_them(
    cell: Path, name: str, line: bytes, place: float, flips: list[tuple[float, int]]
) -> None:
    file = cell / name
    whole = file.read_bytes()
    lines = whole.split(b"\n")
    lines.insert(int(place * len(lines)), line)
    data = bytearray(b"\n".join(lines))
    for where, bit in flips:
        data[int(where * len(data))] ^= 1 << bit
    try:
        file.write_bytes(data)
        with contextlib.suppress(UserError):
            as_dict(Report("", "", "", [compare_runs([cell])]))
    finally:
        file.write_bytes(whole)


def test_a_comparison_of_whole_files_has_all_their_numbers(cell: Path) -> None:
    (entry,) = compare_runs([cell]).entries
    assert {"loss of C", "loss"} <= set(entry.curves)
    assert [sitting["threads"] for sitting in entry.sittings] == [1]
