"""w86763777/pytorch-gan-collections as a contender: ``train()`` of its ``sngan.py``, as it stands.

Its progress bar makes way for our gate, CIFAR-10 for images in memory of the same size, and where they are not
installed tensorboardX and pytorch_gan_metrics for stand-ins (it trains without either). Pictures, checkpoints and
scores, which it takes seldom, are left out. The widths of its nets are fixed: those of the paper.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from benchmarks.gate import Gate
from benchmarks.peers.imports import beside, check
from benchmarks.pictures import Pictures
from benchmarks.scoring import Wrapped, scorer
from benchmarks.setting import Setting, source_of

NEVER = 10**9
STAND_INS = ("tensorboardX", "pytorch_gan_metrics")


class Bar:
    """In place of the bar over its steps: they wait at the gate, and the first, which also scores, is left out."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None: ...

    def __iter__(self) -> Iterator[int]:
        for step in range(2, NEVER):
            self.gate()
            yield step

    def set_postfix(self, **_: object) -> None: ...


def run(setting: Setting, gate: Gate, path: str, recipe: str = "") -> None:
    """Train until the gate has had enough.

    Args:
        recipe: one of its files of flags, such as ``configs/SNGAN_CIFAR10_CNN.txt``; it replaces the widths, batch
            sizes and learning rates of the setting.

    Raises:
        UserError: ``path`` holds something else.
        ImportError: it needs a package that is not installed.
    """
    check(path, "sngan.py", "pytorch-gan-collections")
    torch.manual_seed(setting.seed)
    with beside(path, STAND_INS) as made_up, tempfile.TemporaryDirectory(prefix="race-") as folder:
        theirs: Any = importlib.import_module("sngan")
        images = source_of(setting).images
        theirs.datasets = SimpleNamespace(CIFAR10=lambda *_, transform, **__: Pictures(images, transform))
        theirs.device = torch.device(setting.device)
        theirs.trange = lambda *_, **__: Bar(gate)
        chosen = [f"--flagfile={Path(path, recipe)}", *quiet(folder)] if recipe else flags(setting, folder)
        theirs.FLAGS(["sngan", *chosen])
        arch, latent_dim = theirs.FLAGS.arch, theirs.FLAGS.z_dim
        sizes = {"G": theirs.net_G_models[arch](latent_dim), "D": theirs.net_D_models[arch]()}
        built: list[Any] = []
        build = theirs.net_G_models[arch]
        theirs.net_G_models[arch] = lambda width: built.append(build(width)) or built[-1]
        shown = lambda: Wrapped(built[-1], latent_dim, setting.image_channels)  # noqa: E731
        gate.score = scorer(shown, source_of(setting), theirs.device)
        gate.facts = {f"{name} parameters": sum(p.numel() for p in net.parameters()) for name, net in sizes.items()}
        gate.facts["reals per step"] = theirs.FLAGS.batch_size * theirs.FLAGS.n_dis
        gate.facts["stand-ins"] = made_up
        theirs.train()


def flags(setting: Setting, folder: str) -> list[str]:
    """The setting as its command line; an update of G always has twice ``batch_size`` fakes."""
    chosen = {
        "batch_size": setting.batch,
        "z_dim": setting.latent_dim,
        "n_dis": setting.n_dis,
        "lr_G": setting.generator_lr,
        "lr_D": setting.lr,
        "total_steps": NEVER,
    }
    return [*(f"--{name}={value}" for name, value in chosen.items()), *quiet(folder)]


def quiet(folder: str) -> list[str]:
    """Flags that leave out pictures and scores."""
    return [f"--sample_step={NEVER}", f"--eval_step={NEVER}", f"--logdir={folder}", "--norecord"]
