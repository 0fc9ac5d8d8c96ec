"""The sections of a config that say which images there are, and how they are augmented."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from orthogan.config.base import Fraction, KindOf, OpenSection, Options, PositiveInt, Section
from orthogan.data.source import DataRequest
from orthogan.data.sources import DATA_SOURCES
from orthogan.registry import Registry

if TYPE_CHECKING:
    from orthogan.data.augment import Augmentation


class DataConfig(Section):
    """Which images are trained on, and in which form."""

    only_for: ClassVar = {
        "gan": ("labels", "dequantize"),
        "classifier": ("crop", "label_noise"),
    }
    task_defaults: ClassVar = {"classifier": {"labels": True, "dequantize": False}}

    source: Annotated[str, KindOf(DATA_SOURCES)] = Field(default="faces", description="where the images come from")
    path: str | None = Field(
        default=None, description="folder or file that the images are in, for sources that need one"
    )
    root: str = Field(default="data", description="folder that torchvision's downloads are kept in")
    download: bool = Field(default=True, description="fetch a missing torchvision data set")
    split: str = Field(default="train", description="part of the data set to train on, and to compare with")
    resolution: Annotated[int, Field(ge=8, le=1024)] = Field(
        default=32, description="side of the square images [pixels]"
    )
    channels: Literal[1, 3] = Field(default=3, description="1 = gray, 3 = RGB")
    labels: bool = Field(default=False, description="train a class-conditional model on the data set's labels")
    count: PositiveInt | None = Field(
        default=None,
        description="of generated images: size of a random subset of the sprites; how many faces or portraits to draw",
    )
    options: Options = Field(
        default={}, description="of the source alone, such as {fixed: {glasses: none}} of faces, which holds factors"
    )
    bad_images: Literal["skip", "error"] = Field(default="skip", description="what to do about an unreadable file")
    bad_limit: Fraction = Field(default=0.01, description="skip at most this share of the files [0-1]")
    flip: bool = Field(default=False, description="mirror half of the real images")
    crop: Annotated[int, Field(ge=0, le=1024)] = Field(
        default=0, description="classifier: black border that each image is cut out of at random; 0 = none [pixels]"
    )
    label_noise: Fraction = Field(
        default=0.0, description="classifier: share of the training images whose label is drawn at random, once [0-1]"
    )
    test_split: str = Field(
        default="test",
        description="part of the data set that is not trained on: the accuracy of a classifier is measured on it, and "
        "overfitting of D",
    )
    holdout: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        default=0.0, description="measure on this share of split, kept from training, instead of on test_split [0-1]"
    )
    dequantize: bool = Field(default=True, description="gan: x/128 - 1 + U(0, 1/128) on reals, else x/127.5 - 1")
    resident: Literal["auto", "device", "stream"] = Field(
        default="auto", description="keep the set as uint8 on the device, or stream it by workers; auto = by size"
    )
    workers: Annotated[int, Field(ge=0, le=256)] = Field(default=2, description="reader processes when streaming")

    @classmethod
    def read_old_keys(cls, tree: dict[str, Any]) -> dict[str, Any]:
        """``tree`` with ``fixed`` of version 0.1 among the options."""
        tree = super().read_old_keys(tree)
        if fixed := tree.pop("fixed", None):
            tree["options"] = {**tree.get("options", {}), "fixed": fixed}
        return tree

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if ":" in self.source:  # the user's own, which is imported when it is opened, with consent
            return self
        source = DATA_SOURCES.get(self.source, "data.source")()
        if self.labels and self.split in source.unlabeled:
            others = ", ".join(part for part in source.splits if part not in source.unlabeled)
            raise ValueError(
                f"labels: {self.source!r} has no classes in its part {self.split!r}; set labels to false, or "
                + (f"use the split {others}" if others else "(classifier) choose another source")
            )
        if problem := source.problem(self.request()):
            raise ValueError(problem)
        return self

    def check_run(self, config: Any) -> None:
        """A classifier needs images to be tested on."""
        if config.task == "classifier" and self.one_part and not self.holdout:
            raise ValueError(
                f"data.holdout: {self.source!r} has no test part; keep a share of the images for it, such as 0.1"
            )

    def request(self, split: str | None = None) -> DataRequest:
        """What is asked of the source; ``split``: of another part of it."""
        names = {field.name for field in fields(DataRequest)} & set(type(self).model_fields)
        return replace(DataRequest(**{name: getattr(self, name) for name in names}), split=split or self.split)

    @property
    def one_part(self) -> bool:
        """Whether the set has no test part of its own."""
        return ":" not in self.source and len(DATA_SOURCES.get(self.source).splits) == 1


class AugmentConfig(Section):
    """What the discriminator sees of reals and fakes; each kind has a section with its own options."""

    kind: str = Field(default="none", description="applied to reals and fakes before D")
    OF_OLD: ClassVar = {"policy": "diffaugment", "target": "ada", "images_to_one": "ada", "interval": "ada"}

    @classmethod
    def read_old_keys(cls, tree: dict[str, Any]) -> dict[str, Any]:
        """In 0.1 the options of all kinds stood side by side; those of other kinds meant nothing."""
        kind = tree.get("kind", "none")
        return {key: value for key, value in super().read_old_keys(tree).items() if cls.OF_OLD.get(key, kind) == kind}


def _adopt(thing: Any) -> type[Augmentation]:
    section = getattr(thing, "config", None)
    if isinstance(thing, type) and isinstance(section, type) and issubclass(section, AugmentConfig):
        return thing
    raise TypeError("it must be a subclass of orthogan.data.augment.Augmentation")


AUGMENTATIONS: Registry[type[Augmentation]] = Registry("augmentation", "orthogan.data.augment", adopt=_adopt)
AUGMENTED = OpenSection(AUGMENTATIONS, lambda kind: kind.config)
