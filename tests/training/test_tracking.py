"""Activeness in training: what is logged, what it costs, and when a subspace counts as dead."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from orthogan.latent.activeness import activeness
from orthogan.layers.subspace import LatentSubspace
from orthogan.models.families.eigengan import EigenGANGenerator
from orthogan.models.open import load_generator
from orthogan.models.protocol import Generator
from orthogan.training import train
from orthogan.training.tracking import FLOOR, SAMPLES, Tracking
from tests.fixtures.runs import tensors, tiny

EIGEN = [
    "model.generator.kind=eigengan",
    "model.generator.channels=2",
    "model.generator.latent_dim=8",
    "model.generator.options={dims: 2}",
    "training.d_steps_per_g_step=1",
]


class TwoSubspaces(Generator):
    """Images of one pixel a dimension: dimension i moves pixel i by ``sizes[i]`` a unit; then two of noise."""

    def __init__(self, sizes: list[float]) -> None:
        super().__init__()
        self.latent_dim, self.resolution, self.image_channels = 6, 2, 1
        self.images = 0
        self.sizes = nn.Parameter(torch.tensor([*sizes, 1.0, 1.0]))
        self.parts = nn.ModuleList([LatentSubspace(2, (1, 2, 2)), LatentSubspace(2, (1, 2, 2))])

    def subspaces(self) -> list[tuple[str, LatentSubspace]]:
        return [(f"parts.{i}", part) for i, part in enumerate(self.parts)]

    def subspace_report(self) -> dict[str, dict[str, float]]:
        return {name: {"orthogonality_error": part.orthogonality_error()} for name, part in self.subspaces()}

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        self.images += len(z)
        return (z * self.sizes).view(-1, 1, 2, 3)


class Plain(Generator):
    """As many pixels as dimensions, of which the first half move."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.latent_dim, self.images = dim, 0
        self.sizes = nn.Parameter((torch.arange(dim) < dim // 2).float())

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        self.images += len(z)
        return (z * self.sizes).view(len(z), 1, 1, -1)


def look(tracking: Tracking, net: Generator, step: int, steps: int = 100) -> dict[str, Any]:
    return tracking.numbers(net, step=step, share=step / steps, seed=0)


def test_numbers_of_each_subspace_are_those_of_the_whole_latent() -> None:
    net = TwoSubspaces([0.5, 0.1, 0.3, 0.0])
    found = look(Tracking(net), net, 0)
    whole = activeness(net, samples=SAMPLES, seed=0)
    assert list(found) == ["parts.0", "parts.1"]
    for name, part in (("parts.0", whole[:2]), ("parts.1", whole[2:4])):
        assert [found[name]["activeness0"], found[name]["activeness1"]] == pytest.approx(list(part), rel=1e-6)
        assert found[name]["orthogonality_error"] < 1e-5
    # a step of s * 2 either way on one of six pixels
    assert found["parts.0"]["activeness0"] == pytest.approx((2 * 0.5) ** 2 / 6, rel=1e-5)


@pytest.mark.parametrize(("dim", "images"), [(4, 16 * 12), (128, 5 * 384), (512, 2 * 1536)])
def test_it_costs_about_two_thousand_images_at_most(dim: int, images: int) -> None:
    net = Plain(dim)
    found = look(Tracking(net), net, 0)["latent"]
    assert net.images == images
    assert found["dims_active"] == dim // 2
    assert found["activeness_max"] == pytest.approx(4 / dim, rel=1e-5)
    assert found["activeness_mean"] == pytest.approx(2 / dim, rel=1e-5)
    assert ("activeness0" in found) == (dim <= 64)


def test_a_subspace_that_was_alive_and_dies_is_named_once() -> None:
    net = TwoSubspaces([0.5, 0.1, 0.3, 0.0])
    tracking = Tracking(net)
    look(tracking, net, 0)
    assert tracking.pop_warnings() == []
    with torch.no_grad():
        net.sizes[2] = 0.06  # 1.4 % of the liveliest
    look(tracking, net, 10)
    assert tracking.pop_warnings() == []
    with torch.no_grad():
        net.sizes[2] = 0.04  # 0.64 %
    look(tracking, net, 20)
    (line,) = tracking.pop_warnings()
    assert line.startswith("step 20: parts.1 hardly changes the image")
    assert "optimizer.generator.lr" in line
    look(tracking, net, 30)
    assert tracking.pop_warnings() == []


def test_a_subspace_that_never_woke_is_named_in_the_second_half_only() -> None:
    net = TwoSubspaces([0.5, 0.1, 0.0, 0.0])
    tracking = Tracking(net)
    for step in (0, 20, 49):
        look(tracking, net, step)
        assert tracking.pop_warnings() == []
    look(tracking, net, 50)
    assert [line.split(" hardly")[0] for line in tracking.pop_warnings()] == ["step 50: parts.1"]


def test_all_subspaces_dead_is_seen_too() -> None:
    still = (FLOOR * 0.5 * 6 / 4) ** 0.5  # half the floor
    net = TwoSubspaces([still] * 4)
    tracking = Tracking(net)
    look(tracking, net, 60)
    assert len(tracking.pop_warnings()) == 2


def test_its_state_carries_over_and_nan_is_left_to_the_watch() -> None:
    net = TwoSubspaces([0.5, 0.1, 0.3, 0.0])
    first, second = Tracking(net), Tracking(net)
    look(first, net, 0)
    second.load({name: tensor.clone() for name, tensor in first.state().items()})
    with torch.no_grad():
        net.sizes[2] = 0.0
    look(second, net, 1)
    assert len(second.pop_warnings()) == 1
    with torch.no_grad():
        net.sizes[0] = torch.nan
    assert look(second, net, 2) == {}
    assert Tracking(Plain(4)).state() == {}


def records(run: Path, key: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if key in line]


def test_an_eigengan_run_logs_warns_and_resumes_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = [
        *EIGEN,
        "training.steps=6",
        "logging.spectrum_every=3",
        "training.ema.half_life=8",
        "model.generator.penalties=[{kind: soft_orthogonality, weight: 0.5, layers: [subspace]}]",
    ]
    a, b = tmp_path / "a", tmp_path / "b"
    original = EigenGANGenerator.forward

    def deaf(self: EigenGANGenerator, z: Tensor, y: Tensor | None = None) -> Tensor:
        # once training has begun, nothing comes of the second subspace
        moved = not torch.equal(self.blocks[0].subspace.mu, torch.zeros_like(self.blocks[0].subspace.mu))
        mask = torch.ones(8)
        mask[2:4] = 0.0 if moved else 1.0
        return original(self, z * mask, y)

    monkeypatch.setattr(EigenGANGenerator, "forward", deaf)
    train(tiny(a, *overrides))
    found = [record["spectrum"] for record in records(a, "spectrum")]
    assert len(found) == 3
    layer = found[-1]["G.blocks.0.subspace"]
    assert {"orthogonality_error", "L0", "L1", "activeness0", "activeness1", "condition"} <= layer.keys()
    shown = load_generator(a)
    assert layer["L0"] == pytest.approx(float(shown.blocks[0].subspace.L[0].detach()))
    assert layer["orthogonality_error"] == pytest.approx(shown.blocks[0].subspace.orthogonality_error(), rel=1e-3)
    assert found[0]["G.blocks.1.subspace"]["activeness0"] > 0
    assert found[1]["G.blocks.1.subspace"]["activeness0"] == 0
    (warning,) = records(a, "warning")
    assert warning["step"] == 3
    assert warning["warning"].startswith("step 3: blocks.1.subspace hardly changes the image")
    assert "warning: step 3: blocks.1.subspace" in "".join(capsys.readouterr())

    shutil.copytree(a, b)
    shutil.rmtree(b / "checkpoints" / "step-000000006")
    train(tiny(b, *overrides))
    whole, resumed = tensors(a, 6), tensors(b, 6)
    assert whole.keys() == resumed.keys()
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []
    assert whole["latent/subspaces"].tolist() == [[1, 0], [1, 1], [1, 0]]
    assert len(records(b, "warning")) == 1  # not once more


def test_a_plain_run_logs_how_many_dimensions_are_active_or_nothing(tmp_path: Path) -> None:
    base = ["training.steps=1", "training.d_steps_per_g_step=1"]
    train(tiny(tmp_path / "some", *base))
    latent = records(tmp_path / "some", "spectrum")[-1]["spectrum"]["G.latent"]
    assert 0 <= latent["dims_active"] <= 8
    values = np.array([latent[f"activeness{i}"] for i in range(8)])
    assert latent["activeness_max"] == values.max()
    train(tiny(tmp_path / "none", *base, "logging.spectrum_every=0"))
    assert records(tmp_path / "none", "spectrum") == []
