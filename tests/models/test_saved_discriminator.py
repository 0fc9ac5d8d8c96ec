"""The discriminator of a run, of a checkpoint, and of two files beside each other."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from orthogan.config.files import load_config
from orthogan.config.schema import Config
from orthogan.errors import UserError
from orthogan.io import checkpoint
from orthogan.io.checkpoint import Part
from orthogan.models.build import build_classifier, build_discriminator, build_generator
from orthogan.models.saved import CLASSIFIER, CLASSIFIER_FORMAT, RAW, metadata, save_generator
from orthogan.models.saved_discriminator import load_discriminator


def config(*overrides: str) -> Config:
    small = ["model.generator.channels=8", "model.discriminator.channels=8", "model.generator.latent_dim=5"]
    return load_config(None, [*small, "model.discriminator.norm.kind=stable_rank", *overrides])


def run(folder: Path, settings: Config, classes: int = 0) -> nn.Module:
    """A run of one checkpoint; its discriminator."""
    torch.manual_seed(3)
    generator = build_generator(settings, num_classes=classes)
    net = build_discriminator(settings, num_classes=classes)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    parts = {
        RAW: Part(generator.state_dict(), metadata(settings, classes, {})),
        "discriminator": Part(net.state_dict(), {}),
    }
    checkpoint.save(folder, 7, parts, {})
    return net


def test_it_says_what_the_trained_one_said(tmp_path: Path) -> None:
    net = run(tmp_path, config("data.labels=true"), classes=3).eval()
    folder = checkpoint.checkpoint_folder(tmp_path, 7)
    x, y = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 2])
    for place in (tmp_path, folder, folder / "discriminator.safetensors"):
        again = load_discriminator(place)
        assert not again.training
        assert again.num_classes == 3
        assert torch.equal(again(x, y), net(x, y))


def test_two_files_alone_are_enough(tmp_path: Path) -> None:
    net = run(tmp_path / "run", config()).eval()
    for name in ("generator", "discriminator"):
        shutil.copy(checkpoint.checkpoint_folder(tmp_path / "run", 7) / f"{name}.safetensors", tmp_path)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(load_discriminator(tmp_path / "discriminator.safetensors")(x), net(x))


def test_what_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such run"):
        load_discriminator(tmp_path / "absent")
    settings = config()
    save_generator(tmp_path / "g.safetensors", build_generator(settings, num_classes=0), config=settings)
    with pytest.raises(UserError, match=r"no discriminator\.safetensors beside g\.safetensors"):
        load_discriminator(tmp_path / "g.safetensors")
    with pytest.raises(UserError, match=r"no discriminator\.safetensors"):
        load_discriminator(tmp_path / "discriminator.safetensors")
    run(tmp_path / "run", settings)
    folder = checkpoint.checkpoint_folder(tmp_path / "run", 7)
    other = config("model.discriminator.channels=16")
    save_generator(folder / f"{RAW}.safetensors", build_generator(other, num_classes=0), config=other)
    with pytest.raises(UserError, match="does not fit the config in"):
        load_discriminator(folder / "discriminator.safetensors")
    (folder / "discriminator.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match="does not fit the config in"):
        load_discriminator(folder / "discriminator.safetensors")


def test_a_classifier_has_none(tmp_path: Path) -> None:
    settings = load_config(None, ["task=classifier", "model.classifier.kind=mlp", "model.classifier.channels=4"])
    net = build_classifier(settings, num_classes=10)
    about = metadata(settings, 10, {}, form=CLASSIFIER_FORMAT)
    checkpoint.save(tmp_path, 1, {CLASSIFIER: Part(net.state_dict(), about)}, {})
    with pytest.raises(UserError, match="give a run of a GAN"):
        load_discriminator(tmp_path)
