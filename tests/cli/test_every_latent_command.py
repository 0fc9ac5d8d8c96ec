"""The latent commands, from the command line: what they write, print and refuse."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orthogan.cli.main import main
from orthogan.latent import Directions, Latents

MODEL = str(Path(__file__).parents[2] / "pretrained" / "sprites-sngan" / "generator.safetensors")
FEW = ["--set", "activeness.samples=8"]
SHORT = ["--set", "vp.pairs=60", "--set", "vp.epochs=1", "--seeds", "0", *FEW]


def test_a_contact_sheet_has_a_row_for_each_seed_and_a_map_of_where_it_changes(tmp_path: Path) -> None:
    plain, mapped = tmp_path / "plain.png", tmp_path / "mapped.png"
    sheet = ["traverse", MODEL, "--dims", "0,1", "--seeds", "0-2", "--steps", "3"]
    assert main([*sheet, "--out", str(plain)]) == 0
    assert main([*sheet, "--heatmap", "--out", str(mapped)]) == 0
    with Image.open(plain) as one, Image.open(mapped) as two:
        assert one.text["seeds"] == "0,1,2"
        assert two.width > one.width


def test_a_walk_on_the_sphere_is_said_in_the_picture(tmp_path: Path) -> None:
    out = tmp_path / "sphere.png"
    assert main(["traverse", MODEL, "--dims", "0", "--steps", "3", "--walk", "sphere", "--out", str(out)]) == 0
    with Image.open(out) as picture:
        assert picture.text["walk"] == "sphere"


def test_discovered_directions_are_walked(tmp_path: Path) -> None:
    found, out = tmp_path / "found.safetensors", tmp_path / "found.png"
    assert main(["discover", MODEL, "--method", "sefa", "--components", "2", "--out", str(found)]) == 0
    assert Directions.load(found).method.startswith("sefa")
    assert main(["traverse", MODEL, "--directions", str(found), "--steps", "3", "--out", str(out)]) == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["traverse", MODEL, "--seeds", "0-2", "--out", "x.gif"], ".png"),
        (["traverse", MODEL, "--heatmap", "--out", "x.gif"], "heat maps"),
        (["traverse", MODEL, "--seeds", "0", "--base", "zero", "--out", "x.png"], "--base"),
        (["traverse", MODEL, "--layers", "0-1", "--out", "x.png"], "layers"),
        (["discover", MODEL, "--space", "w", "--out", "x.safetensors"], "'w'"),
        (["explore", MODEL, "--latent", "absent.safetensors"], "absent.safetensors"),
        (["disentangle", MODEL, "--metrics", "vpp"], "'vp'"),
        (["disentangle", MODEL, "--metrics", "mig"], "factors"),
        (["disentangle", MODEL, "--set", "vp.pears=3"], "'pairs'"),
        (["disentangle", MODEL, "--set", "pairs=3"], "METRIC.KEY=VALUE"),
        (["disentangle", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_code_2(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("orthogan: ")
    assert says in message


def test_disentangle_prints_scores_beside_random_directions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["disentangle", MODEL, *SHORT]) == 0
    printed = capsys.readouterr().out
    for word in ("vp ", "activeness ", "random basis", "chance", "pairs="):
        assert word in printed


def test_disentangle_of_several_runs_ends_with_their_mean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "copy.safetensors"
    other.write_bytes(Path(MODEL).read_bytes())
    words = ["disentangle", MODEL, str(other), "--metrics", "activeness", "--seeds", "0", *FEW]
    assert main(words) == 0
    assert "over 2 runs" in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 3
    assert lines[2]["runs"] == 2
    assert lines[2]["value"] == pytest.approx((lines[0]["value"] + lines[1]["value"]) / 2)


NETS = """
import numpy as np, torch
from torch import nn


class Wrapped(nn.Module):
    latent_dim, num_classes = 6, 0

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(6, 192)

    def forward(self, z, y=None):
        return self.net(z).tanh().view(-1, 3, 8, 8)


class Half(Wrapped):
    def __init__(self):
        super().__init__()
        self.to(torch.bfloat16)


class Pair(Wrapped):
    def forward(self, z, y=None):
        return super().forward(z), None


class Meta(Wrapped):
    def __init__(self):
        super().__init__()
        self.to("meta")


class Conditional(Wrapped):
    num_classes, class_names = 3, ["a", "b", "c"]
