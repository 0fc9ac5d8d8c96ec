"""Cells: folders, configs by layers of keys, and a definition that follows the config but not its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orthogan.errors import UserError
from orthogan.studies import EVERY, Claim, Hypothesis, Method, Scale, Setting, Study, Term, get_study, listing
from orthogan.studies.cells import list_runs
from tests.fixtures import stub


def of(study: Study, tmp_path: Path, **more: object) -> list:
    return list_runs(study, "cpu", range(2), tmp_path, **more)


def test_a_cell_for_each_seed_setting_and_method_in_rounds_of_a_seed(tmp_path: Path) -> None:
    cells = of(stub.STUDY, tmp_path)
    assert len(cells) == 2 * 2 * 2
    assert [cell.seed for cell in cells] == [0] * 4 + [1] * 4
    assert len({cell.folder for cell in cells}) == 8
    assert cells[0].folder == tmp_path / "stub" / "cpu" / "cells" / "base" / "small" / "seed-0"
    assert Path(str(cells[0].config.out)) == cells[0].folder


def test_a_setting_without_a_name_has_no_folder(tmp_path: Path) -> None:
    cell = list_runs(stub.STUDY, "smoke", [4], tmp_path)[0]
    assert cell.folder == tmp_path / "stub" / "smoke" / "cells" / "base" / "seed-4"
    assert cell.name == "base, seed 4"


def test_method_wins_over_setting_and_that_over_overrides_and_they_over_the_scale(tmp_path: Path) -> None:
    key = "training.steps"
    study = replace(
        stub.STUDY,
        methods={"base": Method({}), "second": Method(lambda setting: {key: 4} if setting == "small" else {})},
        scales={
            "cpu": Scale({key: 1, "training.d_steps_per_g_step": 9}, {"small": Setting(), "large": Setting({key: 3})})
        },
    )
    steps = {(c.method, c.setting): c.config.training.steps for c in of(study, tmp_path, overrides=[f"{key}=2"])}
    assert steps == {("base", "small"): 2, ("second", "small"): 4, ("base", "large"): 3, ("second", "large"): 3}
    assert of(study, tmp_path)[0].config.training.d_steps_per_g_step == 9


def test_the_definition_follows_every_key_but_the_place(tmp_path: Path) -> None:
    here, there = of(stub.STUDY, tmp_path / "a"), of(stub.STUDY, tmp_path / "b")
    assert [cell.definition() for cell in here] == [cell.definition() for cell in there]
    other = of(stub.STUDY, tmp_path, overrides=["optimizer.generator.lr=0.5"])
    assert not {cell.definition() for cell in here} & {cell.definition() for cell in other}
    assert len({cell.definition() for cell in here}) == len(here)


def test_a_config_that_cannot_be_is_refused_with_its_method(tmp_path: Path) -> None:
    study = stub.study(second={"training.stepz": 3})
    with pytest.raises(UserError, match=r"study stub, second in small: .*unknown key 'training.stepz'"):
        of(study, tmp_path)


def test_studies_are_found_by_name_or_place_and_a_typo_gets_a_hint() -> None:
    assert get_study("opt").name == "opt"
    assert get_study("tests.fixtures.stub:STUDY") is stub.STUDY
    with pytest.raises(UserError, match="did you mean 'covariance'"):
        get_study("covarianze")
    with pytest.raises(UserError, match="importable"):
        get_study("no.such.module:STUDY")
    with pytest.raises(UserError, match="is a str, not"):
        get_study("tests.fixtures.stub:NUMBER")
    assert "opt: Orthogonal over-parameterized training" in listing()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "A b"}, "names a folder"),
        ({"baseline": "none"}, "the baseline 'none' is not one of the methods base, second"),
        ({"scales": {"cpu": Scale({}, {"": Setting(), "x": Setting()})}}, "must be the only one"),
        ({"measures": stub.STUDY.measures * 2}, "two measures have the same name"),
        ({"claims": [Claim("c", "s", (Hypothesis("x", (Term("e", "third"),), "below"),))]}, "a claim names 'third'"),
        ({"claims": [Claim("c", "s", (Hypothesis("x", (Term("e", "base", 1.0, "y"),), "below"),))]}, "setting 'y'"),
    ],
)
def test_a_study_that_cannot_be_is_refused(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(stub.STUDY, **changes)
    assert EVERY == "*"
