"""Emoji out of an npm package: a tiny one in the format of the published one; nothing is downloaded."""

from __future__ import annotations

import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orthogan.cli.main import main
from orthogan.data import ImageSource, open_source
from orthogan.data.config import DataConfig
from orthogan.errors import UserError

ROOT = Path(__file__).parents[3]
TONES = ("1F3FB", "1F3FC", "1F3FB-1F3FC", "1F3FC-1F3FC")


def entry(unified: str, category: str, subcategory: str, tones: tuple[str, ...] = ()) -> dict[str, Any]:
    image = {"image": f"{unified.lower()}.png", "has_img_google": True}
    variations = {tone: {"image": f"{unified}-{tone}.png".lower(), "has_img_google": True} for tone in tones}
    whole = {"unified": unified, "category": category, "subcategory": subcategory, **image}
    return whole | ({"skin_variations": variations} if variations else {})


TABLE = [
    entry("1F600", "Smileys & Emotion", "face-smiling"),
    entry("1F44B", "People & Body", "hand-fingers-open", TONES),
    entry("1F3FB", "Component", "skin-tone"),
    entry("1F1E6", "Flags", "country-flag"),
    entry("1F1E7", "Flags", "country-flag") | {"has_img_google": False},
]
IMAGES = ["1f600", "1f44b", *(f"1f44b-{tone}".lower() for tone in TONES), "1f3fb", "1f1e6"]


def picture(number: int, size: int = 64, mode: str = "RGBA") -> bytes:
    """The left half transparent, the right half of a color that tells the pictures apart."""
    colors = np.zeros((size, size, 4), np.uint8)
    colors[:, size // 2 :] = (10 * number, 100, 200, 255)
    file = io.BytesIO()
    Image.fromarray(colors).convert(mode).save(file, "PNG")
    return file.getvalue()


def contents(changed: dict[str, bytes | None] | None = None, table: Any = TABLE) -> dict[str, bytes]:
    package = {"name": "emoji-datasource-google", "version": "16.0.0"}
    files: dict[str, bytes | None] = {
        f"img/google/64/{name}.png": picture(number) for number, name in enumerate(IMAGES)
    }
    files |= {"img/google/sheets/64.png": b"ignored", "img/google/64/1f999.png": b"not named in emoji.json"}
    files |= {"emoji.json": json.dumps(table).encode(), "package.json": json.dumps(package).encode()}
    return {name: content for name, content in (files | (changed or {})).items() if content is not None}


def write(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def opened(path: Path, **options: Any) -> ImageSource:
    return open_source("emoji", **{"path": str(path), "resolution": 64, **options})


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("emoji") / "emoji-datasource-google-16.0.0.tgz", contents())


def test_classes_factors_and_pixels(package: Path) -> None:
    source = opened(package)
    images, labels = source.read(np.arange(len(source)))
    names = dict(zip(source.factor_names, source.factor_values, strict=True))
    assert source.class_names == list(names["category"])
    assert len(source.class_names) == 9
    factors = source.factors
    assert factors is not None
    rows = [[names[name][value] for name, value in zip(names, row, strict=True)] for row in factors]
    hand = ["People & Body", "hand-fingers-open"]
    assert rows == [
        ["Smileys & Emotion", "face-smiling", "none"],
        *([*hand, tone] for tone in ("default", "light", "medium-light", "two tones", "medium-light")),
        ["Symbols", "skin-tone", "light"],
        ["Flags", "country-flag", "none"],
    ]
    assert (labels == factors[:, 0]).all()
    assert images.shape == (8, 3, 64, 64)
    assert (images[:, :, :, :32] == 255).all()
    assert (images[:, :, 5, 40] == [(10 * number, 100, 200) for number in range(8)]).all()


def test_options_choose_background_tones_and_categories(package: Path) -> None:
    source = opened(package, background="#102030", skin_tones=False, categories=["People & Body", "Flags"])
    images, labels = source.read(np.arange(len(source)))
    assert labels.tolist() == [0, 1]
    assert source.class_names == ["People & Body", "Flags"]
    assert (images[0, :, 0, 0] == (0x10, 0x20, 0x30)).all()
    assert (
        source.fingerprint() != opened(package, skin_tones=False, categories=["People & Body", "Flags"]).fingerprint()
    )
    one = opened(package, categories=["People & Body"])
    assert (len(one), one.num_classes) == (5, 0)
    assert one.why_unlabeled == "data.options.categories names a single category"


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_kept(package: Path, channels: int) -> None:
    source = opened(package, channels=channels)
    first, third = source.read(np.array([0, 2]))[0]
    assert first.shape == (channels, 64, 64)
    assert (first[-1, :, :32] == 0).all()
    assert (first[-1, :, 32:] == 255).all()
    if channels == 4:
        assert third[:, 5, 50].tolist() == [20, 100, 200, 255]
    colored = opened(package, channels=channels, background="#102030")  # has no effect on pictures with alpha
    assert (colored.read(np.arange(8))[0] == source.read(np.arange(8))[0]).all()
    assert source.fingerprint() != opened(package).fingerprint()


def test_without_alpha_pictures_are_on_white_or_the_background(package: Path) -> None:
    plain, colored = opened(package).read(np.arange(3))[0], opened(package, background="#102030").read(np.arange(3))[0]
    assert plain.shape == (3, 3, 64, 64)
    assert (plain[:, :, :, :32] == 255).all()
    assert (colored[:, :, 5, 5] == (0x10, 0x20, 0x30)).all()
    assert (plain[:, :, :, 32:] == colored[:, :, :, 32:]).all()
    assert plain[2, :, 5, 50].tolist() == [20, 100, 200]


def test_a_folder_is_read_as_the_archive(package: Path, tmp_path: Path) -> None:
    for name, content in contents().items():
        file = tmp_path / "node_modules" / "emoji-datasource-google" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    expected = opened(package).fingerprint()
    assert opened(tmp_path).fingerprint() == expected
    assert opened(tmp_path / "node_modules" / "emoji-datasource-google").fingerprint() == expected
    assert opened(package.parent).fingerprint() == expected
    assert open_source(str(package), resolution=64).fingerprint() == expected
    small = opened(package, resolution=32, channels=1)
    assert small[0][0].shape == (1, 32, 32)


def test_bad_pictures_are_skipped_up_to_the_limit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    changed = {"img/google/64/1f600.png": picture(0)[:60], "img/google/64/1f1e6.png": None}
    path = write(tmp_path / "emoji.tgz", contents(changed | {"img/google/64/1f3fb.png": picture(1, 32)}))
    with pytest.raises(UserError, match=r"emoji\.tgz: at least 1 of 8 files cannot be read.*data\.bad_limit"):
        opened(path)
    source = opened(path, bad_limit=0.5)
    assert len(source) == 5
    for reason in ("1f600.png: ", "1f1e6.png: is missing", "1f3fb.png: has 32 x 32 pixels, expected 64 x 64"):
        assert reason in caplog.text
    with pytest.raises(UserError, match=r"1f600\.png cannot be read"):
        opened(path, bad_images="error", bad_limit=0.5)
    one = write(tmp_path / "one.tgz", contents({f"img/google/64/{name}.png": None for name in IMAGES[1:]}))
    with pytest.raises(UserError, match="holds 1 readable emoji; a set needs at least two"):
        opened(one, bad_limit=1.0)


GET = r"npm pack emoji-datasource-google@16\.0\.0` or `curl -LO https://registry\.npmjs\.org/"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"emoji.json": None}, "has no emoji.json.*" + GET),
        ({"package.json": None}, "has no package.json.*" + GET),
        ({"package.json": b'{"name": "emoji-datasource-apple"}'}, "'emoji-datasource-apple', not .*" + GET),
        ({"package.json": b"[]"}, "this is the package None, not"),
        ({"emoji.json": b"{"}, r"emoji\.json: is not valid JSON"),
        ({"emoji.json": b"{}"}, "expected a list of emoji"),
        ({"emoji.json": b"[7]"}, r"entry 0 is not as expected \(TypeError.*" + GET),
        ({"emoji.json": json.dumps([TABLE[0] | {"category": "Cats"}]).encode()}, "entry 0 .*category 'Cats'"),
        ({"emoji.json": json.dumps([TABLE[0], {"category": "Flags"}]).encode()}, "entry 1 .*KeyError: 'subcategory'"),
        ({"emoji.json": b" " * ((1 << 24) + 1)}, r"emoji\.json is larger than 16 MiB"),
        ({"img/google/64/1f600.png": bytes((1 << 20) + 1)}, r"1f600\.png is larger than 1 MiB"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, files: dict[str, bytes | None], message: str) -> None:
    with pytest.raises(UserError, match=message):
        opened(write(tmp_path / "emoji.tgz", contents(files)))


