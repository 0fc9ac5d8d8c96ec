"""Pivotal tuning: the pictures come nearer, the rest stays, the original is not touched, and it resumes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from orthogan.errors import Stopped
from orthogan.latent.invert import Projection, project, tune
from orthogan.models.generate import generate, model_hash
from tests.fixtures.disc import Affine
from tests.fixtures.inverted import noisy, stopping


def projected(net: Affine) -> Projection:
    return project(net, noisy(2), steps=60, starts=1, candidates=8, rate=0.1, progress=False)


def error(net: torch.nn.Module, found: Projection) -> float:
    return float(np.abs(found.latents.images(net).astype(int) - found.targets).mean())


def test_the_pictures_come_nearer_and_the_rest_stays_with_locality() -> None:
    net = Affine()
    found, before = projected(net), model_hash(net)
    options = {"steps": 150, "rate": 3e-3, "progress": False}
    free, local = (tune(net, found, locality=weight, **options) for weight in (0.0, 3.0))
    assert error(free, found) < 0.3 * error(net, found)
    assert error(local, found) < error(net, found)
    z = net.sample_latent(200, seed=5)
    moved = [np.abs(generate(one, z).astype(int) - generate(net, z)).mean() for one in (free, local)]
    assert moved[1] < 0.7 * moved[0]
    assert model_hash(net) == before
    assert not any(one.requires_grad for one in free.parameters())


def test_interrupted_tuning_continues_to_the_same_bits(tmp_path: Path) -> None:
    net = Affine()
    found = projected(net)
    whole = tune(net, found, steps=10, progress=False)
    with pytest.raises(Stopped):
        tune(net, found, steps=10, progress=False, kept=tmp_path / "t.safetensors", stopped=stopping(4))
    again = tune(net, found, steps=10, progress=False, kept=tmp_path / "t.safetensors")
    assert model_hash(again) == model_hash(whole)
