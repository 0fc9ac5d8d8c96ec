"""FreezeD: the first blocks of any discriminator stay as they were given, and all else is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from orthogan.errors import UserError
from orthogan.models.build import build_discriminator
from orthogan.models.protocol import DISCRIMINATORS
from orthogan.training import train
from orthogan.training.gan.freeze import first_blocks
from tests.fixtures.runs import load_config, tensors, tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tiny(tmp_path_factory.mktemp("freeze") / "run", "training.steps=2"))


@pytest.mark.parametrize("kind", sorted(DISCRIMINATORS))
def test_the_blocks_of_every_discriminator_are_its_parameters(kind: str) -> None:
    config = load_config(None, [f"model.discriminator.kind={kind}", "model.discriminator.channels=8"])
    net = build_discriminator(config, num_classes=0)
    count = len([name for name, _ in first_blocks(net, 1, "key")])
    assert count == 1
    with pytest.raises(UserError, match=r"key: D has \d+ blocks .* set key to at most \d+") as caught:
        first_blocks(net, 99, "key")
    blocks = first_blocks(net, int(str(caught.value).rpartition(" ")[2]), "key")
    mine = [p for _, modules in blocks for module in modules for p in module.parameters()]
    assert len({id(p) for p in mine}) == len(mine)
    left = {id(p) for p in net.parameters()} - {id(p) for p in mine}
    last = list(net.children())[-1]
    assert left == {id(p) for p in last.parameters()}
    images = next(iter(net.parameters()))
    assert images is mine[0]


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 1)
        self.body = nn.Linear(4, 4)

    def image_blocks(self) -> list[tuple[str, list[nn.Module]]]:
        return [("body", [self.body]), ("head", [self.head])]


def test_a_net_of_the_users_own_says_its_blocks() -> None:
    assert [name for name, _ in first_blocks(Own(), 1, "key")] == ["body"]


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["model.discriminator.norm={kind: spectral}", "loss.gradient_penalty={kind: r1, interval: 2}"],
        ["model.discriminator.penalties=[{kind: soft_orthogonality, layers: [blocks.0.conv1]}]"],
        ["model.discriminator.gradient_transforms=[{kind: nearest_orthogonal, layers: [blocks.*.conv1]}]"],
    ],
)
def test_frozen_blocks_stay_and_the_others_move(tmp_path: Path, run: Path, options: list[str]) -> None:
    for name, steps in (("begun", 1), ("tuned", 3)):
        overrides = [f"model.init={run}", "training.freeze_d=2", f"training.steps={steps}", *options]
        train(tiny(tmp_path / name, *overrides))
    first, last = tensors(tmp_path / "begun", 1), tensors(tmp_path / "tuned", 3)
    parameters = [k for k in first if k.startswith("discriminator/") and k.endswith(("original", "bias"))]
    assert parameters
    for key in parameters:
        fixed = key.startswith(("discriminator/blocks.0.", "discriminator/blocks.1."))
        assert torch.equal(first[key], last[key]) == fixed, key
    frozen = [key for key in last if key.startswith("optimizer-discriminator/blocks.0.")]
    assert frozen == []


def test_a_frozen_run_resumes_bit_for_bit_and_can_be_thawed(
    tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [f"model.init={run}", "training.schedule.kind=constant"]
    train(tiny(tmp_path / "a", *options, "training.freeze_d=1", "training.steps=6"))
    assert "fixed blocks of D: blocks.0" in "".join(capsys.readouterr())
    train(tiny(tmp_path / "b", *options, "training.freeze_d=1", "training.steps=3"))
    train(tiny(tmp_path / "b", *options, "training.freeze_d=1", "training.steps=6"))
    one, two = tensors(tmp_path / "a", 6), tensors(tmp_path / "b", 6)
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
    thawed = tiny(tmp_path / "b", *options, "training.freeze_d=0", "training.steps=7")
    with pytest.raises(UserError, match=r"training\.freeze_d: 1 -> 0"):
        train(thawed)
    train(thawed, allow_config_change=True)
    key = "discriminator/blocks.0.conv1.bias"
    assert not torch.equal(tensors(tmp_path / "b", 7)[key], two[key])


def test_there_must_be_something_to_keep(tmp_path: Path, run: Path) -> None:
    with pytest.raises(UserError, match=r"training\.freeze_d: .*set model\.init"):
        tiny(tmp_path, "training.freeze_d=1")
    file = run / "checkpoints" / "step-000000002" / "generator.safetensors"
    with pytest.raises(UserError, match=r"training\.freeze_d: there is no discriminator to keep: .*only the generator"):
        train(tiny(tmp_path / "x", "training.freeze_d=1", f"model.init={file}"))
    with pytest.raises(UserError, match="D has 5 blocks"):
        train(tiny(tmp_path / "y", "training.freeze_d=5", f"model.init={run}"))
