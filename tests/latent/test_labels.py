"""Labels of pictures: tables, folders of pictures, and seeds."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import orthogan
from orthogan.cli.main import main
from orthogan.drawing.grid import save_png
from orthogan.errors import UserError
from orthogan.latent import Directions, Labels, sample_images, save_samples
from orthogan.latent.explorer.session import Explorer
from orthogan.latent.explorer.state import View
from orthogan.latent.labels import Spot, read_group
from orthogan.models import StyleGAN2Generator
from orthogan.models.generate import in_space, sample_latents
from tests.fixtures.latent_nets import PixelFactors


def table(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_has_words_numbers_and_gaps(tmp_path: Path) -> None:
    path = table(tmp_path, "seed,smile,age,hair\n3,1,20,red\n4,0,,blond\n\n5,1,40,black\n6,,30,red\n")
    found = Labels.from_table(path)
    assert [spot.seed for spot in found.spots] == [3, 4, 5, 6]
    assert found.names == ("smile", "age", "hair: black", "hair: blond", "hair: red")
    assert found.groups == ("smile", "age", "hair", "hair", "hair")
    expected = [[1, 0, 0, 0, 1], [0, np.nan, 0, 1, 0], [1, 1, 1, 0, 0], [np.nan, 0.5, 0, 0, 1]]
    np.testing.assert_array_equal(found.values, expected)
    assert found.select(["hair", "smile"]).names == ("hair: black", "hair: blond", "hair: red", "smile")


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (["no", "Yes", "no"], [0, 1, 0]),
        (["yes", "no", "Yes"], [1, 0, 1]),
        (["True", "false", ""], [1, 0, np.nan]),
        (["FALSE", "true", "false"], [0, 1, 0]),
        (["long", "short", ""], [0, 1, np.nan]),
    ],
)
def test_yes_and_true_are_1_in_any_case(column: list[str], expected: list[float]) -> None:
    found = Labels.from_seeds([0, 1, 2], {"smile": column})
    np.testing.assert_array_equal(found.values[:, 0], expected)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("smile\n1\n", "expected a first line such as 'seed,smile,hair'"),
        ("seed,smile\n", "expected a first line"),
        ("seed,smile\n1,0\nx,1\n", "row 3: the seed 'x' is not a whole number"),
        ("seed,smile\n1,0\n2,1,1\n", "row 3 has 3 values, expected 2"),
        ("seed;smile\n1;0\n", "with commas between the columns"),
        ("seed,smile\n1\n", "row 2 has 1 value"),
        ("seed,smile\n1,1\n2,1\n", "smile: has only one value"),
        ("seed,smile\n1,\n2,\n", "smile: has no values"),
        ("seed,smile\n" + "9" * 5000 + ",1\n2,0\n", "row 2: the seed '9999"),
        ("seed,class,smile\n1," + "9" * 5000 + ",1\n2,0,0\n", "'class' must contain class numbers"),
        ("seed,smile\n1," + "a" * 200_000 + "\n2,b\n", "field larger than field limit"),
        ("seed,smile\n1,1e308\n2,-1e308\n", r"smile: its values from -1e\+308 to 1e\+308 are too far apart"),
        ("seed,smile\n1,nan\n2,1\n", "smile: contains NaN or infinite values"),
        ("seed,class,smile\n1,a,0\n2,b,1\n", "'class' must contain class numbers"),
        ("seed\n1\n2\n", "there is no column besides the seed"),
    ],
)
def test_a_bad_table_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = table(tmp_path, text)
    with pytest.raises(UserError, match=said) as caught:
        Labels.from_table(path)
    assert "labels.csv" in str(caught.value) or "there is no column" in said


def test_a_table_with_the_line_ends_of_any_system_is_read(tmp_path: Path) -> None:
    for end in ("\n", "\r\n", "\r"):
        path = tmp_path / "labels.csv"
        path.write_bytes(f"seed,smile{end}3,1{end}4,0{end}".encode())
        assert Labels.from_table(path).values.tolist() == [[1], [0]]


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"seed": "9" * 5000}, "does not name one seed"),
        ({"seed": "1", "latent": "[NaN]"}, "its latent contains NaN or too large values"),
        ({"seed": "1", "latent": "[1e300]"}, "its latent contains NaN or too large values"),
        ({"seed": "1", "latent": "[" * 100_000}, "its metadata is damaged"),
        ({"seed": "1", "latent": "3"}, "its metadata is damaged"),
        ({"seed": "1", "truncation": "nan"}, "its truncation is not from 0 to 1"),
        ({"seed": "1", "class": "-7"}, "its class is less than 0"),
    ],
)
def test_a_picture_with_bad_metadata_is_named(about: dict[str, str], said: str, tmp_path: Path) -> None:
    save_png(Image.new("L", (4, 4)), tmp_path / "one.png", about)
    with pytest.raises(UserError, match=rf"one\.png: .*{said}"):
        read_group(tmp_path, PixelFactors())


def test_a_picture_that_declares_too_many_pixels_is_named(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"tEXt", b"seed\x001"), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b""))
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    (tmp_path / "large.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    with pytest.raises(UserError, match=r"large\.png: cannot be read as a PNG picture"):
        read_group(tmp_path, PixelFactors())


def test_folders_of_samples_become_groups(tmp_path: Path) -> None:
    net = orthogan.load("sprites-sngan")
    save_samples(sample_images(net, [1, 5, 9]), tmp_path / "plain")
    save_samples(sample_images(net, [2, 6], truncation=0.5), tmp_path / "large")
    found = Labels.from_groups(tmp_path / "plain", tmp_path / "large", net)
    assert found.names == ("large",)
    assert [spot.seed for spot in found.spots] == [1, 5, 9, 2, 6]
    assert found.values[:, 0].tolist() == [0, 0, 0, 1, 1]
    np.testing.assert_array_equal(found.latents(net)[:3], sample_latents(net, [1, 5, 9]))
    np.testing.assert_array_equal(found.latents(net)[3:], sample_latents(net, [2, 6], 0.5))

    with pytest.raises(UserError, match="made by another model"):
        read_group(tmp_path / "plain", PixelFactors())
    (grid,) = save_samples(sample_images(net, [1, 2]), tmp_path / "large" / "grid.png")
    with pytest.raises(UserError, match=r"grid\.png: its metadata does not name one seed"):
        read_group(tmp_path / "large", net)
    Image.new("L", (4, 4)).save(grid)
    with pytest.raises(UserError, match=r"grid\.png: its metadata does not name one seed"):
        read_group(tmp_path / "large", net)
    grid.write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"grid\.png: not a PNG picture"):
        read_group(tmp_path / "large", net)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"contains no \.png file"):
        read_group(tmp_path / "empty", net)
    with pytest.raises(UserError, match="neither a folder of pictures nor seeds"):
        read_group(tmp_path / "missing", net)
    assert read_group("3,8-9", net) == [Spot(3), Spot(8), Spot(9)]


def test_pictures_of_the_page_have_their_own_latent_or_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = StyleGAN2Generator(resolution=16, image_channels=1, channels=4, latent_dim=4, w_dim=6).eval()
    page = Explorer(net)
    plain, moved = View(seed=5), View(seed=5, offsets=((0, 3.0),))
    blended, truncated = View(seed=5, other=6, mix=0.5), View(seed=5, truncation=0.5)
    for layers in ((), (1,)):
        sliders, _ = page.sliders(Directions(np.eye(2, 6), method="mine", space="w", layers=layers))
        for number, view in enumerate((plain, moved, blended, truncated)):
            folder = tmp_path / f"{number}{layers}"
            folder.mkdir()
            (folder / "a.png").write_bytes(page.png(sliders, view, 16, False))
            if layers and number:
                with pytest.raises(UserError, match=r"a\.png: only some layers of this picture were changed"):
                    read_group(folder, net)
                continue
            found = Labels(read_group(folder, net), np.zeros((1, 1)), ["mark"]).latents(in_space(net, "w"))
            np.testing.assert_allclose(found[0], page.latent(sliders, view), rtol=1e-6)
    walk = orthogan.traverse(net, orthogan.native_directions(net), dims=[0], steps=3)
    (tmp_path / "walks").mkdir()
    walk.save(tmp_path / "walks" / "walk.png")
    with pytest.raises(UserError, match=r"walk\.png: its metadata does not name one seed"):
        read_group(tmp_path / "walks", net)


def test_the_command_writes_named_directions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table(tmp_path, "seed,large\n" + "".join(f"{seed},{seed % 2}\n" for seed in range(8)))
    plain = ["--features", "none", "--out", "out.safetensors"]
    assert main(["discover", "sprites-sngan", "--method", "labels", "--labels", "labels.csv", *plain]) == 0
    from_labels = Directions.load("out.safetensors")
    words = ["--method", "marked", "--marked", "0,2,4,6", "1,3,5,7", "--name", "large", *plain]
    assert main(["discover", "sprites-sngan", *words]) == 0
    from_marks = Directions.load("out.safetensors")
    assert from_labels.names == from_marks.names == ("large",)
    np.testing.assert_allclose(from_labels.matrix, from_marks.matrix, atol=1e-6)
    assert main(["discover", "sprites-sngan", "--method", "labels"]) == 2
    assert main(["discover", "sprites-sngan", "--method", "labels", "--labels", "missing.csv"]) == 2


def test_known_factors_give_directions_and_captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Light:
        names = groups = ("light", "left")

        def read(self, images: np.ndarray) -> np.ndarray:
            flat = images.mean(axis=1) / 255
            return np.stack([flat.mean(axis=(1, 2)), flat[:, :, :16].mean(axis=(1, 2))], axis=1) * 5

    monkeypatch.setattr("orthogan.disentanglement.factor_reader", lambda source, device: Light())
    monkeypatch.chdir(tmp_path)
    known = ["sprites-sngan", "--data", "sprites"]
    words = ["--method", "oracle", "--attributes", "light", "--samples", "60", "--features", "none"]
    assert main(["discover", *known, *words, "--out", "light.safetensors"]) == 0
    found = Directions.load("light.safetensors")
    assert found.names == ("light",)
    assert found.scores["effect"][0] > 0.1
    assert "light +" in found.notes[0]
    walk = ["--method", "sefa", "--dims", "0", "--steps", "3", "--save-directions", "sefa.safetensors"]
    assert main(["traverse", *known, *walk, "--out", "walk.png"]) == 0
    assert all(Directions.load("sefa.safetensors").notes)
    assert main(["discover", "sprites-sngan", "--method", "oracle", "--data", "missing.yaml"]) == 2
