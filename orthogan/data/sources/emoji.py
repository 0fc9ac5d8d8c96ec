"""Noto emoji: 3,786 pictures of 64 pixels in 9 classes, read from the npm package emoji-datasource-google.

The pictures are Google's Noto emoji (Apache License 2.0). They are not part of orthogan: download the package once
(74 MB) and give the file as ``data.path``; it is read without being unpacked.
"""

from __future__ import annotations

import io
import logging
import os
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageColor
from pydantic import Field, field_validator

from orthogan.config.base import Section
from orthogan.data.formats.image_files import BadFiles
from orthogan.data.resize import TRANSFORM
from orthogan.data.source import Annotation, ArraySource, BadFile, DataRequest
from orthogan.data.sources import DATA_SOURCES, DataSource
from orthogan.errors import UserError
from orthogan.io.read import describe_error, exists, parse_json, printable, read_regular, shown, user_path
from orthogan.registry import did_you_mean

log = logging.getLogger("orthogan.data")

PACKAGE, VERSION = "emoji-datasource-google", "16.0.0"
ARCHIVE = f"{PACKAGE}-{VERSION}.tgz"
ADDRESS = f"https://registry.npmjs.org/{PACKAGE}/-/{ARCHIVE}"
DOWNLOAD = f"download it (74 MB) with `npm pack {PACKAGE}@{VERSION}` or `curl -LO {ADDRESS}`"
PICTURES = "img/google/64/"  # in the package
SIDE = 64  # of a picture [pixels]
LARGEST_TABLE, LARGEST_PICTURE = 1 << 24, 1 << 20  # of emoji.json and of a picture [bytes]
MOST_FILES = 20_000  # in the package, which has 3,809
LARGEST_FILE = 1 << 27  # in the package, of whatever kind [bytes]
BROKEN_TAR = (tarfile.TarError, OSError, EOFError, zlib.error)

CATEGORIES = (
    "Smileys & Emotion",
    "People & Body",
    "Animals & Nature",
    "Food & Drink",
    "Travel & Places",
    "Activities",
    "Objects",
    "Symbols",
    "Flags",
)
COMPONENT = "Component"  # Unicode's tenth category: five swatches of skin tones, which count as symbols here
TONES = {"1F3FB": "light", "1F3FC": "medium-light", "1F3FD": "medium", "1F3FE": "medium-dark", "1F3FF": "dark"}
NO_TONE, DEFAULT_TONE, TWO_TONES = "none", "default", "two tones"
TONE_NAMES = (NO_TONE, DEFAULT_TONE, *TONES.values(), TWO_TONES)


class Emoji(NamedTuple):
    """One picture of the package: its file, what it shows, and the skin tone."""

    image: str
    category: str
    subcategory: str
    tone: str


class EmojiOptions(Section):
    """What only the emoji have."""

    background: str = Field(
        default="white", description="color behind the emoji, as a name or #rrggbb; their background is transparent"
    )
    skin_tones: bool = Field(default=True, description="also the emoji in five skin tones, not only in the default one")
    categories: list[str] = Field(default=[], description="only these categories, such as [Flags]; none = all")

    @field_validator("background")
    @classmethod
    def _color(cls, value: str) -> str:
        ImageColor.getrgb(value)
        return value

    @field_validator("categories")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        for name in value:
            if name not in CATEGORIES:
                listed = ", ".join(CATEGORIES)
                raise ValueError(f"{shown(name)} is not one of {listed}{did_you_mean(name, CATEGORIES)}")
        return value


