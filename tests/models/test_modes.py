"""Looking at a net in eval mode leaves it as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from orthogan.models.modes import eval_mode


def test_eval_mode_restores_a_mixture_of_modes_even_after_an_error() -> None:
    net = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout())
    net.train()
    net[1].eval()
    running = net[0].running_mean.clone()
    with eval_mode(net):
        assert not any(part.training for part in net.modules())
        assert not net(torch.ones(3, 2)).requires_grad
    assert [part.training for part in net.modules()] == [True, True, False]
    with pytest.raises(RuntimeError), eval_mode(net):
        net(torch.ones(3, 5))
    assert [part.training for part in net.modules()] == [True, True, False]
    assert torch.equal(net[0].running_mean, running)
