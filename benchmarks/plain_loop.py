"""SN-GAN trained by an ordinary PyTorch loop, as a careful reader of the tutorials would write it.

Workers read, decode, and normalize image by image. D processes reals and fakes in separate passes, so torch's spectral
norm iterates twice. Every loss is read for the log. The optimizer is Adam with its default implementation.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import relu
from torch.utils.data import DataLoader

from benchmarks.gate import Gate
from benchmarks.pictures import Pictures, normalising
from benchmarks.plain_nets import PlainDiscriminator, PlainGenerator, normalised
from benchmarks.scoring import scorer
from benchmarks.setting import Setting, source_of
from orthogan.training.config import EmaConfig
from orthogan.training.ema import Ema

WORKERS = 2


def endless(loader: DataLoader[tuple[Tensor, int]]) -> Iterator[Tensor]:
    """The images of all epochs, one epoch after the other."""
    while True:
        for images, _ in loader:
            yield images


def run(setting: Setting, gate: Gate, *, bf16: bool, channels_last: bool) -> None:
    """Train until the gate requests no more steps.

    Args:
        bf16: train under autocast.
        channels_last: use this memory format for networks and images.
    """
    torch.manual_seed(setting.seed)
    device = torch.device(setting.device)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    source = source_of(setting)
    loader = DataLoader(
        Pictures(source.images, normalising(setting.image_channels)),
        batch_size=setting.batch,
        shuffle=True,
        num_workers=WORKERS,
        drop_last=True,
        pin_memory=device.type == "cuda",
        persistent_workers=True,
    )
    generator = PlainGenerator(setting.generator_channels, setting.latent_dim, setting.image_channels)
    discriminator = normalised(PlainDiscriminator(setting.channels, setting.image_channels))
    for net in (generator, discriminator):
        net.to(device)
        net.to(memory_format=layout)  # pyright: ignore[reportCallIssue]
    g_optimizer = torch.optim.Adam(generator.parameters(), lr=setting.generator_lr, betas=(0.0, 0.9))
    d_optimizer = torch.optim.Adam(discriminator.parameters(), lr=setting.lr, betas=(0.0, 0.9))
    average = Ema(generator, EmaConfig(half_life=setting.half_life)) if setting.averages else None
    gate.facts = {"G parameters": _size(generator), "D parameters": _size(discriminator)}
    gate.score = scorer(lambda: average.net if average else generator, source, device)
    images, seen = endless(loader), 0
    while True:
        gate()
        for _ in range(setting.n_dis):
            real = next(images).to(device, memory_format=layout)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                with torch.no_grad():
                    fake = generator(torch.randn(setting.batch, setting.latent_dim, device=device))
                loss = relu(1 - discriminator(real)).mean() + relu(1 + discriminator(fake)).mean()
            d_optimizer.zero_grad()
            loss.backward()
            d_optimizer.step()
            loss.item()
            gate.part("D")
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            fake = generator(torch.randn(setting.generator_batch, setting.latent_dim, device=device))
            loss = -discriminator(fake).mean()
        g_optimizer.zero_grad()
        loss.backward()
        g_optimizer.step()
        loss.item()
        gate.part("G")
        if average is not None:
            average.update(generator, seen + setting.reals, setting.reals)
        seen += setting.reals


def _size(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())
