"""Optimizers by config: those of orthogan, those of torch, and the user's own."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from orthogan.config.files import load_config
from orthogan.config.schema import Config
from orthogan.errors import UserError
from orthogan.training import dry_run, train
from orthogan.training.optimizer_state import load_optimizer, optimizer_tensors
from orthogan.training.optimizers import CLASSIFIER_OPTIMIZERS, GAN_OPTIMIZERS
from tests.fixtures.runs import tensors, tiny, tiny_classifier

OWN = """
from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.optim import Optimizer

if TYPE_CHECKING:
    from absent import Parameters

class Counting(Optimizer):
    '''Its rate depends on a number per parameter and on one per group, so a resumed run needs both.'''

    def __init__(self, params: Parameters, lr=1e-3, power: float = 0.3):
        super().__init__(params, {"lr": lr, "power": power, "k": 0, "total": 0.0})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            group["k"] += 1
            group["total"] += 0.1
            for p in group["params"]:
                if p.grad is not None:
                    state = self.state[p]
                    state.setdefault("n", 0)
                    state["n"] += 1
                    p.sub_(group["lr"] * p.grad / (state["n"] * group["k"] * group["total"]) ** group["power"])

class Listing(Counting):
    def step(self, closure=None):
        super().step()
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["history"] = [1, 2]

class NoRate(Optimizer):
    def __init__(self, params, lr=1e-3):
        super().__init__(params, {"speed": lr})

    def step(self, closure=None):
        pass

THINGS = [1, 2]
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_optimizers.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)


def both(kind: str, **options: Any) -> list[str]:
    section = ", ".join(f"{key}: {value}" for key, value in {"kind": f"'{kind}'", "lr": 1e-3, **options}.items())
    return [f"optimizer.{net}={{{section}}}" for net in ("generator", "discriminator")]


KINDS = {
    "adam": {"beta1": 0.5},
    "own_optimizers:Counting": {"power": 0.25},
    "torch.optim:AdamW": {"weight_decay": 0.1, "betas": "[0.5, 0.9]"},
    "torch.optim:RMSprop": {"momentum": 0.5},
    "torch.optim:NAdam": {},
    "torch.optim:Adagrad": {},
    "torch.optim:ASGD": {"t0": 0},
    "torch.optim:Adafactor": {},
}


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_resumes_exactly(kind: str, tmp_path: Path) -> None:
    keys = ["training.schedule.kind=constant", *both(kind, **KINDS[kind])]
    train(tiny(tmp_path / "whole", "training.steps=5", *keys))
    train(tiny(tmp_path / "parts", "training.steps=2", *keys))
    train(tiny(tmp_path / "parts", "training.steps=5", *keys))
    assert_same_bits(tmp_path / "whole", tmp_path / "parts", 5)


@pytest.mark.usefixtures("own")
def test_another_kind_does_not_resume(tmp_path: Path) -> None:
    train(tiny(tmp_path / "run", "training.steps=2"))
    changed = tiny(tmp_path / "run", "training.steps=4", *both("torch.optim:AdamW"))
    for allow in (False, True):
        with pytest.raises(UserError, match=r"optimizer\.generator\.kind: .*adam.* -> .*torch\.optim:AdamW"):
            train(changed, allow_config_change=allow)


