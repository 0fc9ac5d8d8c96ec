"""A constraint, a penalty and a gradient rule of the user's own: trained, resumed, and trusted only with consent."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch

from orthogan.config.base import names_in
from orthogan.config.files import load_config
from orthogan.errors import UserError
from orthogan.models.open import load_generator
from orthogan.named_code import NeedsTrust
from orthogan.training import train
from orthogan.weights.network import list_constrained
from tests.fixtures.runs import tensors, tiny

MODULE = """
from orthogan import gradients, penalties, weights

class Halved(weights.Constraint):
    def __init__(self, layer, weight, factor):
        super().__init__(layer, weight)
        self.factor = factor

    def forward(self, weight):
        return self.given(weight * self.factor, weight)

def halved(layer, name="weight", *, factor: float = 0.5):
    return weights.register(layer, name, lambda weight: Halved(layer, weight, factor))

def square(weight, *, power: float = 2.0):
    return weight.abs().pow(power).sum()

class Slow(gradients.GradientRule):
    def before_step(self):
        for _, parameter in self.parameters:
            self.replace(parameter, 0.5 * self.gradient(parameter))
"""
G, D = "model.generator", "model.discriminator"
OWN = [
    f"{G}.norm={{kind: own_kinds:halved, layers: [conv], factor: 0.25}}",
    f"{D}.penalties=[{{kind: own_kinds:square, weight: 0.01, power: 3.0}}]",
    f"{G}.gradient_transforms=[{{kind: own_kinds:Slow, layers: [first]}}]",
]


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_kinds.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_kinds", raising=False)


def test_they_train_resume_and_need_consent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(tiny(whole, "training.steps=6", *OWN))
    shutil.copytree(whole, parts)
    shutil.rmtree(parts / "checkpoints" / "step-000000006")
    monkeypatch.delitem(sys.modules, "own_kinds")
    config = tiny(parts, "training.steps=6", *OWN)
    assert config.model.generator.norm.model_dump()["factor"] == 0.25
    train(config)
    a, b = tensors(whole, 6), tensors(parts, 6)
    assert [name for name in a if not torch.equal(a[name], b[name])] == []

    monkeypatch.delitem(sys.modules, "own_kinds")
    with pytest.raises(NeedsTrust, match=r"model\.generator\.norm\.kind = 'own_kinds:halved'"):
        load_generator(whole)
    with pytest.raises(NeedsTrust, match=r"penalties\.0\.kind = 'own_kinds:square'"):
        load_config(whole / "config.yaml")
    assert "own_kinds" not in sys.modules
    net = load_generator(whole, trust=["own_kinds:halved"])
    assert {type(constraint).__name__ for *_, constraint in list_constrained(net)} == {"Halved"}
    trusted = load_config(whole / "config.yaml", trust=True)
    assert names_in(trusted) == {"own_kinds:halved", "own_kinds:square", "own_kinds:Slow"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (f"{G}.norm={{kind: own_kinds:halved, facto: 1}}", "did you mean 'model.generator.norm.factor'"),
        (f"{G}.norm={{kind: own_kinds:halved, factor: x}}", "model.generator.norm.factor is 'x'"),
        (
            f"{D}.penalties=[{{kind: own_kinds:square, powr: 1}}]",
            "mean 'model.discriminator.penalties.0.power'",
        ),
        (f"{D}.penalties=[{{kind: own_kinds:Slow}}]", "a penalty is a function"),
        (f"{G}.norm.kind=own_kinds:absent", "has no attribute 'absent'"),
        (f"{G}.gradient_transforms=[{{kind: own_kinds:halved}}]", "a gradient rule must be a subclass"),
    ],
)
def test_mistakes_in_them_are_named(override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config(None, [override])
    assert message in str(caught.value)
