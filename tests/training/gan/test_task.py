"""The GAN task: the order of its phases, what each may touch, and how a run ends."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from orthogan.config.files import load_config
from orthogan.config.schema import Config
from orthogan.data import ArraySource, open_configured
from orthogan.errors import Diverged, UserError
from orthogan.models.open import load_generator, open_model
from orthogan.training import dry_run, train
from orthogan.training.gan.draws import check_shares
from orthogan.training.gan.task import GanTask
from orthogan.training.loop import update
from orthogan.training.watch import FiniteWatch
from tests.fixtures.runs import ROOT, tiny

SHIPPED = sorted((ROOT / "configs").rglob("*.yaml"))


def make(config: Config) -> tuple[GanTask, Accelerator]:
    accelerator = Accelerator(cpu=True)
    return GanTask(config, open_configured(config.data), accelerator), accelerator


def test_a_step_is_g_and_then_n_dis_times_d(tmp_path: Path) -> None:
    task, _ = make(tiny(tmp_path, "training.d_steps_per_g_step=3"))
    assert [phase.name for phase in task.phases(0)] == ["G", "D", "D", "D"]
    task, _ = make(
        tiny(
            tmp_path,
            "loss.gradient_penalty.kind=r1",
            "loss.gradient_penalty.interval=2",
            "training.d_steps_per_g_step=3",
        )
    )
    assert [phase.name for phase in task.phases(0)] == ["G", "D", "Dreg", "D", "D", "Dreg"]
    assert [phase.name for phase in task.phases(1)] == ["G", "D", "D", "Dreg", "D"]


def test_a_phase_moves_its_own_net_only(tmp_path: Path) -> None:
    task, accelerator = make(tiny(tmp_path))
    for phase in task.phases(0):
        before = {n: [p.clone() for p in net.parameters()] for n, net in task.nets.items()}
        update(phase, task, accelerator, FiniteWatch(), 0)
        moved = {
            name
            for name, net in task.nets.items()
            if any(not torch.equal(a, b) for a, b in zip(before[name], net.parameters(), strict=True))
        }
        assert moved == {phase.net}


def test_singular_vectors_advance_once_a_phase(tmp_path: Path) -> None:
    task, accelerator = make(tiny(tmp_path, "training.accumulate=4"))
    name = next(n for n, _ in task.discriminator.named_buffers() if n.endswith(".u"))
    u = task.discriminator.get_buffer(name)
    for phase in task.phases(0):
        before = u.clone()
        seen = []
        with phase.context():
            for losses in phase.losses:
                losses()
                seen.append(task.discriminator.get_buffer(name).clone())
        assert not torch.equal(before, seen[0])
        assert all(torch.equal(s, seen[0]) for s in seen)
    assert accelerator.num_processes == 1


@pytest.mark.parametrize("kind", ["sngan", "biggan"])
def test_batch_statistics_of_g_are_those_of_the_whole_batch_in_any_number_of_parts(tmp_path: Path, kind: str) -> None:
    keys = [f"model.generator.kind={kind}", "model.generator.channels=2", "model.discriminator.norm.kind=none"]
    found = []
    for parts in (1, 4):
        task, accelerator = make(tiny(tmp_path, *keys, f"training.accumulate={parts}"))
        phase = next(iter(task.phases(0)))
        update(phase, task, accelerator, FiniteWatch(), 0)
        found.append({name: value.clone() for name, value in task.generator.named_buffers()})
    assert found[0]
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, msg=name)


def test_every_draw_is_a_function_of_its_position(tmp_path: Path) -> None:
    one, _ = make(tiny(tmp_path))
    two, _ = make(tiny(tmp_path))
    a, b = one._discriminator_batch(5), two._discriminator_batch(5)
    other = one._discriminator_batch(6)
    assert torch.equal(a.real, b.real)
    assert torch.equal(a.fake, b.fake)
    assert not torch.equal(a.real, other.real)
    assert not torch.equal(a.fake, other.fake)


def test_a_run_leaves_what_it_promises(tmp_path: Path) -> None:
    run = train(
        tiny(
            tmp_path / "run",
            "training.steps=6",
            "logging.tensorboard=true",
            "logging.samples_every=3",
            "logging.spectrum_every=3",
            "evaluation.every=3",
            "evaluation.at_start=true",
            "evaluation.samples=16",
            "evaluation.extractor=tests.fixtures.extractor:Moments",
            "checkpoint.keep=1",
            "data.labels=true",
        )
    )
    for name in ("config.yaml", "reals.png", "fakes_init.png", "fakes-0000003.png", "fakes-0000006.png", "log.jsonl"):
        assert (run / name).is_file(), name
    assert list((run / "tensorboard").glob("events*"))
    with Image.open(run / "fakes-0000006.png") as picture:
        assert picture.width >= 32
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    losses = [r for r in records if "D/loss" in r]
    assert [r["images"] for r in losses] == [32, 64, 96]
    assert all(r["seconds"] > 0 for r in losses)
    spectra = [r for r in records if "spectrum" in r]
    assert [r["step"] for r in spectra] == [0, 3, 6]
    layer = next(iter(spectra[0]["spectrum"].values()))
    assert {"sigma", "stable_rank_before", "stable_rank_after", "active"} <= layer.keys()
    scores = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [int(s["protocol"]["step"]) for s in scores] == [0, 3, 6]
    best = min(scores, key=lambda s: s["value"])
    assert open_model(run / "best").about.extra["step"] == best["protocol"]["step"]
    net = load_generator(run)
    assert net.num_classes == 3
    assert net(net.sample_latent(2, seed=0), torch.tensor([0, 2])).shape == (2, 1, 32, 32)
    assert open_model(run).about.extra["weights"] == "ema"
    assert open_model(run, ema=False).about.extra["weights"] == "raw"


def test_classes_and_shares_must_be_there(tmp_path: Path) -> None:
    config = tiny(tmp_path)
    source = open_configured(config.data)
    with pytest.raises(UserError, match=r"training\.batch_size is 8: not a multiple of 3 processes"):
        check_shares(config, source, 3)
    check_shares(config, source, 4)
    keys = ["model.generator.codes.continuous=3", "loss.information.weight=1", "loss.total_correlation.weight=1"]
    coded = tiny(tmp_path, *keys, "training.accumulate=2")
    check_shares(coded, source, 1)
    with pytest.raises(UserError, match=r"parts of more than 3 images; 2 processes .* leave 2 of 8"):
        check_shares(coded, source, 2)
    unlabelled = ArraySource("mine", np.zeros((8, 1, 32, 32), dtype=np.uint8))
    with pytest.raises(UserError, match="put each class in a sub-folder"):
        check_shares(tiny(tmp_path, "data.labels=true"), unlabelled, 1)


@pytest.mark.gpu
def test_a_gpu_run_stops_and_continues(tmp_path: Path) -> None:
    options = ["training.device=cuda", "training.precision=bf16", "training.steps=4", "checkpoint.every=2"]
    run = train(tiny(tmp_path / "run", *options))
    assert train(tiny(tmp_path / "run", *options)) == run
    assert load_generator(run, device="cuda").linear.weight.is_cuda


def test_divergence_names_the_phase_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    train(tiny(tmp_path / "run", "training.steps=3"))
    broken = tiny(tmp_path / "run", "training.steps=9", "optimizer.discriminator.lr=1e30", "loss.kind=least_squares")
    with pytest.raises(Diverged, match=r"phase (G|D), step \d+: not finite|weights of"):
        train(broken, allow_config_change=True)
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-000000003"]
    load_generator(tmp_path / "run")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: str(p.relative_to(ROOT / "configs")))
def test_every_shipped_config_passes_a_dry_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the time of a score is that of the extractor, whatever the config; tests/training/test_run.py covers it
    monkeypatch.setattr("orthogan.training.gan.task.time_generator_score", lambda *_, **__: 1.0)
    config = load_config(path)
    channels = config.data.channels
    size = config.data.resolution
    rng = torch.Generator().manual_seed(0)
    for index in range(12):
        pixels = torch.randint(0, 256, (size + 3, size + 5, 3), generator=rng, dtype=torch.uint8).numpy()
        folder = tmp_path / "images" / f"class{index % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    narrow = 8 if config.model.generator.kind != "r3gan" else 16
    data = {"source": "folder", "path": str(tmp_path / "images"), "split": "train", "count": None, "options": {}}
    if config.data.source.startswith("sprites"):
        data = {"count": 12}
    nets = [f"model.{net}.channels={narrow}" for net in ("generator", "discriminator")]
    nets += ["training.generator_batch_size=4", "evaluation.batch_size=4"]
    if config.task == "classifier":
        nets, data = ["model.classifier.channels=8"], data | {"holdout": 0.2}
    more = [f"out={tmp_path / 'run'}", "training.batch_size=4", "training.device=cpu"]
    tree = load_config(path, [*nets, *more]).model_dump()
    report = dry_run(Config.model_validate(tree | {"data": tree["data"] | data}))
    names = ["C"] if config.task == "classifier" else ["G", "D"]
    assert all(report[f"{name} parameters"] > 0 for name in names)
    assert f"{size} px" in report["data"]
    assert all(phase in report["phases"] for phase in names)
    assert "MiB" in report["peak memory"]
    assert channels in (1, 3)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("start", [train, dry_run])
def test_a_run_folder_that_safetensors_could_not_name_is_refused(
    tmp_path: Path, start: Callable[[Config], object]
) -> None:
    with pytest.raises(UserError, match=r"out: .*caf\\udce9 is not valid UTF-8"):
        start(tiny(tmp_path / os.fsdecode(b"caf\xe9")))
    assert not list(tmp_path.iterdir())
