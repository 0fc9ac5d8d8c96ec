"""The latent commands, from the command line: what they write, print and refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from orthogan.cli import main
from orthogan.latent import Directions

MODEL = str(Path(__file__).parents[1] / "pretrained" / "sprites-srngan.safetensors")
SHORT = ["--set", "vp.pairs=60", "--set", "vp.epochs=1", "--seeds", "0"]


def test_a_contact_sheet_has_a_row_for_each_seed_and_a_map_of_where_it_changes(tmp_path: Path) -> None:
    plain, mapped = tmp_path / "plain.png", tmp_path / "mapped.png"
    sheet = ["traverse", MODEL, "--dims", "0,1", "--seeds", "0-2", "--steps", "3"]
    assert main([*sheet, "--out", str(plain)]) == 0
    assert main([*sheet, "--heatmap", "--out", str(mapped)]) == 0
    with Image.open(plain) as one, Image.open(mapped) as two:
        assert one.text["seeds"] == "0,1,2"  # pyright: ignore[reportAttributeAccessIssue]
        assert two.width > one.width


def test_a_walk_on_the_sphere_is_said_in_the_picture(tmp_path: Path) -> None:
    out = tmp_path / "sphere.png"
    assert main(["traverse", MODEL, "--dims", "0", "--steps", "3", "--walk", "sphere", "--out", str(out)]) == 0
    with Image.open(out) as picture:
        assert picture.text["walk"] == "sphere"  # pyright: ignore[reportAttributeAccessIssue]


def test_discovered_directions_are_walked(tmp_path: Path) -> None:
    found, out = tmp_path / "found.safetensors", tmp_path / "found.png"
    assert main(["discover", MODEL, "--method", "sefa", "--components", "2", "--out", str(found)]) == 0
    assert Directions.load(found).method.startswith("sefa")
    assert main(["traverse", MODEL, "--directions", str(found), "--steps", "3", "--out", str(out)]) == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["traverse", MODEL, "--seeds", "0-2", "--out", "x.gif"], ".png"),
        (["traverse", MODEL, "--heatmap", "--out", "x.gif"], "heat-map"),
        (["traverse", MODEL, "--seeds", "0", "--base", "zero", "--out", "x.png"], "--base"),
        (["traverse", MODEL, "--layers", "0-1", "--out", "x.png"], "layers"),
        (["discover", MODEL, "--space", "w", "--out", "x.safetensors"], "'w'"),
        (["explore", MODEL, "--port", "70000"], "--port"),
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
    words = ["disentangle", MODEL, str(other), "--metrics", "activeness", "--seeds", "0"]
    assert main(words) == 0
    assert "over 2 runs" in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 3
    assert lines[2]["runs"] == 2
    assert lines[2]["value"] == pytest.approx((lines[0]["value"] + lines[1]["value"]) / 2)
