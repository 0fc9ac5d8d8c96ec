"""Accuracy under corruptions and attacks: the counts, the protocol, the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from orthogan import weights
from orthogan.cli.main import main
from orthogan.data import ArraySource, to_float
from orthogan.errors import UserError
from orthogan.evaluation import Incomplete, evaluate_classifier, table
from orthogan.evaluation.robustness import attacks as robustness
from orthogan.evaluation.robustness.accuracy import accuracy
from orthogan.evaluation.robustness.attacks import Attack, Attacker, attacked_accuracy
from orthogan.evaluation.robustness.corruptions import CORRUPTIONS, SEVERITIES, Corrupted, corruption_accuracy
from orthogan.rng import derive
from orthogan.training import train
from tests.fixtures.attacked import CLASSES, SIDE, answers, net, source
from tests.fixtures.runs import tiny as gan
from tests.fixtures.runs import tiny_classifier as tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier after one step."""
    folder = tmp_path_factory.mktemp("robustness") / "run"
    train(tiny(folder, "training.steps=1", "data.label_noise=0.5"))
    return folder


def printed(capsys: pytest.CaptureFixture[str]) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_corruptions_are_the_accuracies_on_each() -> None:
    module = net()
    data = source(module, 30, wrong=3)
    names, severities = ["jpeg", "gaussian_noise"], [1, 5]
    found = corruption_accuracy(module, data, names=names, severities=severities, seed=2, progress=False)
    assert found.parts["clean"] == pytest.approx(0.9)
    for name in names:
        values = [accuracy(module, Corrupted(data, name, severity, 2))[0] for severity in severities]
        assert [found.parts[f"{name}/{severity}"] for severity in severities] == values
        assert found.parts[name] == pytest.approx(np.mean(values))
    assert float(found) == pytest.approx((found.parts["jpeg"] + found.parts["gaussian_noise"]) / 2)
    assert len(found.parts) == 1 + 2 + 4
    assert module.training
    again = corruption_accuracy(module, data, names=names, severities=severities, seed=2, batch_size=7, progress=False)
    assert again.parts == found.parts


def test_all_corruptions_and_severities_by_default_and_a_protocol_that_names_them() -> None:
    module = net()
    found = corruption_accuracy(module, source(module), samples=10, progress=False, info={"step": "7"})
    assert len(found.parts) == 1 + len(CORRUPTIONS) * (1 + len(SEVERITIES))
    assert found.protocol["severities"] == [1, 2, 3, 4, 5]
    assert "CIFAR-10-C" in found.protocol["corruptions"]
    assert "torchvision" in found.protocol["corruptions"]
    assert (found.protocol["samples"], found.protocol["seed"], found.protocol["step"]) == (10, 0, "7")
    assert found.is_better(found.value - 0.1)
    assert found.one_line().startswith("corruptions ")
    assert "10 images of pictures" in found.one_line()
    assert json.loads(json.dumps(found.as_dict()))["parts"] == found.parts
    assert "gaussian_noise/5" in table([found])


@pytest.mark.parametrize("kind", ["fgsm", "pgd"])
def test_an_attack_of_size_zero_gives_the_accuracy(kind: str) -> None:
    pytest.importorskip("art")
    module = net()
    data = source(module, wrong=5)
    found = attacked_accuracy(module, data, Attack(kind, eps=0.0), batch_size=7, progress=False)
    assert float(found) == found.parts["clean"] == accuracy(module, data)[0]


def test_a_large_attack_leaves_nothing_and_a_small_one_something() -> None:
    pytest.importorskip("art")
    module = net()
    data = source(module, wrong=2)
    values = [float(attacked_accuracy(module, data, Attack("pgd", eps=eps), progress=False)) for eps in (0.05, 100.0)]
    assert values[0] > 0.5
    assert values[1] == 0.0


def test_what_is_counted_is_right_before_and_after() -> None:
    pytest.importorskip("art")
    module = net()
    weights.apply(module, "spectral")
    data, attack = source(module, 20, wrong=8), Attack("pgd", eps=3.0, steps=3)
    found = attacked_accuracy(module, data, attack, batch_size=8, seed=5, progress=False)
    assert module.training
    module.eval()
    right = 0
    for index, start in enumerate(range(0, 20, 8)):
        pixels, labels = data.read(np.arange(start, min(start + 8, 20)))
        images, truth = to_float(torch.from_numpy(pixels), dequantize=False), torch.from_numpy(labels)
        attacker = Attacker(module, attack, shape=(3, SIDE, SIDE), num_classes=CLASSES)
        bent = attacker(images, truth, seed=derive(5, "attack", index))
        right += int(((answers(module, images) == truth) & (answers(module, bent) == truth)).sum())
    assert float(found) == right / 20
    assert found.parts == {"clean": 12 / 20}
    assert found.label == f"pgd[{attack.variant}]"
    assert found.protocol["attack"] == attack.variant
    assert found.protocol["attack library"].startswith("adversarial-robustness-toolbox 1.")
    again = attacked_accuracy(module, data, attack, batch_size=8, seed=5, progress=False)
    assert (again.value, again.parts) == (found.value, found.parts)


def test_an_image_that_was_wrong_is_not_right_because_of_an_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("art")
    module, seeds = net(), []
    data = source(module, 40, wrong=10)
    pictures = to_float(torch.from_numpy(data.images), dequantize=False)
    said = answers(module, pictures)

    class Friend:
        """Gives each image's place to one that the net says the wanted class of."""

        def __init__(self, *_: object, **__: object) -> None: ...

        def __call__(self, images: torch.Tensor, labels: torch.Tensor, *, seed: int) -> torch.Tensor:
            seeds.append(seed)
            return torch.stack([pictures[int((said == label).nonzero()[0])] for label in labels])

    monkeypatch.setattr(robustness, "Attacker", Friend)
    found = attacked_accuracy(module, data, Attack(), batch_size=16, seed=9, progress=False)
    assert float(found) == found.parts["clean"] == 0.75
    assert seeds == [derive(9, "attack", index) for index in range(3)]


