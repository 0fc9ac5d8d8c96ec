"""The published recipes of EigenGAN and of the simple GAN, with every way of keeping a layer orthogonal, from YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from orthogan.config.files import load_config
from orthogan.data import open_configured
from orthogan.training import dry_run
from orthogan.training.ema import Ema
from orthogan.training.gan.task import GanTask

# He, Kan & Shan 2021 (their TensorFlow code): hinge; 10 |grad D|^2 on reals every 3 updates, times 3 (gamma is twice
# their 10); half of ||U U^T - I||^2; Adam 1e-4 (0.5, 0.99); average 0.999 an update of 64 images; mirrored reals.
EIGENGAN = """
data: {source: sprites-colour, count: 32, resolution: 32, channels: 3, dequantize: false, flip: true}
model:
  generator: {kind: eigengan, channels: 2, latent_dim: 22, options: {dims: 6}}
  discriminator: {kind: eigengan, channels: 2, norm: {kind: none}}
loss: {kind: hinge, gradient_penalty: {kind: r1, weight: 20.0, interval: 3}}
optimizer:
  generator: {lr: 1e-4, beta1: 0.5, beta2: 0.99}
  discriminator: {lr: 1e-4, beta1: 0.5, beta2: 0.99}
training:
  steps: 10
  batch_size: 4
  generator_batch_size: 4
  d_steps_per_g_step: 1
  device: cpu
  ema: {half_life: 44339, warmup: 0}
"""
# Song, Sebe & Wang 2022: non-saturating, 10 (|grad D| - 1)^2 beside half of D's loss (so 20 beside the whole),
# one D update a G update, Adam 2e-4 (0.5, 0.999), rate constant and then falling linearly for as long.
SIMPLE = """
data: {source: sprites, count: 32, resolution: 32, channels: 1, dequantize: false}
model:
  generator: {kind: simple-gan, channels: 4, latent_dim: 6}
  discriminator: {kind: simple-gan, channels: 4, norm: {kind: none}}
loss: {kind: non_saturating, gradient_penalty: {kind: wgan-gp, weight: 20.0}}
optimizer:
  generator: {lr: 2e-4, beta1: 0.5, beta2: 0.999}
  discriminator: {lr: 2e-4, beta1: 0.5, beta2: 0.999}
training:
  steps: 10
  batch_size: 4
  generator_batch_size: 4
  d_steps_per_g_step: 1
  device: cpu
  schedule: {kind: linear, start: 0.5}
  ema: {half_life: 0}
"""
G = "model.generator"
NOG, OLR = "{kind: nearest_orthogonal, layers: [%s]}", "{kind: optimal_learning_rate, layers: [%s]}"
WAYS = {
    "none": [],
    "penalty": [f"{G}.penalties=[{{kind: soft_orthogonality, weight: 0.5, layers: [%s]}}]"],
    "nog": [f"{G}.gradient_transforms=[{NOG}]"],
    "olr": [f"{G}.gradient_transforms=[{OLR}]"],
    "nog+olr": [f"{G}.gradient_transforms=[{NOG}, {OLR}]"],
    **{way: [f"{G}.norm={{kind: orthogonal, layers: [%s], method: {way}}}"] for way in ("householder", "cayley", "qr")},
}


def recipe(folder: Path, text: str, overrides: list[str]) -> Any:
    file = folder / "recipe.yaml"
    file.write_text(text, encoding="utf-8")
    return load_config(file, [*overrides, f"out={folder / 'run'}"])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("text", [EIGENGAN, SIMPLE], ids=["eigengan", "simple-gan"])
def test_every_way_of_keeping_a_layer_orthogonal_trains(tmp_path: Path, text: str, way: str) -> None:
    layers = "subspace" if text == EIGENGAN else "first"
    overrides = [line.replace("%s", layers) for line in WAYS[way]]
    report = dry_run(recipe(tmp_path, text, overrides))
    assert report["phases"] == ("G, D, Dreg" if text == EIGENGAN else "G, D")
    where = "blocks.0.subspace, blocks.1.subspace, blocks.2.subspace" if text == EIGENGAN else "first"
    acting = [names for key, names in report.items() if key.startswith("G ") and key.endswith(" on")]
    assert acting == [where] * way.count("+") + [where] * (way != "none")


def test_the_projector_and_the_regularisers_of_the_latent_join_them(tmp_path: Path) -> None:
    latent = "loss.latent_penalty={kind: %s, weight: 1e-3, layers: [ups.*]}"
    projector = f"{G}.norm={{kind: householder, rank: 3}}"
    for kind in ("hessian", "orojar"):
        report = dry_run(recipe(tmp_path, SIMPLE, [latent % kind, projector]))
        assert report["G HouseholderProjector on"] == "first"
        assert report[f"G/{kind}"] > 0


def test_a_d_of_half_the_loss_and_half_the_penalty_takes_the_same_steps(tmp_path: Path) -> None:
    # Adam does not see the factor between the authors' loss and ours
    config = recipe(tmp_path, SIMPLE, [])
    task = GanTask(config, open_configured(config.data), Accelerator(cpu=True))
    phase = list(task.phases(0))[1]
    steps = []
    losses = list(phase.losses)
    before = [p.detach().clone() for p in task.discriminator.parameters()]
    for factor in (1.0, 0.5):
        with torch.no_grad():
            for p, start in zip(task.discriminator.parameters(), before, strict=True):
                p.copy_(start)
        optimizer = torch.optim.Adam(task.discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
        optimizer.zero_grad()
        (factor * losses[0]()[0]).backward()
        optimizer.step()
        steps.append(
            torch.cat(
                [(p.detach() - b).flatten() for p, b in zip(task.discriminator.parameters(), before, strict=True)]
            )
        )
    assert float((steps[0] - steps[1]).abs().mean()) < 0.01 * float(steps[0].abs().mean())


def test_the_average_keeps_the_published_share(tmp_path: Path) -> None:
    config = recipe(tmp_path, EIGENGAN, ["training.batch_size=64", "training.generator_batch_size=64"])
    ema = Ema(torch.nn.Linear(1, 1), config.training.ema)
    assert ema.decay(10**6, config.training.batch_size) == pytest.approx(0.999, abs=1e-6)
