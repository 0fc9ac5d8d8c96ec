"""lucidrains/lightweight-gan as a contender: ``train_from_folder()`` of its command line, as it stands, at 32 px.

All else is its defaults: networks, batch size, accumulation, learning rate, gradient penalty and augmentation. Our gate
stands before each ``Trainer.train()``. Its folder of pictures is replaced by images in memory with the same transform;
its pictures and checkpoints are left out, and a step that ends in NaN is not tried again. fire, retry, kornia and
adabelief_pytorch, which the defaults do not use, get stand-ins where they are not installed; it needs einops. It
asserts that CUDA is available; on a CPU this assertion is skipped, and what it sends to CUDA stays where it is.

Its average of G begins at step 20,000. Until then it is only a copy of G that is made every 1,000 steps, so G itself is
scored.
"""

from __future__ import annotations

import importlib
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision import transforms

from benchmarks.gate import Gate
from benchmarks.peers.imports import beside, check
from benchmarks.pictures import Pictures
from benchmarks.scoring import Wrapped, scorer
from benchmarks.setting import Setting, source_of
from orthogan.data import ArraySource

NEVER = 10**9
AVERAGED_FROM = 20_000  # steps
STAND_INS = ("fire", "retry", "retry.api", "kornia", "kornia.filters", "adabelief_pytorch")


class Images(Dataset[Tensor]):
    """Its data set, from memory: floats in [0, 1]."""

    def __init__(self, source: ArraySource) -> None:
        self.pictures = Pictures(source.images, transforms.ToTensor())

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Tensor:
        return self.pictures[index][0]


class Centered(nn.Module):
    """Its generator, whose pixels are clipped to [0, 1], with pixels in [-1, 1]."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z).clamp(0, 1) * 2 - 1


class OnCpu:
    """torch, in which every device is the CPU."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def device(self, *_: object) -> torch.device:
        return torch.device("cpu")


def run(setting: Setting, gate: Gate, path: str) -> None:
    """Train until the gate has had enough.

    Raises:
        UserError: ``path`` holds something else.
        ImportError: it needs a package that is not installed.
    """
    check(path, "lightweight_gan/cli.py", "lightweight-gan")
    torch.manual_seed(setting.seed)
    random.seed(setting.seed)
    source = source_of(setting)
    with beside(path, STAND_INS) as made_up, tempfile.TemporaryDirectory(prefix="race-") as folder:
        with mock.patch.object(torch.cuda, "is_available", return_value=True):
            theirs: Any = importlib.import_module("lightweight_gan.lightweight_gan")
            command: Any = importlib.import_module("lightweight_gan.cli")
        theirs.ImageDataset = lambda *_, **__: Images(source)
        command.retry_call = lambda train, **_: train()
        command.Trainer = _gated(command.Trainer, gate, setting, source, made_up)
        with _on_cpu(theirs) if setting.device == "cpu" else nullcontext():
            command.train_from_folder(
                data=setting.data,
                results_dir=folder,
                models_dir=folder,
                new=True,
                image_size=32,
                num_train_steps=NEVER,
            )


@contextmanager
def _on_cpu(theirs: Any) -> Iterator[None]:
    """What it sends to CUDA stays where it is."""
    with (
        mock.patch.object(theirs, "torch", OnCpu()),
        mock.patch.object(Tensor, "cuda", lambda tensor, *_: tensor),
        mock.patch.object(nn.Module, "cuda", lambda net, *_: net),
    ):
        yield


def _gated(trainer: Any, gate: Gate, setting: Setting, source: ArraySource, made_up: list[str]) -> Any:
    """Its trainer, which waits at the gate before each step."""

    class Trainer(trainer):
        def train(self) -> None:
            if self.GAN is None:
                self.init_GAN()
                gate.score = scorer(self.shown, source, torch.device(setting.device))
                gan: Any = self.GAN
                sizes = {"G": gan.G, "D": gan.D}
                gate.facts = {
                    f"{name} parameters": sum(p.numel() for p in net.parameters()) for name, net in sizes.items()
                }
                gate.facts["reals per step"] = self.batch_size * self.gradient_accumulate_every
                gate.facts["stand-ins"] = made_up
            gate()
            super().train()

        def shown(self) -> Wrapped:
            net = self.GAN.GE if self.steps > AVERAGED_FROM else self.GAN.G
            return Wrapped(Centered(net), self.latent_dim, 3)

        def evaluate(self, *_: object, **__: object) -> None: ...

        def save(self, *_: object, **__: object) -> None: ...

    return Trainer
