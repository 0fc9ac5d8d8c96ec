"""The setting of a race, the same for all contenders: widths of the networks, batch sizes, images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from orthogan.data import ArraySource, open_source

FASHION_MNIST = "/usr/share/datasets/fashion-mnist"


@dataclass(frozen=True)
class Setting:
    """SN-GAN at 32 px; the defaults are those of the authors' Chainer code for CIFAR-10 (Miyato et al. 2018).

    Args:
        channels: width of D [feature maps]; ``generator_channels``: of G.
        batch: reals per update of D, with as many fakes; an update of G has ``generator_batch`` fakes.
        lr: learning rate of D; ``generator_lr``: of G. The optimizer is Adam with betas 0 and 0.9.
        data: ``noise``, ``faces``, ``sprites`` or ``fashion-mnist``; ``images``: maximum number.
        half_life: of the average of G's weights [images]; the plain loop has one only if ``averages``.
        steps: length of orthogan's run, which decides whether to compile; the run stops earlier.
        dequantize: whether orthogan's reals get noise below one gray level, as in the paper.
    """

    channels: int = 128
    generator_channels: int = 256
    batch: int = 64
    generator_batch: int = 128
    n_dis: int = 5
    latent_dim: int = 128
    lr: float = 2e-4
    generator_lr: float = 2e-4
    data: str = "noise"
    images: int = 50_000
    image_channels: int = 3
    half_life: int = 20_000
    averages: bool = False
    steps: int = 1_000_000_000
    dequantize: bool = True
    device: str = "cpu"
    seed: int = 0

    @property
    def reals(self) -> int:
        """Real images that D sees per step."""
        return self.batch * self.n_dis

    def overrides(self) -> list[str]:
        """The same as keys of orthogan's config."""
        return [
            f"data.channels={self.image_channels}",
            f"data.dequantize={str(self.dequantize).lower()}",
            f"model.discriminator.channels={self.channels}",
            f"model.generator.channels={self.generator_channels}",
            f"model.generator.latent_dim={self.latent_dim}",
            f"optimizer.discriminator.lr={self.lr}",
            f"optimizer.generator.lr={self.generator_lr}",
            f"training.steps={self.steps}",
            f"training.batch_size={self.batch}",
            f"training.generator_batch_size={self.generator_batch}",
            f"training.d_steps_per_g_step={self.n_dis}",
            f"training.ema.half_life={self.half_life}",
            f"training.device={self.device}",
            f"seed={self.seed}",
        ]


def source_of(setting: Setting) -> ArraySource:
    """The images, in memory.

    Raises:
        UserError: Fashion-MNIST is not on this machine; the message says how to get it.
    """
    if setting.data == "noise":  # as many bytes as CIFAR-10; the time of a step does not depend on the content
        size = (setting.images, setting.image_channels, 32, 32)
        return ArraySource("noise", np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8))
    options: dict[str, Any] = {"path": FASHION_MNIST} if setting.data == "fashion-mnist" else {"count": setting.images}
    source = open_source(setting.data, resolution=32, channels=setting.image_channels, download=False, **options)
    if not isinstance(source, ArraySource):  # drawn when they are read
        return ArraySource(source.name, source.read(np.arange(len(source)))[0])
    if len(source) <= setting.images:
        return source
    return ArraySource(f"{source.name}-{setting.images}", source.images[: setting.images])
