"""A data source from a file outside of the package: in Python, in YAML, as an override, and on the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from orthogan.cli.main import main
from orthogan.config.files import load_config
from orthogan.data import open_configured, open_held_out, open_source
from orthogan.errors import UserError
from orthogan.named_code import NeedsTrust
from tests.fixtures.outside import own_module

OWN = """
import numpy as np
from orthogan.config.base import Section
from orthogan.data import ArraySource, DataSource

class StripeOptions(Section):
    width: int = 1

class Stripes(DataSource):
    splits = ("train", "test")
    channels = (1,)
    options = StripeOptions

    def open(self, data):
        width = StripeOptions(**data.options).width
        row = np.arange(data.resolution) // width % 2 * 255
        images = np.broadcast_to(row, (40, 1, data.resolution, data.resolution)).astype(np.uint8)
        return ArraySource(f"stripes-{data.split}", images)

class Wrong(DataSource):
    def open(self, data):
        return ArraySource("wrong", np.zeros((4, 1, 8, 8), np.uint8))
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with own_module(tmp_path, monkeypatch, "mysets", OWN) as folder:
        yield folder


def test_it_is_opened_by_name(here: Path) -> None:
    source = open_source("mysets:Stripes", resolution=8, channels=1, width=2)
    assert source.read(np.array([3]))[0][0, 0, 0].tolist() == [0, 0, 255, 255, 0, 0, 255, 255]
    for options, message in (
        ({"channels": 3}, r"data\.channels: must be 1 for mysets:Stripes, not 3"),
        ({"split": "valid"}, r"data\.split: mysets:Stripes has train, test, not 'valid'"),
        ({"wide": 2}, r"data\.options\.wide: .*; mysets:Stripes has width"),
        ({"path": "x"}, r"data\.path: the source 'mysets:Stripes' takes no path"),
    ):
        with pytest.raises(UserError, match=message):
            open_source("mysets:Stripes", **{"resolution": 8, "channels": 1, **options})
    with pytest.raises(UserError, match=r"Wrong\.open returned 1 x 8 px, not the 3 x 16 px"):
        open_source("mysets:Wrong", resolution=16)
    with pytest.raises(UserError, match=r"must be a subclass of orthogan\.data\.DataSource"):
        open_source("mysets:np", resolution=16)
    with pytest.raises(UserError, match="mysets:Nothing"):
        open_source("mysets:Nothing", resolution=16)


def test_it_is_trained_on_from_yaml_and_the_command_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "own.yaml").write_text("data: {source: 'mysets:Stripes', channels: 1, options: {width: 4}}\n")
    data = load_config("own.yaml", ["data.resolution=16"]).data
    assert not (here / "imported").exists()  # reading a config imports nothing
    assert open_configured(data).name == "stripes-train"
    assert open_held_out(data).name == "stripes-test"
    tiny = ["model.generator.channels=4", "model.discriminator.channels=4", "training.batch_size=8"]
    assert main(["train", "own.yaml", "--dry-run", *tiny]) == 0
    assert "stripes-train" in capsys.readouterr().out
    assert main(["train", "own.yaml", "--dry-run", *tiny, "data.options.width=many"]) == 2
    assert "data.options.width" in capsys.readouterr().err


def test_the_config_of_a_run_needs_consent_to_name_it(here: Path) -> None:
    run = here / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text("data: {source: 'mysets:Stripes'}\n")
    for only in ("", "data"):
        with pytest.raises(NeedsTrust, match=r"data\.source = 'mysets:Stripes'"):
            load_config(run / "config.yaml", only=only)
    assert not (here / "imported").exists()
    assert load_config(run / "config.yaml", trust=True).data.source == "mysets:Stripes"


def test_a_command_asks_for_the_same_consent(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "run" / "checkpoints").mkdir(parents=True)
    (here / "run" / "config.yaml").write_text("data: {source: 'mysets:Stripes', channels: 1}\n")
    for words in (["disentangle", "--metrics", "mig"], ["evaluate", "--samples", "8"]):
        assert main([words[0], "sprites-sngan", *words[1:], "--data", "run/config.yaml"]) == 2
        assert "--trust" in capsys.readouterr().err
    assert not (here / "imported").exists()
