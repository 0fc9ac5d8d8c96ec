"""Sections whose kind chooses their class, keys that name registered things, and keys that have a new name."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import pytest
from pydantic import Field, ValidationError

from orthogan.config.base import (
    Count,
    KindOf,
    OpenSection,
    Section,
    code_in,
    names_in,
    section_of_options,
)
from orthogan.config.files import load_config
from orthogan.errors import UserError
from orthogan.registry import Registry

SHAPES: Registry[type[Shape]] = Registry("shape")


class Shape(Section):
    renamed: ClassVar = {"color": "colour"}
    kind: str = "none"
    colour: str = "red"


SHAPES.register("none")(Shape)


@SHAPES.register("circle", "disc")
class Circle(Shape):
    kind: str = "circle"
    radius: Count = 1


class Picture(Section):
    shape: Annotated[Shape, OpenSection(SHAPES)] = Shape()
    several: list[Annotated[Shape, OpenSection(SHAPES)]] = Field(default=[])
    names: list[Annotated[str, KindOf(SHAPES)]] = Field(default=["none"])


def read(**tree: Any) -> Picture:
    return Picture.model_validate(tree)


def refusal(**tree: Any) -> list[tuple[str, str]]:
    with pytest.raises(ValidationError) as caught:
        read(**tree)
    return [(".".join(map(str, e["loc"])), e["msg"]) for e in caught.value.errors()]


def test_the_kind_chooses_the_keys() -> None:
    picture = read(shape={"kind": "disc", "radius": 3}, several=[{"kind": "circle"}, {}])
    assert picture.shape == Circle(radius=3)
    assert [type(one) for one in picture.several] == [Circle, Shape]
    dumped = picture.model_dump()
    assert dumped["shape"] == {"kind": "circle", "colour": "red", "radius": 3}
    assert read(**dumped) == picture
    assert read(shape=Circle()).shape == Circle()


def test_mistakes_in_an_open_section_are_placed() -> None:
    assert refusal(shape={"kind": "circle", "radius": "x"})[0][0] == "shape.radius"
    assert refusal(several=[{"kind": "none", "radius": 1}])[0][0] == "several.0.radius"
    ((place, message),) = refusal(shape={"kind": "circel"})
    assert place == "shape.kind"
    assert "did you mean 'circle'" in message
    assert refusal(shape={"kind": 3})[0][0] == "shape.kind"
    assert refusal(shape=3)[0][0] == "shape"


def test_names_take_aliases_and_code() -> None:
    assert read(names=["disc", "my.module:Thing"]).names == ["circle", "my.module:Thing"]
    ((place, message),) = refusal(names=["circel"])
    assert place == "names.0"
    assert "did you mean 'circle'" in message


def test_old_keys_are_read_wherever_they_stand() -> None:
    assert read(shape={"color": "blue"}).shape.colour == "blue"
    assert read(shape={"kind": "disc", "color": "blue"}).shape.colour == "blue"
    assert "old name of colour" in refusal(shape={"color": "blue", "colour": "red"})[0][1]


class Square(Shape):
    side: Count


def test_code_is_imported_only_when_it_is_asked_for() -> None:
    name = f"{__name__}:Square"
    picture = read(shape={"kind": name, "side": 2}, names=["absent:Thing"], several=[{"kind": "gone:Away", "x": 1}])
    assert not isinstance(picture.shape, Square)
    assert picture.shape.model_dump() == {"kind": name, "colour": "red", "side": 2}
    assert read(**picture.model_dump()) == picture
    assert code_in(picture) == {
        "shape.kind": (name, {"side": 2}),
        "several.0.kind": ("gone:Away", {"x": 1}),
        "names.0": ("absent:Thing", {}),
    }
    assert names_in(picture) == {name, "absent:Thing", "gone:Away"}
    marker = next(one for one in Picture.model_fields["shape"].metadata if isinstance(one, OpenSection))
    assert marker.resolved(picture.shape) == Square(kind=name, side=2)
    assert marker.resolved(Circle()) == Circle()
    with pytest.raises(UserError, match="side: Field required"):
        marker.resolved(read(shape={"kind": name}).shape)


def test_keywords_of_a_function_become_keys() -> None:
    def draw(
        canvas: object, *, size: Annotated[int, Field(ge=1, description="pixels")], bold: bool = False
    ) -> None: ...

    section = section_of_options(draw, Shape, "canvas")
    assert list(section.model_fields) == ["kind", "colour", "size", "bold"]
    assert section.model_fields["size"].description == "pixels"
    assert section.model_validate({"size": 1}).model_dump() == {
        "kind": "none",
        "colour": "red",
        "size": 1,
        "bold": False,
    }
    with pytest.raises(ValidationError, match="greater than"):
        section.model_validate({"size": 0})


def test_options_of_types_that_yaml_does_not_have_are_not_checked() -> None:
    def drawn(canvas: object, size: int = 1, brush: object = None, pen: Pencil = None) -> None: ...

    def unknown(canvas: Absent, size: int = 1) -> None: ...  # pyright: ignore # noqa: F821

    for function, keys in ((drawn, ["size", "brush", "pen"]), (unknown, ["size"])):
        section = section_of_options(function, Shape, "canvas")
        assert list(section.model_fields) == ["kind", "colour", *keys]
        assert section.model_validate({"size": 2.5}).model_dump()["size"] == 2.5
        with pytest.raises(ValidationError, match="Extra inputs"):
            section.model_validate({"sise": 1})


class Pencil:
    pass


def test_renamed_keys_of_0_1_are_read_and_said(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    base = tmp_path / "base.yaml"
    base.write_text("training: {n_dis: 3}\n")
    config = load_config(base, ["model.generator.gradients=[{kind: nearest_orthogonal}]"])
    assert config.training.d_steps_per_g_step == 3
    assert [rule.kind for rule in config.model.generator.gradient_transforms] == ["nearest_orthogonal"]
    said = capsys.readouterr().err
    assert f"{base}: training.n_dis was renamed to training.d_steps_per_g_step" in said
    assert "model.generator.gradients was renamed to model.generator.gradient_transforms" in said
    assert load_config(base, ["training.d_steps_per_g_step=2"]).training.d_steps_per_g_step == 2
    base.write_text("training: {d_steps_per_g_step: 3}\n")
    assert load_config(base, ["training.n_dis=2"]).training.d_steps_per_g_step == 2
