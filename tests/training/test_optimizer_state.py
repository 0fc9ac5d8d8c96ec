"""What an optimizer leaves alone: parameters that a user's network keeps fixed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from orthogan.errors import UserError
from orthogan.training import train
from orthogan.training.optimizer_state import load_optimizer, optimizer_tensors
from tests.fixtures.runs import tensors, tiny, tiny_classifier


class OnFixedFeatures(nn.Module):
    """A discriminator or classifier on a backbone that is not trained, which comes first or last."""

    def __init__(
        self, resolution: int, image_channels: int, num_classes: int = 0, first: bool = True, fixed: bool = False
    ) -> None:
        super().__init__()
        outputs = max(1, num_classes)
        head = nn.Linear(6, outputs)
        if not first:
            self.head = head
        self.features = nn.Linear(image_channels * resolution**2, 6).requires_grad_(False)
        if first:
            self.head = head
        self.requires_grad_(False) if fixed else None
        self.outputs = outputs

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        found = self.head(self.features(x.flatten(1)).relu())
        return found.squeeze(1) if self.outputs == 1 else found


KIND = f"kind={__name__}:OnFixedFeatures"


@pytest.mark.parametrize("first", ["true", "false"])
@pytest.mark.parametrize("net", ["discriminator", "classifier"])
def test_a_fixed_backbone_stays_and_the_rest_is_trained(tmp_path: Path, net: str, first: str) -> None:
    make = tiny if net == "discriminator" else tiny_classifier
    keys = [f"model.{net}.{KIND}", f"model.{net}.norm={{kind: none}}", f"model.{net}.options={{first: {first}}}"]
    for steps in (1, 3):
        train(make(tmp_path / str(steps), *keys, f"training.steps={steps}"))
    one, three = tensors(tmp_path / "1", 1), tensors(tmp_path / "3", 3)
    for name in ("weight", "bias"):
        assert torch.equal(one[f"{net}/features.{name}"], three[f"{net}/features.{name}"])
    assert not torch.equal(one[f"{net}/head.weight"], three[f"{net}/head.weight"])
    assert not [name for name in three if "optimizer" in name and "/features." in name]


def test_a_network_without_anything_to_train_is_refused(tmp_path: Path) -> None:
    keys = [f"model.discriminator.{KIND}", "model.discriminator.norm={kind: none}"]
    with pytest.raises(UserError, match=r"model\.discriminator: no parameter of OnFixedFeatures has requires_grad"):
        train(tiny(tmp_path, *keys, "model.discriminator.options={fixed: true}"))


def test_moments_of_a_scalar_parameter_are_beside_it() -> None:
    net = nn.ParameterDict({"strength": nn.Parameter(torch.tensor(0.5))})
    optimizer = torch.optim.Adam(net.parameters())
    (net["strength"] ** 2).backward()
    optimizer.step()
    stored = optimizer_tensors(net, optimizer)
    other = nn.ParameterDict({"strength": nn.Parameter(torch.empty((), device="meta"))})
    again = torch.optim.Adam(other.parameters())
    load_optimizer(other, again, stored)
    state = again.state[other["strength"]]
    assert {key: value.device.type for key, value in state.items()} == {
        "exp_avg": "meta",
        "exp_avg_sq": "meta",
        "step": "cpu",
    }
