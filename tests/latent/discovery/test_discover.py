"""Several methods in one call, scored beside random directions, and the command."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from orthogan.cli.main import main
from orthogan.errors import UserError
from orthogan.latent import Directions
from orthogan.latent.discovery import DIRECTION_METHODS, discover
from orthogan.models.protocol import Generator


class Linear(Generator):
    """An image that is a linear map of the latent, with singular values 4, 2, 1, 0.5 along its axes."""

    latent_dim, num_classes, image_channels, resolution = 4, 0, 1, 4

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(4, 16, bias=False)
        with torch.no_grad():
            self.map.weight.zero_()
            self.map.weight[:4] = 0.02 * torch.diag(torch.tensor([4.0, 2.0, 1.0, 0.5]))

    def forward(self, z: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        return self.map(z).view(-1, 1, 4, 4)


def test_methods_that_agree_are_merged_and_scored_beside_chance() -> None:
    found = discover(Linear(), "sefa,jacobian,native", samples=4, control=3)
    assert len(found.directions) == 4
    assert "also jacobian" in found.directions.notes[0]
    torch.testing.assert_close(torch.from_numpy(found.directions.matrix.copy()).abs(), torch.eye(4), atol=1e-4, rtol=0)
    activeness = found.directions.scores["activeness"]
    assert list(activeness) == sorted(activeness, reverse=True)
    assert len(found.control) == 3
    assert activeness[-1] < min(found.control.scores["activeness"]) < activeness[0]
    lines = found.table().splitlines()
    assert len(lines) == 6
    assert lines[0].split()[0] == "direction"
    assert lines[-1].startswith("random (3, mean)")


@pytest.mark.parametrize("method", ["native", "sefa", "jacobian", "random", "identity"])
def test_every_closed_form_is_reached_by_name(method: str) -> None:
    known = {"native", "sefa", "pca", "jacobian", "hessian", "orojar", "learned", "random", "identity"}
    known |= {"labels", "marked", "oracle", "text"}
    assert set(DIRECTION_METHODS) == known
    found = discover(Linear(), method, control=2).directions
    assert found.latent_dim == 4
    assert {"change", "activeness"} <= found.scores.keys()


@pytest.mark.parametrize(
    ("methods", "options", "message"),
    [
        ("sefo", {}, "did you mean 'sefa'"),
        ("xyz", {}, "known: hessian, identity"),
        ("", {}, "name at least one of hessian"),
        ("sefa", {"samples": 3}, "samples: sefa has no such option"),
    ],
)
def test_what_does_not_exist_is_refused(methods: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        discover(Linear(), methods, **options)


def test_the_command_writes_a_file_that_traverse_reads(
    tmp_path: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    out = f"{tmp_path}/found.safetensors"
    model = "pretrained/sprites-sngan/generator.safetensors"
    assert main(["discover", model, "--method", "sefa", "--out", out, "--device", "cpu"]) == 0
    assert "of layer linear" in capsys.readouterr().out
    assert len(Directions.load(out)) == 16
    picture = f"{tmp_path}/t.png"
    assert main(["traverse", model, "--directions", out, "--dims", "0", "--out", picture, "--device", "cpu"]) == 0
    assert main(["discover", model, "--out", "found.pt"]) == 2
    assert "end in .safetensors" in capsys.readouterr().err


def test_as_many_directions_as_asked_for_of_a_method_that_finds_all() -> None:
    found = discover(Linear(), "sefa", components=2, control=2)
    assert len(found.directions) == 2
    everything = discover(Linear(), "sefa", control=2)
    np.testing.assert_array_equal(found.directions.matrix, everything.directions.matrix[:2])


def test_the_accuracy_of_a_reconstructor_stands_beside_that_of_as_many_random_directions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def counted(generator: object, directions: Directions, **given: object) -> Directions:
        asked.append((len(directions), given["y"]))
        return replace(directions, scores={**directions.scores, "rca": [0.5] * len(directions)})

    monkeypatch.setattr(sys.modules[discover.__module__], "rca", counted)
    found = discover(Linear(), "sefa", components=3, with_rca=True)
    assert asked == [(3, None), (3, None)]
    assert "rca" in found.table().splitlines()[0]


def test_a_method_from_outside_the_package_works_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_directions.py").write_text(
        "import torch, orthogan\n"
        "def reversed_axes(generator, *, components=None, layer=''):\n"
        "    rows = torch.eye(generator.latent_dim).flip(0)\n"
        "    return orthogan.Directions(rows, method='reversed', layer=layer)\n"
        "def wrong(generator):\n"
        "    return 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model, out = "pretrained/sprites-sngan/generator.safetensors", str(tmp_path / "found.safetensors")
    method = "my_directions:reversed_axes"
    assert main(["discover", model, "--method", method, "--layer", "x", "--out", out, "--device", "cpu"]) == 0
    assert Directions.load(out).layer == "x"
    picture = str(tmp_path / "t.png")
    arguments = ["traverse", model, "--dims", "0", "--steps", "3", "--out", picture, "--device", "cpu"]
    assert main([*arguments, "--method", method]) == 0
    assert main([*arguments, "--method", f"random,{method}"]) == 0
    capsys.readouterr()
    assert main([*arguments, "--method", "my_directions:wrong"]) == 2
    assert "returns a int, expected orthogan.Directions" in capsys.readouterr().err


def test_what_was_found_shows_itself_as_a_table() -> None:
    found = discover("sprites-sngan", "sefa", components=2, control=3)
    assert repr(found) == "<2 directions, sefa, beside 3 random ones>"
    assert repr(found.directions) == "<2 directions in z (16), sefa>"
    page = found._repr_html_()
    assert page.count("<tr") == 1 + 2 + 1
    assert "random (3, mean)" in page
    assert f"{found.directions.scores['change'][1]:.4g}" in page
