"""Config sections for the images and their augmentation."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PlainSerializer, WrapValidator, field_validator, model_validator
from pydantic_core import PydanticCustomError

from orthogan.config.base import Fraction, KindOf, OpenSection, Options, Place, PositiveInt, Section
from orthogan.data.source import DataRequest
from orthogan.data.sources import DATA_SOURCES
from orthogan.io.read import in_home
from orthogan.registry import Registry
from orthogan.size import as_resolution

if TYPE_CHECKING:
    from orthogan.data.augment import Augmentation


def _size(value: Any, check: Callable[[Any], int]) -> Any:
    """Accept [height, width] too, each like the number of a square; two equal numbers are one."""
    if not isinstance(value, int | float | list | tuple) or (isinstance(value, list | tuple) and len(value) != 2):
        raise PydanticCustomError("size", "must be one number for squares, such as 64, or [height, width]")
    if not isinstance(value, list | tuple):
        return check(value)
    height, width = map(check, value)
    return as_resolution(height, width)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


Size = Annotated[int, Field(ge=8, le=1024), WrapValidator(_size), PlainSerializer(_plain)]  # or a tuple of two


class DataConfig(Section):
    """Which images to train on, and in which form."""

    only_for: ClassVar = {
        "gan": ("labels", "dequantize"),
        "classifier": ("crop", "label_noise"),
    }
    task_defaults: ClassVar = {"classifier": {"labels": True, "dequantize": False}}
    chooses_options: ClassVar = "source"

    source: Annotated[str, KindOf(DATA_SOURCES)] = Field(default="faces", description="data set")
    path: Place | None = Field(default=None, description="folder or file with the images, for sources that need one")
    root: Place = Field(default="data", description="folder for data sets downloaded by torchvision")
    download: bool = Field(default=True, description="download a torchvision data set if it is missing")
    split: str = Field(default="train", description="part of the data set to train on and to compare with")
    resolution: Size = Field(
        default=32, description="height and width of the images, or [height, width] of rectangles [pixels]"
    )
    channels: Annotated[int, Field(ge=1, le=16)] = Field(
        default=3, description="1 = grayscale, 3 = RGB, 2 and 4 = the same with alpha, more = arrays only"
    )
    labels: bool = Field(default=False, description="train a class-conditional model on the data set's labels")
    count: PositiveInt | None = Field(
        default=None,
        description="for generated images: number of sprites, chosen at random, or of faces or portraits to draw",
    )
    options: Options = Field(
        default={}, description="options of this source, for example {fixed: {glasses: none}} for faces"
    )
    bad_images: Literal["skip", "error"] = Field(
        default="skip", description="skip unreadable files, or stop with an error"
    )
    bad_limit: Fraction = Field(default=0.01, description="largest fraction of the files that may be skipped [0-1]")
    flip: bool = Field(default=False, description="flip half of the real images horizontally")
    crop: Annotated[int, Field(ge=0, le=1024)] = Field(
        default=0, description="classifier: random crop after zero-padding by this many pixels; 0 = none [pixels]"
    )
    label_noise: Fraction = Field(
        default=0.0, description="classifier: fraction of the training images that get a fixed random label [0-1]"
    )
    test_split: str = Field(
        default="test",
        description="part of the data set that is not used for training, to measure the accuracy of a classifier and "
        "overfitting of D",
    )
    holdout: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        default=0.0,
        description="fraction of split that is kept out of training and used instead of test_split; 0 = none [0-1]",
    )
    dequantize: bool = Field(
        default=True,
        description="gan: how pixels x become floats: x/128 - 1 + U(0, 1/128), for reals; false = x/127.5 - 1",
    )
    resident: Literal["auto", "device", "stream"] = Field(
        default="auto",
        description="keep the data set as uint8 on the device, or stream it with workers; auto = depends on its size",
    )
    workers: Annotated[int, Field(ge=0, le=256)] = Field(
        default=2, description="processes that read images when the data set is streamed"
    )

    @field_validator("root")
    @classmethod
    def _home(cls, root: str) -> str:
        return in_home(root)

    @classmethod
    def option_names(cls, choice: str) -> Collection[str] | None:
        """Return the options of the source ``choice``."""
        return None if ":" in choice else DATA_SOURCES.get(choice, "data.source")().options.model_fields

    @classmethod
    def read_old_keys(cls, tree: dict[str, Any]) -> dict[str, Any]:
        """Move ``fixed`` of version 0.1 into the options of ``tree``."""
        tree = super().read_old_keys(tree)
        if fixed := tree.pop("fixed", None):
            tree["options"] = {**tree.get("options", {}), "fixed": fixed}
        return tree

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if ":" in self.source:  # the user's own source is imported when it is opened, with consent
            return self
        source = DATA_SOURCES.get(self.source, "data.source")()
        if self.labels and self.split in source.unlabeled and not self.options.get(source.labels_from):
            others = ", ".join(part for part in source.splits if part not in source.unlabeled)
            advice = f"use the split {others}" if others else "(classifier) choose another source"
            if source.labels_from:
                advice = f"(gan) set options.{source.labels_from}"
            raise ValueError(
                f"labels: {self.source!r} has no classes in its split {self.split!r}; set labels to false, or {advice}"
            )
        if problem := source.problem(self.request()):
            raise ValueError(problem)
        return self

    def check_run(self, config: Any) -> None:
        """Check that a classifier has images for testing, and that they are square."""
        if config.task == "classifier" and not isinstance(self.resolution, int):
            raise ValueError("data.resolution: classifiers need square images; set one number, such as 32")
        if config.task == "classifier" and self.one_part and not self.holdout:
            raise ValueError(
                f"data.holdout: {self.source!r} has no test split; hold out a fraction of the images for testing, "
                "such as 0.1"
            )

    def request(self, split: str | None = None) -> DataRequest:
        """Return the request to the source; ``split``: for another part of it."""
        names = {field.name for field in fields(DataRequest)} & set(type(self).model_fields)
        return replace(DataRequest(**{name: getattr(self, name) for name in names}), split=split or self.split)

    @property
    def one_part(self) -> bool:
        """Whether the set has no test split."""
        return ":" not in self.source and len(DATA_SOURCES.get(self.source).splits) == 1


class AugmentConfig(Section):
    """Augmentation of real and fake images; each kind has a section with its own options."""

    kind: str = Field(default="none", description="augmentation of real and fake images before D")
    OF_OLD: ClassVar = {"policy": "diffaugment", "target": "ada", "images_to_one": "ada", "interval": "ada"}

    @classmethod
    def read_old_keys(cls, tree: dict[str, Any]) -> dict[str, Any]:
        """Read configs of version 0.1, which listed the options of all kinds; those of other kinds had no effect."""
        kind, tree = tree.get("kind", "none"), super().read_old_keys(tree)
        if not cls.OF_OLD.keys() <= tree.keys():  # not written by that version, so they are the user's
            return tree
        return {key: value for key, value in tree.items() if cls.OF_OLD.get(key, kind) == kind}


def _adopt(thing: Any) -> type[Augmentation]:
    section = getattr(thing, "config", None)
    if isinstance(thing, type) and isinstance(section, type) and issubclass(section, AugmentConfig):
        return thing
    raise TypeError("it must be a subclass of orthogan.data.augment.Augmentation")


AUGMENTATIONS: Registry[type[Augmentation]] = Registry("augmentation", "orthogan.data.augment", adopt=_adopt)
AUGMENTED = OpenSection(AUGMENTATIONS, lambda kind: kind.config)
