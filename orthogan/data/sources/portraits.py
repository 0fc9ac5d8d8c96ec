"""Portraits in several of DiceBear's styles (CC0 1.0): the style is the class, and every part is a known factor.

The packages ``dicebear-core`` and ``dicebear-styles`` describe a portrait, ``resvg-py`` draws it. That takes 3 to 8
milliseconds each, so they are drawn once, with a progress bar, and kept in the cache. None of the art is part of
orthogan.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field, field_validator

from orthogan.config.base import Count, Section
from orthogan.data.faces import BACKGROUNDS, NONE, PINNED, other_data, rasterize, uniforms
from orthogan.data.factors import factor_value
from orthogan.data.source import ArraySource, DataRequest
from orthogan.data.sources import DATA_SOURCES, DataSource
from orthogan.errors import CannotWrite, UserError
from orthogan.io.hashing import ContentHash
from orthogan.io.read import cache_folder, shown
from orthogan.progress import progress_bar
from orthogan.registry import did_you_mean
from orthogan.rng import derive

DEFAULT_COUNTS = {"train": 10_000, "test": 2_000}
DEFAULT_STYLES = ("lorelei", "notionists", "open-peeps", "pixel-art", "voxel-art", "cutouts")
STYLES = (*DEFAULT_STYLES, "lorelei-neutral", "notionists-neutral", "pixel-art-neutral", "critters", "moods", "clay")
BLOCK = 1024  # portraits in a file of the cache

# Parts and palettes of different styles that mean the same have one name. Others keep the name of their style.
COMMON_PARTS = {
    ("open-peeps", "head"): "hair",
    ("open-peeps", "accessories"): "glasses",
    ("open-peeps", "expression"): "mouth",
    ("open-peeps", "facialHair"): "beard",
    ("voxel-art", "top"): "hair",
    ("voxel-art", "outfit"): "clothes",
    ("cutouts", "brows"): "eyebrows",
}
COMMON_COLORS = {
    ("open-peeps", "headContrast"): "hair color",
    ("pixel-art", "clothing"): "clothes color",
    ("open-peeps", "clothing"): "clothes color",
    ("voxel-art", "shirt"): "clothes color",
    ("cutouts", "paperFace"): "skin",
    ("cutouts", "paperHair"): "hair color",
    ("cutouts", "paperMouth"): "mouth color",
}
SHARES = {"glasses": 0.3, "beard": 0.15, "hat": 0.15}  # how often a part is drawn that the style draws less often
STILL = "animation"  # a part that moves others


class Column(NamedTuple):
    """A factor: its name, and the name of every value, of which each style has some."""

    name: str
    values: tuple[str, ...]


class Choice(NamedTuple):
    """What a style chooses: a part or a palette, the factor that says which value, and where it can be seen.

    ``uses``: the values that can be seen, as (choice, value) of the parts that contain it; None: always there.
    """

    key: str
    column: str
    values: tuple[str, ...]
    share: float
    is_color: bool
    uses: tuple[tuple[str, str], ...] | None

    @property
    def varies(self) -> bool:
        """Whether it can be a factor."""
        return len(self.values) > 1 or self.share < 1


@cache
def definition(style: str) -> dict[str, Any]:
    """DiceBear's description of a style, without the animations that some have."""
    found = json.loads(files("dicebear_styles").joinpath(f"{style}.json").read_text("utf-8"))
    if STILL in found["components"]:
        variants = found["components"][STILL]["variants"]
        found["components"][STILL]["variants"] = {NONE: variants[NONE]}
    return found


@cache
def choices(style: str) -> tuple[Choice, ...]:
    """The parts and palettes of a style, each after the parts that contain it."""
    described = definition(style)
    contents = {
        (part, value): set(_references(variant["elements"]))
        for part, component in described["components"].items()
        for value, variant in component["variants"].items()
    }
    top = set(_references(described["canvas"]["elements"]))
    found: list[Choice] = []
    pending = [("component", name) for name in described["components"]]
    # A palette that must differ from others is left to the library, and the background is that of all styles.
    free = [name for name, color in described["colors"].items() if not color.get("notEqualTo")]
    pending += [("color", name) for name in free if name != "background"]
    while pending:
        placed = {choice.key for choice in found if not choice.is_color}
        for kind, name in pending:
            holders = [place for place, inside in contents.items() if (kind, name) in inside]
            if all(part in placed for part, _ in holders):
                pending.remove((kind, name))
                uses = None if (kind, name) in top else tuple(holders)
                found.append(_choice(style, described, kind, name, uses))
                break
        else:
            raise UserError(f"portraits: the parts of {style} contain one another in a circle")
    return tuple(found)


