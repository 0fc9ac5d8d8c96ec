"""The studies srn-gan and srn-generalisation: every cell can be built, each claim is about a number that is there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from orthogan.evaluation.critic.critic import Recipe
from orthogan.evaluation.critic.lipschitz import KINDS
from orthogan.studies.cells import list_runs
from orthogan.studies.papers import gan_measures, srn_gan, srn_generalisation
from orthogan.studies.study import SCALES
from tests.fixtures.scored import EXTRACTOR
from tests.fixtures.smoke import claimed, measured


def test_methods_differ_in_what_they_are_about_alone(tmp_path: Path) -> None:
    cells = {c.method: c.config for c in list_runs(srn_gan.STUDY, "full", [0], tmp_path) if c.setting == "cifar10"}
    norms = {method: config.model.discriminator.norm for method, config in cells.items()}
    assert {m: n.c for m, n in norms.items() if n.kind == "stable_rank"} == {
        "srn-90": 0.9,
        "srn-70": 0.7,
        "srn-50": 0.5,
        "srn-30": 0.3,
    }
    plain = cells["sn"].model_dump(exclude={"out", "model"})
    assert all(cells[method].model_dump(exclude={"out", "model"}) == plain for method in ("srn-30", "orthogonal"))
    assert cells["wgan-gp"].loss.gradient_penalty.kind == "wgan-gp"
    labels = [c.config.data.labels for c in list_runs(srn_gan.STUDY, "cpu", [0], tmp_path)]
    assert labels.count(True) == labels.count(False)


@pytest.mark.parametrize("method", ["srn-30", "wgan-gp"])
def test_a_gan_has_every_number_that_a_claim_is_about(method: str, tmp_path: Path) -> None:
    study = srn_gan.STUDY
    cell, found = measured(study, method, "sprites-projection", tmp_path, f"evaluation.extractor={EXTRACTOR}")
    numbers = {name: number for part in found.values() for name, number in part.numbers.items()}
    assert claimed(study, "sprites-projection") <= set(numbers)
    assert all(np.isfinite(number.value) for number in numbers.values())
    assert (gan_measures.ACTIVE in numbers) == (method == "srn-30")
    assert gan_measures.KERNEL not in numbers  # of too few images
    assert numbers[gan_measures.DIVERGENCE].protocol["reference"].startswith("other sprites")
    for part in found.values():
        assert all((cell.folder / name).is_file() for name in part.pictures)
    assert list(found["images"].pictures) == ["fakes-0000004.png"]
    with np.load(cell.folder / gan_measures.QUOTIENTS) as file:
        assert all(len(file[kind]) > 20 for kind in KINDS)
        steep = float(file["real-fake"].mean())
    assert numbers[gan_measures.STEEP].value == pytest.approx(steep, rel=1e-4)
    shared = gan_measures.histograms({"one": cell.folder, "two": cell.folder}, tmp_path / "both.png")
    assert shared.is_file()
    curves = [name for name in found["ranks"].curves if name.startswith("stable rank of D.")]
    assert bool(curves) == (method == "srn-30")


def test_critics_of_unlike_scales_never_share_a_column(tmp_path: Path) -> None:
    recipes = {}
    for scale in SCALES:
        steps = list_runs(srn_gan.STUDY, scale, [0], tmp_path)[0].config.training.steps
        recipes[scale] = next(recipe for least, recipe in gan_measures.CRITICS.items() if steps >= least)
    assert recipes["full"] == Recipe()
    assert len({recipe.described for recipe in recipes.values()}) == 3


@pytest.mark.parametrize(("method", "setting"), [("srn-30", "random"), ("vanilla", "true-no-decay")])
def test_a_classifier_has_every_number_that_a_claim_is_about(method: str, setting: str, tmp_path: Path) -> None:
    study = srn_generalisation.STUDY
    cell, found = measured(study, method, setting, tmp_path)
    numbers = {name: number for part in found.values() for name, number in part.numbers.items()}
    assert claimed(study, setting) <= set(numbers)
    assert all(np.isfinite(number.value) for number in numbers.values())
    assert srn_generalisation.histograms({"one": cell.folder, "two": cell.folder}, tmp_path / "both.png").is_file()
    assert cell.config.data.label_noise == (1.0 if setting == "random" else 0.0)
    assert cell.config.optimizer.classifier.weight_decay == (5e-4 if setting == "random" else 0.0)
    protocol = numbers[srn_generalisation.COLUMNS["spec_fro"]].protocol
    assert protocol["label noise"] == f"{cell.config.data.label_noise:g}"
    assert json.dumps({name: dict(number.protocol) for name, number in numbers.items()})


def test_nets_are_measured_where_they_were_trained(tmp_path: Path) -> None:
    config = list_runs(srn_gan.STUDY, "smoke", [0], tmp_path)[0].config
    assert gan_measures.device_of(config) == torch.device("cpu")
