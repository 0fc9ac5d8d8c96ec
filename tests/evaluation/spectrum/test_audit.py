"""What the audit says of a net, in words, as JSON and as a picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from orthogan.errors import UserError
from orthogan.evaluation.spectrum.audit import spectrum
from orthogan.evaluation.spectrum.layer_spectrum import spectrum as measure
from orthogan.io import checkpoint
from orthogan.io.checkpoint import Part
from orthogan.models.build import build_discriminator, build_generator
from orthogan.models.open import open_model
from orthogan.models.saved import DISCRIMINATOR, RAW, metadata
from tests.fixtures.runs import tiny


class Small(nn.Module):
    """A user's net."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))


def checkpoint_of(run: Path) -> Path:
    """A checkpoint with both nets of a GAN."""
    config = tiny(run)
    parts = {
        RAW: Part(build_generator(config, num_classes=0).state_dict(), metadata(config, 0, {})),
        DISCRIMINATOR: Part(build_discriminator(config, num_classes=0).state_dict(), {}),
    }
    return checkpoint.save(run, 3, parts, {})


def test_the_text_has_a_line_for_every_layer(tmp_path: Path) -> None:
    run = checkpoint_of(tmp_path / "run")
    picture = tmp_path / "a.png"
    text = spectrum(str(run), layers="G.*", plot=picture)
    rows = measure(open_model(run).net, "G.*")
    lines = text.splitlines()
    assert all(any(line.split()[:1] == [row.name] for line in lines) for row in rows)
    assert "D.linear" not in text
    assert "a heuristic" in text
    assert lines[-1] == f"plot: {picture}"
    assert Image.open(picture).text["subject"] == str(run)


def test_the_json_is_one_strict_object(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_file({"a.weight": torch.zeros(2, 3), "b.weight": torch.eye(2)}, file)

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    found = json.loads(spectrum(str(file), size=4, as_json=True), parse_constant=refuse)
    assert found["subject"] == str(file)
    assert found["size"] == 4
    assert found["not_measured"] == []
    assert found["log10_product_of_norms"] == {"reshaped": None, "operator": None}
    assert [layer["name"] for layer in found["layers"]] == ["a", "b"]
    assert found["layers"][1]["singular_values"] == [1.0, 1.0]


def test_a_state_dict_warns_of_what_it_does_not_say_and_a_net_of_what_is_left_out(tmp_path: Path) -> None:
    save_file({"a.weight": torch.eye(2)}, tmp_path / "a.safetensors")
    assert "stride 1 without groups" in spectrum(str(tmp_path / "a.safetensors"))
    assert "not measured" not in spectrum(f"{__name__}:Small")
    assert "rnn.weight_ih_l0" in spectrum(f"{__name__}:Recurrent")


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(2, 3), nn.Linear(3, 2)


def test_mistakes_are_met_before_the_work_and_as_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.png"):
        spectrum("nowhere", plot=tmp_path / "a.pdf")
    with pytest.raises(UserError, match=r"Small.*did you mean 'linear'"):
        spectrum(f"{__name__}:Small", layers="linaer")
    with pytest.raises(UserError, match="size is 0"):
        spectrum(f"{__name__}:Small", size=0)
