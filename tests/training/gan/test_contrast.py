"""InfoGAN and InfoGAN-CR in runs: exact resumption, what is stored, and what is learned."""

from __future__ import annotations

import json
import math
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

import orthogan
from orthogan.config.files import load_config
from orthogan.data import open_configured, open_source
from orthogan.disentanglement import disentangle, recognizer
from orthogan.errors import UserError
from orthogan.models.build import build_generator
from orthogan.models.open import open_model
from orthogan.models.recognition import logits_and_codes
from orthogan.training import train
from orthogan.training.gan.task import GanTask
from tests.fixtures.runs import ROOT, TINY, tensors, tiny

CODED = [
    "model.generator.codes={continuous: 2, categorical: [3]}",
    "loss.information={weight: 0.5, width: 8}",
    "loss.total_correlation.weight=0.5",
    "loss.contrastive={weight: 1.0, start: 0.25, gap: 1.0, gap_until: 0.75, channels: 4}",
    "model.generator.kind=infogan",
    "model.generator.channels=4",
    "model.discriminator={kind: infogan, channels: 4, norm: {kind: spectral}}",
    "training.steps=4",
    "checkpoint.every=2",
    "checkpoint.keep=9",
    "logging.every=1",
    "logging.watch_every=0",
    "logging.spectrum_every=0",
]


def log(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if "G/loss" in line]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_resumed_run_is_the_same_and_is_stored_whole(tmp_path: Path, accumulate: int) -> None:
    more = [*CODED, f"training.accumulate={accumulate}"]
    straight = train(tiny(tmp_path / "straight", *more))
    train(tiny(tmp_path / "parts", *more))
    shutil.rmtree(tmp_path / "parts" / "checkpoints" / "step-000000004")
    resumed = train(tiny(tmp_path / "parts", *more))
    one, other = tensors(straight, 4), tensors(resumed, 4)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert {"contrastive/out.weight", "discriminator/recognition.out.weight"} <= one.keys()
    lines = log(straight)
    assert ["CR/loss" in line for line in lines] == [False, True, True, True]
    assert [line.get("CR/gap") for line in lines] == [None, 1.0, 1.0, 0.0]
    assert all(math.isfinite(line[f"{net}/total_correlation"]) for line in lines for net in "GD")
    assert all(math.isfinite(line["G/information"]) and math.isfinite(line["D/information"]) for line in lines)


def test_the_codes_are_stored_with_the_model_and_q_with_d(tmp_path: Path) -> None:
    run = train(tiny(tmp_path / "run", *CODED, "training.steps=2"))
    opened = open_model(run)
    assert orthogan.native_directions(opened.generator).names == ("c1", "c2", "d1=0", "d1=1", "d1=2")
    z = opened.generator.sample_latent(3, seed=0)
    _, codes = logits_and_codes(opened.discriminator, opened.generator(z), None)
    assert codes.shape == (3, 5)
    source = open_source("sprites", resolution=32, channels=1, count=96)
    q = recognizer(opened.generator, opened.discriminator, fresh=32)
    options: dict[str, Any] = {"encoder:mig": {"max_bias": 9.0}}
    (score,) = disentangle(
        opened.generator, ["encoder:mig"], source=source, seeds=[0], encoder=q, options=options, progress=False
    )
    images = source.read(np.arange(96))[0]
    with torch.no_grad():
        means = logits_and_codes(opened.discriminator, torch.from_numpy(images).float() / 127.5 - 1, None)[1]
    np.testing.assert_allclose(q(images)[:, :2], means[:, :2].numpy(), atol=1e-6)
    np.testing.assert_allclose(q(images)[:, 2:].sum(1), 1, atol=1e-6)
    assert score.protocol["codes"] == "Q of the discriminator"
    assert sorted(score.controls) == ["random basis"]
    with pytest.raises(UserError, match="no network Q"):
        recognizer(open_model("sprites-sngan").generator, opened.discriminator)
    tuned = train(tiny(tmp_path / "tuned", *CODED, "training.steps=1", f"model.init={run}"))  # Q starts anew
    assert tuned.is_dir()


