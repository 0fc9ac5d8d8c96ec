"""One registry for everything that is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from orthogan.errors import UserError
from orthogan.registry import Registry, did_you_mean


@pytest.fixture
def shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry[type]:
    """A registry whose things are in two files of a package, of which none is imported yet."""
    folder = tmp_path / "shape_room"
    folder.mkdir()
    (folder / "__init__.py").write_text("import orthogan.registry as r\nSHAPES = r.Registry('shape', __name__)\n")
    for name, aliases in {"circle": "'round'", "square": ""}.items():
        title = name.title()
        text = f"from shape_room import SHAPES\n@SHAPES.register({name!r}, {aliases})\nclass {title}: ...\n"
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("shape_room", "shape_room.circle", "shape_room.square"):
        monkeypatch.delitem(__import__("sys").modules, name, raising=False)
    return __import__("shape_room").SHAPES


def test_a_file_in_the_package_is_all_it_takes(shapes: Registry[type]) -> None:
    assert list(shapes) == ["circle", "square"]
    assert shapes.get("circle").__name__ == "Circle"
    assert shapes.get("Round") is shapes.get("circle")
    assert shapes.name_of("round") == "circle"
    assert "square" in shapes
    assert "round" not in shapes


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cirle", "unknown shape 'cirle'; did you mean 'circle'?; known: circle, square, or module:Name"),
        ("zzz", "unknown shape 'zzz'; known: circle, square"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(shapes: Registry[type], name: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        shapes.get(name, "model.shape")
    assert str(caught.value).startswith(f"model.shape: {message}")


def test_something_of_the_users_own_is_named_by_its_module(shapes: Registry[type]) -> None:
    assert shapes.get("collections:OrderedDict").__name__ == "OrderedDict"
    with pytest.raises(UserError, match="--shape is 'no_such_module:Name': No module named 'no_such_module'"):
        shapes.get("no_such_module:Name", "--shape")


def test_what_cannot_be_adopted_says_what_it_should_be() -> None:
    def adopt(thing: object) -> object:
        raise TypeError("it should be a function of a weight")

    registry = Registry[object]("penalty", adopt=adopt)
    with pytest.raises(UserError, match="penalty is 'math:pi': it should be a function of a weight"):
        registry.get("math:pi")


def test_a_name_is_given_once() -> None:
    registry = Registry[object]("penalty")
    registry.register("one")(object())
    with pytest.raises(ValueError, match="the penalty 'one' is registered twice"):
        registry.register("one")(object())


def test_nothing_near_says_nothing() -> None:
    assert did_you_mean("srrip", ["srip", "energy"]) == "; did you mean 'srip'?"
    assert did_you_mean("SRIP", ["srip"]) == "; did you mean 'srip'?"
    assert did_you_mean("q", ["srip"]) == ""