"""


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, ["sample", "{}:Half", "--seeds", "0-1", "--out", "a.png"]),
        (0, ["traverse", "{}:Half", "--dims", "0", "--steps", "3", "--out", "a.png"]),
        (0, ["discover", "{}:Half", "--out", "d.safetensors", "--components", "2"]),
        (2, ["sample", "{}:Pair", "--seeds", "0-1", "--out", "a.png"]),
        (2, ["traverse", "{}:Pair", "--dims", "0", "--steps", "3", "--out", "a.png"]),
        (2, ["discover", "{}:Pair", "--method", "jacobian", "--samples", "1", "--out", "d.safetensors"]),
        (2, ["traverse", "{}:Meta", "--out", "a.png"]),
        (2, ["spectrum", "{}:Meta"]),
        (0, ["discover", "{}:Conditional", "--class", "1", "--components", "2", "--out", "d.safetensors"]),
        (0, ["discover", "{}:Conditional", "--classes", "b", "--components", "2", "--out", "d.safetensors"]),
        (0, ["sample", "{}:Conditional", "--class", "a,c", "--seeds", "0-1", "--out", "a.png"]),
        (2, ["traverse", "{}:Conditional", "--class", "a,c", "--out", "a.png"]),
        (2, ["sample", "{}:Wrapped", "--device", "meta"]),
        (2, ["sample", "{}:Wrapped", "--device", "cpu:x"]),
        (2, ["sample", "{}:Wrapped", "--out", "a\x00.png"]),
        (2, ["sample", "{}:Wrapped", "--seeds", "0-20000", "--out", "a.png"]),
        (2, ["traverse", "{}:Wrapped", "--out", "a\x00.png"]),
        (2, ["traverse", "{}:Wrapped", "--method", "svd", "--directions", "absent.safetensors"]),
        (2, ["discover", "{}:Wrapped", "--out", "a\x00.safetensors"]),
        (2, ["sample", "x" * 300]),
        (2, ["sample", "x/" * 3000]),
        (2, ["sample", ""]),
        (2, ["evaluate", "x" * 300]),
        (2, ["spectrum", "x" * 300]),
        (2, ["train", "x" * 300]),
        (2, ["compare", "x" * 300]),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else str(value),
)
def test_odd_nets_paths_and_places_end_with_0_or_2(
    code: int, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "odd_nets.py").write_text(NETS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "odd_nets", raising=False)
    assert main([word.replace("{}", "odd_nets") for word in words]) == code
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("method", ["sefa", "svd"])
def test_sefa_is_a_method_of_every_latent_command(method: str, tmp_path: Path) -> None:
    out = tmp_path / "a.png"
    assert main(["traverse", MODEL, "--method", method, "--dims", "0", "--steps", "3", "--out", str(out)]) == 0
    with Image.open(out) as picture:
        assert picture.text["method"] == "sefa"
    words = ["disentangle", MODEL, "--method", method, "--metrics", "activeness", "--seeds", "0", *FEW]
    assert main(words) == 0


def test_films_and_mixed_pictures_of_seeds_and_latents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    latents, film, grid = (tmp_path / name for name in ("l.safetensors", "film.gif", "mix.png"))
    Latents(np.ones((2, 16)), names=["me", "you"]).save(latents)
    words = ["interpolate", MODEL, "--seeds", "3", "--latent", str(latents), "--seconds", "0.2", "--fps", "10"]
    assert main([*words, "--speed", "pixels", "--size", "40", "--out", str(film)]) == 0
    with Image.open(film) as found:
        assert (found.n_frames, found.width) == (6, 40)
    assert (
        main(["mix", MODEL, "--latent", str(latents), "--columns", "4-6", "--layers", "0-7", "--out", str(grid)]) == 0
    )
    assert "parts 0-7 of 0-15 come from the columns; the parts are coordinates of z" in capsys.readouterr().out
    with Image.open(grid) as picture:
        assert (picture.text["rows"], picture.text["columns"]) == ("me,you", "4,5,6")
    sheet, folder = tmp_path / "sheet.png", tmp_path / "again"
    assert main(["traverse", MODEL, "--latent", str(latents), "--dims", "0", "--steps", "3", "--out", str(sheet)]) == 0
    with Image.open(sheet) as picture:
        assert picture.text["seeds"] == "me,you"
    assert main(["sample", MODEL, "--latent", str(latents), "--out", str(folder)]) == 0
    assert sorted(file.name for file in folder.iterdir()) == ["latent000000.png", "latent000001.png"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["interpolate", MODEL, "--out", "x.avi"], "x.avi"),
        (["interpolate", MODEL, "--walk", "sphere", "--space", "w", "--out", "x.gif"], "'w'"),
        (["mix", MODEL, "--layers", "16", "--out", "x.png"], "16 coordinates of z"),
        (["mix", MODEL, "--out", "x.gif"], ".png"),
        (["sample", MODEL, "--out", "file"], "file is not a folder"),
        (["interpolate", MODEL, "--out", "file"], "file is not a folder"),
        (["sample", MODEL, "--latent", "absent.safetensors"], "absent.safetensors"),
        (["traverse", MODEL, "--latent", MODEL, "--dims", "0"], "not a file of latents"),
        (["traverse", MODEL, "--latent", MODEL, "--seeds", "0"], "omit --seeds"),
    ],
)
def test_a_film_or_latent_that_cannot_be_used_is_one_line(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    assert main(words) == 2
    assert says in capsys.readouterr().err.strip().splitlines()[-1]
    assert (tmp_path / "file").read_text() == "mine"


def test_the_page_starts_from_latents_and_compares_as_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, Any]] = []
    monkeypatch.setattr("orthogan.latent.explorer.page.explore", lambda *some, **more: given.append(more))
    file = Latents(np.zeros((1, 16)), names=["me"]).save(tmp_path / "me.safetensors")
    assert main(["explore", MODEL, "--latent", str(file), "--features", "none"]) == 0
    assert given[0]["latents"].names == ("me",)
    assert given[0]["against"]("cpu") is None
    assert all(choice.latents is None for choice in given[0]["models"])
    wrong = Latents(np.zeros((1, 15))).save(tmp_path / "wrong.safetensors")
    assert main(["explore", MODEL, "--latent", str(wrong)]) == 2