def _choice(
    style: str, described: dict[str, Any], kind: str, name: str, uses: tuple[tuple[str, str], ...] | None
) -> Choice:
    if kind == "color":
        column = COMMON_COLORS.get((style, name), "skin" if name == "skin" else f"{name} color")
        return Choice(name, column, tuple(described["colors"][name]["values"]), 1.0, True, uses)
    column = COMMON_PARTS.get((style, name), name)
    component = described["components"][name]
    share = component.get("probability", 100) / 100
    share = max(share, SHARES.get(column, 0.0)) if share < 1 else share
    return Choice(name, column, tuple(component["variants"]), share, False, uses)


def _references(node: Any) -> Iterator[tuple[str, str]]:
    """The parts and palettes, as (kind, name), that a piece of a description names."""
    if isinstance(node, dict):
        if node.get("type") in ("component", "color") and isinstance(node.get("name"), str):
            yield node["type"], node["name"]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from _references(child)


@cache
def columns(styles: tuple[str, ...]) -> tuple[Column, ...]:
    """The factors of portraits in some styles: style, background, then every part and color that varies.

    The value "none" (0) is there where a style lacks the part, or does not always draw it.
    """
    found: dict[str, dict[str, None]] = {}
    everywhere = {choice.column for choice in choices(styles[0])}
    for style in styles:
        everywhere &= {choice.column for choice in choices(style)}
    optional = {choice.column for style in styles for choice in choices(style) if not _always(style, choice)}
    for style in styles:
        for choice in choices(style):
            if choice.varies:
                none = {} if choice.column in everywhere - optional else {NONE: None}
                found.setdefault(choice.column, none).update(dict.fromkeys(choice.values))
    parts = [Column(name, tuple(values)) for name, values in found.items()]
    return (Column("style", styles), Column("background", BACKGROUNDS), *parts)


def _always(style: str, choice: Choice) -> bool:
    if choice.share < 1:
        return False
    if choice.uses is None:
        return True
    holders = [other for other in choices(style) if not other.is_color and any(p == other.key for p, _ in choice.uses)]
    return any(_always(style, h) and all((h.key, value) in choice.uses for value in h.values) for h in holders)


def draw_factors(
    count: int, styles: tuple[str, ...], *, seed: int, fixed: Mapping[str, str | int] | None = None
) -> np.ndarray:
    """Random factors int64 (count, K) of ``columns(styles)``; row i is a function of the arguments and i alone.

    What cannot be seen is none: the part of a part that is absent, and the color of what is not drawn.
    Raises UserError for a factor or a value that does not exist.
    """
    known = columns(styles)
    place = {column.name: k for k, column in enumerate(known)}
    names, values = [column.name for column in known], [column.values for column in known]
    held = {name: factor_value("portraits", names, values, name, value) for name, value in (fixed or {}).items()}
    uniform = uniforms(count, len(known), seed)
    table = np.zeros((count, len(known)), np.int64)
    for k in (0, 1):
        size = len(known[k].values)
        table[:, k] = np.minimum((uniform[:, 0, k] * size).astype(np.int64), size - 1)
        if known[k].name in held:
            table[:, k] = held[known[k].name]
    for number, style in enumerate(styles):
        rows = np.flatnonzero(table[:, 0] == number)
        seen: dict[tuple[str, str], np.ndarray] = {}  # where a value of a part is drawn
        for choice in choices(style):
            visible = np.ones(len(rows), bool)
            if choice.uses is not None:
                visible = np.zeros(len(rows), bool)
                for use in choice.uses:
                    visible |= seen.get(use, False)
            k = place.get(choice.column)
            if not choice.varies or k is None:
                if not choice.is_color:
                    seen[choice.key, choice.values[0]] = visible
                continue
            picked = np.minimum((uniform[rows, 0, k] * len(choice.values)).astype(np.int64), len(choice.values) - 1)
            wanted = known[k].values[held[choice.column]] if choice.column in held else None
            if wanted is None:
                visible &= uniform[rows, 1, k] < choice.share
            elif wanted == NONE:
                if _always(style, choice):
                    raise UserError(
                        f"portraits: {choice.column} of {style} is always drawn, so it cannot be fixed to none"
                    )
                visible[:] = False
            elif wanted not in choice.values:
                raise UserError(
                    f"portraits: {style} has no {choice.column} {wanted!r}; choose one of {', '.join(choice.values)}, "
                    "or other styles"
                )
            else:
                picked[:] = choice.values.index(wanted)
            numbers = np.array([known[k].values.index(value) for value in choice.values])
            table[rows, k] = np.where(visible, numbers[picked], 0)
            if not choice.is_color:
                for v, value in enumerate(choice.values):
                    seen[choice.key, value] = visible & (picked == v)
    return table


