"""Pixel-art portraits with known factors, in DiceBear's style "Pixel Art" (CC0 1.0).

A portrait is a stack of layers on a 16 x 16 canvas: background, head, accessories, clothes, eyes, glasses, beard,
mouth, hair, hat. The packages ``dicebear-core`` and ``dicebear-styles`` describe them, ``resvg-py`` draws each one
once per color (a few seconds, cached afterward), and numpy blends them with resvg's own rounding, so that a composed
portrait equals the library's own drawing pixel for pixel. None of the art is part of orthogan.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np

from orthogan.data.factors import check_factors as check_table
from orthogan.data.factors import factor_value
from orthogan.errors import CannotWrite, UserError
from orthogan.io.hashing import ContentHash
from orthogan.io.read import cache_folder

log = logging.getLogger("orthogan.data")

PINNED = {"dicebear-core": "10.7.0", "dicebear-styles": "10.6.0", "resvg-py": "0.5.0"}  # as pyproject.toml has them
DEFINITION = "e208f8326565589c4d8e6e99e8232a74f07112e5461e59e3580341b7a630b63e"  # SHA-256 of the style
LAYERS = "496418e99802755c4c6c55860393ffba794aff75aa32edfd41a4275492ac2c97"  # and of the layers drawn from it
CANVAS = 16  # pixels; larger pictures repeat each pixel
STYLE = "pixel-art"
BACKGROUNDS = ("#b6e3f4", "#c0aede", "#d1d4f9", "#ffd5dc", "#ffdfbf", "#c1e1c1")  # light blue, purple, lavender, …
NONE = "none"
_INK = "#123456"  # stands for the color of a part; no palette has it


class Part(NamedTuple):
    """A layer of a portrait: its factor, its palette, how often it is drawn, and whether it has a mask."""

    name: str
    palette: str
    share: float = 1.0
    masked: bool = False


# From back to front, as the style stacks them. The frequency is our choice: the style draws rare parts less often.
PARTS = (
    Part("accessories", "accessories", 0.2),
    Part("clothes", "clothing"),
    Part("eyes", "eyes"),
    Part("glasses", "glasses", 0.3),
    Part("beard", "hair", 0.15, masked=True),  # in the color of the hair
    Part("mouth", "mouth"),
    Part("hair", "hair"),
    Part("hat", "hat", 0.15),
)


class Factors(NamedTuple):
    """The columns of a table of factors: names, and the name of every value."""

    names: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of values of each factor."""
        return tuple(len(values) for values in self.values)


@cache
def definition() -> dict[str, Any]:
    """Return DiceBear's description of the style. Raises UserError for that of another release."""
    found = json.loads(files("dicebear_styles").joinpath(f"{STYLE}.json").read_text("utf-8"))
    if hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest() != DEFINITION:
        raise other_data("faces")
    return found


def other_data(source: str) -> UserError:
    """Return the error for other package versions: another release would silently change the data set."""
    found = " ".join(f"{name} {version(name)}" for name in PINNED)
    pins = " ".join(f"{name}=={number}" for name, number in PINNED.items())
    return UserError(f"{source}: the installed packages ({found}) draw other portraits; run: pip install {pins}")


@cache
def factors() -> Factors:
    """Return the 17 factors: background, skin, then each part followed by its color.

    A part that can be absent has "none" as value 0, and so does its color, so that every value of a factor is visible.
    """
    columns: dict[str, tuple[str, ...]] = {"background": BACKGROUNDS, "skin": _palette("skin")}
    for part in PARTS:
        absent = (NONE,) if part.share < 1 else ()
        columns[part.name] = (*absent, *definition()["components"][part.name]["variants"])
        if part.name != "beard":
            columns[f"{part.name} color"] = (*absent, *_palette(part.palette))
    return Factors(tuple(columns), tuple(columns.values()))


def optional_parts() -> list[tuple[int, int]]:
    """Return the columns of each part that can be absent and has its own color, and of that color."""
    names = factors().names
    pairs = [(part.name, f"{part.name} color") for part in PARTS if part.share < 1]
    return [(names.index(part), names.index(color)) for part, color in pairs if color in names]


def _palette(name: str) -> tuple[str, ...]:
    return tuple(definition()["colors"][name]["values"])


