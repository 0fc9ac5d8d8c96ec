"""Sections whose kind chooses their class, keys that name registered things, and keys that have a new name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar

import pytest
import torch
from pydantic import Field, ValidationError, create_model

from orthogan.config.base import (
    Count,
    KindOf,
    OpenSection,
    Section,
    code_in,
    hints_of,
    names_in,
    section_of_options,
)
from orthogan.config.files import load_config
from orthogan.errors import UserError
from orthogan.gradients.rule import GRADIENT_RULE, GRADIENT_RULES
from orthogan.models.classifiers.base import CLASSIFIERS
from orthogan.models.config import section_of_net
from orthogan.models.protocol import DISCRIMINATORS, GENERATORS
from orthogan.penalties.network import PENALTIES
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

    for function, keys, free in ((drawn, ["size", "brush", "pen"], "pen"), (unknown, ["size"], "size")):
        section = section_of_options(function, Shape, "canvas")
        assert list(section.model_fields) == ["kind", "colour", *keys]
        assert section.model_validate({free: 2.5}).model_dump()[free] == 2.5
        with pytest.raises(ValidationError, match="Extra inputs"):
            section.model_validate({"sise": 1})
    with pytest.raises(ValidationError, match="valid integer"):
        section_of_options(drawn, Shape, "canvas").model_validate({"size": 2.5})


def test_options_are_of_the_types_that_yaml_has() -> None:
    def drawn(
        at: tuple[float, float] = (0.0, 1.0),
        path: Annotated[tuple[int, ...], Field(description="points")] = (),
        mixed: tuple[int, str] | None = (1, "a"),
        width: float | torch.Tensor = 1.0,
        dtype: torch.dtype = torch.float32,
        brush: type = Pencil,
        lines: Sequence[int] | str = "all",
    ) -> None: ...

    section = section_of_options(drawn, Section)
    read = section.model_validate(section().model_dump())
    assert read.model_dump() == {
        "at": [0.0, 1.0],
        "path": [],
        "mixed": [1, "a"],
        "width": 1.0,
        "lines": "all",
    }  # dtype and brush have defaults that no YAML file could repeat
    assert section.model_fields["path"].description == "points"
    for good in ({"at": [2, 3]}, {"path": [1, 2, 3]}, {"width": 2}, {"lines": [1]}, {"mixed": None}):
        section.model_validate(good)
    for bad in ({"at": [1.0]}, {"at": [1.0, "x"]}, {"path": [0.5]}, {"width": "x"}):
        with pytest.raises(ValidationError):
            section.model_validate(bad)


def test_an_option_cannot_replace_a_key_of_every_kind() -> None:
    for name in ("colour", "model_dump"):
        function = eval(f"lambda {name}=1: None")
        with pytest.raises(TypeError, match=f"its option '{name}' has a reserved name"):
            section_of_options(function, Shape)


OF_FUNCTIONS: dict[str, tuple[Callable[..., Any], type[Section]]] = {
    **{f"penalty {name}": (kind.function, kind.section) for name, kind in PENALTIES.items()},
    **{f"rule {name}": (kind.__init__, GRADIENT_RULE.of(name)) for name, kind in GRADIENT_RULES.items()},
    **{
        f"net {name}": (getattr(net, "func", net).__init__, section_of_net(net))
        for registry in (GENERATORS, DISCRIMINATORS, CLASSIFIERS)
        for name, net in registry.items()
    },
}


@pytest.mark.parametrize("name", OF_FUNCTIONS)
def test_types_and_bounds_are_those_of_the_arguments(name: str) -> None:
    function, section = OF_FUNCTIONS[name]
    hints, arguments = hints_of(function), inspect.signature(function).parameters
    fields: dict[str, Any] = {
        option: (hints[option], field.default if arguments[option].default is not inspect.Parameter.empty else ...)
        for option, field in section.model_fields.items()
        if option in arguments and option not in ("layers", "weight")
    }
    as_written = create_model("Section", __base__=Section, **fields)
    mine = section.model_json_schema()["properties"]
    assert {option: mine[option] for option in fields} == as_written.model_json_schema().get("properties", {})


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
