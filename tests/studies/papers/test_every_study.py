"""All studies: every cell of every scale can be built, methods differ in what they are about, claims have numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from orthogan.models.build import build_classifier
from orthogan.studies import STUDIES, Study, get_study
from orthogan.studies.cells import list_runs
from orthogan.studies.finished import FinishedRun
from orthogan.studies.measures import CORRUPTED, UNTOUCHED
from orthogan.studies.papers import codes
from orthogan.studies.papers.latent_measures import FLATNESS, SUBSPACES
from orthogan.studies.search import candidates
from orthogan.studies.study import EVERY, SCALES, Scale, ScaleName
from tests.fixtures.smoke import claimed, measured

OVERRIDES = {"latent": ["data.path=."]}  # the images of its full scale are the user's


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", STUDIES)
def test_every_cell_of_every_scale_has_a_config_of_its_own(name: str, scale: ScaleName, tmp_path: Path) -> None:
    study = get_study(name)
    overrides = OVERRIDES.get(name, []) if scale == "full" else []
    cells = list_runs(study, scale, [0, 1], tmp_path, overrides)
    tried = [one.cell for one in candidates(study, scale, tmp_path, overrides)]
    assert len(cells) == 2 * len(study.at(scale).methods) * len(study.scales[scale].settings)
    assert len({cell.definition() for cell in (*cells, *tried)}) == len(cells) + len(tried)
    assert all(cell.config.data.holdout for cell in tried)


@pytest.mark.parametrize("name", STUDIES)
def test_the_scale_that_decides_has_five_seeds_and_every_comparison_of_its_claims(name: str) -> None:
    whole = get_study(name)
    scale, study = whole.scales["decide"], whole.at("decide")
    assert scale.seeds >= 5
    assert study.claims
    if scale.methods is not None:
        terms = [term for claim in study.claims for contrast in claim.contrasts for term in contrast.terms]
        assert {term.method for term in terms} <= set(scale.methods)
        assert {term.setting for term in terms} <= {EVERY, *scale.settings}


@pytest.mark.parametrize("name", ["covariance", "kernel-orthogonality", "opt", "srn-generalisation"])
def test_the_nets_of_the_published_size_can_be_built(name: str, tmp_path: Path) -> None:
    study = get_study(name)
    with torch.device("meta"):
        for setting in study.scales["full"].settings:
            method = study.baseline
            cells = list_runs(study, "full", [0], tmp_path)
            config = next(c.config for c in cells if (c.method, c.setting) == (method, setting))
            net = build_classifier(config, num_classes=10)
            assert sum(parameter.numel() for parameter in net.parameters()) > 100_000


@pytest.mark.parametrize("name", STUDIES)
def test_a_claim_is_about_numbers_that_some_method_and_setting_can_have(name: str) -> None:
    study = get_study(name)
    settings = {setting for scale in study.scales.values() for setting in scale.settings}
    for setting in settings:
        assert all(claimed(study, setting))
        assert study.claims


@pytest.mark.parametrize(
    ("name", "method", "setting"),
    [
        ("opt", "baseline", "cnn6"),
        ("opt", "s-opt-4", "cnn6"),
        ("opt", "learned-free", "cnn6"),
        ("covariance", "svd+nog+ow+olr", "whitening"),
        ("covariance", "newton-schulz", "pooling"),
        ("kernel-orthogonality", "dn-relaxed", "wrn-shallow"),
    ],
)
def test_a_classifier_has_every_number_that_a_claim_is_about(
    name: str, method: str, setting: str, tmp_path: Path
) -> None:
    study = get_study(name)
    _, found = measured(study, method, setting, tmp_path)
    numbers = {key: number for part in found.values() for key, number in part.numbers.items()}
    wanted = claimed(study, setting)
    if setting == "pooling":  # claims about conditions are about whitening alone
        wanted = {number for number in wanted if "kappa" not in number}
    assert wanted <= set(numbers)
    assert all(np.isfinite(number.value) for key, number in numbers.items() if "kappa(S), " not in key)
    if name == "kernel-orthogonality":
        assert 0 <= numbers[UNTOUCHED].value <= 100
        assert 0 <= numbers[CORRUPTED].value <= 100
        attacked = [numbers[f"error under {kind}, 2/255 [%]"].value for kind in ("fgsm", "pgd")]
        assert min(attacked) >= numbers[UNTOUCHED].value  # an image that is wrong as it is counts as lost
        assert numbers["error under pgd, 8/255 [%]"].value >= attacked[1]


@pytest.mark.parametrize(("method", "setting"), [("nog", "eigengan"), ("hard", "simple-gan"), ("none", "simple-gan")])
def test_a_latent_is_measured_along_its_own_directions_and_along_others(
    method: str, setting: str, tmp_path: Path
) -> None:
    cell, found = measured(get_study("latent"), method, setting, tmp_path)
    names = {"VP", "VP, random basis", "activeness", "activeness, random basis"}
    assert set(found["native"].numbers) == names
    plain = setting == "simple-gan" and method == "none"
    assert bool(found["sefa"].numbers) == plain
    if plain:
        assert {name.replace(", SeFa", "") for name in found["sefa"].numbers} == names
    projections = found["projections"].numbers
    assert set(projections) == ({SUBSPACES} if setting == "eigengan" else {FLATNESS})
    if method == "hard":
        assert projections[FLATNESS].value == pytest.approx(1, abs=1e-4)  # all singular values of a projector are one
    for part in found.values():
        assert all((cell.folder / name).is_file() for name in part.pictures)
    assert found["walks"].pictures


def test_what_keeps_a_projection_orthogonal_is_on_the_layers_that_the_latent_enters(tmp_path: Path) -> None:
    cells = {
        (c.method, c.setting): c.config.model.generator for c in list_runs(get_study("latent"), "cpu", [0], tmp_path)
    }
    rules = cells["nog+olr", "eigengan"].gradient_transforms
    assert [rule.kind for rule in rules] == ["nearest_orthogonal", "optimal_learning_rate"]
    assert all(rule.layers == ["subspace"] for rule in rules)
    assert [rule.layers for rule in cells["olr", "simple-gan"].gradient_transforms] == [["first"]]
    assert cells["hard", "eigengan"].norm.kind == "orthogonal"
    projector = cells["hard", "simple-gan"]
    assert projector.norm.kind == "householder"
    assert getattr(projector.norm, "rank", None) == projector.latent_dim
    assert not cells["none", "eigengan"].penalties
    assert not cells["none", "eigengan"].gradient_transforms


@pytest.mark.parametrize(
    ("method", "setting"),
    [*((method, codes.SPRITES) for method in codes.METHODS), ("tc", codes.PORTRAITS), ("orojar-cr", codes.PORTRAITS)],
)
def test_every_way_to_learn_codes_trains(method: str, setting: str, tmp_path: Path) -> None:
    study = replace(codes.STUDY, scales={"smoke": Scale(codes.SMOKE, codes.settings(2, count=64))})
    (cell,) = (c for c in list_runs(study, "smoke", [0], tmp_path) if (c.method, c.setting) == (method, setting))
    study.run(cell.config)
    run = FinishedRun(cell.folder)
    logged = {key for record in run.log for key in record}
    assert ("G/information" in logged) == (method != "plain")
    assert list(codes.walks(run).pictures) == ([] if method == "plain" else ["traversal.png"])


def test_decompositions_that_failed_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, left = torch.linalg.eigh, [3]

    def gives_up(matrix: torch.Tensor) -> object:
        if matrix.dtype == torch.float32 and left[0]:
            left[0] -= 1
            raise torch.linalg.LinAlgError("failed to converge")
        return whole(matrix)

    monkeypatch.setattr(torch.linalg, "eigh", gives_up)
    _, found = measured(get_study("covariance"), "svd", "whitening", tmp_path)
    assert found["failures"].numbers["decompositions that failed"].value == 3


def test_a_study_says_before_it_starts_what_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orthogan.errors import UserError
    from orthogan.evaluation.robustness import attacks
    from orthogan.studies.run_study import Request, run_study

    monkeypatch.setattr(attacks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[robust\]'"):
        run_study(Request("kernel-orthogonality", out=tmp_path))
    assert not list(tmp_path.iterdir())


def test_every_study_is_a_study_of_the_name_it_is_asked_by() -> None:
    for name in STUDIES:
        study = get_study(name)
        assert isinstance(study, Study)
        assert study.name == name


def test_the_full_scale_of_the_latent_study_trains_as_the_released_code(tmp_path: Path) -> None:
    cells = list_runs(get_study("latent"), "full", [0], tmp_path, ["data.path=."])
    plain = {cell.setting: cell.config for cell in cells if cell.method == "none"}
    eigengan, simple = plain["eigengan"], plain["simple-gan"]
    assert eigengan.model.generator.latent_dim - 5 * 6 == 512
    penalty, adam = eigengan.loss.gradient_penalty, eigengan.optimizer.discriminator
    assert penalty.interval == 16
    # a lazy penalty multiplies by the interval and by 1/2, and scales Adam by 16/17
    assert penalty.interval * penalty.weight / 2 == pytest.approx(10)
    share = 16 / 17
    assert (adam.lr * share, adam.beta1**share, adam.beta2**share) == pytest.approx((1e-4, 0.5, 0.99))
    assert eigengan.data.flip
    assert eigengan.augment.kind == "diffaugment"
    assert (eigengan.training.ema.half_life, eigengan.training.ema.warmup) == (10_000, 0)
    assert (simple.loss.gradient_penalty.kind, simple.loss.gradient_penalty.weight) == ("wgan-gp", 20)
    assert not simple.training.ema.on
