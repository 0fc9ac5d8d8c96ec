"""The folder of a model: it opens everywhere, its card says what the run's files say, and nothing of this machine."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from orthogan.cli.main import main
from orthogan.errors import UserError
from orthogan.export import package
from orthogan.export.package import Description, most_effective
from orthogan.io.weights import read_sealed
from orthogan.latent import Directions, native_directions
from orthogan.models.card import read_card
from orthogan.models.open import load_discriminator, load_generator, open_model
from orthogan.models.protocol import Generator
from orthogan.training import train
from tests.fixtures.runs import tiny, tiny_classifier

SCORED = [
    "training.steps=4",
    "evaluation.every=2",
    "evaluation.samples=16",
    "evaluation.extractor=tests.fixtures.extractor:Moments",
    "data.labels=true",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tiny(tmp_path_factory.mktemp("package") / "run", *SCORED))


@pytest.fixture(scope="module")
def model(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    about = Description(summary="Sprites of a test", machine="a test machine", tags=["mine"], notes="## Notes\n\nNone.")
    return package(run, tmp_path_factory.mktemp("packed") / "small-sprites", about)


def test_the_folder_has_both_nets_of_the_run(run: Path, model: Path) -> None:
    assert {file.name for file in model.iterdir()} == {
        "README.md",
        "generator.safetensors",
        "discriminator.safetensors",
        "samples.png",
        "traversal.png",
    }
    theirs, ours = load_generator(run), load_generator(model)
    z, y = ours.sample_latent(3, seed=0), torch.arange(3)
    assert torch.equal(ours(z, y), theirs(z, y))
    images = theirs(z, y)
    torch.testing.assert_close(load_discriminator(model)(images, y), load_discriminator(run)(images, y))
    assert open_model(model).class_names == open_model(run).class_names
    for name in ("generator", "discriminator"):
        read_sealed(model / f"{name}.safetensors", needed=True)
    for picture in ("samples.png", "traversal.png"):
        with Image.open(model / picture) as image:
            assert min(image.size) > 200


def test_the_card_says_what_the_run_says(run: Path, model: Path) -> None:
    card = read_card(model / "README.md")
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    facts = card.facts
    assert facts is not None
    assert (facts.summary, facts.machine) == ("Sprites of a test", "a test machine")
    assert (facts.step, facts.images, facts.latent_dim, facts.resolution, facts.channels) == (4, 64, 8, 32, 1)
    assert facts.classes == ["square", "ellipse", "heart"]
    assert facts.parameters["generator"] == sum(p.numel() for p in load_generator(run).parameters())
    assert [(s.label, s.value) for s in facts.scores] == [(records[-1]["label"], round(records[-1]["value"], 4))]
    assert facts.scores[0].protocol == records[-1]["protocol"]
    (curve,) = facts.expected
    assert [(p.images, p.value) for p in curve.points] == [
        (i * 32, round(r["value"], 4)) for i, r in enumerate(records, 1)
    ]
    assert not {"step", "seed", "seconds"} & set(curve.protocol)
    block = card.block
    assert (block["license"], block["library_name"], block["datasets"]) == ("mit", "orthogan", ["sprites"])
    assert {"gan", "sngan", "mine"} <= set(block["tags"])
    assert block["metrics"] == [records[0]["label"]]
    for text in ("# small-sprites", "Sprites of a test.", "64 real images, 4 generator steps", "## Notes"):
        assert text in card.text
    assert 'orthogan.load("small-sprites")' in card.text


def test_nothing_of_this_machine_travels(run: Path, model: Path, tmp_path: Path) -> None:
    for file in model.glob("*"):
        assert str(run.parent).encode() not in file.read_bytes()
    with safe_open(model / "generator.safetensors", "pt") as file:
        config = json.loads(file.metadata()["config"])
    assert config["out"] is None


def test_a_command_that_trains_it_again(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "small.yaml").write_text((run / "config.yaml").read_text().replace("seed: 0", "seed: 3", 1))
    monkeypatch.chdir(tmp_path)
    words = ["--out", "again", "--config", "small.yaml", "--metrics", "kid", "--samples", "20"]
    config = tmp_path / "small.yaml"
    config.write_text(
        config.read_text().replace("  batch_size: 8\n", "  batch_size: 24\n", 1).replace("workers: 2", "workers: 1")
    )
    assert main(["package", str(run), *words]) == 2  # 20 fakes are too few for the subsets of the run
    assert main(["package", str(run), "--out", "again", "--config", "small.yaml", "--summary", "S"]) == 0
    facts = read_card(tmp_path / "again" / "README.md").facts
    assert facts is not None
    assert facts.command == "orthogan train small.yaml seed=0 training.batch_size=8"


def test_half_precision_needs_scores_of_its_own(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no score of step 4 with float16 weights; measure some"):
        package(run, tmp_path / "half", half=True)
    out = package(run, tmp_path / "half", half=True, metrics=["fid"], samples=16)
    with safe_open(out / "generator.safetensors", "pt") as file:
        assert {str(file.get_tensor(name).dtype) for name in file.keys() if "num_batches" not in name} == {  # noqa: SIM118
            "torch.float16"
        }
    z, y = torch.zeros(1, 8), torch.zeros(1, dtype=torch.long)
    torch.testing.assert_close(load_generator(out)(z, y), load_generator(run)(z, y), atol=0.02, rtol=0)


def test_codes_get_the_names_that_say_what_they_change(run: Path, tmp_path: Path) -> None:
    coded = train(tiny(tmp_path / "coded", *SCORED, "model.generator.codes.continuous=2"))
    for names, message in ((["hair"], "1 name for 2 codes"), (["hair", "hair"], "two codes have the same name")):
        with pytest.raises(UserError, match=message):
            package(coded, tmp_path / "model", Description(codes=names))
    with pytest.raises(UserError, match="this model has no latent codes"):
        package(run, tmp_path / "model", Description(codes=["hair"]))
    out = package(coded, tmp_path / "model", Description(codes=["hair", "skin"]))
    net = load_generator(out)
    assert native_directions(net).names == ("hair", "skin")
    z, y = net.sample_latent(3, seed=0), torch.arange(3)
    assert torch.equal(net(z, y), load_generator(coded)(z, y))


def test_what_cannot_become_a_model_is_refused(run: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config.yaml\); name a new folder|name a new folder"):
        package(run, run)
    with pytest.raises(UserError, match="is not a run of a GAN"):
        package(model, tmp_path / "b")
    with pytest.raises(UserError, match="contains a classifier"):
        package(train(tiny_classifier(tmp_path / "c", "training.steps=1")), tmp_path / "d")
    unscored = train(tiny(tmp_path / "e", "training.steps=1"))
    with pytest.raises(UserError, match="there is no score of step 1; measure some"):
        package(unscored, tmp_path / "f")
    assert not (tmp_path / "f").exists()
    assert package(run, model) == model  # again over its own files


def test_the_traversal_shows_the_directions_that_change_an_image_the_most() -> None:
    class Uneven(Generator):
        """The brightness of an image depends on the coordinates 3 to 10 alone, more on the later ones."""

        latent_dim, num_classes, image_channels, resolution = 12, 0, 1, 8

        def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            weights = torch.tensor([0.0] * 3 + [1.0 + i for i in range(8)] + [0.0])
            return (z @ weights / 50).tanh()[:, None, None, None].expand(-1, 1, 8, 8)

    directions = Directions(np.eye(12, dtype=np.float32), method="axes")
    assert most_effective(Uneven(), directions, device=torch.device("cpu")) == list(range(3, 11))