def draw_factors(count: int, *, seed: int, fixed: Mapping[str, str | int] | None = None) -> np.ndarray:
    """Draw random factors int64 (count, 17); row i depends on ``seed`` and i alone.

    ``fixed`` sets factors to a value, given by name or number: ``{"glasses": "none", "skin": 2}``. Fixing the color of
    a part that can be absent draws the part in every portrait. Raises UserError for a factor or a value that does not
    exist.
    """
    known = factors()
    if count < 1:
        raise UserError(f"faces: count must be at least 1, not {count}")
    given = {
        name: factor_value("faces", known.names, known.values, name, value) for name, value in (fixed or {}).items()
    }
    uniform = uniforms(count, len(known.names), seed)
    table = np.empty((count, len(known.names)), np.int64)
    for column, size in enumerate(known.sizes):
        table[:, column] = np.minimum((uniform[:, 0, column] * size).astype(np.int64), size - 1)
    for part in PARTS:
        if part.share == 1:
            continue
        columns = [known.names.index(n) for n in (part.name, f"{part.name} color") if n in known.names]
        held = [given[known.names[c]] for c in columns if known.names[c] in given]
        if 0 in held and any(held):
            raise UserError(
                f"faces: {part.name} is fixed to none, but its color to another value; set both to none, or fix only "
                "one of them"
            )
        absent = uniform[:, 1, columns[0]] >= part.share if not held else np.full(count, 0 in held)
        for column in columns:  # the values 1, 2, ... are equally likely where the part is drawn
            drawn = 1 + (uniform[:, 0, column] * (known.sizes[column] - 1)).astype(np.int64)
            table[:, column] = np.where(absent, 0, np.minimum(drawn, known.sizes[column] - 1))
    for name, value in given.items():
        table[:, known.names.index(name)] = value
    return table


def uniforms(count: int, columns: int, seed: int) -> np.ndarray:
    """Numbers float64 (count, 2, columns) in [0, 1); row i is a function of ``seed``, ``columns`` and i alone."""
    raw = np.random.Philox(key=seed).random_raw(count * columns * 2).reshape(count, 2, columns)
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def check_factors(table: np.ndarray) -> np.ndarray:
    """Return ``table`` as int64 (n, 17). Raises UserError naming the first invalid column."""
    known = factors()
    table = check_table("faces", table, known.names, known.sizes)
    for part, color in optional_parts():
        if ((table[:, part] > 0) != (table[:, color] > 0)).any():
            raise UserError(f"faces: {known.names[part]} and {known.names[color]} must be none (0) in the same rows")
    return table


def render(table: np.ndarray, resolution: int = 32) -> np.ndarray:
    """Draw portraits: factors int (n, 17) to uint8 RGB (n, 3, resolution, resolution).

    Raises UserError for factors that do not exist and for a resolution that is not a multiple of 16 pixels.

    Example:
        >>> from orthogan.data.faces import draw_factors, render
        >>> render(draw_factors(4, seed=0, fixed={"hat": "none"}), resolution=32).shape
        (4, 3, 32, 32)
    """
    if resolution < CANVAS or resolution % CANVAS:
        raise UserError(f"faces: resolution must be a multiple of 16, such as 16, 32 or 64, not {resolution}")
    table = check_factors(table)
    canvas = np.empty((len(table), 3, CANVAS, CANVAS), np.uint8)
    for start in range(0, len(table), 512):  # small enough to stay in the processor's cache
        _compose(table[start : start + 512], canvas[start : start + 512])
    scale = resolution // CANVAS
    return canvas.repeat(scale, axis=2).repeat(scale, axis=3)


def _compose(table: np.ndarray, out: np.ndarray) -> None:
    known, layers = factors(), _layers()
    column = {name: table[:, i] for i, name in enumerate(known.names)}
    solid = np.array([_rgb(color) for color in BACKGROUNDS], np.uint16)[column["background"]]
    canvas = np.broadcast_to(solid[:, :, None, None], out.shape).copy()
    _blend(canvas, layers["head"][0], column["skin"])
    for part in PARTS:
        stack = layers[part.name]
        variant, color = column[part.name], column["hair color" if part.palette == "hair" else f"{part.name} color"]
        if part.share < 1 and part.name != "beard":
            color = np.maximum(color - 1, 0)  # absent: the layer is empty, whatever its color
        for layer in stack:
            _blend(canvas, layer, variant * len(_palette(part.palette)) + color, masked=part.masked)
    out[:] = canvas


def _blend(canvas: np.ndarray, layer: np.ndarray, index: np.ndarray, *, masked: bool = False) -> None:
    """Draw ``layer[index]`` over ``canvas`` uint16 (n, 3, 16, 16) in place, rounded as resvg does.

    It blends shapes in integers, (x + 255) >> 8, and groups with a mask in floats, rounded to nearest.
    """
    chosen = layer[index].astype(np.uint16)  # (n, 4, 16, 16): premultiplied color, alpha
    canvas *= 255 - chosen[:, 3:]
    if masked:
        canvas += 127
        canvas //= 255
    else:
        canvas += 255
        canvas >>= 8
    canvas += chosen[:, :3]