def test_how_to_get_the_package_is_said(tmp_path: Path, package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="the source 'emoji' needs the package emoji-.*; download it .*" + GET):
        DataConfig(source="emoji", resolution=64)
    with pytest.raises(UserError, match="the package emoji-datasource-google is not there; .*" + GET):
        opened(tmp_path / "absent.tgz")
    recipe = str(ROOT / "configs" / "recipes" / "sngan.yaml")
    assert main(["train", recipe, "data.source=emoji", "data.path=absent.tgz", "--dry-run"]) == 2
    assert re.search("absent.tgz: no such file or folder.*" + GET, capsys.readouterr().err)
    cut = tmp_path / "cut.tgz"
    cut.write_bytes(package.read_bytes()[:500])
    with pytest.raises(
        UserError, match=r"cut\.tgz: is damaged, or is not emoji-datasource-google-16\.0\.0\.tgz.*" + GET
    ):
        opened(cut)


def test_another_version_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    version = b'{"name": "emoji-datasource-google", "version": "15.1.2"}'
    opened(write(tmp_path / "emoji.tgz", contents({"package.json": version})))
    assert "version '15.1.2' has other emoji than 16.0.0" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"background": "whitish"}, r"options\.background: .*unknown color specifier"),
        ({"categories": ["Flag"]}, r"options\.categories: .*'Flag' is not one of .*did you mean 'Flags'"),
        ({"tones": True}, r"options\.tones: .*; emoji has background, skin_tones, categories"),
    ],
)
def test_options_that_do_not_exist_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataConfig(source="emoji", path="emoji.tgz", options=options)