@cache
def _drawer(style: str) -> Any:
    from dicebear import Style

    return Style(definition(style))


def draw(row: np.ndarray, styles: tuple[str, ...], resolution: int) -> np.ndarray:
    """The portrait uint8 (3, resolution, resolution) of one row of factors."""
    from dicebear import Avatar

    known = columns(styles)
    value = {column.name: column.values[number] for column, number in zip(known, row, strict=True)}
    options: dict[str, Any] = {"seed": "0", "backgroundColor": [value["background"]]}
    for choice in choices(value["style"]):
        chosen = value.get(choice.column, NONE) if choice.varies else NONE
        if choice.is_color and chosen != NONE:
            options[f"{choice.key}Color"] = [chosen]
        elif not choice.is_color and choice.varies:
            options[f"{choice.key}Probability"] = 0 if chosen == NONE else 100
            if chosen != NONE:
                options[f"{choice.key}Variant"] = [chosen]
    return rasterize(str(Avatar(_drawer(value["style"]), options)), resolution)


def _images(table: np.ndarray, styles: tuple[str, ...], resolution: int) -> np.ndarray:
    """All portraits uint8 (n, 3, resolution, resolution), from the cache or drawn now, a block at a time."""
    import torch  # takes a second, and a config needs this module's options only

    from orthogan.io.weights import read_sealed, write_sealed

    key = ContentHash().text(resolution, *styles, *(f"{name} {version(name)}" for name in PINNED))
    images = np.empty((len(table), 3, resolution, resolution), np.uint8)
    with progress_bar(total=len(table), desc="drawing portraits", unit=" images", leave=False) as bar:
        for start in range(0, len(table), BLOCK):
            rows = table[start : start + BLOCK]
            name = ContentHash().text(key.hexdigest()).array(rows).hexdigest()
            path = cache_folder() / f"portraits-{name}.safetensors"
            part = images[start : start + BLOCK]
            try:
                part[:] = read_sealed(path, needed=True)[0]["images"].numpy()
                bar.update(len(rows))
                continue
            except (UserError, KeyError, ValueError):  # not drawn yet, or damaged
                pass
            for i, row in enumerate(rows):
                part[i] = draw(row, styles, resolution)
                bar.update()
            with suppress(CannotWrite):  # without a cache they are drawn again at the next start
                write_sealed(path, {"images": torch.from_numpy(part)}, {})
    return images


class PortraitOptions(Section):
    """What only the portraits have."""

    styles: list[str] = Field(
        default=list(DEFAULT_STYLES),
        min_length=1,
        description=f"DiceBear's styles that are drawn, which are the classes: {', '.join(STYLES)}",
    )
    fixed: dict[str, str | Count] = Field(
        default={}, description="factors to hold at a value, such as {glasses: none, background: 0}"
    )

    @field_validator("styles")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        for name in value:
            if name not in STYLES:
                raise ValueError(f"{shown(name)} is not one of {', '.join(STYLES)}{did_you_mean(name, STYLES)}")
        if len(set(value)) < len(value):
            raise ValueError("a style is named twice")
        return value


@DATA_SOURCES.register("portraits")
class DrawnPortraits(DataSource):
    """``count`` portraits (default 10,000, or 2,000 of the part "test") in several styles, in memory.

    Portrait i is a function of ``seed``, ``split``, the options and i alone; the two parts have different portraits.
    They are drawn at any resolution; the art is made for 64 pixels and more.
    """

    splits = ("train", "test")
    factors = True
    options = PortraitOptions
    origin = "drawn from styles of dicebear-styles (DiceBear)"
    license = "CC0-1.0"

    def open(self, data: DataRequest) -> ArraySource:
        """The portraits, drawn now unless they are in the cache. Raises UserError for unknown factors."""
        options = PortraitOptions(**data.options)
        if any(version(name) != number for name, number in PINNED.items()):
            raise other_data("portraits")
        styles = tuple(options.styles)
        count = DEFAULT_COUNTS[data.split] if data.count is None else data.count
        table = draw_factors(count, styles, seed=derive(data.seed, "portraits", data.split), fixed=options.fixed)
        images = _images(table, styles, data.resolution)
        known = columns(styles)
        several = len(styles) > 1
        return ArraySource(
            f"portraits-{data.split}-{count}",
            data.fit(images.transpose(0, 2, 3, 1), "portraits"),
            labels=table[:, 0].copy() if several else None,
            class_names=styles if several else (),
            why_unlabeled="" if several else "data.options.styles names a single style",
            factors=table,
            factor_names=[column.name for column in known],
            factor_sizes=[len(column.values) for column in known],
            factor_values=[column.values for column in known],
        )