def _rgb(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


@cache
def _layers() -> dict[str, list[np.ndarray]]:
    """Return the layers uint8 (variants x colors, 4, 16, 16) of head and parts, drawn once and cached on disk."""
    import torch  # takes a second to import, and a config only needs the constants of this module

    from orthogan.io.weights import read_sealed, write_sealed

    key = ContentHash().text(json.dumps(definition(), sort_keys=True), *map(version, ("dicebear-core", "resvg-py")))
    path = cache_folder() / f"faces-{key.hexdigest()}.safetensors"
    with suppress(UserError):  # not drawn yet, or damaged
        return _stacked({name: layers.numpy() for name, layers in read_sealed(path, needed=True)[0].items()})
    drawn = _draw_layers()
    digest = hashlib.sha256()
    for name in sorted(drawn):
        digest.update(f"{name} {drawn[name].shape}".encode() + drawn[name].tobytes())
    if digest.hexdigest() != LAYERS:
        if any(version(name) != number for name, number in PINNED.items()):
            raise other_data("faces")
        log.warning(
            "faces: on this machine resvg draws the portraits slightly differently than on the machines where it was "
            "tested"
        )
    with suppress(CannotWrite):  # without a cache, the next start takes a few seconds longer
        write_sealed(path, {name: torch.from_numpy(layers) for name, layers in drawn.items()}, {})
    return _stacked(drawn)


def _stacked(tensors: Mapping[str, np.ndarray]) -> dict[str, list[np.ndarray]]:
    stacks: dict[str, list[np.ndarray]] = {}
    for name in sorted(tensors):
        stacks.setdefault(name.rpartition(".")[0], []).append(tensors[name])
    return stacks


def _draw_layers() -> dict[str, np.ndarray]:
    elements = definition()["canvas"]["elements"]
    head = _svg([e for e in elements if e["type"] == "element"], "skin")
    drawn = {"head.0": np.stack([_layer(head.replace(_INK, color)) for color in _palette("skin")])}
    empty = np.zeros((4, CANVAS, CANVAS), np.uint8)
    for part in PARTS:
        (place,) = (e for e in elements if e["name"] == part.name)
        palette = _palette(part.palette)
        stacks = [[empty]] * len(palette) if part.share < 1 else []
        for name, variant in definition()["components"][part.name]["variants"].items():
            pieces = [_svg([place], part.palette, (part.name, name, piece)) for piece in _pieces(variant["elements"])]
            stacks += [_merged([_layer(svg.replace(_INK, color)) for svg in pieces]) for color in palette]
        for depth in range(max(len(stack) for stack in stacks)):
            drawn[f"{part.name}.{depth}"] = np.stack([s[depth] if depth < len(s) else empty for s in stacks])
    return drawn


def _pieces(elements: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Split a variant into its elements; a mask stays with the element that it cuts."""
    masked = any(element["name"] == "mask" for element in elements)
    return [elements] if masked else [[element] for element in elements]


def _svg(
    elements: list[dict[str, Any]], palette: str, only: tuple[str, str, list[dict[str, Any]]] | None = None
) -> str:
    """Return DiceBear's drawing of some elements of the canvas, with ``_INK`` as the color of ``palette``.

    ``only``: component, variant, and those elements of the variant that are to be drawn.
    """
    from dicebear import Avatar, Style

    style = {**definition(), "canvas": {**definition()["canvas"], "elements": elements}}
    options: dict[str, Any] = {"seed": "0", f"{palette}Color": [_INK]}
    if only is not None:
        component, variant, pieces = only
        whole = definition()["components"][component]
        shown = {**whole["variants"][variant], "elements": pieces}
        style["components"] = {component: {**whole, "probability": 100, "variants": {variant: shown}}}
    return str(Avatar(Style(style), options))


@cache
def _layer(svg: str) -> np.ndarray:
    """Return resvg's drawing uint8 (4, 16, 16), premultiplied color and alpha, from drawings on black and white.

    On black, the premultiplied color remains. On white, a pixel is larger by the part of 255 that the layer lets
    through.
    """
    black, white = (rasterize(svg, background=color).astype(np.int64) for color in ("#000000", "#ffffff"))
    through = (white - black)[0]
    if "mask=" not in svg:
        through = np.searchsorted(np.arange(256) * 255 + 255 >> 8, through)
    return np.concatenate([black, 255 - through[None]]).astype(np.uint8)


def rasterize(svg: str, size: int = CANVAS, background: str | None = None) -> np.ndarray:
    """Draw ``svg`` with resvg: uint8 RGB (3, size, size)."""
    import resvg_py
    from PIL import Image

    png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, background=background, skip_system_fonts=True)
    with Image.open(io.BytesIO(bytes(png))) as picture:
        return np.asarray(picture.convert("RGB")).transpose(2, 0, 1)


def _merged(pieces: list[np.ndarray]) -> list[np.ndarray]:
    """Merge successive layers (4, 16, 16) where that cannot change the rounding.

    That is where, at every pixel, the lower layer is empty or opaque, or the upper one is.
    """
    merged = [pieces[0].astype(np.uint16)]
    for piece in pieces[1:]:
        below, above = merged[-1], piece.astype(np.uint16)
        if (np.isin(below[3], (0, 255)) | np.isin(above[3], (0, 255))).all():
            merged[-1] = above + (below * (255 - above[3]) + 255 >> 8)
        else:
            merged.append(above)
    return [layer.astype(np.uint8) for layer in merged]