def test_a_class_of_torch_does_what_it_does_by_hand() -> None:
    config = load_config(None, both("torch.optim:RMSprop", alpha=0.5, centered="true")).optimizer.generator
    torch.manual_seed(0)
    nets = [nn.Linear(3, 2), nn.Linear(3, 2)]
    nets[1].load_state_dict(nets[0].state_dict())
    mine = config.build(list(nets[0].parameters()))
    theirs = torch.optim.RMSprop(nets[1].parameters(), lr=1e-3, alpha=0.5, centered=True)
    for _ in range(3):
        x = torch.randn(5, 3)
        for net, optimizer in zip(nets, (mine, theirs), strict=True):
            optimizer.zero_grad()
            net(x).square().sum().backward()
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True))
    assert config.build(list(nets[0].parameters()), 3).param_groups[0]["lr"] == 1e-3 * 3 / 4  # a lazy penalty


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("adamm", {}, "unknown optimizer 'adamm'; did you mean 'adam'"),
        ("torch.optim:AdamX", {}, "has no attribute 'AdamX'"),
        ("torch.optim:LBFGS", {}, "the step of LBFGS needs a closure, which the training loop does not have"),
        ("torch.optim:Muon", {}, "torch.optim:Muon: Muon only supports 2D parameters"),
        ("torch.optim:RMSprop", {"alfa": 0.5}, "unknown key 'optimizer.generator.alfa'; did you mean"),
        ("torch.optim:RMSprop", {"centered": 3}, "optimizer.generator.centered is 3: input should be a valid boolean"),
        ("torch.optim:RMSprop", {"momentum": -1}, "torch.optim:RMSprop: Invalid momentum value: -1"),
        ("torch.optim:AdamW", {"betas": "[0.5, 2]"}, "torch.optim:AdamW: Invalid beta parameter at index 1: 2"),
        (
            "torch.optim:AdamW",
            {"betas": "[0.5]"},
            "generator.betas is [0.5]: list should have at least 2 items",
        ),
        (
            "torch.optim:AdamW",
            {"betas": "[0.5, x]"},
            "betas.1 is 'x': input should be a valid number",
        ),
        ("torch.optim:SparseAdam", {}, "torch.optim:SparseAdam: SparseAdam does not support dense gradients"),
        (
            "own_optimizers:Listing",
            {},
            "state 'history' of a 1-d parameter is a list; only tensors and numbers",
        ),
        ("torch.optim:Optimizer", {}, "name a subclass of torch.optim.Optimizer"),
        ("torch.nn:Linear", {}, "name a subclass of torch.optim.Optimizer"),
        ("own_optimizers:THINGS", {}, "this is a list; name a subclass of torch.optim.Optimizer"),
        ("own_optimizers:NoRate", {}, "own_optimizers:NoRate: its parameter groups have no 'lr'"),
    ],
)
def test_what_cannot_train_is_refused_at_the_start(
    kind: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    for start in (train, dry_run):
        with pytest.raises(UserError, match=re.escape(message)):
            start(tiny(tmp_path / "run", *both(kind, **options)))
    assert not list(tmp_path.glob("run/*"))


@pytest.mark.usefixtures("own")
def test_state_that_cannot_be_saved_is_named() -> None:
    net = nn.Linear(2, 1)
    optimizer = importlib.import_module("own_optimizers").Listing(net.parameters())
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    with pytest.raises(UserError, match=r"Listing: state 'history' of weight is a list; only tensors and numbers"):
        optimizer_tensors(net, optimizer)


@pytest.mark.usefixtures("own")
def test_numbers_of_the_state_are_numbers_again() -> None:
    config = load_config(None, both("own_optimizers:Counting")).optimizer.generator
    net = nn.Linear(2, 1)
    first, second = (config.build(list(net.parameters())) for _ in range(2))
    net(torch.ones(1, 2)).sum().backward()
    for _ in range(3):
        first.step()
    load_optimizer(net, second, optimizer_tensors(net, first))
    assert [type(value) for value in second.state[net.weight].values()] == [int]
    assert second.state[net.weight]["n"] == 3
    group, same = first.param_groups[0], second.param_groups[0]
    assert (same["k"], same["total"]) == (group["k"], group["total"]) == (3, 0.1 + 0.1 + 0.1)
    assert "group 0/power#number" not in optimizer_tensors(net, first)  # it is the config's


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_classifier_configs_of_version_0_1_which_list_the_options_of_both_kinds_are_read(kind: str) -> None:
    listed = {"momentum": 0.9, "nesterov": False, "weight_decay": 5e-4, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
    read = Config.model_validate(
        {"task": "classifier", "optimizer": {"classifier": {"kind": kind, "lr": 0.1, **listed}}}
    )
    now = Config.model_validate({"task": "classifier", "optimizer": {"classifier": {"kind": kind}}})
    assert read == now
    assert type(read.optimizer.classifier) is CLASSIFIER_OPTIMIZERS.get(kind)
    adam = {"lr": 2e-4, "beta1": 0.0, "beta2": 0.9, "eps": 1e-8}  # without a kind
    old = Config.model_validate({"optimizer": {"generator": adam, "discriminator": adam}})
    assert old == Config()
    assert type(old.optimizer.generator) is GAN_OPTIMIZERS.get("adam")


@pytest.mark.usefixtures("own")
def test_a_classifier_takes_any_optimizer(tmp_path: Path) -> None:
    keys = ["training.schedule.kind=constant", "optimizer.classifier={kind: 'own_optimizers:Counting', lr: 0.01}"]
    train(tiny_classifier(tmp_path / "whole", "training.steps=4", *keys))
    train(tiny_classifier(tmp_path / "parts", "training.steps=2", *keys))
    train(tiny_classifier(tmp_path / "parts", "training.steps=4", *keys))
    assert_same_bits(tmp_path / "whole", tmp_path / "parts", 4)


def assert_same_bits(whole: Path, parts: Path, step: int) -> None:
    one, two = tensors(whole, step), tensors(parts, step)
    assert one.keys() == two.keys()
    assert any("optimizer" in name for name in one)
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
