"""Portraits in several styles: reproducible, with factors that are what the pictures show."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orthogan.data import open_source
from orthogan.data.config import DataConfig
from orthogan.data.sources import portraits
from orthogan.errors import UserError

STYLES = portraits.DEFAULT_STYLES


@pytest.fixture(scope="module")
def table() -> np.ndarray:
    return portraits.draw_factors(60, STYLES, seed=0)


def column(table: np.ndarray, styles: tuple[str, ...], name: str) -> list[str]:
    names = [c.name for c in portraits.columns(styles)]
    k = names.index(name)
    return [portraits.columns(styles)[k].values[value] for value in table[:, k]]


def test_the_data_does_not_change_with_a_release(table: np.ndarray) -> None:
    pictures = np.stack([portraits.draw(row, STYLES, 64) for row in table])
    assert (
        hashlib.sha256(pictures.tobytes()).hexdigest()
        == "38966bd2fa8f831ac46c268cfeffdb01d10d7bb25ff9c579573c7cfb427fb7d6"
    )


def test_a_portrait_depends_on_the_seed_and_its_position_alone(table: np.ndarray) -> None:
    np.testing.assert_array_equal(portraits.draw_factors(10, STYLES, seed=0), table[:10])
    assert (portraits.draw_factors(60, STYLES, seed=1) != table).any(axis=1).all()


def test_all_the_art_is_free() -> None:
    for style in portraits.STYLES:
        assert portraits.definition(style)["meta"]["license"]["name"] == "CC0 1.0"


@pytest.mark.parametrize("style", portraits.STYLES)
def test_every_factor_can_be_seen(style: str) -> None:
    """In some portrait each column changes the picture, and every value that is drawn is one of the style."""
    rows = portraits.draw_factors(200, (style,), seed=1)
    known = portraits.columns((style,))
    assert known[0].values == (style,)
    for k, (name, values) in enumerate(known[1:], start=1):
        shown = np.flatnonzero(rows[:, k] > 0) if values[0] == portraits.NONE else np.arange(200)
        assert len(shown) > 0, name
        drawn = [v for v in range(len(values)) if values[v] != portraits.NONE]
        if len(drawn) < 2:
            continue
        for row in rows[shown[:8]]:
            other = row.copy()
            other[k] = next(v for v in reversed(drawn) if v != row[k])
            if (portraits.draw(other, (style,), 64) != portraits.draw(row, (style,), 64)).any():
                break
        else:
            pytest.fail(f"{name} of {style} cannot be seen")


def test_what_cannot_be_seen_is_none() -> None:
    rows = portraits.draw_factors(400, ("pixel-art", "notionists"), seed=0)
    styles = ("pixel-art", "notionists")
    style, hat, color = (column(rows, styles, name) for name in ("style", "hat", "hat color"))
    assert all((h == "none") == (c == "none") for h, c in zip(hat, color, strict=True))
    assert {h for h, s in zip(hat, style, strict=True) if s == "notionists"} == {"none"}
    assert 0.05 < np.mean([h != "none" for h, s in zip(hat, style, strict=True) if s == "pixel-art"]) < 0.3
    graphic = column(rows, styles, "clothesGraphic")
    with_one = {c for c, g in zip(column(rows, styles, "clothes"), graphic, strict=True) if g != "none"}
    holders = portraits.definition("notionists")["components"]["clothes"]["variants"]
    assert with_one
    assert all("clothesGraphic" in str(holders[name]) for name in with_one)


def test_factors_can_be_fixed() -> None:
    styles = ("lorelei", "open-peeps")
    rows = portraits.draw_factors(40, styles, seed=0, fixed={"glasses": "none", "background": 2, "style": "open-peeps"})
    assert set(column(rows, styles, "glasses")) == {"none"}
    assert set(column(rows, styles, "style")) == {"open-peeps"}
    assert (rows[:, 1] == 2).all()
    beards = portraits.draw_factors(40, ("lorelei",), seed=0, fixed={"beard": "variant02"})
    assert set(column(beards, ("lorelei",), "beard")) == {"variant02"}


@pytest.mark.parametrize(
    ("fixed", "message"),
    [
        ({"wings": 1}, "unknown factor 'wings'; the factors are style, background, hair"),
        ({"glasses": 99}, "glasses=99: must be a number below"),
        ({"hair": "none"}, "hair='none': must be a number below|lorelei always has hair"),
        ({"glasses": "sunglasses"}, "lorelei has no glasses 'sunglasses'; choose one of variant01"),
    ],
)
def test_what_cannot_be_fixed_is_named(fixed: dict[str, str | int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        portraits.draw_factors(20, ("lorelei", "open-peeps"), seed=0, fixed=fixed)


def test_the_source_draws_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORTHOGAN_CACHE", str(tmp_path))
    monkeypatch.setattr(portraits, "BLOCK", 8)
    options: dict[str, Any] = {"resolution": 32, "count": 12, "styles": ["pixel-art", "lorelei"]}
    source = open_source("portraits", **options)
    images, labels = source.read(np.arange(12))
    assert source.class_names == ["pixel-art", "lorelei"]
    assert images.shape == (12, 3, 32, 32)
    assert source.factors is not None
    np.testing.assert_array_equal(labels, source.factors[:, 0])
    for row, image in zip(source.factors, images, strict=True):
        np.testing.assert_array_equal(portraits.draw(row, ("pixel-art", "lorelei"), 32), image)
    other = open_source("portraits", **options, split="test")
    assert (other.read(np.arange(12))[0] != images).any(axis=(1, 2, 3)).all()

    files = sorted(tmp_path.iterdir())
    assert len(files) == 4
    with monkeypatch.context() as patch:
        patch.setattr(portraits, "draw", lambda *_: pytest.fail("it is in the cache"))
        assert open_source("portraits", **options).fingerprint() == source.fingerprint()
        assert open_source("portraits", **options | {"count": 8})[3][0].tobytes() == images[3].tobytes()
    for path in files:  # a damaged cache is drawn again
        path.write_bytes(path.read_bytes()[:100])
    assert open_source("portraits", **options).fingerprint() == source.fingerprint()
    one = open_source("portraits", resolution=16, channels=1, count=2, styles=["moods"])
    assert one[0][0].shape == (1, 16, 16)
    assert (one.num_classes, one.why_unlabeled) == (0, "data.options.styles names a single style")


def test_another_release_of_a_package_does_not_change_the_data_silently(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(portraits.PINNED, "resvg-py", "99")
    with pytest.raises(UserError, match=r"portraits: the installed packages .* run: pip install .* resvg-py==99"):
        open_source("portraits", count=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"styles": ["loreley"]}, r"options\.styles: .*'loreley' is not one of .*did you mean 'lorelei'"),
        ({"styles": ["moods", "moods"]}, "a style is named twice"),
        ({"styles": []}, r"options\.styles: "),
    ],
)
def test_options_that_do_not_exist_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataConfig(source="portraits", options=options)
