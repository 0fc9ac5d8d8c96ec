"""Searches of hyperparameters: made once, on held-out images, before the runs; the best candidate is used."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from orthogan.errors import UserError
from orthogan.studies.cells import list_runs
from orthogan.studies.run_study import run_study
from orthogan.studies.search import SEED, candidates
from orthogan.studies.study import Keys, Scale, ScaleName, Search, Study
from tests.fixtures import stub
from tests.fixtures.stub_runs import request, use

SHIFT = "model.generator.options.shift"


def searching(
    *methods: str, shifts: Sequence[float] = (2.0, -3.0, 1.0), setting: ScaleName = "cpu", number: str = stub.NUMBER
) -> Study:
    """The stub with a search of the shift, which is added to its error."""
    found = {f"shift={shift:g}": {SHIFT: shift} for shift in shifts}
    scale = replace(stub.STUDY.scales[setting], searches=[Search(methods, found, number, {"data.holdout": 0.25})])
    return replace(stub.STUDY, scales={"smoke": replace(scale, seeds=2)})


def test_the_best_candidate_of_the_first_method_is_used_by_its_family(
    tmp_path: Path, here: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = searching("base", "second", setting="smoke")
    use(monkeypatch, study)
    path = run_study(request(tmp_path, seeds=2))
    tried = [f"base with shift={shift}, seed {SEED}" for shift in ("2", "-3", "1")]
    assert here == [*tried, "base, seed 0", "second, seed 0", "base, seed 1", "second, seed 1"]
    table = json.loads((path.parent / "table.json").read_text())
    assert [table["configs"][key]["model"]["generator"]["options"]["shift"] for key in table["configs"]] == [-3.0] * 4
    assert [config["data"]["holdout"] for config in table["configs"].values()] == [0.0] * 4
    (choice,) = table["search"]
    # stub.run: 10 + shift + 0.1 ((7 seed) mod 3), and 7000 mod 3 = 1
    assert choice["values"] == pytest.approx({"shift=2": 12.1, "shift=-3": 7.1, "shift=1": 11.1})
    assert (choice["best"], choice["methods"]) == ("shift=-3", ["base", "second"])
    assert "shift=2 12.1, shift=-3 7.1, shift=1 11.1. base, second use shift=-3." in path.read_text().replace("\\", "")
    run_study(request(tmp_path, seeds=2))
    assert len(here) == 7  # neither the search nor the runs are made again


def test_each_setting_is_searched_alone_and_other_methods_stay_as_they_are(
    tmp_path: Path, here: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = searching("second", shifts=(0.5, 0.25))
    use(monkeypatch, study)
    tried = candidates(study, "smoke", tmp_path)
    assert [(one.setting, one.name) for one in tried] == [
        ("small", "shift=0.5"),
        ("small", "shift=0.25"),
        ("large", "shift=0.5"),
        ("large", "shift=0.25"),
    ]
    assert {one.cell.config.data.holdout for one in tried} == {0.25}
    path = run_study(request(tmp_path, seeds=1))
    configs = json.loads((path.parent / "table.json").read_text())["configs"]
    shifts = {
        Path(key).parts[-3]: value["model"]["generator"]["options"].get("shift") for key, value in configs.items()
    }
    assert shifts == {"base": None, "second": 0.25}


def test_a_higher_number_can_be_the_better_one(
    tmp_path: Path, here: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def upward(run: object) -> object:
        found = stub.measure(run)  # type: ignore[arg-type]
        numbers = {name: replace(value, better="higher") for name, value in found.numbers.items()}
        return replace(found, numbers=numbers)

    study = searching("base", setting="smoke")
    use(monkeypatch, replace(study, measures=(replace(study.measures[0], of=upward),)))  # type: ignore[arg-type]
    path = run_study(request(tmp_path, seeds=1))
    assert json.loads((path.parent / "table.json").read_text())["search"][0]["best"] == "shift=2"


def test_a_candidate_that_diverges_is_passed_over_and_a_search_without_numbers_is_an_error(
    tmp_path: Path, here: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fates: dict[str, Keys] = {
        "good": {SHIFT: 5.0},
        "bad": {"model.generator.options.fate": "diverge"},
    }
    scale = replace(stub.STUDY.scales["smoke"], searches=[Search(("base",), fates, stub.NUMBER)])
    use(monkeypatch, replace(stub.STUDY, scales={"smoke": scale}))
    path = run_study(request(tmp_path / "one", seeds=1))
    assert "good 15.1, bad failed. base uses good." in path.read_text()
    use(monkeypatch, searching("base", setting="smoke", number="no such number"))
    with pytest.raises(UserError, match="no candidate of the search of base has 'no such number'"):
        run_study(request(tmp_path / "two", seeds=1))


def test_a_scale_runs_its_own_methods_with_its_own_keys(tmp_path: Path) -> None:
    scale = Scale(stub.NET, methods={"base": {}, "second": {SHIFT: 4.0}})
    study = replace(
        stub.study(second=stub.fate("good"), third=stub.fate("bug")), scales={"smoke": scale, "cpu": Scale(stub.NET)}
    )
    options = {cell.method: cell.config.model.generator.options for cell in list_runs(study, "smoke", [0], tmp_path)}
    assert options == {"base": {}, "second": {"fate": "good", "shift": 4.0}}
    assert [cell.method for cell in list_runs(study, "cpu", [0], tmp_path)] == ["base", "second", "third"]


@pytest.mark.parametrize(
    ("scale", "words"),
    [
        (Scale({}, methods={"base": {}, "fourth": {}}), "no method 'fourth', only base, second"),
        (Scale({}, methods={"second": {}}), "a scale lacks the baseline 'base'"),
        (Scale({}, searches=[Search(("other",), {"a": {}}, "x")]), "no method 'other'"),
        (Scale({}, searches=[Search(("base",), {"a": {}}, "x"), Search(("base",), {"b": {}}, "x")]), "in two searches"),
        (Scale({}, searches=[Search(("base",), {"A b": {}}, "x")]), "'A b': use lowercase letters"),
    ],
)
def test_a_scale_that_cannot_be_is_refused(scale: Scale, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(stub.STUDY, scales={"smoke": scale})
