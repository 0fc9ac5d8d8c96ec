"""kwotsin/mimicry as a contender: its SNGAN for 32 px in its own Trainer.

Our gate stands where a step fetches its first batch. Its losses are printed every step and written every 50 steps as
it does by default; pictures and checkpoints are left out. An update of G would have as many fakes as one of D; here
it is told of twice as many, as the others have, unless it trains by its own recipe: its example, whose other numbers
are the defaults of the setting. tensorflow, requests, matplotlib and skimage, which only its metrics and pictures use,
get stand-ins while it is imported where they are not installed.
"""

from __future__ import annotations

import importlib
import tempfile
from typing import Any

import torch
import torch.utils.tensorboard  # before any stand-in
from torch.utils.data import DataLoader

from benchmarks.gate import Gate
from benchmarks.peers.imports import beside, check
from benchmarks.pictures import Pictures, normalising
from benchmarks.scoring import Wrapped, scorer
from benchmarks.setting import Setting, source_of

NEVER = 10**9
STAND_INS = ("tensorflow", "requests", "matplotlib", "matplotlib.pyplot", "skimage")
WORKERS = 4  # as in its examples


def run(setting: Setting, gate: Gate, path: str, recipe: str = "") -> None:
    """Train until the gate has had enough.

    Args:
        recipe: if given, an update of G has as many fakes as one of D.

    Raises:
        UserError: ``path`` holds something else.
        ImportError: it needs a package that is not installed.
    """
    check(path, "torch_mimicry/training/trainer.py", "mimicry")
    torch.manual_seed(setting.seed)
    with beside(path, STAND_INS) as made_up:
        nets: Any = importlib.import_module("torch_mimicry.nets.sngan")
        trainer: Any = importlib.import_module("torch_mimicry.training.trainer")
    loader = DataLoader(
        Pictures(source_of(setting).images, normalising(setting.image_channels)),
        batch_size=setting.batch,
        shuffle=True,
        num_workers=WORKERS,
        drop_last=True,
    )
    device = torch.device(setting.device)
    kind = nets.SNGANGenerator32 if recipe else _twice(nets.SNGANGenerator32)
    generator = kind(nz=setting.latent_dim, ngf=setting.generator_channels).to(device)
    discriminator = nets.SNGANDiscriminator32(ndf=setting.channels).to(device)
    shown = Wrapped(generator, setting.latent_dim, setting.image_channels)
    gate.score = scorer(lambda: shown, source_of(setting), device)
    sizes = {"G": generator, "D": discriminator}
    gate.facts = {f"{name} parameters": sum(p.numel() for p in net.parameters()) for name, net in sizes.items()}
    gate.facts["reals per step"] = setting.reals
    gate.facts["stand-ins"] = made_up
    with tempfile.TemporaryDirectory(prefix="race-") as folder:
        _gated(trainer.Trainer, gate, setting.n_dis)(
            netD=discriminator,
            netG=generator,
            optD=torch.optim.Adam(discriminator.parameters(), setting.lr, betas=(0.0, 0.9)),
            optG=torch.optim.Adam(generator.parameters(), setting.generator_lr, betas=(0.0, 0.9)),
            dataloader=loader,
            num_steps=NEVER,
            log_dir=folder,
            n_dis=setting.n_dis,
            lr_decay="linear",
            device=device,
            vis_steps=NEVER,
            save_steps=NEVER,
        ).train()


def _twice(generator: Any) -> Any:
    """Its generator, whose update makes twice as many fakes as there are reals in the batch."""

    class Generator(generator):
        def train_step(self, real_batch: Any, **options: Any) -> Any:
            images, labels = real_batch
            return super().train_step(real_batch=(images.repeat(2, 1, 1, 1), labels), **options)

    return Generator


def _gated(trainer: Any, gate: Gate, n_dis: int) -> Any:
    """Its trainer, which waits at the gate before each step."""

    class Trainer(trainer):
        fetched = 0

        def _fetch_data(self, iter_dataloader: Any) -> Any:
            if self.fetched % n_dis == 0:
                gate()
            self.fetched += 1
            return super()._fetch_data(iter_dataloader)

    return Trainer
