"""The words that choose layers, and that nothing is matched in silence."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from orthogan.weights import rotation, select, spectral_norm


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
    u = layer.parametrizations.weight[0].u.clone()  # pyright: ignore
    (found,) = select(layer)
    assert found.view.rows == 5
    assert torch.equal(layer.parametrizations.weight[0].u, u)  # pyright: ignore
    (rotated,) = select(rotation(nn.Conv2d(2, 3, 3)))
    assert (rotated.view.rows, rotated.view.columns) == (3, 18)
