"""Skew orthogonal convolutions over a whole net."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from orthogan import weights
from orthogan.layers import SkewOrthogonalConv2d


def net() -> nn.Sequential:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.ReLU())
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), inner, nn.Conv2d(4, 4, 2))


def test_the_chosen_convolutions_are_replaced_where_they_stand() -> None:
    model = net()
    assert weights.apply(model, "skew_orthogonal", "conv,!last", terms=6) == ["0", "1.0"]
    assert isinstance(model[0], SkewOrthogonalConv2d)
    assert isinstance(model[1][0], SkewOrthogonalConv2d)
    assert isinstance(model[2], nn.Conv2d)
    x = torch.randn(2, 4, 6, 6)
    y = model[1][0](x)  # square, zero padding: still an isometry
    torch.testing.assert_close(y.norm(), x.norm(), rtol=1e-3, atol=0)
    assert weights.report(model).keys() == {"0", "1.0"}


def test_what_cannot_be_one_is_named_and_nothing_is_replaced() -> None:
    model = net()
    with pytest.raises(ValueError, match=r"^2: kernel_size"):
        weights.apply(model, "skew_orthogonal")
    assert isinstance(model[0], nn.Conv2d)
    with pytest.raises(ValueError, match=r"only an nn\.Conv2d"):
        weights.apply(nn.Sequential(nn.Linear(3, 3)), "skew_orthogonal", "linear")
    with pytest.raises(ValueError, match="cannot replace the module itself"):
        weights.apply(nn.Conv2d(1, 1, 3), "skew_orthogonal")