def test_every_metric_in_its_order_and_one_result_a_size() -> None:
    pytest.importorskip("art")
    module = net()
    data = source(module)
    found = evaluate_classifier(
        module, data, metrics=["fgsm", "accuracy", "corruptions"], eps=[1, 4], samples=12, progress=False
    )
    assert [r.label for r in found] == ["fgsm[Linf 1/255]", "fgsm[Linf 4/255]", "accuracy", "corruptions"]
    assert {r.protocol["samples"] for r in found} == {12}
    assert {r.parts["clean"] for r in found if "clean" in r.parts} == {float(found[2])} == {1.0}
    usual = evaluate_classifier(module, data, metrics=["fgsm"], attack_norm="2", samples=4, progress=False)
    assert [r.variant for r in usual] == ["L2 32/255", "L2 128/255"]


def test_mistakes_are_refused_before_anything_is_measured() -> None:
    module = net()
    data = source(module)
    unlabelled = ArraySource("bare", data.images)
    three = ArraySource("three", data.images, labels=np.zeros(24, int), class_names=list("abc"))
    cases = [
        ({"metrics": ["acuracy"]}, data, "did you mean 'accuracy'"),
        ({"metrics": []}, data, "name at least one of accuracy"),
        ({"metrics": ["pgd"], "attack_norm": "1"}, data, "norm '1'"),
        ({"metrics": ["accuracy"]}, three, "three: has 3 classes, but the network returns"),
        ({"metrics": ["accuracy"]}, unlabelled, "bare: has 0 classes"),
    ]
    for options, images, words in cases:
        with pytest.raises(UserError, match=words):
            evaluate_classifier(module, images, **options)
    with pytest.raises(UserError, match="name at least one corruption"):
        corruption_accuracy(module, data, names=[])


def test_a_missing_library_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    module = net()
    monkeypatch.setattr(robustness, "attacked_accuracy", lambda *_, **__: pytest.fail("attacked without the library"))
    monkeypatch.setattr("orthogan.evaluation.robustness.attacks.importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[robust\]'"):
        evaluate_classifier(module, source(module), metrics=["pgd"])
    with pytest.raises(Incomplete, match=r"pgd could not be computed: .*pip install -e '\.\[robust\]'") as caught:
        evaluate_classifier(module, source(module), metrics=["accuracy", "pgd"])
    assert [result.metric for result in caught.value.results] == ["accuracy"]


def test_the_command_measures_a_run_and_keeps_the_numbers(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("art")
    capsys.readouterr()
    arguments = ["evaluate", str(run), "--metrics", "accuracy,corruptions,fgsm,pgd", "--samples", "12", "--eps", "0,8"]
    assert main([*arguments, "--steps", "2", "--device", "cpu", "--json"]) == 0
    found = printed(capsys)
    assert [r["metric"] for r in found] == ["accuracy", "corruptions", "fgsm", "fgsm", "pgd", "pgd"]
    accurate = found[0]["value"]
    assert [r["value"] for r in found[2::2]] == [accurate, accurate]
    assert found[5]["variant"] == "Linf 8/255, 2 steps of 8, 1 restarts"
    assert {r["protocol"]["subject"] for r in found} == {str(run)}
    assert {r["protocol"]["reference"] for r in found} == {found[0]["protocol"]["reference"]}
    kept = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert kept[-6:] == found
    assert main(["evaluate", str(run), "--metrics", "corruptions", "--samples", "4", "--device", "cpu"]) == 0
    assert "jpeg/5" in capsys.readouterr().out


def test_it_is_measured_on_the_test_images_with_their_own_labels(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["evaluate", str(run), "--metrics", "accuracy", "--device", "cpu", "--json"]) == 0
    (found,) = printed(capsys)
    assert found["protocol"]["samples"] == 24  # a fifth of 120 sprites, as held out
    assert found["protocol"]["reference"].startswith("0.2 of ")


MISTAKES = {
    "cannot mix metrics of a classifier (accuracy)": ["--metrics", "accuracy,fid"],
    "--truncation does not apply to --metrics accuracy": ["--metrics", "accuracy", "--truncation", "0.5"],
    "--no-ema does not apply to --metrics pgd": ["--metrics", "pgd", "--no-ema"],
    "--eps does not apply to --metrics fid": ["--metrics", "fid", "--eps", "3"],
    "--eps 2;8: must be a list of numbers": ["--metrics", "fgsm", "--eps", "2;8"],
    "eps is -3.0": ["--metrics", "fgsm", "--eps=-3"],
    "contains a classifier, but a generator is needed": ["--metrics", "fid"],
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_end_with_code_2(run: Path, capsys: pytest.CaptureFixture[str], message: str) -> None:
    assert main(["evaluate", str(run), "--device", "cpu", *MISTAKES[message]]) == 2
    assert message in capsys.readouterr().err


def test_other_images_and_other_nets_are_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("data: {source: sprites, count: 60, channels: 1, resolution: 64}\n", encoding="utf-8")
    assert main(["evaluate", str(run), "--metrics", "accuracy", "--data", str(other), "--device", "cpu"]) == 2
    assert "choose images with the same" in capsys.readouterr().err
    train(gan(tmp_path / "gan", "training.steps=1"))
    assert main(["evaluate", str(tmp_path / "gan"), "--metrics", "accuracy", "--device", "cpu"]) == 2
    assert "contains a generator, but a classifier is needed" in capsys.readouterr().err
