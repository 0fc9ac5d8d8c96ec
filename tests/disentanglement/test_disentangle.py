"""Metrics of a generator together: values, controls, protocol, tables, and several generators."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orthogan.data import open_source
from orthogan.disentanglement import (
    FactorClassifier,
    GeneratorScore,
    Score,
    across,
    disentangle,
    mig,
    predicted_factors,
    table,
    train_oracle,
)
from orthogan.disentanglement.result import jsonable, summary
from orthogan.errors import UserError
from orthogan.latent import Directions, random_control
from orthogan.models.protocol import Generator
from tests.fixtures.quadrants import Quadrants, labelled, taught

ENCODER = {"fakes": 400, "fresh": 100, "steps": 60, "batch_size": 64}
VOTES = {"train_votes": 30, "test_votes": 20, "batch": 16, "variance_samples": 100}


@pytest.fixture(scope="module")
def oracle() -> FactorClassifier:
    return taught()


def run(net: torch.nn.Module, oracle: FactorClassifier, *metrics: str, **options: object) -> list[GeneratorScore]:
    common = {"source": labelled(copies=1), "seeds": (0, 1), "samples": 1200, "oracle": oracle, "progress": False}
    return disentangle(net, metrics, **{**common, **options})


def test_the_value_is_the_mean_over_seeds_of_the_metric_itself(oracle: FactorClassifier) -> None:
    net = Quadrants((0, 1, 2, 3, None))
    (result,) = run(net, oracle, "mig")
    single = []
    for seed in (0, 1):
        fakes = predicted_factors(net, oracle, n=1200, seed=seed)
        single.append(mig(fakes.codes, fakes.factors, seed=seed).value)
    assert result.score.values == pytest.approx(single)
    assert result.value == pytest.approx(np.mean(single))
    assert result.score.std == pytest.approx(np.std(single, ddof=1))
    assert result.score.low < result.value < result.score.high
    assert set(result.controls) == {"random basis"}
    assert result.controls["random basis"].value < result.value / 2
    assert result.protocol["factors"] == ["nw", "ne", "sw", "se"]
    assert result.protocol["oracle accuracy"] == dict(oracle.accuracy)
    assert result.protocol["k"] == 5
    assert result.facts["confidence on fakes"].keys() == oracle.confidence.keys()


def test_all_kinds_of_metrics_give_results_that_json_and_people_can_read(oracle: FactorClassifier) -> None:
    net = Quadrants((0, 1, 2, 3))
    net.train()
    names = ("vp", "activeness", "dci", "sap", "modularity", "explicitness", "code_vote", "encoder:mig")
    names = (*names, "encoder:factor_vae", "encoder:irs", "encoder:total_correlation")
    few = {"train_votes": 20, "test_votes": 20, "batch": 8, "samples": 100}
    options = {
        "vp": {"pairs": 200, "epochs": 1},
        "dci": {"estimators": 4},
        "code_vote": few,
        "encoder:factor_vae": VOTES,
        "encoder:mig": {"max_bias": 1.0},
    }
    results = run(net, oracle, *names, options=options, encoder_options=ENCODER, info={"run": "toy"}, seeds=(0,))
    assert [result.metric for result in results] == list(names)
    assert net.training
    for result in results:
        assert result.score.std is None
        assert result.score.low is None
        assert set(result.controls) == {"random basis"}
        assert result.facts["run"] == "toy"
        again = json.loads(json.dumps(result.as_dict(), allow_nan=False))
        assert again["label"] == result.label
        assert again["value"] == pytest.approx(result.value)
    by_name = {result.metric: result for result in results}
    assert by_name["dci"].parts["completeness"] > 0.5
    assert by_name["encoder:mig"].facts["encoder R^2"] > 0.5
    assert by_name["encoder:factor_vae"].value > by_name["encoder:factor_vae"].protocol["k"] ** -1
    assert "oracle" not in by_name["vp"].protocol
    text = table(results)
    for expected in ("code_vote", "  random basis", "oracle accuracy", "encoder R^2", "directions", "completeness"):
        assert expected in text
    assert text.count("scikit-learn") == 1  # what all share is said once
    assert text.count("oracle accuracy") == 1
    assert text.count("as dci") == 4  # sap, modularity, explicitness, code_vote; whatever time they took


def test_directions_that_are_no_axes_are_compared_with_axes_too(oracle: FactorClassifier) -> None:
    (result,) = run(Quadrants(), oracle, "mig", directions=random_control(4, 3, 0))
    assert set(result.controls) == {"random basis", "latent axes"}
    assert result.controls["latent axes"].value > result.value
    (bare,) = run(Quadrants(), oracle, "mig", directions=random_control(4, 3, 0), controls=False)
    assert bare.controls == {}
    assert bare.value == result.value


def test_factors_read_badly_or_constant_are_left_out_and_named(oracle: FactorClassifier) -> None:
    poor = replace(oracle, accuracy={**oracle.accuracy, "ne": 0.5})
    (result,) = run(Quadrants((0, 1, 2, None)), poor, "mig")
    assert result.protocol["factors"] == ["nw", "sw"]
    assert result.protocol["read too badly"] == ["ne"]
    assert result.protocol["constant in fakes"] == ["se"]
    with pytest.raises(ValueError, match="varies in the images"):
        run(Quadrants((None, None)), oracle, "mig")


def test_a_class_is_fixed_or_taken_in_turn(oracle: FactorClassifier) -> None:
    net = Quadrants(num_classes=2)
    (fixed,) = run(net, oracle, "mig", y=1, controls=False)
    (turns,) = run(net, oracle, "mig", controls=False)
    assert fixed.protocol["class"] == 1
    assert turns.protocol["class"] == "in turn"
    assert fixed.value != turns.value


class Scaled(Generator):
    """Quadrants whose space "w" is its z with every axis stretched."""

    spaces = ("z", "w")
    latent_dim, resolution, image_channels = 4, 4, 1

    def __init__(self, stretch: float) -> None:
        super().__init__()
        self.net, self.stretch = Quadrants(), stretch

    def sample_latent(self, n: int, *, seed: int) -> torch.Tensor:
        return super().sample_latent(n, seed=seed) * self.stretch

    def forward(self, z: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        return self.net(z / self.stretch)

    def latent_space(self, name: str, **options: object) -> Generator:
        return Scaled(3.0)


def test_directions_of_another_space_move_that_space(oracle: FactorClassifier) -> None:
    lines = Directions(np.eye(4), method="axes of w", space="w")
    options = {"vp": {"pairs": 300, "epochs": 3}}
    vp, mutual = run(Scaled(1.0), oracle, "vp", "mig", directions=lines, options=options, seeds=(0,))
    own_vp, own_mutual = run(Scaled(1.0), oracle, "vp", "mig", options=options, seeds=(0,))
    assert vp.protocol["space"] == "w"
    # coordinates are in standard deviations there, so the stretch plays no part
    assert mutual.value == pytest.approx(own_mutual.value, abs=0.02)
    assert vp.value == pytest.approx(own_vp.value, abs=0.1)


class Colors(torch.nn.Module):
    """16 x 16 pixels whose rows follow the latent."""

    latent_dim, num_classes = 3, 0

    def forward(self, z: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        return z.tanh()[:, :, None, None].expand(-1, -1, 16, 16)


@pytest.mark.slow
def test_faces_have_every_kind_of_metric() -> None:
    """The oracle reads all 17 factors, and metrics that choose factors draw faces that are not in the set."""
    source = open_source("faces", resolution=16, count=300)
    oracle = train_oracle(source, steps=3, batch_size=16, progress=False)
    assert list(oracle.accuracy) == source.factor_names
    options = {"encoder:factor_vae": VOTES, "mig": {"bins": 2}}
    results = disentangle(
        Colors(),
        ["mig", "encoder:factor_vae"],
        source=source,
        oracle=oracle,
        least_accuracy=0.0,
        seeds=(0,),
        samples=1200,
        controls=False,
        options=options,
        encoder_options=ENCODER,
        progress=False,
    )
    assert [result.metric for result in results] == ["mig", "encoder:factor_vae"]
    assert all(0 <= result.value <= 1 for result in results)


def test_the_oracle_comes_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORTHOGAN_CACHE", str(tmp_path))
    from orthogan.disentanglement import TrainingRecipe
    from orthogan.disentanglement.codes import oracle as module

    def recipe(*given: Any) -> TrainingRecipe:
        return TrainingRecipe(*given) if given else TrainingRecipe(steps=40, batch_size=32)

    monkeypatch.setattr(module, "TrainingRecipe", recipe)
    source = labelled(copies=2)
    results = [
        disentangle(Quadrants(), ["mig"], source=source, samples=1200, seeds=(0,), controls=False, progress=False)
        for _ in range(2)
    ]
    assert results[0][0].value == results[1][0].value
    assert len(list(tmp_path.glob("oracle-*"))) == 1


@pytest.mark.parametrize(
    ("metrics", "options", "message"),
    [
        (["mgi"], {}, "did you mean 'mig'"),
        (["encoder:factorvae"], {}, "did you mean 'encoder:factor_vae'"),
        (["fid"], {}, "metric 'fid'"),
        ([], {}, "at least one of"),
        (["vp", "vp"], {}, "each once"),
        (["vp"], {"options": {"mig": {}}}, "options of 'mig'"),
        (["vp"], {"options": {"vp": {"epoch": 1}}}, "did you mean 'epochs'"),
        (["vp"], {"options": {"vp": {"seed": 1}}}, "unknown option 'seed' of 'vp'; known: protocol, pairs"),
        (["mig"], {}, "needs images with known factors"),
        (["vp"], {"seeds": ()}, "0 seeds"),
        (["vp"], {"directions": random_control(4, 1, 0)}, "1 direction, 3 seeds: at least 2 and 1"),
    ],
)
def test_requests_that_cannot_be_met_are_refused(metrics: list[str], options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        disentangle(Quadrants(), metrics, progress=False, **options)


def one(value: float, control: float, **protocol: object) -> GeneratorScore:
    scores = [Score("mig", "bins=20", v, i) for i, v in enumerate((value - 0.1, value + 0.1))]
    controls = {"random basis": summary([Score("mig", "bins=20", control, 0)])}
    return GeneratorScore("mig", "bins=20", summary(scores), controls, {}, {}, protocol, {"model": str(value)})


def test_several_generators_have_a_mean_an_interval_and_a_gain_over_the_control() -> None:
    (found,) = across([[one(0.3, 0.1, k=4)], [one(0.5, 0.1, k=4)], [one(0.4, 0.4, k=4)]])
    assert found.score.mean == pytest.approx(0.4)
    assert found.score.high - found.score.mean == pytest.approx(4.302653 * 0.1 / np.sqrt(3), rel=1e-5)
    assert found.controls["random basis"].mean == pytest.approx(0.2)
    gain = found.gains["random basis"]
    assert gain.mean == pytest.approx(0.2)
    assert gain.high - gain.mean == pytest.approx(4.302653 * 0.2 / np.sqrt(3), rel=1e-5)
    assert "random basis" in str(found)
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["label"] == "mig[bins=20]"


def test_generators_that_were_measured_unlike_have_no_mean() -> None:
    with pytest.raises(ValueError, match="differ in k: 4 and 5"):
        across([[one(0.3, 0.1, k=4)], [one(0.5, 0.1, k=5)]])
    with pytest.raises(ValueError, match="no common mig"):
        across([[one(0.3, 0.1)], [replace(one(0.5, 0.1), variant="bins=10")]])
    with pytest.raises(ValueError, match="no common"):
        across([[one(0.3, 0.1)], []])
    with pytest.raises(ValueError, match="different controls"):
        across([[one(0.3, 0.1)], [replace(one(0.5, 0.1), controls={})]])
    with pytest.raises(ValueError, match="at least 2"):
        across([[one(0.3, 0.1)]])


def test_json_holds_no_arrays_and_no_infinities() -> None:
    plain = jsonable({"a": np.array([1.0, np.nan]), "b": (np.float64(2), float("inf")), 3: None})
    assert plain == {"a": [1.0, None], "b": [2.0, None], "3": None}
