"""orthogan export: styles and options by name, models from any subject, and messages before a model is opened."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from orthogan.cli.export import styles
from orthogan.cli.main import main
from orthogan.errors import UserError
from orthogan.export import STYLES, Exportable, Exported, Style, export
from orthogan.export.export import exportable, make_style
from orthogan.models.open import open_model
from orthogan.models.shipped import find_shipped
from tests.fixtures.small_generators import small_generator


class Text(Style):
    """A style of a user's own."""

    suffix = ".txt"
    word: str = "none"

    def write(self, model: Exportable, out: Path) -> Exported:
        out.write_text(f"{model.name} {self.word}")
        return Exported([out], [str(out)])


def test_a_style_is_one_class(tmp_path: Path) -> None:
    export("sprites-sngan", "tests.export.test_export:Text", tmp_path / "a.txt", word="yes")
    assert (tmp_path / "a.txt").read_text() == "sprites-sngan yes"
    with pytest.raises(UserError, match=r"expected a class that is an orthogan\.export\.Style"):
        make_style("tests.export.test_export:test_a_style_is_one_class", {})


def test_names_and_options_are_checked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown style of export 'onx'; did you mean 'onnx'\?"):
        export("sprites-sngan", "onx")
    with pytest.raises(UserError, match=r"opset: not an option of torch-export; its options are space"):
        make_style("torch-export", {"opset": 18})
    with pytest.raises(UserError, match=r"opset: Input should be greater than or equal to 18"):
        make_style("onnx", {"opset": 3})
    with pytest.raises(UserError, match=r"a\.html: a file of style onnx ends with \.onnx"):
        export("sprites-sngan", "onnx", tmp_path / "a.html")
    with pytest.raises(UserError, match=r"space 'w': SNGANGenerator has 'z'"):
        export("sprites-sngan", "onnx", tmp_path / "a.onnx", space="w")
    assert styles() == list(STYLES) == ["onnx", "page", "torch-export"]


def test_the_name_of_a_file_is_that_of_its_model() -> None:
    assert exportable("sprites-sngan").name == "sprites-sngan"
    assert exportable("faces-srngan").name == "faces-srngan"  # a folder
    assert exportable(open_model(find_shipped("faces-srngan") or "")).name == "faces-srngan"
    net = small_generator("dcgan")
    assert exportable(net).name == "dcgangenerator"
    assert exportable(net).generator is net


def test_the_command_writes_the_file_and_says_what_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", "sprites-sngan", "--to", "torch-export"]) == 0
    assert capsys.readouterr().out.startswith("sprites-sngan.pt2: z -> images, ")
    assert torch.export.load(tmp_path / "sprites-sngan.pt2").module()(torch.zeros(2, 16)).shape == (2, 1, 32, 32)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["absent", "--to", "onnx"], "absent: no such run"),
        (["sprites-sngan", "--to", "oxnn"], "unknown style of export 'oxnn'"),
        (["sprites-sngan", "--to", "torch-export", "--opset", "19"], "opset: not an option of torch-export"),
    ],
)
def test_bad_input_is_refused(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", *words]) == 2
    assert message in capsys.readouterr().err
