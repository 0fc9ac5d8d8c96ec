"""A hash of tensors depends on what they hold, not on how they lie in memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from orthogan.io.hashing import tensors_sha256
from orthogan.models.generate import model_hash

LAYOUTS = {
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(0, 3).contiguous().transpose(0, 3),
    "a view of a larger one": lambda x: torch.stack([x, x], dim=-1)[..., 0],
    "one column with a long stride": lambda x: x,
    "with a gradient": lambda x: x.clone().requires_grad_(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(4, 3, 2, 2), (1, 1, 1, 1), (5, 1, 1, 1), (0, 3, 1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_layout_in_memory_does_not_matter(layout: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    plain = torch.arange(float(torch.Size(shape).numel())).reshape(shape).to(dtype)
    other: Tensor = LAYOUTS[layout](plain)
    if layout == "one column with a long stride":
        other = torch.empty_strided(shape, [72] * len(shape) if plain.numel() <= 1 else plain.stride(), dtype=dtype)
        other.copy_(plain)
    assert tensors_sha256({"x": other}) == tensors_sha256({"x": plain})
    assert tensors_sha256({"y": plain}) != tensors_sha256({"x": plain})
    if plain.numel():
        assert tensors_sha256({"x": plain + 1}) != tensors_sha256({"x": plain})


def test_a_model_is_recognized_whatever_the_layout_of_its_tensors() -> None:
    net = torch.nn.Conv2d(1, 1, 1)
    before = model_hash(net)
    net.weight.data = torch.empty_strided((1, 1, 1, 1), (72, 72, 72, 72)).copy_(net.weight.data)
    assert model_hash(net) == before