@DATA_SOURCES.register("emoji")
class NotoEmoji(DataSource):
    """The emoji of the package in memory, in the order of its ``emoji.json``, on a background of one color.

    ``path``: the file ``emoji-datasource-google-16.0.0.tgz``, a folder that holds it, or the unpacked package. The
    class is the category. Factors: category, subcategory (99), and skin tone: none (the emoji has no skin), default
    (yellow), five tones, or two different ones. They are drawn at 64 pixels; other sizes are resized from that.
    """

    path = "required"
    channels = (1, 2, 3, 4)
    rectangles = True
    needs = f"the package {PACKAGE}; {DOWNLOAD}"
    factors = True
    options = EmojiOptions
    origin = "Noto Emoji of Google, npm package emoji-datasource-google 16.0.0"
    license = "Apache-2.0"

    def open(self, data: DataRequest) -> ArraySource:
        """The emoji of the package. Raises UserError naming the file and what is wrong with it."""
        options = EmojiOptions(**data.options)
        place = _place(user_path(data.path or ""))
        content = _read_package(place)
        where = printable(place)
        _check_version(content, where)
        wanted = [
            emoji
            for emoji in list_emoji(parse_json(content["emoji.json"], f"{where}: emoji.json"), f"{where}: emoji.json")
            if (options.skin_tones or emoji.tone in (NO_TONE, DEFAULT_TONE))
            and (not options.categories or emoji.category in options.categories)
        ]
        ground, alpha = ImageColor.getrgb(options.background)[:3], data.channels in (2, 4)
        bad = BadFiles(where, len(wanted), data.bad_images, data.bad_limit)
        pictures, kept = [], []
        for emoji in wanted:
            try:
                pictures.append(_picture(content.get(PICTURES + emoji.image), None if alpha else ground))
            except Exception as error:  # Pillow raises almost any type for a damaged file
                bad.add([BadFile(PICTURES + emoji.image, describe_error(error))])
                continue
            kept.append(emoji)
        if len(kept) < 2:
            raise UserError(f"{where}: holds {len(kept)} readable emoji; a set needs at least two")
        images = data.fit(np.stack(pictures), where)
        note = _annotation(kept, options.categories or CATEGORIES)
        transform = f"{TRANSFORM}, with alpha" if alpha else f"{TRANSFORM}, on {bytes(ground).hex()}"
        return ArraySource(f"emoji-{len(kept)}", images, **note._asdict(), transform=transform)


def list_emoji(table: Any, where: str) -> list[Emoji]:
    """Every picture that ``emoji.json`` names, the skin tones of an emoji after its default.

    Raises UserError naming the entry that is not as expected.
    """
    if not isinstance(table, list) or not table:
        raise UserError(f"{where}: expected a list of emoji; is it the package {PACKAGE}?")
    found: list[Emoji] = []
    for number, entry in enumerate(table):
        try:
            category, subcategory = entry["category"], entry["subcategory"]
            if category == COMPONENT:
                category = "Symbols"
            if category not in CATEGORIES or not isinstance(subcategory, str):
                raise ValueError(f"category {category!r}, subcategory {subcategory!r}")
            variations = entry.get("skin_variations", {})
            tone = TONES.get(entry["unified"], DEFAULT_TONE if variations else NO_TONE)
            found += [
                Emoji(one["image"], category, subcategory, name)
                for one, name in [(entry, tone), *((other, _tone(key)) for key, other in variations.items())]
                if one["has_img_google"]
            ]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            reason = printable(f"{type(error).__name__}: {error}")
            raise UserError(
                f"{where}: entry {number} is not as expected ({reason}); use version {VERSION}: {DOWNLOAD}"
            ) from error
    return found


def _tone(key: str) -> str:
    """Of ``1F3FB`` or, for two people, ``1F3FB-1F3FC``."""
    tones = {TONES[part] for part in key.split("-")}
    return tones.pop() if len(tones) == 1 else TWO_TONES


def _annotation(emoji: Sequence[Emoji], categories: Sequence[str]) -> Annotation:
    subcategories = tuple(dict.fromkeys(one.subcategory for one in emoji))
    columns: Mapping[str, Sequence[str]] = {
        "category": tuple(categories),
        "subcategory": subcategories,
        "skin tone": TONE_NAMES,
    }
    factors = np.array(
        [
            (categories.index(one.category), subcategories.index(one.subcategory), TONE_NAMES.index(one.tone))
            for one in emoji
        ],
        np.int64,
    )
    several = len(categories) > 1
    return Annotation(
        factors[:, 0].copy() if several else None,
        tuple(categories) if several else (),
        factors,
        tuple(columns),
        tuple(len(values) for values in columns.values()),
        "" if several else "data.options.categories names a single category",
        tuple(tuple(values) for values in columns.values()),
    )


