"""The models that ship with orthogan are found by name from anywhere, and a local path of that name is not hidden."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from orthogan.errors import UserError
from orthogan.models.open import load_discriminator, load_generator, open_model
from orthogan.models.shipped import find_shipped, no_such, other_shipped, shipped_folder, shipped_names
from orthogan.training import train
from tests.fixtures.runs import ROOT, tiny

NAME = "sprites-sngan"


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of shipped models with one that has both nets, and one file; the working folder is another one."""
    run = train(tiny(tmp_path / "run", "training.steps=1"))
    newest = sorted((run / "checkpoints").iterdir())[-1]
    model = tmp_path / "shelf" / "two-nets"
    model.mkdir(parents=True)
    shutil.copy(newest / "generator-ema.safetensors", model / "generator.safetensors")
    shutil.copy(newest / "discriminator.safetensors", model)
    shutil.copy(newest / "generator.safetensors", tmp_path / "shelf" / "one-net.safetensors")
    monkeypatch.setattr("orthogan.models.shipped.shipped_folder", lambda: tmp_path / "shelf")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "shelf"


def test_the_shipped_models_of_a_clone_are_those_of_pretrained() -> None:
    assert shipped_folder() == ROOT / "pretrained"
    assert NAME in shipped_names()


def test_a_name_finds_the_folder_or_the_file(shelf: Path) -> None:
    assert shipped_names() == ["one-net", "two-nets"]
    for name in ("two-nets", "pretrained/two-nets", "two-nets.safetensors", "pretrained/two-nets.safetensors"):
        assert find_shipped(name) == shelf / "two-nets"
    assert find_shipped("one-net") == shelf / "one-net.safetensors"
    for name in ("", ".", "..", "two", "../shelf/two-nets", "pretrained/../two-nets", "pretrained/", "a/two-nets"):
        assert find_shipped(name) is None


def test_a_folder_gives_both_nets_and_a_file_the_generator(shelf: Path) -> None:
    opened = open_model("two-nets")
    assert opened.has_discriminator
    assert set(dict(opened.net.named_children())) == {"G", "D"}
    assert load_generator("two-nets").latent_dim == load_generator("one-net").latent_dim == 8
    assert sum(p.numel() for p in load_discriminator("two-nets").parameters()) > 1000
    assert not open_model("one-net").has_discriminator
    with pytest.raises(UserError, match="there is no discriminator"):
        load_discriminator("one-net")
    # the generator does not need the other file
    (shelf / "two-nets" / "discriminator.safetensors").write_bytes(b"damaged")
    assert load_generator("two-nets").latent_dim == 8


def test_a_local_path_wins_and_is_named(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(shelf / "two-nets", "one-net")
    assert open_model("one-net").has_discriminator
    assert capsys.readouterr().err == (
        "orthogan: opening one-net in the current folder; for the shipped model give pretrained/one-net\n"
    )
    assert not open_model("pretrained/one-net").has_discriminator
    assert capsys.readouterr().err == ""
    Path("two-nets").mkdir()
    with pytest.raises(UserError, match=r"two-nets: neither a run .*; for the shipped model give pretrained/two-nets"):
        open_model("two-nets")
    assert other_shipped("absent") == other_shipped(shelf / "two-nets") == ""


def test_an_unknown_name_says_what_there_is(shelf: Path) -> None:
    assert "did you mean 'two-nets'?" in str(no_such("two-net"))
    assert "or a shipped model: one-net, two-nets" in str(no_such("something else"))
    with pytest.raises(UserError, match="no such run, checkpoint, file or shipped model; did you mean 'one-net'"):
        open_model("one-nett")
