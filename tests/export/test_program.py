"""Programs for the page: what the runtime cannot run is refused, and places of resampling are torch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from orthogan.errors import UserError
from orthogan.export.graph import Call, examples
from orthogan.export.program import Program, compile_program, contiguous, linear, nearest, spread_sizes
from orthogan.models.protocol import Generator
from tests.fixtures.small_generators import small_generator


def test_an_operation_that_the_page_does_not_have_is_named() -> None:
    class Sorted(Generator):
        latent_dim = 4

        def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            return z.sort().values.view(-1, 1, 2, 2)

    with pytest.raises(UserError, match=r"to page: the operation aten\.sort.* is not supported; choose --to onnx"):
        compile_program(Call(Sorted()), examples(Sorted(), 1))


def test_batch_norms_are_a_gain_and_a_shift_and_reshapes_are_nothing() -> None:
    net = small_generator("wgan-gp")
    program = compile_program(Call(net), examples(net, 1), start=100)
    kinds = {step["op"] for step in program.steps}
    assert kinds == {"linear", "convolution", "scale", "resize", "binary", "unary"}
    norms = sum(isinstance(part, nn.BatchNorm2d) for part in net.modules())
    assert sum(step["op"] == "scale" for step in program.steps) == norms
    starts = [start for _, start, _ in program.constants]
    assert starts[0] == 100
    assert starts[-1] + program.constants[-1][2] - 100 == sum(len(part) for part in program.weights)


@pytest.mark.parametrize(("small", "large"), [(4, 8), (5, 10), (3, 7), (1, 4)])
def test_resampling_takes_the_pixels_that_torch_takes(small: int, large: int) -> None:
    line = torch.arange(float(small)).square()[None, None, None]
    for places, more in (
        (nearest(small, large), {"mode": "nearest"}),
        (linear(small, large, False), {"mode": "bilinear", "align_corners": False}),
        (linear(small, large, True), {"mode": "bilinear", "align_corners": True}),
    ):
        first, second, weights = (torch.tensor(part) for part in places)
        found = line[..., first] * (1 - weights) + line[..., second] * weights
        torch.testing.assert_close(found, nn.functional.interpolate(line, size=(1, large), **more))


def test_strides_broadcast_as_torch_does() -> None:
    for sizes, out in (([3, 1, 2], [4, 3, 5, 2]), ([], [2, 2]), ([1], [3])):
        values = torch.arange(max(1, torch.Size(sizes).numel()), dtype=torch.float).reshape(sizes)
        strided = torch.as_strided(values, out, spread_sizes(sizes, out))
        assert torch.equal(strided, values.expand(out))
    assert contiguous([2, 3, 4]) == list(torch.empty(2, 3, 4).stride())


class Applied(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def run(program: Program, x: Tensor) -> Tensor:
    """Do what runtime.js does, for the steps that move pixels."""
    arrays, sizes = {program.inputs[0]: x.flatten()}, dict(program.sizes)
    for step in program.steps:
        given, size = arrays[step["in"][0]], sizes[step["out"]]
        if step["op"] == "resize":
            maps = given.view(step["C"], step["H"], step["W"])
            for axis, name in ((1, "rows"), (2, "cols")):
                first, second, weights = (torch.tensor(part) for part in step[name])
                weights = weights.view(-1, *[1] * (2 - axis))
                maps = maps.index_select(axis, first) * (1 - weights) + maps.index_select(axis, second) * weights
            arrays[step["out"]] = maps.flatten()
        elif step["op"] == "copy":
            arrays[step["out"]] = given.as_strided(step["shape"], step["strides"], step["offset"]).flatten()
        else:
            assert step["op"] == "pad"
            out = torch.full((size,), step["value"])
            out.as_strided(step["shape"], step["strides"], step["offset"]).copy_(given.view(step["shape"]))
            arrays[step["out"]] = out
    return arrays[program.output]


@pytest.mark.parametrize("scale", [1.5, 1.3, (0.6, 1.7), 2.0])
@pytest.mark.parametrize("how", [{}, {"mode": "bilinear"}, {"mode": "bilinear", "align_corners": True}])
def test_a_scale_factor_is_not_the_ratio_of_the_rounded_sizes(scale: float, how: dict[str, Any]) -> None:
    x = torch.randn(1, 3, 5, 7, generator=torch.Generator().manual_seed(0))

    def resized(x: Tensor) -> Tensor:
        return functional.interpolate(x, scale_factor=scale, **how)

    torch.testing.assert_close(run(compile_program(Applied(resized), [x]), x), resized(x).flatten())


@pytest.mark.parametrize("pad", [(1, 2), (-1, -1, 1, -1), (2, -3, -2, 0), (-1, 0), (0, 0, 0, 0, 1, -1)])
def test_negative_padding_crops(pad: tuple[int, ...]) -> None:
    x = torch.randn(1, 3, 5, 7, generator=torch.Generator().manual_seed(0))

    def padded(x: Tensor) -> Tensor:
        return functional.pad(x, pad, value=0.5)

    torch.testing.assert_close(run(compile_program(Applied(padded), [x]), x), padded(x).flatten())


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.div(x, 0.5, rounding_mode="floor"),
        functional.selu,
        lambda x: 2**x,
        lambda x: torch.clamp(x, min=torch.zeros(1)),
    ],
)
def test_what_resembles_an_operation_of_the_page_is_refused(function: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(UserError, match=r"to page: the operation aten\.\w+"):
        compile_program(Applied(function), [torch.randn(1, 4)])