def _picture(content: bytes | None, ground: Sequence[int] | None) -> np.ndarray:
    """uint8 (64, 64, 3) of a PNG file on a color (r, g, b), or (64, 64, 4) without one."""
    if content is None:
        raise ValueError("is missing")
    with Image.open(io.BytesIO(content), formats=("PNG",)) as picture:
        if picture.size != (SIDE, SIDE):
            raise ValueError(f"has {picture.size[0]} x {picture.size[1]} pixels, expected {SIDE} x {SIDE}")
        colors = picture.convert("RGBA")
    if ground is None:
        return np.asarray(colors)
    return np.asarray(Image.alpha_composite(Image.new("RGBA", colors.size, tuple(ground)), colors).convert("RGB"))


def _place(path: Path) -> Path:
    """The archive or the unpacked package."""
    if exists(path, "file"):
        return path
    for folder in (path, path / "package", path / PACKAGE, path / "node_modules" / PACKAGE):
        if exists(folder / "emoji.json", "file"):
            return folder
    if exists(path / ARCHIVE, "file"):
        return path / ARCHIVE
    raise UserError(f"data.path: {printable(path)}: the package {PACKAGE} is not there; {DOWNLOAD}")


def _read_package(place: Path) -> dict[str, bytes]:
    """What is needed of the package, by the name within it. Raises UserError."""
    found = dict(_unpacked(place) if place.is_dir() else _packed(place))
    for name in ("package.json", "emoji.json"):
        if name not in found:
            raise UserError(f"{printable(place)}: has no {name}, so it is not the package {PACKAGE}; {DOWNLOAD}")
    return found


def _limit(name: str) -> int:
    """How large a file may be that is needed [bytes]; 0 for one that is not."""
    if name in ("package.json", "emoji.json"):
        return LARGEST_TABLE
    return LARGEST_PICTURE if name.startswith(PICTURES) and name.endswith(".png") else 0


def _unpacked(folder: Path) -> Iterator[tuple[str, bytes]]:
    pictures = folder / PICTURES
    names = sorted(os.listdir(pictures)) if exists(pictures, "folder") else []
    for name in ("package.json", "emoji.json", *(PICTURES + name for name in names)):
        limit = _limit(name)
        if limit and exists(folder / name, "file"):
            yield name, read_regular(folder / name, limit)


def _packed(path: Path) -> Iterator[tuple[str, bytes]]:
    where = printable(path)
    try:
        with tarfile.open(path, "r:*") as archive:
            for number, member in enumerate(archive):
                if number >= MOST_FILES or member.size > LARGEST_FILE:
                    raise UserError(f"{where}: has too many or too large files for the package {PACKAGE}; {DOWNLOAD}")
                name = member.name.partition("/")[2]  # all lie in the folder "package"
                limit = _limit(name)
                if not limit or not member.isfile():
                    continue
                if member.size > limit:
                    raise UserError(f"{where}: {printable(name)} is larger than {limit >> 20} MiB; {DOWNLOAD}")
                file = archive.extractfile(member)
                if file is not None:
                    yield name, file.read()
    except BROKEN_TAR as error:
        raise UserError(f"{where}: is damaged, or is not {ARCHIVE} ({describe_error(error)}); {DOWNLOAD}") from error


def _check_version(content: Mapping[str, bytes], where: str) -> None:
    package = parse_json(content["package.json"], f"{where}: package.json")
    name, version = (package.get(key) for key in ("name", "version")) if isinstance(package, dict) else (None, None)
    if name != PACKAGE:
        raise UserError(f"{where}: this is the package {shown(name)}, not {PACKAGE}; {DOWNLOAD}")
    if version != VERSION:
        log.warning("%s: version %s has other emoji than %s, which is documented", where, shown(version), VERSION)
