"""The words that choose layers, and that nothing is matched in silence."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from orthogan.weights import rotation, select, spectral_norm
from orthogan.weights.selection import choose


def net() -> nn.Sequential:
    body = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.Conv2d(64, 16, 3), nn.Conv2d(16, 64, 1))
    return nn.Sequential(body, nn.ConvTranspose2d(64, 8, 4), nn.Embedding(10, 4), nn.Linear(8, 1))


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("", ["0.0", "0.2", "0.3", "1", "2", "3"]),
        ("conv", ["0.0", "0.2", "0.3"]),
        ("conv, tall", ["0.0", "0.3"]),
        ("conv,wide", ["0.2"]),
        (["transposed", "linear"], ["1", "3"]),
        ("0.*", ["0.0", "0.2", "0.3"]),
        ("0.*,!first", ["0.2", "0.3"]),
        ("!last", ["0.0", "0.2", "0.3", "1", "2"]),
        ("last", ["3"]),
        ("first,last", ["0.0", "3"]),
        ("matrix,!embedding,!0.3", ["0.0", "0.2", "1"]),
    ],
)
def test_words_choose(words: str | list[str], names: list[str]) -> None:
    assert [s.name for s in select(net(), words)] == names


def test_a_layer_chooses_itself_and_shows_its_matrix() -> None:
    layer = nn.ConvTranspose2d(6, 4, 3)
    (found,) = select(layer)
    assert found.name == ""
    assert found.layer is layer
    assert found.matrix.shape == (4, 54)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("convs", "did you mean 'conv'"),
        ("1.weight", "matches nothing"),
        ("blocks.*", "its layers are 0.0, 0.2"),
        ("!nothing", "matches nothing"),
        ("conv,3", "together leave no layer"),
        ("linear,!last", "together leave no layer"),
    ],
)
def test_nothing_matched_is_an_error(words: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select(net(), words)
    with pytest.raises(ValueError, match="no linear"):
        select(nn.ReLU(), "conv")


def test_choosing_moves_no_power_iteration() -> None:
    layer = spectral_norm(nn.Linear(6, 5))
    u = layer.parametrizations.weight[0].u.clone()
    (found,) = select(layer)
    assert found.view.rows == 5
    assert torch.equal(layer.parametrizations.weight[0].u, u)
    (rotated,) = select(rotation(nn.Conv2d(2, 3, 3)))
    assert (rotated.view.rows, rotated.view.columns) == (3, 18)


@pytest.mark.parametrize("empty", [nn.Linear(3, 0), nn.Linear(0, 3), nn.Embedding(0, 4), nn.Embedding(4, 0)])
def test_a_layer_without_numbers_is_passed_over(empty: nn.Module) -> None:
    body = nn.Sequential(empty, nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 2)))
    assert [s.name for s in select(body)] == ["1", "2.0"]
    assert [s.name for s in select(body, "first")] == ["1"]
    with pytest.raises(ValueError, match="the layer of this name has no numbers"):
        select(body, "0")


@pytest.mark.parametrize(
    ("words", "names"), [("", ["a", "b"]), ("c", ["a"]), ("d.*", ["b"]), ("!c", ["b"]), ("last", ["b"]), ("c,a", ["a"])]
)
def test_a_layer_with_several_names_is_chosen_once_by_any_of_them(words: str, names: list[str]) -> None:
    shared, other = nn.Linear(3, 3), nn.Linear(3, 3)
    body = nn.ModuleDict({"a": shared, "b": other, "c": shared, "d": nn.Sequential(other)})
    assert [s.name for s in select(body, words)] == names


def test_a_module_that_holds_the_one_above_it_is_no_endless_walk() -> None:
    body = nn.Sequential(nn.Linear(3, 3))
    body[0].owner = body
    assert [s.name for s in select(body)] == ["0"]


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_the_matrix_of_a_kernel_with_groups_is_block_diagonal(kind: type[nn.Conv2d], groups: int) -> None:
    layer = kind(4, 8, 1, groups=groups, bias=False)
    (found,) = select(layer)
    assert found.matrix.shape == (8, 4)
    assert (found.view.groups, found.view.rows, found.view.columns) == (groups, 8, 4 // groups)
    assert torch.allclose(found.matrix, layer(torch.eye(4)[:, :, None, None])[:, :, 0, 0].T, atol=1e-6)
    assert torch.equal(found.view.back(found.view.to(found.value)), found.value)


def test_words_for_shapes_mean_the_matrices_of_the_groups() -> None:
    body = nn.Sequential(nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 64, 1, groups=4))
    assert [s.name for s in select(body, "wide")] == ["0"]
    assert [s.name for s in select(body, "tall")] == ["1"]
    assert [s.name for s in select(body, "matrix")] == ["1"]


class Nested(nn.Module):
    """Blocks with a convolution and a part of their own, and a layer that is called like a word."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"conv": nn.Conv2d(1, 1, 1), "up": nn.ModuleDict({"conv": nn.Conv2d(1, 1, 1)})})
            for _ in range(2)
        )


def named(net: nn.Module) -> dict[str, nn.Module]:
    return {name: part for name, part in net.named_modules() if name}


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("blocks.*", ["blocks.0", "blocks.1"]),
        ("blocks.*.conv", ["blocks.0.conv", "blocks.1.conv"]),
        ("*", ["first", "blocks"]),
        ("*.*.*", ["blocks.0.conv", "blocks.0.up", "blocks.1.conv", "blocks.1.up"]),
        ("*.up.*", ["blocks.0.up.conv", "blocks.1.up.conv"]),
        ("blocks.*,blocks.1.up", ["blocks.0", "blocks.1", "blocks.1.up"]),
        ("blocks.*,!blocks.0", ["blocks.1"]),
        ("first", ["first"]),  # the name, not the place
        ("conv,last", ["blocks.1.up.conv"]),
        ("conv,!blocks.0*,!last", ["blocks.1.conv"]),
    ],
)
def test_whole_modules_are_chosen_by_the_same_words_the_outermost_of_each_pattern(
    layers: str, expected: list[str]
) -> None:
    assert choose(named(Nested()), layers, what="Nested", outermost=True) == expected


def test_a_star_stands_for_any_text_where_every_depth_counts() -> None:
    chosen = choose(named(Nested()), ["blocks.*.conv"], what="Nested")
    assert chosen == ["blocks.0.conv", "blocks.0.up.conv", "blocks.1.conv", "blocks.1.up.conv"]


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ("blokcs.0", r"'blokcs\.0' matches nothing in Nested; did you mean 'blocks\.0'\?; there are first, blocks, "),
        ("conv,transposed", "'transposed' matches nothing"),
        ("!nowhere", "'!nowhere' matches nothing"),
        ("", "'' matches nothing"),
        ("first,!first", "together leave nothing in Nested; there are first"),
    ],
)
def test_words_that_choose_no_module_are_refused_with_what_there_is(layers: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        choose(named(Nested()), layers, what="Nested")
