"""Q reads the input of the last layer of any discriminator, in the same pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from orthogan import weights
from orthogan.errors import UserError
from orthogan.models.codes import Codes
from orthogan.models.protocol import DISCRIMINATORS
from orthogan.models.recognition import PairClassifier, Recognition, add_recognition, halvings, logits_and_codes
from orthogan.weights.network import list_constrained

CODES = Codes(6, continuous=2, categorical=(3,))


class Small(nn.Module):
    """Features that are known: the images, flattened and doubled."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(64, 5)
        self.linear = nn.Linear(5, 1)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.linear(self.body(x.flatten(1)).tanh()).squeeze(1)


def test_the_features_are_the_input_of_the_last_layer() -> None:
    net = Small()
    add_recognition(net, CODES, width=7, channels=1, resolution=8)
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    logits, codes = logits_and_codes(net, images, None)
    features = net.body(images.flatten(1)).tanh()
    assert torch.equal(logits, net(images))
    assert isinstance(net.recognition, Recognition)
    assert torch.equal(codes, net.recognition(features))
    assert codes.shape == (4, 5)
    codes.sum().backward()
    assert net.body.weight.grad is not None
    assert net.linear.weight.grad is None
    assert set(net.state_dict()) >= {"recognition.hidden.weight", "recognition.out.bias"}


@pytest.mark.parametrize("kind", sorted(name for name, _ in DISCRIMINATORS.items()))
def test_every_discriminator_can_share_its_trunk(kind: str) -> None:
    side, width = (32, 8) if kind != "r3gan" else (32, 16)
    net = DISCRIMINATORS.get(kind, "kind")(resolution=side, image_channels=1, channels=width)
    add_recognition(net, CODES, width=4, channels=1, resolution=side)
    images = torch.randn(3, 1, side, side, generator=torch.Generator().manual_seed(0))
    net.eval()
    logits, codes = logits_and_codes(net, images, None)
    assert logits.shape == (3,)
    assert codes.shape == (3, 5)
    assert torch.equal(logits, net(images))
    assert isinstance(net.recognition, Recognition)
    assert net.recognition.hidden.in_features > 1


def test_a_bounded_discriminator_bounds_the_hidden_layer_of_q() -> None:
    net = Small()
    add_recognition(net, CODES, width=7, channels=1, resolution=8, norm=weights.CONSTRAINTS.get("spectral")())
    assert [name for name, *_ in list_constrained(net)] == ["recognition.hidden"]


def test_a_discriminator_without_a_last_layer_is_refused() -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)

        def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
            return self.conv(x).mean((1, 2, 3))

    with pytest.raises(UserError, match="no last layer that returns one number per image"):
        add_recognition(Mean(), CODES, width=4, channels=1, resolution=8)
    with pytest.raises(UserError, match=r"loss\.information\.weight above 0"):
        logits_and_codes(Small(), torch.zeros(1, 1, 8, 8), None)


@pytest.mark.parametrize(("side", "times"), [(16, 2), (32, 3), (64, 4), (48, 3), (4, 0)])
def test_maps_are_halved_down_to_four(side: int, times: int) -> None:
    assert halvings(side) == times
    net = PairClassifier(resolution=side, image_channels=1, channels=2, codes=5)
    images = torch.zeros(2, 1, side, side)
    assert net(images, images).shape == (2, 5)
