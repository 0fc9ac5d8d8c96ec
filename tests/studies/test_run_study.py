"""A study from its first run to its report: failures, what is never run twice, what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from docs import publish_studies
from docs.publish_studies import pack
from orthogan.errors import EXIT_BUG, EXIT_DONE, Diverged, UserError
from orthogan.io.lock import locked
from orthogan.studies import run_study as module
from orthogan.studies.cells import StudyRun, list_runs, run_cell
from orthogan.studies.outcome import load, sittings
from orthogan.studies.run_study import run_study
from orthogan.studies.study import Measure, Scale
from orthogan.studies.values import MeasureResult, Value
from tests.fixtures import stub
from tests.fixtures.stub_runs import request, runs, use


def test_a_result_stands_divergence_too_and_an_error_is_tried_again(
    tmp_path: Path, here: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, stub.study(second=stub.fate("diverge"), third=stub.fate("bug"), fourth=stub.fate("user")))
    for _ in range(2):
        with pytest.raises(UserError, match="2 of 4 runs failed, such as third, seed 0"):
            run_study(request(tmp_path, seeds=1))
    report = (tmp_path / "stub" / "smoke" / "REPORT.md").read_text(encoding="utf-8")
    cells = tmp_path / "stub" / "smoke" / "cells"
    assert {m: runs(cells / m / "seed-0") for m in ("base", "second", "third", "fourth")} == {
        "base": 1,
        "second": 1,
        "third": 2,
        "fourth": 2,
    }
    for part in ("| second | n = 0 | 1 diverged |", "ZeroDivisionError: of a cell", "data.path: nowhere"):
        assert part in report


def test_what_is_finished_is_not_run_again_and_more_seeds_are_added(tmp_path: Path, here: list[str]) -> None:
    run_study(request(tmp_path, seeds=2))
    assert len(here) == 4
    run_study(request(tmp_path, seeds=2))
    assert len(here) == 4
    run_study(request(tmp_path, seeds=3))
    assert here[4:] == ["base, seed 2", "second, seed 2"]


def test_a_kill_between_two_cells_costs_nothing_of_the_first(
    tmp_path: Path, here: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = module.run_cells

    def killed(cells: list[StudyRun], jobs: int, title: str) -> None:
        whole(cells[:3], jobs, title)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "run_cells", killed)
    with pytest.raises(KeyboardInterrupt):
        run_study(request(tmp_path, seeds=3))
    monkeypatch.setattr(module, "run_cells", whole)
    run_study(request(tmp_path, seeds=3))
    assert len(here) == len(set(here)) == 6


def test_packed_results_continue_a_study_elsewhere(tmp_path: Path, here: list[str]) -> None:
    made = run_study(request(tmp_path / "here", seeds=2)).parent
    pack(made, tmp_path / "runs.tar.xz")
    pack(made, tmp_path / "again.tar.xz")
    assert (tmp_path / "runs.tar.xz").read_bytes() == (tmp_path / "again.tar.xz").read_bytes()
    elsewhere = tmp_path / "there" / "stub" / "smoke"
    with tarfile.open(tmp_path / "runs.tar.xz") as archive:
        archive.extractall(elsewhere, filter="data")
    assert {file.name for file in elsewhere.rglob("*") if file.is_file()} == {
        "measures.json",
        "picture.png",
        "sittings.jsonl",
    }
    run_study(request(tmp_path / "there", seeds=3))
    assert here[4:] == ["base, seed 2", "second, seed 2"]
    tables = [json.loads((folder / "table.json").read_text())["tables"][0]["rows"] for folder in (made, elsewhere)]
    first, continued = ([[(run["seed"], run["numbers"]) for run in row["runs"]] for row in rows] for rows in tables)
    assert first == [runs[:2] for runs in continued]
    assert [[seed for seed, _ in runs] for runs in continued] == [[0, 1, 2]] * 2


def test_of_an_unfinished_study_only_the_runs_are_published(
    tmp_path: Path, here: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = replace(stub.STUDY, scales={"decide": Scale(stub.NET, seeds=2)})
    use(monkeypatch, study)
    monkeypatch.setattr(publish_studies, "get_study", lambda name: study)
    monkeypatch.setattr(publish_studies, "DOCS", tmp_path)
    page = tmp_path / "results.md"
    page.write_text(f"# Results\n{publish_studies.BEGIN}\n{publish_studies.END}", encoding="utf-8")
    results = tmp_path / "results"
    run_study(request(tmp_path / "runs", scale="decide", seeds=1))
    publish_studies.publish(tmp_path / "runs")
    assert [path.relative_to(results).as_posix() for path in results.rglob("*.*")] == ["unfinished/stub-decide.tar.xz"]
    run_study(request(tmp_path / "runs", scale="decide", seeds=2))
    publish_studies.publish(tmp_path / "runs")
    assert {path.name for path in (results / "stub-decide").iterdir()} >= {"REPORT.md", "table.json", "runs.tar.xz"}
    assert not list((results / "unfinished").iterdir())
    assert "| second beats base |" in page.read_text(encoding="utf-8")


def test_every_run_below_the_folder_is_in_the_table_also_those_not_asked_for(tmp_path: Path, here: list[str]) -> None:
    run_study(request(tmp_path, seeds=3))
    table = json.loads((run_study(request(tmp_path, seeds=1)).parent / "table.json").read_text())
    base = next(row for row in table["tables"][0]["rows"] if row["name"] == "base")
    assert [run["seed"] for run in base["runs"]] == [0, 1, 2]
    assert next(iter(base["numbers"].values()))["n"] == 3


def test_another_definition_is_refused_and_redo_throws_away_and_tells(
    tmp_path: Path, here: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_study(request(tmp_path, seeds=2))
    use(monkeypatch, stub.study(second=stub.fate("good", shift=-5.0)))
    with pytest.raises(UserError) as refused:
        run_study(request(tmp_path, seeds=2))
    message = str(refused.value)
    for part in ("second:", "model.generator.options.shift: -1.0 -> -5.0", "--redo second", "another --out"):
        assert part in message
    assert "base:" not in message
    cells = list_runs(stub.study(second=stub.fate("good", shift=-5.0)), "smoke", [0, 1], tmp_path)
    outcomes = {cell.folder: load(cell.folder) for cell in cells}
    for seeds, words in ((1, "delete "), (2, "delete their folders, such as ")):  # as in a sweep
        some = [cell for cell in cells if cell.seed < seeds]
        folder = re.escape(str(tmp_path / "stub" / "smoke" / "cells" / "second" / "seed-0"))
        with pytest.raises(UserError, match=rf"To repeat them: {words}{folder}\. To keep them: choose another --out"):
            module.refuse_changed("sweep", some, outcomes, redo=False)
    report = run_study(request(tmp_path, seeds=2, redo=["second"])).read_text(encoding="utf-8")
    assert here.count("second, seed 0") == 2
    assert here.count("base, seed 0") == 1
    assert "Deleted on" in report
    assert "cells/second/seed-1 (done; error [%] 9.1)" in report
    with pytest.raises(UserError, match="--redo third: stub has no such method; choose base, second"):
        run_study(request(tmp_path, redo=["third"]))


def test_a_new_measure_is_made_without_training_and_the_old_ones_stand(
    tmp_path: Path, here: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_study(request(tmp_path, seeds=1))
    calls = []

    def counted(run: object) -> MeasureResult:
        calls.append(run)
        return MeasureResult({"new": Value(1.0)})

    folder = tmp_path / "stub" / "smoke" / "cells" / "base" / "seed-0"
    (folder / "number.txt").unlink()  # the first measure could not be made again
    use(monkeypatch, replace(stub.STUDY, measures=(*stub.STUDY.measures, Measure("new", counted))))
    run_study(request(tmp_path, seeds=1))
    outcome = load(folder)
    assert outcome is not None
    assert (outcome.status, list(outcome.found)) == ("done", ["number", "new"])
    assert len(calls) == 2


def test_a_measure_that_fails_is_an_error_and_the_training_stands(
    tmp_path: Path, here: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(run: object) -> MeasureResult:
        raise UserError("no such file")

    use(monkeypatch, replace(stub.STUDY, measures=(*stub.STUDY.measures, Measure("new", failing))))
    with pytest.raises(UserError, match="2 of 2 runs failed"):
        run_study(request(tmp_path, seeds=1))
    report = (tmp_path / "stub" / "smoke" / "REPORT.md").read_text(encoding="utf-8")
    assert "| base | n = 0 | 1 error |" in report
    assert "no such file" in report
    outcome = load(tmp_path / "stub" / "smoke" / "cells" / "base" / "seed-0")
    assert outcome is not None
    assert list(outcome.found) == ["number"]


@pytest.mark.parametrize(
    ("fate", "code", "status"), [("good", EXIT_DONE, "done"), ("diverge", Diverged.exit_code, "diverged")]
)
def test_a_cell_says_how_it_ended_and_notes_the_sitting(tmp_path: Path, fate: str, code: int, status: str) -> None:
    study = stub.study(second=stub.fate(fate))
    cell = next(c for c in list_runs(study, "smoke", [0], tmp_path) if c.method == "second")
    assert run_cell(study, cell, {"threads": 3}) == code
    outcome, worked = load(cell.folder), sittings(cell.folder)
    assert outcome is not None
    assert outcome.status == status
    assert outcome.definition == cell.definition()
    assert [sitting["threads"] for sitting in worked] == [3]
    assert worked[0]["peak memory [MiB]"] > 10


def test_a_bug_of_a_cell_is_its_own(tmp_path: Path) -> None:
    cell = list_runs(stub.FAILING, "smoke", [0], tmp_path)[2]
    assert run_cell(stub.FAILING, cell, {}) == EXIT_BUG


def test_two_at_once_in_one_folder_are_refused(tmp_path: Path, here: list[str]) -> None:
    root = tmp_path / "stub" / "smoke"
    words = rf"process {os.getpid()} on .*; wait for it, or choose another --out"
    with locked(root, "choose another --out"), pytest.raises(UserError, match=words):
        run_study(request(tmp_path, seeds=1))


def test_unlike_protocols_within_a_column_are_refused_by_the_key(tmp_path: Path, here: list[str]) -> None:
    study = stub.study(second=stub.fate("good", samples=50))
    cells = list_runs(study, "smoke", [0], tmp_path, named="tests.fixtures.stub:STUDY")
    for cell in cells:
        run_cell(study, cell, {})
    with pytest.raises(UserError, match=r"(?s)error \[%\].*different protocols.*samples: 100 in 1 run,.*50 in 1 run,"):
        module.report(study, "smoke", tmp_path / "stub" / "smoke", cells, "orthogan study")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"scale": "huge"}, "--scale huge: the study stub has no such scale; choose one of smoke, cpu"),
        ({"overrides": ["data.source=folder", "data.path=/no/where"]}, "data.path: /no/where does not exist"),
        ({"overrides": ["training.stepz=1"]}, "unknown key 'training.stepz'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(
    tmp_path: Path, here: list[str], more: dict, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        run_study(request(tmp_path, **more))
    assert here == []
    assert not (tmp_path / "stub").exists()


def test_the_command_in_the_report_is_whole(tmp_path: Path, here: list[str]) -> None:
    asked = request(tmp_path, seeds=1, jobs=2, overrides=["training.steps=5", "data.root=a b"])
    report = run_study(asked).read_text(encoding="utf-8")
    line = "orthogan study tests.fixtures.stub:STUDY --scale smoke --seeds 1 "
    assert f"{line}--out {tmp_path} --jobs 2 training.steps=5 'data.root=a b'" in report


def test_a_report_can_be_moved_and_shows_pictures_of_all_rows_together(
    tmp_path: Path, here: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Path]] = []

    def draw(measured: Mapping[str, Path], path: Path) -> Path:
        asked.append(dict(measured))
        path.write_bytes(stub.PIXEL)
        return path

    use(monkeypatch, replace(stub.STUDY, overlays={"Both at once": draw}))
    report = run_study(request(tmp_path, seeds=2))
    cells = tmp_path / "stub" / "smoke" / "cells"
    assert asked == [{"base": cells / "base" / "seed-0", "second": cells / "second" / "seed-0"}]
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for picture in report.parent.glob("*.png"):
        shutil.copy(picture, moved)
    text = report.read_text(encoding="utf-8")
    links = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert links == ["curves.png", "overlays.png", "samples.png"]
    assert all((moved / link).is_file() for link in links)
    assert "![Both at once, seed 0](overlays.png)" in text
    assert "Both at once, seed 0" in report.with_name("report.html").read_text(encoding="utf-8")
    for method in ("base", "second"):
        (cells / method / "seed-0" / "picture.png").unlink()
    assert "second, seed 0: no such file" in run_study(request(tmp_path, seeds=2)).read_text(encoding="utf-8")
    assert not (report.parent / "samples.png").exists()


def test_columns_stand_in_the_order_of_the_measures_also_where_an_earlier_one_was_changed(
    tmp_path: Path, here: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def second(run: object) -> MeasureResult:
        return MeasureResult({"second": Value(2.0, "lower")})

    first = stub.STUDY.measures[0]
    use(monkeypatch, replace(stub.STUDY, measures=(first, Measure("second", second))))
    run_study(request(tmp_path, seeds=1))
    use(monkeypatch, replace(stub.STUDY, measures=(replace(first, version=2), Measure("second", second))))
    table = json.loads(run_study(request(tmp_path, seeds=1)).with_name("table.json").read_text())
    assert [column["name"] for column in table["tables"][0]["columns"]] == [stub.NUMBER, "second"]
    assert runs(tmp_path / "stub" / "smoke" / "cells" / "base" / "seed-0") == 2  # the stub's training is its own
