"""``orthogan evaluate`` beyond fakes and reals: what needs the discriminator, held-out images, or a classifier."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import orthogan
from orthogan.cli import main
from orthogan.config_file import read_yaml, validate
from orthogan.data.held_out import open_held_out
from orthogan.evaluation.critic import Recipe
from orthogan.evaluation.neural_divergence import neural_divergence
from orthogan.studies import srn_gan, srn_generalisation
from orthogan.studies.cells import cells_of
from orthogan.training import train

CRITIC = "steps=6,batch_size=8,width=4"


@pytest.fixture(scope="module")
def gan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cells = cells_of(srn_gan.STUDY, "smoke", [0], tmp_path_factory.mktemp("gan"))
    return train(next(cell for cell in cells if cell.method == "srn-50").config)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cells = cells_of(srn_generalisation.STUDY, "smoke", [0], tmp_path_factory.mktemp("classifier"))
    return train(next(cell for cell in cells if (cell.method, cell.setting) == ("vanilla", "true")).config)


def test_a_gan_is_held_against_images_it_never_saw(gan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["evaluate", str(gan), "--metrics", "neural_divergence,lipschitz", "--samples", "16", "--critic", CRITIC]
    assert main([*asked, "--device", "cpu", "--json"]) == 0
    divergence, steep = (json.loads(line) for line in capsys.readouterr().out.strip().splitlines())
    config = validate(read_yaml(gan / "config.yaml"), {}, default_origin="")
    recipe = Recipe(steps=6, batch_size=8, width=4)
    known = neural_divergence(orthogan.load(gan), open_held_out(config.data), recipe=recipe, samples=16, progress=False)
    assert divergence["value"] == pytest.approx(known.value, rel=1e-6)
    assert divergence["protocol"]["reference"].startswith("other sprites")
    assert steep["metric"] == "lipschitz"
    assert steep["protocol"]["samples"] == 16
    assert not (gan / "critic.safetensors").exists()  # the state of a critic that came to its end
    kept = [json.loads(line)["metric"] for line in (gan / "metrics.jsonl").read_text().splitlines()]
    assert kept[-2:] == ["neural_divergence", "lipschitz"]


def test_a_classifier_is_measured_on_test_images_and_its_complexity_on_training_images(
    classifier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(classifier), "--metrics", "complexity,accuracy", "--samples", "100", "--json"]) == 0
    found = {record["metric"]: record for record in map(json.loads, capsys.readouterr().out.strip().splitlines())}
    assert set(found) == {"accuracy", "margin", "spec_fro", "spec_l1", "jac_norm"}
    assert found["accuracy"]["protocol"]["reference"] != found["margin"]["protocol"]["reference"]
    assert found["margin"]["protocol"]["samples"] == 100


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--metrics", "fid,lipschitz"], "lipschitz are of a whole GAN, the rest not"),
        (["--metrics", "lipschitz", "--eps", "2"], "--eps: --metrics lipschitz has no use for it"),
        (["--metrics", "lipschitz", "--split", "test"], "--split: --metrics lipschitz has no use for it"),
        (["--metrics", "fid", "--critic", "steps=3"], "--critic: --metrics fid has no use for it"),
        (["--metrics", "neural_divergence", "--critic", "step=3"], "there is no 'step'; did you mean steps?"),
        (["--metrics", "neural_divergence", "--critic", "lr=low"], "lr is a number, such as 0.0002"),
        (["--metrics", "neural_divergence", "--critic", "width=0"], "width=0: at least 1 each"),
        (["--metrics", "accuracy"], "classifier"),
    ],
)
def test_what_means_nothing_is_refused_with_the_remedy(
    words: list[str], said: str, gan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(gan), *words, "--device", "cpu"]) == 2
    assert said in capsys.readouterr().err
