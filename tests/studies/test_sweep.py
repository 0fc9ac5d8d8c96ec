"""Sweeps: what the words mean, names of rows, the grid with its ranking, and trials of a sampler that resume."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orthogan.cli.main import main
from orthogan.errors import UserError
from orthogan.studies.sweep import Axis, SweepRequest, _ranking, _Sweep, check_trial, read_words, row_name, run_sweep
from orthogan.studies.table import Entry, panel
from orthogan.studies.values import Value
from orthogan.training.resume import read_records

TINY = [
    "data.count=32",
    "training.steps=2",
    "training.batch_size=8",
    "training.generator_batch_size=8",
    "model.generator.channels=4",
    "model.discriminator.channels=4",
    "evaluation.every=2",
    "evaluation.at_start=false",
    "evaluation.samples=16",
    "evaluation.reference_samples=16",
    "evaluation.extractor=tests.fixtures.extractor:Moments",
    "evaluation.background=false",
    "logging.samples=4",
    "logging.tensorboard=false",
]


def test_words_are_choices_ranges_and_fixed_values() -> None:
    plan = read_words(
        [
            "data.flip=true",
            "training.batch_size=16,32",
            "optimizer.generator.lr=1e-5..1e-3:log",
            "model.generator.latent_dim=8..64",
            "evaluation.metrics=fid|fid,kid",
            "training.schedule={kind: step, milestones: [0.5, 0.75]}",
        ]
    )
    assert plan.axes == (
        Axis("training.batch_size", ("16", "32")),
        Axis("optimizer.generator.lr", (), 1e-5, 1e-3, log=True, whole=False),
        Axis("model.generator.latent_dim", (), 8, 64, log=False, whole=True),
        Axis("evaluation.metrics", ("fid", "fid,kid")),
    )
    assert plan.fixed == ("data.flip=true", "training.schedule={kind: step, milestones: [0.5, 0.75]}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["training.steps"], "write key=a,b,c"),
        (["a=1,2", "a=3"], "a is given twice"),
        (["a=1,1"], "given twice"),
        (["a=5..2"], "less than the second"),
        (["a=0..2:log"], "above 0 with :log"),
        (["a=x..y"], "must be numbers"),
        (["seed=0,1"], "use --seeds N"),
        (["seed=1", "a=1,2"], "use --seeds N"),
    ],
)
def test_words_that_mean_nothing_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_words(words)


def test_names_of_rows_are_short_valid_folders_and_unique() -> None:
    assert row_name({"model.discriminator.norm.c": "0.5", "data.flip": "true"}) == "c=0.5,flip=true"
    names = {row_name({"data.path": path}) for path in ("/a/B", "/a/b", "/a-b", "/" + "x" * 300)}
    assert len(names) == 4
    assert all("/" not in name and len(name) < 120 and name == name.lower() for name in names)


@pytest.mark.slow
def test_a_sweep_ranks_every_combination_and_repeats_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["sweep", "sprites/srngan", *TINY, "model.generator.latent_dim=4,8", "--jobs", "1", "--out", str(tmp_path)]
    assert main(line) == 0
    assert "latent_dim=8" in capsys.readouterr().out
    files = sorted(tmp_path.glob("cells/*/seed-*/measures.json"))
    assert len(files) == 2
    table = json.loads((tmp_path / "table.json").read_text())
    assert table["rows"] == {f"latent_dim={n}": {"model.generator.latent_dim": n} for n in ("4", "8")}
    assert "**Best** FD[Moments]: latent_dim=" in (tmp_path / "REPORT.md").read_text()
    before = [file.stat().st_mtime_ns for file in files]
    assert main(line) == 0
    assert [file.stat().st_mtime_ns for file in files] == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["training.steps=2"], "no key has several values"),
        (["training.steps=2,4", "evaluation.every=0", "evaluation.at_start=false"], "computes no scores"),
        (["training.steps=2..4"], "a range needs --sampler"),
    ],
)
def test_a_sweep_without_a_result_is_refused(tmp_path: Path, words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run_sweep(SweepRequest("sprites/srngan", words, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("at_once", [1, 3])
@pytest.mark.parametrize("sampler", ["qmc", "random", "tests.fixtures.sampler:shifted"])
def test_a_sampler_never_proposes_the_same_point_again(sampler: str, at_once: int) -> None:
    optuna = pytest.importorskip("optuna")
    words = ["a=0.0..1.0", "b=1e-5..1e-1:log", "c=x,y"]
    request = SweepRequest("sprites/srngan", words, sampler=sampler)
    sweep: Any = _Sweep(request, read_words(words))
    sweep.objective = lambda cells: (float(sweep.rows[cells[0].method]["a"]), "lower")
    space = {axis.key: axis.distribution(optuna) for axis in sweep.plan.axes}
    trials: list[Any] = []
    for _ in range(0, 18, at_once):
        for values in sweep.ask(optuna, space, trials, at_once):
            sweep.rows[str(len(trials))] = values
            trials.append([SimpleNamespace(method=str(len(trials)))])
    found = [sweep.rows[str(number)] for number in range(18)]
    assert len({(row["a"], row["b"]) for row in found}) == 18
    assert {row["c"] for row in found} == {"x", "y"}
    if sampler == "qmc":  # after the first, random point: a Sobol sequence has as many points in each quarter
        quarters = [int(row["a"] * 4) for row in found[1:17]]
        assert [quarters.count(quarter) for quarter in range(4)] == [4, 4, 4, 4]


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ("tp", "--sampler: unknown sampler 'tp'; did you mean 'tpe'"),
        ("math:pi", "--sampler is 'math:pi': expected a function"),
        ("tests.fixtures.sampler:wrong", "returns an? int, expected a sampler of optuna"),
    ],
)
def test_what_is_no_sampler_is_refused(sampler: str, message: str, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    words = [*TINY, "model.generator.latent_dim=4..8"]
    with pytest.raises(UserError, match=message):
        run_sweep(SweepRequest("sprites/srngan", words, out=tmp_path / "out", sampler=sampler))


@pytest.mark.parametrize(("better", "order"), [("lower", "cabd"), ("higher", "bacd")])
def test_a_score_that_is_not_finite_is_ranked_last(better: Any, order: str) -> None:
    scores = {"d": float("nan"), "b": 3.0, "a": 2.0, "c": 1.0}
    entries = [Entry(row, 0, Path(row), numbers=(("fid", Value(score, better)),)) for row, score in scores.items()]
    table = panel(entries, rows=list(scores), baseline="d", split=False)
    assert "".join(row[1] for row in _ranking(table, "fid")) == order


def test_a_combination_with_a_diverged_run_is_ranked_after_those_without() -> None:
    def entry(row: str, seed: int, score: float | None) -> Entry:
        if score is None:
            return Entry(row, seed, Path(row), status="diverged")
        return Entry(row, seed, Path(row), numbers=(("fid", Value(score, "lower")),))

    scores = {"lucky": (1.0, None), "good": (2.0, 2.0), "bad": (9.0, 9.0)}
    entries = [entry(row, seed, score) for row, pair in scores.items() for seed, score in enumerate(pair)]
    found = _ranking(panel(entries, rows=list(scores), baseline="bad", split=False), "fid")
    assert [row[1] for row in found] == ["good", "bad", "lucky"]
    assert [row[3] for row in found] == ["2", "2", "1, 1 diverged"]


def test_damaged_lines_of_trials_are_skipped_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = {"trial": 0, "values": {"training.steps": 3, "loss.kind": "hinge"}}
    bad = [
        "{}",
        '{"values": 3}',
        '{"values": ["training.steps"]}',
        '{"values": {"training.steps": [1]}}',
        "[1]",
        "\xff",
    ]
    file = tmp_path / "trials.jsonl"
    file.write_text("\n".join([*bad, json.dumps(good)]) + "\n", encoding="latin-1")
    assert read_records(file, check_trial) == [good]
    said = capsys.readouterr().err.splitlines()
    assert [line.split(", line ")[1].split(":")[0] for line in said] == ["1", "2", "3", "4", "5", "6"]
    assert "training.steps is [1]: expected a number or text" in said[3]
