"""Programs for the page: what the runtime cannot run is refused, and places of resampling are torch's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from orthogan.errors import UserError
from orthogan.export.graph import Call, examples
from orthogan.export.program import compile_program, contiguous, linear, nearest, spread_sizes
from orthogan.models.protocol import Generator
from tests.fixtures.small_generators import small_generator


def test_an_operation_that_the_page_does_not_have_is_named() -> None:
    class Sorted(Generator):
        latent_dim = 4

        def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            return z.sort().values.view(-1, 1, 2, 2)

    with pytest.raises(UserError, match=r"to page: the page has no aten\.sort.*; choose --to onnx"):
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
