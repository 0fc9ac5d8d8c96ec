"""A metric from a file outside the package: by name in Python, on the command line, in YAML and in the background."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orthogan.cli.main import main
from orthogan.errors import UserError
from orthogan.evaluation import METRICS, Incomplete, Inputs, Metric, MetricResult, Score, evaluate, evaluate_classifier
from orthogan.evaluation.metric import OF_IMAGES, find_metrics
from orthogan.training import train
from tests.fixtures.attacked import net as classifier
from tests.fixtures.attacked import source as labeled
from tests.fixtures.runs import tiny, tiny_classifier
from tests.fixtures.scored import EXTRACTOR, Patches, source

MODULE = """
from orthogan.evaluation import Metric, Score

class Contrast(Metric):
    better = "higher"
    needs = frozenset({"images"})
    compares = True

    def compute(self, inputs):
        fakes, reals = (side.images.float().std() for side in (inputs.fakes, inputs.reals))
        return Score(float(fakes / reals), parts={"images": float(len(inputs.fakes.images))})

class Near(Metric):
    label, feature_label = "NEAR", "near"
    better = "lower"
    needs = frozenset({"rows", "gaussian"})
    compares = True

    def compute(self, inputs):
        fakes, reals = inputs.fakes.rows.double(), inputs.reals.rows.double()
        return Score(float((fakes.mean(0) - reals.mean(0)).norm()), variant="l2")

class Sure(Metric):
    better = "higher"
    needs = frozenset({"classifier", "test"})

    def compute(self, inputs):
        return Score(0.5)

class Broken(Metric):
    needs = frozenset({"images"})

    def compute(self, inputs):
        return 1 // 0

