"""``orthogan push`` shows what it would upload, uploads only after consent, and the result opens by its name."""

from __future__ import annotations

import builtins
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import orthogan
from orthogan.cli.main import main
from orthogan.models.card import read_card
from orthogan.models.open import load_discriminator
from orthogan.training import train
from tests.fixtures.hub import Hub, the_hub
from tests.fixtures.runs import tiny

SCORED = ["training.steps=1", "evaluation.every=1", "evaluation.samples=16"]
SCORED += ["evaluation.extractor=tests.fixtures.extractor:Moments"]
FILES = {"README.md", "generator.safetensors", "discriminator.safetensors", "samples.png", "traversal.png"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with the_hub(tmp_path, monkeypatch) as server:
        yield server


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tiny(tmp_path_factory.mktemp("push") / "run", *SCORED))


@pytest.fixture(scope="module")
def folder(run: Path) -> Path:
    """The folder of the model, in its run's folder."""
    folder = run / "small"
    assert main(["package", str(run), "--out", str(folder)]) == 0
    (folder / "notes.txt").write_text("not for others")
    return folder


def test_nothing_is_uploaded_without_consent(
    hub: Hub, run: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(folder), "user/model"]) == 2
    assert "add --yes" in capsys.readouterr().err
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    for answer in ("", "y", "no"):
        monkeypatch.setattr(builtins, "input", lambda _, answer=answer: answer)
        assert main(["push", str(folder), "user/model"]) == 0
        shown = capsys.readouterr().out
        assert "nothing was uploaded" in shown
        assert f"{hub.url}/user/model" in shown
        assert all(name in shown for name in FILES)
        assert "license of the weights: mit" in shown
        assert "not uploaded: notes.txt" in shown
    assert hub.requests == []
    monkeypatch.setattr(builtins, "input", lambda _: "yes")
    assert main(["push", str(folder), "user/model"]) == 0
    assert set(hub.files("user/model")) == FILES


def test_a_folder_is_uploaded_as_it_is_under_its_new_name(hub: Hub, run: Path, folder: Path) -> None:
    assert main(["push", str(folder), "user/model", "--yes", "--message", "First version"]) == 0
    assert hub.messages == ["First version"]
    files = hub.files("user/model")
    card = files.pop("README.md").decode()
    assert files == {name: (folder / name).read_bytes() for name in FILES - {"README.md"}}
    for words in ('orthogan.load("user/model")', "orthogan sample user/model ", "`model.init=user/model`"):
        assert words in card
    assert read_card(folder / "README.md").facts is not None
    ours, theirs = orthogan.load("user/model"), orthogan.load(run)
    z = ours.sample_latent(2, seed=0)
    assert torch.equal(ours(z), theirs(z))
    assert load_discriminator("user/model").num_classes == 0
    assert main(["sample", "user/model", "--seeds", "0-1", "--out", "s.png"]) == 0


def test_a_run_becomes_a_folder_with_its_card(hub: Hub, run: Path) -> None:
    words = ["--yes", "--private", "--summary", "Sprites of a test", "--license", "cc0-1.0", "--out", "kept"]
    assert main(["push", str(run), "user/model", *words]) == 0
    assert set(hub.files("user/model")) == FILES == {file.name for file in Path("kept").iterdir()}
    card = read_card(Path("kept/README.md"))
    assert (card.block["license"], card.block["metrics"]) == ("cc0-1.0", ["FD[Moments]"])
    assert "# user/model" in card.text
    assert hub.private["user/model"] in (True, "private")


def test_what_cannot_be_uploaded_is_refused(
    hub: Hub, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    content = bytearray((broken / "generator.safetensors").read_bytes())
    content[-1] ^= 1
    (broken / "generator.safetensors").write_bytes(content)
    for words, said in {
        (str(folder), "model"): "is user/model",
        ("absent", "user/model"): "absent: no such run",
        (str(folder / "README.md"), "user/model"): "is a file",
        (str(folder), "user/model", "--license", "gpl"): "--license .* already has a card",
        (str(tmp_path), "user/model"): "neither a run",
        (str(broken), "user/model"): "does not match its hash",
    }.items():
        assert main(["push", *words, "--yes"]) == 2, words
        assert re.search(said, capsys.readouterr().err), words
    assert hub.requests == []
