"""``orthogan project`` from the command line: what it writes, prints and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import orthogan
from orthogan.cli.main import main
from orthogan.latent import Latents, sample_images

QUICK = ["--steps", "4", "--starts", "2", "--candidates", "16", "--device", "cpu"]


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    """Two sprites of the model, as a color picture that is wider than high, and as a gray one in a folder."""
    images = sample_images(orthogan.load("sprites-sngan"), seeds=[3, 5]).images[:, 0]
    wide = Image.fromarray(np.pad(images[0], ((0, 0), (8, 8)))).convert("RGB")
    (tmp_path / "folder").mkdir()
    wide.save(tmp_path / "wide.png")
    Image.fromarray(images[1]).save(tmp_path / "folder" / "small.png")
    return [str(tmp_path / "wide.png"), str(tmp_path / "folder")]


def test_it_writes_latents_and_a_picture_and_prints_comparisons(
    pictures: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine.safetensors"
    assert main(["project", "sprites-sngan", *pictures, *QUICK, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    for word in (
        "wide",
        "small",
        "(picture of the model)",
        "(training picture)",
        "random reals",
        "features",
        "farther",
    ):
        assert word in printed
    latents = Latents.load(out)
    assert latents.names == ("wide", "small")
    assert latents.protocol["features"].startswith("efficientnet-lite0, ")
    assert latents.scores["reals"][0] > 20
    net = orthogan.load("sprites-sngan")
    latents.check(net)
    with Image.open(tmp_path / "mine.png") as sheet:
        assert sheet.width > 3 * 96
        assert json.loads(json.dumps(sheet.text))["subject"] == "sprites-sngan"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder", "mine.png", "mine.safetensors", "wide.png"]


def test_crop_json_and_tuning(pictures: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, tuned = tmp_path / "t.safetensors", tmp_path / "tuned.safetensors"
    words = ["project", "sprites-sngan", pictures[0], *QUICK, "--out", str(out), "--features", "none", "--json"]
    assert main([*words, "--tune", str(tuned), "--tune-steps", "30", "--crop", "8,0,32"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["kind"] for row in rows] == ["picture", "comparison", "comparison"]
    assert rows[0]["tuned"] < rows[0]["error"]
    latents, net = Latents.load(out), orthogan.load(tuned)
    assert latents.scores["before tuning"] == (rows[0]["error"],)
    with Image.open(pictures[0]) as picture:
        target = np.asarray(picture.convert("L").crop((8, 0, 40, 32)), dtype=float)
    error = np.sqrt(((latents.images(net)[0, 0] - target) ** 2).mean())
    assert error == pytest.approx(latents.scores["error"][0], abs=1e-3)


def test_an_encoder_is_one_more_start(pictures: list[str], tmp_path: Path) -> None:
    out = tmp_path / "e.safetensors"
    words = ["project", "sprites-sngan", pictures[1], *QUICK, "--features", "none", "--no-controls"]
    assert main([*words, "--encoder", "2", "--out", str(out)]) == 0
    assert Latents.load(out).protocol["encoder"] == "2"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--out", "x.npy"], "--out x.npy"),
        (["--tune", "projected.safetensors"], "choose another name"),
        (["--crop", "30,0,32"], "the box 30,0,32"),
        (["--space", "w"], "'w'"),
        (["--noise"], "no noise maps"),
        (["--classes", "1"], "unconditional"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_code_2(
    pictures: list[str],
    more: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["project", "sprites-sngan", pictures[0], *QUICK, "--features", "none", "--no-controls"]
    assert main([*words, *more]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("orthogan: ")
    assert said in message


def test_files_that_are_no_pictures_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty").mkdir()
    for wrong, said in (("text.png", "not an image"), ("empty", "no image files"), ("absent.png", "absent.png")):
        assert main(["project", "sprites-sngan", str(tmp_path / wrong), *QUICK]) == 2
        assert said in capsys.readouterr().err
