"""What the hardware decides: number format and memory layout."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CRASH = """
import torch
from torch import nn
from orthogan.device import fast_bf16, memory_format
for channels in (1, 3, 4, 8):
    net = nn.Conv2d(channels, 8, 1, stride=2)
    layout = memory_format(net, channels_last=True)
    net.to(memory_format=layout)
    for _ in range(20):
        images = torch.randn(32, channels, 32, 32).contiguous(memory_format=layout).requires_grad_()
        net(images).square().mean().backward()
assert memory_format(nn.Conv2d(3, 8, 1), channels_last=True) == torch.channels_last
assert memory_format(nn.Conv2d(8, 8, 1, stride=2), channels_last=True) == torch.channels_last
assert memory_format(nn.Conv2d(8, 8, 1, stride=2), channels_last=False) == torch.contiguous_format
print(fast_bf16("cpu"))
"""


@pytest.mark.parametrize("isa", ["AVX2", "AVX512_CORE", "DEFAULT"])
@pytest.mark.slow
def test_strided_convolutions_of_few_channels_work_on_every_processor(isa: str) -> None:
    environment = {**os.environ, "DNNL_MAX_CPU_ISA": isa}
    found = subprocess.run([sys.executable, "-c", CRASH], env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    if isa == "AVX2":
        assert found.stdout.strip() == "False", "bf16 without hardware for it is slower than float32"
