"""Data sources, one per file: each declares what it needs and opens its images.

Your own source is a class in your own file, which you name as ``my_module:Stripes`` wherever a source is expected:

    class Stripes(DataSource):
        splits = ("train", "test")

        def open(self, data: DataRequest) -> ImageSource:
            images = ...  # uint8 (N, data.channels, data.resolution, data.resolution)
            return ArraySource("stripes", images)
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import ValidationError

from orthogan.config.base import Section
from orthogan.data.source import DataRequest, ImageSource
from orthogan.errors import UserError
from orthogan.registry import Registry
from orthogan.size import sides


class DataSource:
    """A set of images that a config can name; its attributes say what it needs and offers.

    - ``path``: whether ``data.path`` is "required", "optional", or not used ("none"); ``needs``: what it must be the
      path of, and how to get it;
    - ``downloads``: whether its files may be downloaded to ``data.root``. A source without path and downloads is
      generated, with any number of images (``data.count``);
    - ``splits``: its parts, and those without classes (``unlabeled``), unless the option ``labels_from`` is set;
    - ``resolutions``, ``channels``: supported values; None = any resolution; ``rectangles``: also (height, width);
    - ``factors``: whether the generative factors of its images are known;
    - ``options``: the section of ``data.options``, what only this source has;
    - ``origin`` and ``license``: where the images come from and under which license, for the cards of models.

    Example:
        >>> import numpy as np
        >>> from orthogan.data import ArraySource, DataRequest, DataSource
        >>> class Gray(DataSource):
        ...     def open(self, data):
        ...         shape = (data.count or 256, data.channels, data.resolution, data.resolution)
        ...         levels = np.arange(shape[0]).reshape(-1, 1, 1, 1) % 256
        ...         return ArraySource("gray", np.broadcast_to(levels, shape).astype(np.uint8))
        ...
        >>> source = Gray().open(DataRequest("gray", resolution=8, channels=1, count=4))
        >>> len(source)
        4
    """

    path: ClassVar[Literal["none", "optional", "required"]] = "none"
    needs: ClassVar[str] = "the path of your images"
    downloads: ClassVar[bool] = False
    splits: ClassVar[tuple[str, ...]] = ("train",)
    unlabeled: ClassVar[tuple[str, ...]] = ()
    labels_from: ClassVar[str] = ""
    resolutions: ClassVar[tuple[int, ...] | None] = None
    channels: ClassVar[tuple[int, ...]] = (1, 3)
    rectangles: ClassVar[bool] = False
    factors: ClassVar[bool] = False
    options: ClassVar[type[Section]] = Section
    origin: ClassVar[str] = ""
    license: ClassVar[str] = ""

    @property
    def generated(self) -> bool:
        """Whether the images are generated, not read."""
        return self.path == "none" and not self.downloads

    def problem(self, data: DataRequest) -> str:
        """Return why ``data`` cannot be opened, starting with the wrong key (``path: ...``); empty if it can."""
        name = data.source
        if min(sides(data.resolution)) < 1:
            return f"resolution: must be at least 1, not {data.resolution}"
        if not isinstance(data.resolution, int) and not self.rectangles:
            return f"resolution: {name} has square images only; set one number, not {list(data.resolution)}"
        if self.resolutions and data.resolution not in self.resolutions:
            return f"resolution: must be {_or(self.resolutions)} for {name}, not {data.resolution}"
        if data.channels not in self.channels:
            return f"channels: must be {_or(self.channels)} for {name}, not {data.channels}"
        if data.split not in self.splits:
            return f"split: {name} has {', '.join(self.splits)}, not {data.split!r}"
        if self.path == "required" and not data.path:
            return f"path: the source {name!r} needs {self.needs}"
        if self.path == "none" and data.path is not None:
            return f"path: the source {name!r} takes no path" + ("; its files lie under data.root" * self.downloads)
        if data.count is not None and not self.generated:
            return f"count: applies only to {', '.join(generated_sources())}, not to {name!r}"
        try:
            self.options.model_validate(dict(data.options))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            known = ", ".join(self.options.model_fields) or "no options"
            return f"options.{'.'.join(map(str, first['loc']))}: {first['msg']}; {name} has {known}"
        return ""

    def open(self, data: DataRequest) -> ImageSource:
        """Open the images at ``data.resolution`` and ``data.channels``; called after ``problem`` found nothing."""
        raise NotImplementedError

    def open_held_out(self, data: DataRequest, test_split: str) -> ImageSource:
        """Open images of the same kind that are not among those of ``data``.

        Raises:
            UserError: there are none.
        """
        if len(self.splits) == 1:
            raise UserError(
                f"data.source: {data.source!r} has only one part, and the GAN was trained on it; choose other "
                "images as reference"
            )
        if test_split == data.split:
            raise UserError(
                f"data.split is {data.split!r}, the test part, which the GAN was trained on; choose other images as "
                "reference"
            )
        return open_request(replace(data, split=test_split))


def _adopt(thing: Any) -> type[DataSource]:
    if isinstance(thing, type) and issubclass(thing, DataSource):
        return thing
    raise TypeError("it must be a subclass of orthogan.data.DataSource")


DATA_SOURCES: Registry[type[DataSource]] = Registry("data source", __name__, adopt=_adopt)


def generated_sources() -> list[str]:
    """Return the names of the sources whose images are generated, not read."""
    return [name for name, source in DATA_SOURCES.items() if source().generated]


def open_request(data: DataRequest) -> ImageSource:
    """Open the images described by ``data``.

    Raises:
        UserError: they cannot be opened; the message names the wrong key or file and the fix.
    """
    source = DATA_SOURCES.get(data.source, "data.source")()
    if problem := source.problem(data):
        raise UserError(f"data.{problem}")
    found = source.open(data)
    if not isinstance(found, ImageSource):
        raise UserError(f"data.source: {data.source}.open returned a {type(found).__name__}, not an ImageSource")
    if (found.resolution, found.channels) != (data.resolution, data.channels):
        raise UserError(
            f"data.source: {data.source}.open returned {found.channels} x {found.resolution} px, not the "
            f"{data.channels} x {data.resolution} px of data.channels and data.resolution"
        )
    return found


def _or(values: tuple[int, ...]) -> str:
    *first, last = map(str, values)
    return f"{', '.join(first)} or {last}" if first else last
