"""An augmentation from a file outside of the package, and the configs of version 0.1."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from orthogan.cli.main import main
from orthogan.config.files import load_config
from orthogan.config.schema import Config
from orthogan.data.augment import make_augment
from orthogan.errors import UserError
from tests.fixtures.outside import own_module

OWN = """
from pydantic import Field
from orthogan.data.augment import Augmentation
from orthogan.data.config import AugmentConfig

class DimConfig(AugmentConfig):
    by: float = Field(default=0.5, description="factor on the images")

class Dim(Augmentation):
    config = DimConfig

    def __init__(self, by=0.5):
        self.by = by

    def apply(self, images, drawn):
        return images * self.by
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with own_module(tmp_path, monkeypatch, "mydim", OWN) as folder:
        yield folder


def test_it_is_used_from_yaml_and_the_command_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "own.yaml").write_text("data: {source: sprites, count: 32}\naugment: {kind: 'mydim:Dim', by: 0.25}\n")
    augment = make_augment(load_config("own.yaml").augment)
    assert torch.equal(augment.apply(torch.ones(2, 3, 4, 4), ()), torch.full((2, 3, 4, 4), 0.25))
    tiny = ["model.generator.channels=4", "model.discriminator.channels=4", "training.batch_size=8"]
    assert main(["train", "own.yaml", "--dry-run", *tiny]) == 0
    assert main(["train", "own.yaml", "--dry-run", *tiny, "augment.bye=1"]) == 2
    assert "bye" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"subclass of orthogan\.data\.augment\.Augmentation"):
        load_config("own.yaml", ["augment.kind=mydim:Field"])


def test_a_run_needs_consent_to_name_it(here: Path) -> None:
    (here / "checkpoints").mkdir()
    (here / "config.yaml").write_text("augment: {kind: 'mydim:Dim'}\n")
    with pytest.raises(UserError, match=r"augment\.kind = 'mydim:Dim'.*--trust"):
        load_config("config.yaml")
    assert not (here / "imported").exists()


def test_a_config_of_version_0_1_has_the_options_of_all_kinds() -> None:
    old = {"policy": "color", "target": 0.5, "images_to_one": 1000, "interval": 2}
    for kind, expected in (
        ("none", {}),
        ("diffaugment", {"policy": "color", "p": 1.0}),
        ("ada", {"target": 0.5, "images_to_one": 1000, "interval": 2}),
    ):
        config = Config.model_validate({"augment": {"kind": kind, **old}})
        assert config.augment.model_dump() == {"kind": kind, **expected}
        assert Config.model_validate(config.model_dump()) == config
    with pytest.raises(UserError, match=r"augment\.targt.*did you mean 'augment\.target'"):
        load_config(None, ["augment.kind=ada", "augment.targt=0.5"])
