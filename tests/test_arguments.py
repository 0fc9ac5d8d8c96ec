"""Wrong types and shapes are named by argument, not by the place inside orthogan where they fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import orthogan
from orthogan import gradients, layers, penalties, weights
from orthogan.arguments import checked, integer, integers, words
from orthogan.disentanglement.arrays import check_codes
from orthogan.errors import UserError, WrongType
from orthogan.latent import Directions, Latents, in_space
from orthogan.latent.mixing import mix
from orthogan.models import SNGANGenerator, StyleGAN2Generator


@checked
def example(
    net: nn.Module,
    n: int = 1,
    x: float | None = 1.0,
    name: str = "a",
    names: str | Sequence[str] = (),
    images: Tensor | None = None,
    kind: Literal["a", "b"] = "a",
    seeds: Sequence[int] = (),
    against: Callable[[], Any] | None = None,
) -> str:
    return net.nothing  # fails as anything inside may fail


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"net": "x"}, "net is 'x': expected a torch.nn.Module"),
        ({"net": nn.Linear}, "net is the class torch.nn.Linear: expected a torch.nn.Module"),
        ({"n": "x"}, "n is 'x': expected an integer"),
        ({"n": 1.5}, "n is 1.5: expected an integer"),
        ({"n": 2.0}, "n is 2.0: expected an integer"),
        ({"n": True}, "n is True: expected an integer"),
        ({"x": "1e-3"}, "x is '1e-3': expected a number or None"),
        ({"x": torch.ones(2)}, "x is of type torch.Tensor: expected a number or None"),
        ({"name": 5}, "name is 5: expected text"),
        ({"names": 5}, "names is 5: expected text or a list of texts"),
        ({"names": ["a", 5]}, "names is ['a', 5]: expected text or a list of texts"),
        ({"images": np.ones(2)}, "images is of type numpy.ndarray: expected a torch.Tensor or None"),
        ({"kind": "c"}, "kind is 'c': expected one of 'a', 'b'"),
        ({"seeds": 3}, "seeds is 3: expected a list of integers"),
        ({"seeds": [1, 1.5]}, "seeds is [1, 1.5]: expected a list of integers"),
        ({"against": 3}, "against is 3: expected a function or None"),
    ],
)
def test_an_argument_of_a_wrong_type_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(WrongType) as raised:
        example(**{"net": nn.ReLU(), **given})
    assert str(raised.value) == message
    assert isinstance(raised.value, TypeError)
    assert isinstance(raised.value, UserError)


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(AttributeError, match="nothing"):  # nothing is wrong with the arguments
        example(nn.ReLU(), np.int64(3), np.float32(2), seeds=range(3))
    with pytest.raises(ValueError, match="unknown constraint 'nope'"):  # although layers is wrong, too
        weights.apply(net(), "nope", 5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'net'"):
        example()  # pyright: ignore[reportCallIssue]


def test_integers_are_what_python_takes_as_an_index() -> None:
    assert integer("n", np.int64(3)) == integer("n", torch.tensor(3)) == 3
    assert integers("dims", np.arange(3)) == [0, 1, 2]
    for wrong in ("3", 3.0, None, True, [3]):
        with pytest.raises(WrongType, match=r"^n is .*: expected an integer$"):
            integer("n", wrong)
    for wrong in ("3", 3, [1.5], [True], None):
        with pytest.raises(WrongType, match=r"^(dims is|dims is .*: expected integers)"):
            integers("dims", wrong)


def test_words_are_a_list_or_one_text() -> None:
    assert words("layers", "conv, !first,") == words("layers", ["conv", " !first"]) == ["conv", "!first"]
    assert words("layers", "") == words("layers", ()) == []
    for wrong in (5, None, [5], b"conv"):
        with pytest.raises(WrongType, match=r"^layers is .*: expected text, or a list of it$"):
            words("layers", wrong)
    with pytest.raises(ValueError, match="layers: ',' names nothing"):
        words("layers", ",")


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 4))


def sgd() -> torch.optim.Optimizer:
    return torch.optim.SGD(net().parameters(), lr=0.1)


CALLS: dict[str, Callable[[], Any]] = {
    "layers is 5": lambda: weights.apply(net(), "spectral", 5),
    "layers is [5]": lambda: weights.select(net(), [5]),
    "gain is 'x'": lambda: weights.orthogonal(nn.Linear(4, 4), gain="x"),
    "iterations is 1.5": lambda: weights.orthogonal(nn.Linear(4, 4), iterations=1.5),
    "name is 5": lambda: weights.spectral_norm(nn.Linear(4, 4), 5),
    "kind is 5": lambda: weights.apply(net(), 5),
    "block_size is 'x'": lambda: weights.rotation(nn.Linear(4, 4), block_size="x"),
    "weight is 'x'": lambda: penalties.apply(net(), "srip", weight="x"),
    "rank is 'x'": lambda: layers.HouseholderProjector(4, 4, rank="x"),
    "num_features is 'x'": lambda: layers.DecorrelatedBatchNorm2d("x"),
    "kernel_size is 1.5": lambda: layers.SkewOrthogonalConv2d(4, 4, 1.5),
    "module is 'x'": lambda: layers.decorrelate("x"),
    "lr is 'x'": lambda: gradients.CayleyRetraction(sgd(), net(), lr="x"),
    "bins is 'x'": lambda: orthogan.mig(np.eye(4), np.eye(4, dtype=int), bins="x"),
    "resolution is 'x'": lambda: orthogan.open_source("sprites", resolution="x"),
    "channels is 'x'": lambda: orthogan.open_source("sprites", channels="x"),
    "method is 5": lambda: orthogan.discover("sprites-sngan", 5),
    "truncation is 'x'": lambda: orthogan.sample("sprites-sngan", 1, truncation="x"),
    "n is 'x'": lambda: orthogan.sample("sprites-sngan", "x"),
    "steps is 'x'": lambda: orthogan.traverse("sprites-sngan", steps="x"),
}


@pytest.mark.parametrize("said", CALLS)
def test_every_room_names_the_argument(said: str) -> None:
    with pytest.raises((TypeError, ValueError, UserError)) as raised:
        CALLS[said]()
    assert str(raised.value).startswith(f"{said}: ")


@pytest.mark.parametrize("path", ["", " ", 5, None])
def test_an_empty_path_is_not_the_current_folder(path: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    generator = orthogan.load("sprites-sngan")
    directions = orthogan.native_directions(generator)
    writers = [generator.save_pretrained, orthogan.sample(generator, 1).save, directions.save]
    for write in (*writers, orthogan.Directions.load, orthogan.Latents.load):
        with pytest.raises(UserError, match=r"^(path|folder|out) is .*: expected a path"):
            write(path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["out", "data.root", "data.path", "model.init"])
@pytest.mark.parametrize("path", ["", " "])
def test_an_empty_path_in_a_config_is_refused(key: str, path: str) -> None:
    with pytest.raises(UserError, match=f"{key} is '{path}': expected a path; the current folder is '.'"):
        orthogan.load_config(None, {key: path})


def test_an_error_about_many_numbers_shows_the_first_of_them() -> None:
    many = range(5, 100_000)
    sizes = {"resolution": 32, "image_channels": 1, "channels": 4, "latent_dim": 8}
    plain, styled = SNGANGenerator(**sizes), StyleGAN2Generator(**sizes)
    codes = np.full((4, 2000), np.nan)
    calls: list[Callable[[], object]] = [
        lambda: Directions(np.eye(4), space="z", method="mine").select(many),
        lambda: Directions(np.eye(4), space="z", method="mine", layers=tuple(many)),
        lambda: Latents(np.zeros((2, 4))).select(many),
        lambda: mix(styled, [1], [2], layers=list(many)),
        lambda: in_space(plain, "z", layers=many),
        lambda: in_space(styled, "w", layers=many),
        lambda: in_space(styled, "w+", layers=many),
        lambda: in_space(styled, "s", layers=many),
        lambda: check_codes("mig", codes),
    ]
    for call in calls:
        with pytest.raises((UserError, ValueError), match=r"^[^\n]{20,400}$") as caught:
            call()
        assert "…" in str(caught.value)
