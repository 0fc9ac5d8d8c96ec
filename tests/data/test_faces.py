"""Portraits: equal to the library's own drawings, reproducible, with factors that can be fixed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orthogan.config.files import load_config
from orthogan.data import faces, open_configured, open_source
from orthogan.data.config import DataConfig
from orthogan.data.resize import fit_arrays
from orthogan.disentanglement.codes.source import LabelledSource
from orthogan.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def table() -> np.ndarray:
    return faces.draw_factors(1000, seed=0)


@cache
def style() -> Any:
    from dicebear import Style

    return Style(faces.definition())


def library_drawing(row: np.ndarray, size: int) -> np.ndarray:
    """The portrait as DiceBear describes and resvg draws it whole, uint8 (3, size, size)."""
    from dicebear import Avatar

    known = faces.factors()
    value = {name: known.values[i][row[i]] for i, name in enumerate(known.names)}
    options: dict[str, Any] = {
        "seed": "0",
        "backgroundColor": [value["background"]],
        "skinColor": [value["skin"]],
        "hairColor": [value["hair color"]],
    }
    for part in faces.PARTS:
        options[f"{part.name}Probability"] = 0 if value[part.name] == "none" else 100
        if value[part.name] != "none":
            options[f"{part.name}Variant"] = [value[part.name]]
            if part.name != "beard":
                options[f"{part.palette}Color"] = [value[f"{part.name} color"]]
    return faces.rasterize(str(Avatar(style(), options)), size)


@pytest.mark.parametrize("size", [16, 32, 64])
def test_a_portrait_equals_the_library_s_own_drawing(table: np.ndarray, size: int) -> None:
    rows = table[:120]
    names = faces.factors().names
    assert all((rows[:, names.index(part)] > 0).any() for part in ("glasses", "beard", "hat", "accessories"))
    for row, picture in zip(rows, faces.render(rows, size), strict=True):
        np.testing.assert_array_equal(picture, library_drawing(row, size))


def test_every_variant_equals_the_library_s_own_drawing(table: np.ndarray) -> None:
    known = faces.factors()
    for part in faces.PARTS:
        column = known.names.index(part.name)
        first = 1 if part.share < 1 else 0
        for variant in range(first, known.sizes[column]):
            row = faces.draw_factors(1, seed=variant, fixed={part.name: variant})
            np.testing.assert_array_equal(faces.render(row, 16)[0], library_drawing(row[0], 16))


def test_the_data_does_not_change_with_a_release(table: np.ndarray) -> None:
    digest = hashlib.sha256(faces.render(table, 32).tobytes()).hexdigest()
    assert digest == "acbbc80b3ed40c7e2f48930f0444dd5251adb303d4209fb5524b686be2da9dab"


def test_a_portrait_depends_on_seed_and_position_alone(table: np.ndarray) -> None:
    np.testing.assert_array_equal(faces.draw_factors(10, seed=0), table[:10])
    assert (faces.draw_factors(1000, seed=1) != table).any(axis=1).mean() > 0.99


def test_values_are_equally_likely_and_parts_have_their_share(table: np.ndarray) -> None:
    known = faces.factors()
    for part in faces.PARTS:
        column = table[:, known.names.index(part.name)]
        if part.share < 1:
            assert abs((column > 0).mean() - part.share) < 5 * (part.share * (1 - part.share) / 1000) ** 0.5
            column = column[column > 0] - 1
        size = known.sizes[known.names.index(part.name)] - (part.share < 1)
        expected = len(column) / size
        assert np.abs(np.bincount(column, minlength=size) - expected).max() < 5 * expected**0.5


def test_every_value_can_be_seen(table: np.ndarray) -> None:
    """A part and its color are none together, and each color of the palette gives another picture."""
    known = faces.factors()
    shown = table[table[:, known.names.index("glasses")] > 0][:1].repeat(known.sizes[known.names.index("glasses")], 0)
    shown = shown[: len(known.values[known.names.index("glasses color")]) - 1]
    shown[:, known.names.index("glasses color")] = np.arange(1, len(shown) + 1)
    assert len(np.unique(faces.render(shown, 16).reshape(len(shown), -1), axis=0)) == len(shown)


def test_factors_can_be_fixed() -> None:
    known = faces.factors()
    rows = faces.draw_factors(50, seed=3, fixed={"glasses": "none", "skin": 2, "hat color": 1})
    column = {name: rows[:, i] for i, name in enumerate(known.names)}
    assert (column["glasses"] == 0).all()
    assert (column["glasses color"] == 0).all()
    assert (column["skin"] == 2).all()
    assert (column["hat color"] == 1).all()
    assert (column["hat"] > 0).all()
    free = faces.draw_factors(50, seed=3)
    np.testing.assert_array_equal(column["hair"], free[:, known.names.index("hair")])


@pytest.mark.parametrize(
    ("fixed", "message"),
    [
        ({"nose": 1}, "unknown factor 'nose'; the factors are background, skin"),
        ({"skin": 8}, "skin=8: must be a number below 8"),
        ({"glasses": "pink"}, "glasses='pink': must be a number below 15 or one of none, dark01"),
        ({"glasses": "none", "glasses color": 1}, "glasses is fixed to none, but its color to another"),
    ],
)
def test_what_cannot_be_fixed_is_named(fixed: dict[str, str | int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        faces.draw_factors(5, seed=0, fixed=fixed)


def test_tables_that_are_no_factors_are_refused(table: np.ndarray) -> None:
    known = faces.factors()
    with pytest.raises(UserError, match=r"integers \(n, 17\), not float64"):
        faces.render(table.astype(float))
    wrong = table[:2].copy()
    wrong[1, 0] = 6
    with pytest.raises(UserError, match=r"background \(column 0\) runs from"):
        faces.render(wrong)
    wrong = table[table[:, known.names.index("hat")] == 0][:1].copy()
    wrong[:, known.names.index("hat color")] = 1
    with pytest.raises(UserError, match="hat and hat color must be none"):
        faces.render(wrong)
    with pytest.raises(UserError, match="multiple of 16, such as 16, 32 or 64, not 40"):
        faces.render(table, 40)


def test_the_pinned_packages_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for name, number in faces.PINNED.items():
        assert f"{name}=={number}" in project["dependencies"]


def test_another_release_of_a_package_does_not_change_the_data_silently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as changed:
        changed.setattr(faces, "DEFINITION", "of another release")
        faces.definition.cache_clear()
        with pytest.raises(UserError, match=r"run: pip install dicebear-core==10\.7\.0 dicebear-styles==10\.6\.0"):
            faces.definition()
    faces.definition.cache_clear()
    layers = faces._draw_layers()
    monkeypatch.setattr(faces, "_draw_layers", lambda: layers)
    with monkeypatch.context() as changed:
        changed.setenv("ORTHOGAN_CACHE", str(tmp_path))
        changed.setattr(faces, "LAYERS", "of another release")
        changed.setattr(faces, "version", lambda name: "99")
        faces._layers.cache_clear()
        with pytest.raises(UserError, match=r"dicebear-core 99 .* draw other portraits; run: pip install"):
            faces._layers()
        assert not list(tmp_path.iterdir())  # what is refused is not kept for the next start
        changed.setattr(faces, "version", faces.PINNED.__getitem__)
        faces._layers()
    assert "draws the portraits slightly differently" in caplog.text
    faces._layers.cache_clear()


@pytest.mark.slow
def test_two_processes_may_start_at_once_with_an_empty_cache(tmp_path: Path, table: np.ndarray) -> None:
    code = "from orthogan.data import faces; import hashlib; table = faces.draw_factors(50, seed=0)"
    code += "; print(hashlib.sha256(faces.render(table).tobytes()).hexdigest())"
    command = [sys.executable, "-c", code]
    environment = os.environ | {"ORTHOGAN_CACHE": str(tmp_path), "PYTHONPATH": str(ROOT)}
    starts = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [start.communicate(timeout=600)[0].strip() for start in starts]
    assert answers == [hashlib.sha256(faces.render(table[:50]).tobytes()).hexdigest()] * 2
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]


@pytest.mark.parametrize("damage", ["flip", "cut", "folder"])
def test_a_damaged_cache_is_drawn_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: np.ndarray, damage: str
) -> None:
    right = faces.render(table[:8])
    drawn = faces._draw_layers()
    monkeypatch.setenv("ORTHOGAN_CACHE", str(tmp_path))
    monkeypatch.setattr(faces, "_draw_layers", lambda: drawn)
    faces._layers.cache_clear()
    faces.render(table[:1])
    (path,) = tmp_path.glob("faces-*.safetensors")
    content = bytearray(path.read_bytes())
    if damage == "folder":
        path.unlink()
        path.mkdir()
    else:
        content[len(content) // 2] ^= 64
        path.write_bytes(content if damage == "flip" else content[: len(content) // 2])
    faces._layers.cache_clear()
    np.testing.assert_array_equal(faces.render(table[:8]), right)


def test_the_source_has_classes_factors_and_a_test_part() -> None:
    source = open_configured(DataConfig(source="faces", count=200, resolution=32))
    images, labels = source.read(np.arange(200))
    assert images.shape == (200, 3, 32, 32)
    assert source.class_names == ["long hair", "short hair"]
    known = faces.factors()
    assert source.factors is not None
    hair = source.factors[:, known.names.index("hair")]
    assert [known.values[known.names.index("hair")][h].startswith("short") for h in hair] == labels.tolist()
    other = open_source("faces", resolution=32, channels=3, count=200, split="test")
    assert (other.read(np.arange(200))[0] != images).any(axis=(1, 2, 3)).all()
    assert other.fingerprint() != source.fingerprint()
    assert open_source("faces", resolution=32, channels=3, count=200).fingerprint() == source.fingerprint()


def test_any_combination_of_factors_can_be_drawn() -> None:
    source = open_configured(DataConfig(source="faces", count=10, resolution=16))
    assert isinstance(source, LabelledSource)
    assert source.factors is not None
    np.testing.assert_array_equal(source.sample(source.factors), source.read(np.arange(10))[0])
    names = source.factor_names
    row = source.factors[:1].repeat(3, 0)
    row[:, names.index("glasses")], row[:, names.index("glasses color")] = [0, 1, 1], [2, 0, 1]
    none, first, same = source.sample(row)
    np.testing.assert_array_equal(first, same)
    assert (none != first).any()


def test_other_sizes_and_gray_are_made_from_the_next_multiple_of_16() -> None:
    source = open_source("faces", resolution=40, channels=1, count=2)
    whole = open_source("faces", resolution=48, count=2)
    images = source.read(np.arange(2))[0]
    assert images.shape == (2, 1, 40, 40)
    expected = fit_arrays(whole.read(np.arange(2))[0].transpose(0, 2, 3, 1), resolution=40, channels=1, name="faces")
    np.testing.assert_array_equal(images, expected)
    assert whole.resolution == 48
    assert whole.fingerprint() != open_source("faces", resolution=48, channels=1, count=2).fingerprint()


def test_faces_are_what_is_trained_on_where_nothing_is_said() -> None:
    config = load_config(None, [])
    assert (config.data.source, config.data.resolution, config.data.channels) == ("faces", 32, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "sprites", "fixed": {"skin": 1}, "resolution": 32}, r"options\.fixed: .*; sprites has no options"),
        ({"options": {"fix": {}}}, r"options\.fix: .*; faces has fixed"),
    ],
)
def test_a_config_that_cannot_be_drawn_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataConfig(**{"source": "faces", **options})


def test_the_key_fixed_of_version_0_1_is_an_option_now() -> None:
    config = load_config(None, ["data.source=faces", "data.count=5", "data.fixed={glasses: none}", "data.fixed.skin=2"])
    assert config.data.options == {"fixed": {"glasses": "none", "skin": 2}}
    assert DataConfig(source="cifar10", fixed={}).options == {}
    table = open_configured(config.data).factors
    assert table is not None
    assert (table[:, faces.factors().names.index("skin")] == 2).all()
