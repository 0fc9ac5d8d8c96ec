"""No layer takes an input of a shape that it does not know, in either mode, and nothing in it has moved then."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from orthogan.layers import (
    CovariancePooling,
    DecorrelatedBatchNorm2d,
    HouseholderPixel,
    HouseholderProjector,
    SkewOrthogonalConv2d,
)
from orthogan.layers.batch_norm import BatchNorm2d, ConditionalBatchNorm2d, Norm
from orthogan.layers.subspace import LatentSubspace

LABELS = torch.tensor([0, 1])
MAPS = [(), (4,), (2, 4), (4, 4), (2, 4, 4), (4, 4, 5), (1, 4, 5), (4, 4, 4, 4, 4), (2, 4, 3, 4, 4)]
MAPS += [(2, 3, 4, 4), (2, 8, 4, 4), (2, 1, 4, 4), (2, 0, 4, 4)]
VECTORS = [(), (1,), (3,), (2, 3), (2, 8), (2, 1), (4, 2), (2, 0)]
CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], list[tuple[int, ...]], tuple[Any, ...]]] = {
    "decorrelated": (lambda: DecorrelatedBatchNorm2d(4), (2, 4, 4, 4), MAPS, ()),
    "decorrelated, plain groups": (lambda: DecorrelatedBatchNorm2d(4, affine=False, groups=2), (2, 4, 4, 4), MAPS, ()),
    "decorrelated, one channel": (lambda: DecorrelatedBatchNorm2d(1), (2, 1, 4, 4), [(2, 4, 4, 4), (2, 4, 4)], ()),
    "batch norm": (lambda: BatchNorm2d(4), (2, 4, 4, 4), MAPS, ()),
    "conditional": (lambda: ConditionalBatchNorm2d(4, 3), (2, 4, 4, 4), MAPS, (LABELS,)),
    "norm": (lambda: Norm(4, 3), (2, 4, 4, 4), MAPS, (LABELS,)),
    "covariance pooling": (CovariancePooling, (2, 4, 4, 4), [s for s in MAPS if len(s) != 4 or not s[1]], ()),
    "covariance pooling, reduced": (lambda: CovariancePooling(dimension=3, in_channels=4), (2, 4, 4, 4), MAPS, ()),
    "covariance pooling, empty maps": (CovariancePooling, (2, 4, 4, 4), [(2, 4, 0, 4), (2, 4, 0, 0)], ()),
    "skew": (lambda: SkewOrthogonalConv2d(4, 4), (2, 4, 4, 4), MAPS, ()),
    "skew, growing": (lambda: SkewOrthogonalConv2d(4, 16, stride=2), (2, 4, 4, 4), MAPS, ()),
    "skew, one channel": (lambda: SkewOrthogonalConv2d(1, 3, 1), (2, 1, 4, 4), [(2, 3, 4, 4), (2, 0, 4, 4)], ()),
    "projector": (lambda: HouseholderProjector(4, 5, 2), (2, 4), VECTORS, ()),
    "projector, one input": (lambda: HouseholderProjector(1, 5, 1), (2, 1), [(), (4,), (2, 4)], ()),
    "pixel": (lambda: HouseholderPixel(4, (2, 3, 3), 2), (2, 4, 1, 1), [*MAPS, (2, 4)], ()),
    "subspace": (lambda: LatentSubspace(4, (2, 3, 3)), (2, 4), [*VECTORS, (4,), (2, 3, 4)], ()),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_unknown_shapes_are_refused_and_leave_no_trace(name: str, training: bool) -> None:
    make, right, wrong, more = CASES[name]
    torch.manual_seed(0)
    layer = make().train(training)
    before = copy.deepcopy(layer.state_dict())
    for shape in wrong:
        with pytest.raises(ValueError, match=r"is needed|have no pixels|is empty|takes \(n, 4, 1, 1\)"):
            layer(torch.randn(shape), *more)
        assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items()), shape
    for dtype in (torch.int64, torch.uint8, torch.bool, torch.complex64):
        with pytest.raises(ValueError, match=r"is needed|are needed"):
            layer(torch.ones(right, dtype=dtype), *more)
        assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items()), dtype
    assert bool(torch.isfinite(layer(torch.randn(right), *more)).all())


@pytest.mark.parametrize(
    "labels", [torch.tensor([0]), torch.tensor(1), torch.tensor([[0, 1]]), torch.tensor([0, 1, 2])]
)
def test_a_conditional_norm_wants_one_label_per_image(labels: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"one per image, \(2,\)"):
        ConditionalBatchNorm2d(4, 3)(torch.randn(2, 4, 3, 3), labels)


def test_an_empty_training_batch_would_make_the_averages_nan_and_is_refused() -> None:
    layer = DecorrelatedBatchNorm2d(4)
    with pytest.raises(ValueError, match="is empty"):
        layer(torch.zeros(0, 4, 3, 3))
    assert layer.eval()(torch.zeros(0, 4, 3, 3)).shape == (0, 4, 3, 3)
