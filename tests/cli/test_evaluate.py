"""``orthogan evaluate`` beyond fakes and reals: what needs the discriminator, held-out images, or a classifier."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import orthogan
from orthogan.cli._scores import _recipe
from orthogan.cli.main import main
from orthogan.config.files import validate
from orthogan.config.read import read_yaml
from orthogan.data import open_held_out
from orthogan.errors import CannotWrite, UserError
from orthogan.evaluation.critic.critic import Recipe
from orthogan.evaluation.critic.neural_divergence import neural_divergence
from orthogan.studies.cells import list_runs
from orthogan.studies.papers import srn_gan, srn_generalisation
from orthogan.training import train
from tests.fixtures.runs import tiny_classifier

CRITIC = "steps=6,batch_size=8,width=4"


@pytest.fixture(scope="module")
def gan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cells = list_runs(srn_gan.STUDY, "smoke", [0], tmp_path_factory.mktemp("gan"))
    return train(next(cell for cell in cells if cell.method == "srn-50").config)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cells = list_runs(srn_generalisation.STUDY, "smoke", [0], tmp_path_factory.mktemp("classifier"))
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
        (["--metrics", "fid,lipschitz"], "cannot mix metrics of a GAN (lipschitz) with others"),
        (["--metrics", "lipschitz", "--eps", "2"], "--eps does not apply to --metrics lipschitz"),
        (["--metrics", "lipschitz", "--split", "test"], "--split does not apply to --metrics lipschitz"),
        (["--metrics", "fid", "--critic", "steps=3"], "--critic does not apply to --metrics fid"),
        (["--metrics", "neural_divergence", "--critic", "step=3"], "unknown option 'step'; did you mean 'steps'?"),
        (["--metrics", "neural_divergence", "--critic", "lr=low"], "lr must be a number, such as 0.0002"),
        (["--metrics", "neural_divergence", "--critic", "width=0"], "width=0: must be at least 1"),
        (["--metrics", "accuracy"], "classifier"),
        (["--metrics", "fid", "--reference", "tests", "--split", "test"], "--split does not apply with --reference"),
        (["--metrics", "is", "--split", "test"], "--split does not apply to the metrics isc, which use no reference"),
        (["--metrics", "is", "--reference", "tests"], "--reference does not apply to the metrics isc"),
        (["--metrics", "is", "--reference-samples", "9"], "--reference-samples does not apply to the metrics isc"),
        (
            ["--metrics", "is", "--save-reference", "a.safetensors"],
            "--save-reference does not apply to",
        ),
        (["--metrics", "authenticity", "--nearest", "near.jpg"], "nearest images must end in .png"),
    ],
)
def test_what_means_nothing_is_refused_with_the_remedy(
    words: list[str], said: str, gan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(gan), *words, "--device", "cpu"]) == 2
    assert said in capsys.readouterr().err


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of 40 pictures, one of them with a file that is cut short, and a config."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name in ("good", "bad"):
        (folder / name).mkdir()
        for index in range(40):
            pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index:03d}.png")
    cut = folder / "bad" / "003.png"
    cut.write_bytes(cut.read_bytes()[:1000])
    (folder / "c.yaml").write_text(f"data: {{source: folder, path: {folder / 'good'}, resolution: 32}}\n")
    return folder


def scored(photos: Path, subject: str, *words: str) -> int:
    options = ["--data", str(photos / "c.yaml"), "--extractor", "tests.fixtures.scored:Classifying"]
    return main(["evaluate", str(photos / subject), *words, *options, "--device", "cpu"])


@pytest.mark.parametrize("side", ["subject", "reference"])
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["data.bad_limit=0.1"], 0, "39"),
        ([], 2, "003.png"),
        (["data.bad_limit=0.1", "data.bad_images=error"], 2, "003.png"),
    ],
)
def test_bad_files_are_treated_as_the_config_says(
    words: list[str], code: int, said: str, side: str, photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    subject, other = ("bad", "good") if side == "subject" else ("good", "bad")
    assert scored(photos, subject, "--reference", str(photos / other), *words) == code
    out, err = capfd.readouterr()
    assert said in (out if code == 0 else err)


def test_overrides_change_the_config_of_data(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert scored(photos, "good", "data.resolution=16") == 0
    assert "images of 16 px" in capsys.readouterr().out
    assert main(["evaluate", str(photos / "good"), "data.resolution=16"]) == 2
    assert "add --data" in capsys.readouterr().err
    assert scored(photos, "good", "data.resolutoin=16") == 2
    assert "did you mean 'data.resolution'?" in capsys.readouterr().err


def test_the_other_metrics_are_printed_when_one_cannot_be_computed(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scored(photos, "good", "--reference", str(photos / "good"), "--metrics", "FID,kid", "--json") == 2
    out, err = capsys.readouterr()
    assert not out
    assert "kid: draws subsets of 1000" in err
    words = ["--metrics", "FID,precision,ppl_nog", "--json"]
    assert scored(photos, "good", "--reference", str(photos / "good"), *words) == 2
    out, err = capsys.readouterr()
    assert [json.loads(line)["metric"] for line in out.splitlines()] == ["fid", "prc"]
    assert "ppl_nog could not be computed" in err
    assert scored(photos, "good", "--metrics", "kid", "--kid-subset-size", "20") == 0
    assert "KD[Classifying,subset=20]" in capsys.readouterr().out


@pytest.mark.parametrize("metrics", ["fid", "lipschitz"])
def test_scores_are_printed_before_they_are_stored(
    metrics: str, gan: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, results: object) -> None:
        raise CannotWrite(f"cannot write {path}: no space")

    monkeypatch.setattr("orthogan.evaluation.append_jsonl", full)
    options = ["--extractor", "tests.fixtures.scored:Classifying"] if metrics == "fid" else []
    assert main(["evaluate", str(gan), "--metrics", metrics, "--samples", "16", "--device", "cpu", *options]) == 2
    out, err = capsys.readouterr()
    assert ("FD[Classifying]" if metrics == "fid" else metrics) in out
    assert "cannot write" in err


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["steps", "batch_size", "width", "lr", "penalty", "average", "step", "", "lr "]),
            st.sampled_from(["", "="]),
            st.text(max_size=6)
            | st.sampled_from(["1e400", "inf", "nan", "-1", "0", "1e30", "9" * 5000, "2", "0.5", "１"]),
        ),
        max_size=3,
    )
)
def test_any_recipe_of_a_critic_is_read_or_refused(words: list[tuple[str, str, str]]) -> None:
    text = ",".join(map("".join, words))
    try:
        recipe = _recipe(text)
    except UserError as error:
        assert str(error)  # noqa: PT017
    else:
        assert recipe.steps <= 10**9
        assert all(np.isfinite([recipe.lr, recipe.penalty, recipe.average]))


def test_a_classifier_is_measured_on_a_source_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    levels = {"dark": 40, "light": 200}
    for place, count in (("learned", 20), ("other", 7)):
        for name, level in levels.items():
            (tmp_path / place / name).mkdir(parents=True)
            for i in range(count):
                Image.new("L", (40, 40), level + i).save(tmp_path / place / name / f"{i}.png")
    of_learned = [
        "data.source=folder",
        "data.count=null",
        f"data.path={tmp_path / 'learned'}",
        "training.steps=2",
        "data.holdout=0.2",
    ]
    run = train(tiny_classifier(tmp_path / "run", *of_learned))
    asked = ["evaluate", str(run), "--metrics", "accuracy", "--device", "cpu", "--json"]

    def images(*words: str) -> str:
        assert main([*asked, *words]) == 0
        protocol = json.loads(capsys.readouterr().out.splitlines()[-1])["protocol"]
        return f"{protocol['samples']} of {protocol['reference']}"

    assert images() == "8 of 0.2 of learned"
    other = ["--data", "folder", f"data.path={tmp_path / 'other'}"]  # without a test split: all of them
    assert images(*other) == images(*other, "--split", "train") == "14 of other"
    assert images(*other, "data.holdout=0.5").endswith("of 0.5 of other")
    for words, said in (
        (["folder", f"data.path={tmp_path / 'learned'}"], "was trained on it, and it has no test split; omit --data"),
        (["sprites", "data.count=20"], "choose images with the same classes, channels and resolution"),
    ):
        assert main([*asked, "--data", *words]) == 2
        assert said in capsys.readouterr().err


def test_data_may_name_a_source(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--samples", "16", "--extractor", "tests.fixtures.scored:Classifying", "--device", "cpu"]
    named = ["--data", "sprites", "data.count=40"]
    assert main(["evaluate", "sprites-sngan", *named, *options, "--json"]) == 0
    assert '"reference": "sprites-40, 40 images of 32 px"' in capsys.readouterr().out  # the size of the generator
    assert main(["evaluate", str(photos / "good"), *named, *options]) == 2
    assert "add data.resolution=N" in capsys.readouterr().err
    assert main(["evaluate", str(photos / "good"), *named, "data.resolution=64", *options]) == 0
    capsys.readouterr()
    assert main(["evaluate", "sprites-sngan", "--data", "no-such.yaml", *options]) == 2
    assert "no-such.yaml" in capsys.readouterr().err