@pytest.mark.parametrize(
    "kind", ["eigengan", "simple-gan", "dcgan", "wgan-gp", "stylegan2", "r3gan", "infogan", "sngan"]
)
def test_every_generator_trains_with_codes(tmp_path: Path, kind: str) -> None:
    narrow = {"r3gan": 16, "dcgan": 8}.get(kind, 4)
    options = ["model.generator.options={dims: 2}"] if kind == "eigengan" else []
    config = tiny(
        tmp_path,
        *CODED,
        "training.compile=none",
        f"model.generator.kind={kind}",
        f"model.generator.channels={narrow}",
        f"model.discriminator.kind={kind}",
        f"model.discriminator.channels={narrow}",
        "model.discriminator.norm={kind: none}",
        *options,
    )
    task = GanTask(config, open_configured(config.data), Accelerator(cpu=True))
    for phase in task.phases(2):
        for losses in phase.losses:
            value, logs = losses()
            value.backward()
            assert math.isfinite(float(value.detach()))
            assert all(math.isfinite(float(number)) for number in logs.values())
    assert task.discriminator.get_parameter("recognition.out.weight").grad is not None
    task.close()


def test_what_cannot_work_is_refused_at_the_start(tmp_path: Path) -> None:
    for override, message in (
        ("loss.information.weight=1", "loss.information.weight: there are no codes"),
        ("loss.contrastive.weight=1", "loss.contrastive.weight: there are no codes"),
        ("loss.total_correlation.weight=1", "two or more continuous codes"),
        ("model.generator.codes.continuous=9", "9 coordinates of codes do not fit into latent_dim = 8"),
    ):
        with pytest.raises(UserError, match=message):
            load_config(None, [*TINY, f"out={tmp_path}", override])
    one = [*TINY, f"out={tmp_path}", "model.generator.codes.continuous=1", "loss.contrastive.weight=1"]
    with pytest.raises(UserError, match="at least two codes are needed"):
        load_config(None, one)


def test_the_information_rises(tmp_path: Path) -> None:
    """A large weight makes the generator show its codes within a few updates."""
    run = train(
        tiny(
            tmp_path,
            "model.generator={kind: infogan, channels: 8, latent_dim: 4, codes: {continuous: 2}}",
            "model.discriminator={kind: infogan, channels: 8, norm: {kind: none}}",
            "loss.information.weight=5",
            "loss.kind=non_saturating",
            "optimizer.generator.lr=2e-3",
            "optimizer.discriminator.lr=2e-3",
            "training.batch_size=32",
            "training.generator_batch_size=32",
            "training.d_steps_per_g_step=1",
            "training.steps=40",
            "logging.every=1",
            "logging.watch_every=0",
            "logging.spectrum_every=0",
            "checkpoint.every=40",
        )
    )
    found = [line["G/information"] for line in log(run)]
    assert found[0] < -0.2
    assert np.mean(found[-5:]) > 0.1


def overrides_of_the_page() -> list[list[str]]:
    """The overrides that docs/disentanglement.md lists."""
    text = (ROOT / "docs" / "disentanglement.md").read_text(encoding="utf-8")
    rows = text.partition("## Overrides for a search")[2].splitlines()
    cells = [row.split(" | ")[1].removesuffix(" |") for row in rows if row.startswith("| ") and "`" in row]
    return [shlex.split(cell.strip("`")) for cell in cells]


def test_the_overrides_of_the_page_are_valid() -> None:
    rows = overrides_of_the_page()
    assert len(rows) >= 10
    for row in rows:
        config = load_config(ROOT / "configs" / "sprites" / "infogan-cr-32.yaml", row)
        build_generator(config, num_classes=0)
        assert config.model.generator.codes.size
