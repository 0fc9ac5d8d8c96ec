"""``orthogan compare`` on runs that training made: rows, columns of unlike protocols, what is refused."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from orthogan.cli.main import main
from orthogan.config.files import load_config
from orthogan.errors import UserError
from orthogan.io.write import append_json
from orthogan.models.generate import model_hash
from orthogan.models.open import load_generator
from orthogan.studies.compare import compare, compare_runs, row_names
from orthogan.studies.measures import PARAMETERS
from orthogan.training import train
from tests.fixtures.runs import tiny

SMALL = [
    "task=classifier",
    "data.source=sprites",
    "data.count=60",
    "data.channels=1",
    "data.holdout=0.2",
    "model.classifier.kind=mlp",
    "model.classifier.channels=4",
    "training.steps=2",
    "training.batch_size=4",
    "training.device=cpu",
    "training.precision=fp32",
    "evaluation.every=2",
    "evaluation.samples=12",
    "evaluation.batch_size=12",
    "checkpoint.every=2",
    "logging.every=1",
    "logging.samples=4",
    "logging.tensorboard=false",
]


def run(folder: Path, *more: str) -> Path:
    return train(load_config(None, [*SMALL, f"out={folder}", *more]))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two seeds of two widths."""
    root = tmp_path_factory.mktemp("runs")
    return [
        run(root / f"{width}-{seed}", f"model.classifier.channels={width}", f"seed={seed}")
        for width in (4, 8)
        for seed in (0, 1)
    ]


def test_runs_that_differ_only_in_the_seed_are_one_row(runs: list[Path]) -> None:
    table = compare_runs(runs)
    assert list(table.rows) == ["classifier.channels=4", "classifier.channels=8"]
    assert table.baseline == "classifier.channels=4"
    column = table.column(PARAMETERS)
    assert column is not None
    narrow, wide = (column.of(row) for row in table.rows)
    assert set(narrow) == set(wide) == {0, 1}
    assert len({*narrow.values()}) == len({*wide.values()}) == 1
    assert wide[0] > narrow[0]
    accuracy = next(column for column in table.columns if column.number == "accuracy")
    known = [json.loads(line) for line in (runs[0] / "metrics.jsonl").read_text().splitlines()]
    assert accuracy.of("classifier.channels=4")[0] == next(r["value"] for r in known if r["metric"] == "accuracy")


def test_scores_of_unlike_protocols_have_columns_of_their_own(runs: list[Path], tmp_path: Path) -> None:
    other = run(tmp_path / "other", "evaluation.samples=8", "seed=5")
    table = compare_runs([*runs, other])
    columns = [column for column in table.columns if column.number == "train_accuracy"]
    assert [column.name for column in columns] == ["train_accuracy (samples 12)", "train_accuracy (samples 8)"]
    row = next(row for row in table.rows if "samples=8" in row)
    assert not columns[0].of(row)
    assert set(columns[1].of(row)) == {5}
    assert columns[1].difference(row, table.baseline).n == 0  # nothing is subtracted across protocols


def test_a_run_that_has_not_come_to_its_end_is_counted_and_gives_no_number(runs: list[Path], tmp_path: Path) -> None:
    half = tmp_path / "half"
    shutil.copytree(runs[1], half)
    shutil.rmtree(next((half / "checkpoints").glob("step-*2")))
    table = compare_runs([runs[0], half])
    assert table.failures("all runs") == "1 unfinished"
    (entry,) = table.of("all runs", "unfinished")
    assert entry.reason == "stopped at step 0 of 2"
    assert not entry.numbers


def test_the_same_run_twice_or_no_run_is_refused(runs: list[Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(runs[0], copy)
    with pytest.raises(UserError, match="have the same config and seed 0"):
        compare_runs([runs[0], copy])
    with pytest.raises(UserError, match=r"not a run of orthogan \(it has no config.yaml\)"):
        compare_runs([tmp_path])


def test_the_command_prints_the_table_and_writes_the_report(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *map(str, runs), "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "| classifier.channels=4 | n = 2 | 0 |" in shown
    report, _ = compare(runs, tmp_path / "out")
    text = report.read_text(encoding="utf-8")
    assert "4 runs in 2 rows" in text
    assert "### Differences to classifier.channels=4" in text
    assert "## Verdict" not in text  # nobody claimed anything


def test_rows_are_named_by_what_differs_as_short_as_is_clear() -> None:
    configs = [
        {"model.discriminator.norm.kind": "spectral", "model.generator.norm.kind": "none", "loss.kind": "hinge"},
        {"model.discriminator.norm.kind": "none", "model.generator.norm.kind": "spectral", "loss.kind": "hinge"},
    ]
    assert row_names(configs) == [
        "discriminator.norm.kind=spectral, generator.norm.kind=none",
        "discriminator.norm.kind=none, generator.norm.kind=spectral",
    ]
    assert row_names(configs[:1]) == ["all runs"]


def test_a_folder_whose_name_is_no_text_is_escaped_in_the_report(runs: list[Path], tmp_path: Path) -> None:
    report, _ = compare(runs, tmp_path / os.fsdecode(b"out \xff"))
    assert "out \\udcff" in report.read_text(encoding="utf-8")
    assert "out \\udcff" in report.with_name("report.html").read_text(encoding="utf-8")


def test_rows_that_differ_in_many_keys_are_named_by_their_runs(runs: list[Path], tmp_path: Path) -> None:
    more = ["training.batch_size=5", "optimizer.classifier.lr=0.2", "loss.label_smoothing=0.1", "data.flip=true"]
    others = [run(tmp_path / f"wild-{seed}", *more, f"seed={seed}") for seed in (0, 1)]
    table = compare_runs([*runs[:2], *others])
    assert list(table.rows) == [str(runs[0].parent / "4"), str(tmp_path / "wild")]
    note = table.notes[str(tmp_path / "wild")]
    assert f"{others[0]}, {others[1]} (" in note
    assert " classifier.lr=0.2" in note
    assert "training.batch_size=5" in note


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "/dev/null", "\udcff"])
def test_a_name_that_no_run_can_have_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"not a run of orthogan|cannot be read"):
        compare_runs([Path(name)])


def test_disentanglement_of_an_earlier_checkpoint_is_not_a_number_of_the_run(tmp_path: Path) -> None:
    folder = train(tiny(tmp_path / "run", "training.steps=3", "checkpoint.every=1", "checkpoint.keep=3"))
    early, late = (load_generator(folder / "checkpoints" / f"step-{step:09d}") for step in (1, 3))
    for value, net in ((0.25, late), (0.75, early)):
        facts = {"model": model_hash(net)[:12]}
        append_json(
            folder / "disentanglement.jsonl", [{"label": "MIG", "value": value, "protocol": {}, "facts": facts}]
        )
    (column,) = [column for column in compare_runs([folder]).columns if column.number == "MIG"]
    assert list(column.values.values()) == [0.25]