number = 3
"""


@pytest.fixture(autouse=True)
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_metrics.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_metrics", raising=False)


def score(metrics: str, subject: Any = None, reference: Any = None, **options: Any) -> list[MetricResult]:
    arguments = {"samples": 20, "extractor": EXTRACTOR, "progress": False, **options}
    return evaluate(subject or Patches(), reference or source(50), metrics=metrics, **arguments)


def test_own_metrics_stand_beside_the_others() -> None:
    contrast, fid, near = score("own_metrics:Contrast,FID,own_metrics:Near", batch_size=7)
    assert (contrast.metric, contrast.label, contrast.parts) == ("own_metrics:Contrast", "Contrast", {"images": 20.0})
    assert contrast.value == score("own_metrics:Contrast", batch_size=20)[0].value
    assert "extractor" not in contrast.protocol
    assert contrast.protocol["reference"] == fid.protocol["reference"]
    assert (near.label, near.extractor) == ("near[Moments,l2]", "Moments")
    assert fid.value == score("fid", batch_size=7)[0].value
    assert near.is_better(near.value + 1)
    assert contrast.is_better(contrast.value - 1)
    read = MetricResult(**{key: value for key, value in near.as_dict().items() if key != "label"})
    assert (read.label, read.is_better(read.value + 1)) == (near.label, True)


def test_records_of_own_metrics_are_read_without_importing_them() -> None:
    record = MetricResult("own_metrics:Gone", 1.0, "none", title="Gone", better="lower")
    assert record.label == "Gone"
    assert record.is_better(2.0)
    assert "own_metrics" not in sys.modules


def test_own_metrics_go_into_the_cache_of_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORTHOGAN_CACHE", str(tmp_path / "cache"))
    first = score("own_metrics:Contrast,own_metrics:Near")
    assert [r.value for r in score("own_metrics:Contrast,own_metrics:Near")] == [r.value for r in first]


def test_images_are_compared_as_they_are() -> None:
    images = source(30, seed=2)
    pixels = torch.from_numpy(images.read(np.arange(30))[0]).float()
    reals = torch.from_numpy(source(50).read(np.arange(50))[0]).float()
    (found,) = score("own_metrics:Contrast", images, samples=None)
    assert found.value == pytest.approx(float(pixels.std() / reals.std()), rel=1e-5)


def test_an_own_metric_that_fails_leaves_the_others() -> None:
    with pytest.raises(Incomplete, match=r"own_metrics:Broken could not be computed: .*ZeroDivisionError") as caught:
        score("own_metrics:Broken,fid,own_metrics:Sure")
    assert [result.metric for result in caught.value.results] == ["fid"]
    assert "own_metrics:Sure needs a classifier" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("own_metrics:number", "this is a int; it must be a subclass of Metric"),
        ("own_metrics:Nothing", "has no attribute 'Nothing'"),
        ("nowhere:Metric", "No module named 'nowhere'"),
        ("own_metrics:", "must be package.module:Name"),
    ],
)
def test_what_is_no_metric_is_refused(name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        find_metrics([name])


def test_a_classifier_has_own_metrics_too() -> None:
    module = classifier()
    found = evaluate_classifier(module, labeled(module), metrics="own_metrics:Sure,accuracy", progress=False)
    assert (found[0].metric, found[0].value) == ("own_metrics:Sure", 0.5)
    assert found[0].protocol["reference"] == found[1].protocol["reference"]


@pytest.mark.parametrize("background", ["false", "true"])
def test_a_run_is_scored_by_own_metrics_and_its_best_chosen_by_them(background: str, tmp_path: Path) -> None:
    options = ["training.steps=2", "evaluation.every=2", "evaluation.samples=8", f"evaluation.background={background}"]
    options += ["evaluation.metrics=[own_metrics:Contrast,PRECISION]", "evaluation.best=own_metrics:Contrast"]
    config = tiny(tmp_path / "run", *options, f"evaluation.extractor={EXTRACTOR}", "checkpoint.every=2")
    assert config.evaluation.metrics == ["own_metrics:Contrast", "prc"]
    run = train(config)
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["metric"] for record in records] == ["own_metrics:Contrast", "prc"]
    assert (run / "best").exists()
    assert train(config) == run  # complete: nothing is left to score
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_classifier_in_training_is_scored_by_own_metrics(tmp_path: Path) -> None:
    options = ["training.steps=2", "evaluation.every=2", "evaluation.metrics=[accuracy,own_metrics:Sure]"]
    run = train(tiny_classifier(tmp_path / "run", *options))
    names = [json.loads(line)["metric"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert names == ["accuracy", "train_accuracy", "own_metrics:Sure"]


def test_the_command_line_takes_own_metrics_and_a_strange_run_needs_consent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(tiny(tmp_path / "run", "training.steps=1"))
    capsys.readouterr()
    words = ["evaluate", str(run), "--metrics", "own_metrics:Contrast", "--samples", "8", "--device", "cpu", "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["label"] == "Contrast"
    named = tmp_path / "named"
    train(tiny(named, "training.steps=1", "evaluation.metrics=[fid,own_metrics:Contrast]"))
    del sys.modules["own_metrics"]
    assert main(["train", str(named / "config.yaml"), f"out={tmp_path / 'other'}"]) == 2
    said = capsys.readouterr().err
    assert "evaluation.metrics.1 = 'own_metrics:Contrast'" in said
    assert "--trust" in said
    assert "own_metrics" not in sys.modules


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (
            "evaluation.metrics=[fid,lipschitz]",
            "'lipschitz' needs the discriminator, which task 'gan' does not have",
        ),
        ("evaluation.metrics=[accuracy]", "evaluation.best"),
        ("evaluation.metrics=[fid,accuracy]", "'accuracy' needs the classifier"),
        ("evaluation.metrics=[fidd]", "did you mean 'fid'"),
    ],
)
def test_metrics_that_training_cannot_measure_are_refused_by_the_config(word: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        tiny(tmp_path, word)


def test_every_metric_says_what_it_is() -> None:
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.needs
        assert type(metric).__doc__
        assert metric.compares <= bool(metric.needs & OF_IMAGES)
        assert metric.titled("inception", "")


def test_a_metric_without_compute_is_said() -> None:
    with pytest.raises(NotImplementedError):
        Metric().compute(Inputs())
    assert Score(1.0).parts == {}
