"""The GAN as a task: its nets, the batches of its phases, and what is shown, scored and stored of it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from orthogan import checkpoint, weights
from orthogan.checkpoint import Part
from orthogan.config import AdamConfig, Config
from orthogan.data import Batches, ImageSource, flip, permuted_index, to_float
from orthogan.errors import UserError
from orthogan.evaluation import MetricResult, evaluate
from orthogan.latent.generate import generate
from orthogan.latent.grid import image_grid, save_png
from orthogan.models.build import build_discriminator, build_generator
from orthogan.models.protocol import Generator
from orthogan.models.saved import AVERAGED, RAW, metadata
from orthogan.rng import derive, generator
from orthogan.training.augmentation import make_augment
from orthogan.training.conditioning import Conditioning
from orthogan.training.ema import Ema
from orthogan.training.gan_phases import (
    DiscriminatorBatch,
    GeneratorBatch,
    discriminator_loss,
    generator_loss,
    lazy_penalty,
    one_power_iteration,
)
from orthogan.training.losses import LOSSES
from orthogan.training.optimizer_state import load_optimizer, optimizer_tensors
from orthogan.training.task import Losses, Phase


class GanTask:
    """A generator against a discriminator.

    A step is one update of G and then ``n_dis`` updates of D (the order of the SN-GAN authors' code), each of D
    on fresh reals and fresh fakes. Latents and fake labels are drawn for the whole batch on every process, which
    then takes its own rows: any number of processes sees the same batch.
    """

    def __init__(self, config: Config, source: ImageSource, accelerator: Accelerator) -> None:
        self.config = config
        self.source = source
        self.accelerator = accelerator
        self.device: torch.device = accelerator.device
        _check_shares(config, source, accelerator.num_processes)
        self.classes = source.num_classes if config.data.labels else 0
        layout = torch.channels_last if config.training.channels_last else torch.contiguous_format
        self.layout = layout
        self.generator = build_generator(config, num_classes=self.classes)
        self.discriminator = build_discriminator(config, num_classes=self.classes)
        self.nets: dict[str, nn.Module] = {"G": self.generator, "D": self.discriminator}
        for net in self.nets.values():
            net.to(self.device)
            net.to(memory_format=layout)  # pyright: ignore[reportCallIssue]
        penalty = config.loss.gradient_penalty
        self.lazy = penalty.kind != "none" and penalty.interval > 1
        self.optimizers: dict[str, Optimizer] = {
            "G": _adam(self.generator, config.optimizer.generator, 1),
            "D": _adam(self.discriminator, config.optimizer.discriminator, penalty.interval if self.lazy else 1),
        }
        sections = {"G": ("generator", config.model.generator), "D": ("discriminator", config.model.discriminator)}
        self.conditioning = {
            net: Conditioning(
                self.nets[net],
                self.optimizers[net],
                section,
                key=f"model.{name}",
                seed=derive(config.seed, "conditioning", net),
            )
            for net, (name, section) in sections.items()
        }
        ema = config.training.ema
        self.averages = {"G": Ema(self.generator, ema)} if ema.half_life else {}
        self.augment = make_augment(config.augment)
        training = config.training
        self.images_per_step = training.batch_size * training.n_dis
        self.batches = self._open(training.batch_size, "reals")
        self.paired = self._open(training.fakes, "paired reals") if LOSSES[config.loss.kind].paired else None
        # batch statistics of a part are not those of the batch, so such a generator keeps its batch whole
        self.whole = any(hasattr(m, "running_mean") for m in self.generator.modules())

    def phases(self, step: int) -> Iterator[Phase]:
        """G, then n_dis times D (with its lazy penalty where that is due)."""
        yield self._generator_phase(step)
        for turn in range(self.config.training.n_dis):
            index = step * self.config.training.n_dis + turn
            batch = self._discriminator_batch(index)
            yield self._discriminator_phase("D", discriminator_loss, batch, index)
            if self.lazy and index % self.config.loss.gradient_penalty.interval == 0:
                yield self._discriminator_phase("Dreg", lazy_penalty, batch, index)

    def finish_step(self, step: int) -> None:
        """Let adaptive augmentation look at the signs of D; merge rotations that are due."""
        for conditioning in self.conditioning.values():
            conditioning.finish_step(step + 1)
        self.augment.finish_step(step, self.images_per_step, self.accelerator)

    def scalars(self) -> dict[str, float]:
        """The probability of adaptive augmentation and what the optimal learning rate did, where they are used."""
        found = self.augment.scalars()
        for net, conditioning in self.conditioning.items():
            found |= {f"{net}/{name}": value for name, value in conditioning.scalars().items()}
        return found

    def spectrum(self) -> dict[str, Mapping[str, float]]:
        """The numbers of each constrained, penalised, ruled or whitened layer, by net and name."""
        return {
            f"{net}.{name}": numbers
            for net, conditioning in self.conditioning.items()
            for name, numbers in conditioning.spectrum().items()
        }

    def files(self, step: int) -> dict[str, Part]:
        """Generator (raw and averaged, each loadable by itself), discriminator, optimisers, augmentation."""
        extra = {"step": str(step), "images": str(step * self.images_per_step)}
        if self.classes:
            extra["class_names"] = json.dumps(self.source.class_names)
        raw = metadata(self.config, self.classes, extra | {"weights": "raw"})
        parts = {
            RAW: Part(self.generator.state_dict(), raw),
            "discriminator": Part(self.discriminator.state_dict(), {}),
            "optimizer-generator": Part(optimizer_tensors(self.generator, self.optimizers["G"]), {}),
            "optimizer-discriminator": Part(optimizer_tensors(self.discriminator, self.optimizers["D"]), {}),
            "conditioning-generator": Part(self.conditioning["G"].state(), {}),
            "conditioning-discriminator": Part(self.conditioning["D"].state(), {}),
            "augment": Part(self.augment.state(), {}),
        }
        if "G" in self.averages:
            averaged = metadata(self.config, self.classes, extra | {"weights": "ema"})
            parts[AVERAGED] = Part(self.averages["G"].net.state_dict(), averaged)
        return parts

    def restore(self, folder: Path) -> None:
        """Take up everything that ``files`` stored."""
        self.generator.load_state_dict(checkpoint.read(folder, RAW))
        self.discriminator.load_state_dict(checkpoint.read(folder, "discriminator"))
        load_optimizer(self.generator, self.optimizers["G"], checkpoint.read(folder, "optimizer-generator"))
        load_optimizer(self.discriminator, self.optimizers["D"], checkpoint.read(folder, "optimizer-discriminator"))
        self.conditioning["G"].load(checkpoint.read(folder, "conditioning-generator"))
        self.conditioning["D"].load(checkpoint.read(folder, "conditioning-discriminator"))
        self.augment.load(checkpoint.read(folder, "augment"))
        if "G" in self.averages:
            self.averages["G"].net.load_state_dict(checkpoint.read(folder, AVERAGED))

    def pictures(self, path: Path, step: int) -> None:
        """A grid of fakes from fixed latents, one class after the other; beside it, once, a grid of reals."""
        count = self.config.logging.samples
        reals = path.parent / "reals.png"
        if not reals.exists():
            order = permuted_index(derive(self.config.seed, "reals"), len(self.source), 0, count)
            images, labels = self.source.read(order)
            images = images[labels.argsort(kind="stable")] if self.classes else images
            save_png(image_grid(images), reals, {"orthogan": "reals", "source": self.source.name})
        seed = derive(self.config.seed, "pictures")
        classes = [i * self.classes // count for i in range(count)] if self.classes else None
        z = self.shown.sample_latent(count, seed=seed)
        images = generate(self.shown, z, classes, batch_size=self.config.evaluation.batch_size)
        save_png(image_grid(images), path, {"orthogan": "fakes", "step": str(step), "seed": str(seed)})

    @property
    def shown(self) -> Generator:
        """The generator that is shown and scored: the average where there is one."""
        return self.averages["G"].net if "G" in self.averages else self.generator

    def evaluate(self, step: int) -> list[MetricResult]:
        """Score the shown generator against the training data."""
        section = self.config.evaluation
        return evaluate(
            self.shown,
            self.source,
            metrics=section.metrics,
            samples=section.samples,
            extractor=section.extractor,
            batch_size=section.batch_size,
            seed=self.config.seed,
            device=self.device,
            reference_samples=section.reference_samples,
            info={"weights": "ema" if self.averages else "raw", "step": str(step)},
        )

    def summary(self) -> dict[str, Any]:
        """Sizes of nets and data."""
        facts: dict[str, Any] = {
            f"{k} parameters": sum(p.numel() for p in n.parameters()) for k, n in self.nets.items()
        }
        for net, conditioning in self.conditioning.items():
            facts |= {f"{net} {what}": layers for what, layers in conditioning.describe().items()}
        facts["data"] = f"{self.source.name}, {len(self.source):,} images of {self.source.resolution} px"
        facts["classes"] = self.classes or "unconditional"
        return facts

    def close(self) -> None:
        """Stop reader processes."""
        self.batches.close()
        if self.paired is not None:
            self.paired.close()

    def _open(self, size: int, purpose: str) -> Batches:
        data = self.config.data
        return Batches(
            self.source,
            batch_size=size,
            seed=derive(self.config.seed, purpose),
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
            device=self.device,
            resident=data.resident,
            workers=data.workers,
        )

    def _generator_phase(self, step: int) -> Phase:
        training = self.config.training
        z, labels = self._latents("G", step, training.fakes)
        real = real_labels = None
        if self.paired is not None:
            real, real_labels = self._reals(self.paired, "paired", step, training.fakes)
        batch = GeneratorBatch(z, labels, real, real_labels)
        parts = 1 if self.whole else training.accumulate

        def part(index: int) -> Losses:
            return generator_loss(
                self.generator,
                self.discriminator,
                batch.part(index, parts),
                self.config.loss,
                self.augment,
                self._rng("augment G", step, index),
                critic_parts=training.accumulate if self.whole else 1,
            )

        around = partial(one_power_iteration, self.generator, self.discriminator)
        regular = partial(self.conditioning["G"].regular, step / training.steps)
        return Phase("G", "G", (partial(part, i) for i in range(parts)), parts, around, regular)

    def _discriminator_phase(
        self, name: str, loss: Callable[..., Losses], batch: DiscriminatorBatch, index: int
    ) -> Phase:
        parts = self.config.training.accumulate

        def part(number: int) -> Losses:
            rng = self._rng(f"augment {name}", index, number)
            value, logs = loss(self.discriminator, batch.part(number, parts), self.config.loss, self.augment, rng)
            if "D/real_sign" in logs:
                self.augment.see(logs["D/real_sign"])
            return value, logs

        around = partial(one_power_iteration, self.discriminator)
        phase = Phase(name, "D", (partial(part, i) for i in range(parts)), parts, around)
        if name == "Dreg":
            return phase
        share = index / (self.config.training.steps * self.config.training.n_dis)
        return replace(phase, regular=partial(self.conditioning["D"].regular, share))

    @torch.no_grad()
    def _discriminator_batch(self, index: int) -> DiscriminatorBatch:
        size = self.config.training.batch_size
        real, real_labels = self._reals(self.batches, "D", index, size)
        z, labels = self._latents("D", index, size)
        with self.accelerator.autocast(), weights.frozen(self.generator):
            fake = self.generator(z, labels)
        mix = torch.rand(len(real), generator=self._rng("mix", index), device=self.device)
        return DiscriminatorBatch(real, real_labels, fake.to(real.dtype), labels, mix)

    def _reals(self, batches: Batches, purpose: str, index: int, size: int) -> tuple[Tensor, Tensor | None]:
        images, labels = batches.at(index * size)
        data = self.config.data
        rng = self._rng(f"reals {purpose}", index)
        if data.flip:
            images = flip(images, rng)
        images = to_float(images, dequantize=data.dequantize, generator=rng)
        return images.contiguous(memory_format=self.layout), labels if self.classes else None

    def _latents(self, purpose: str, index: int, size: int) -> tuple[Tensor, Tensor | None]:
        seed = derive(self.config.seed, "latents", purpose, index)
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        rows = slice(rank * size // world, (rank + 1) * size // world)
        z = self.generator.sample_latent(size, seed=seed)[rows].to(self.device, non_blocking=True)
        if not self.classes:
            return z, None
        labels = torch.randint(self.classes, (size,), generator=generator("cpu", seed, "labels"))
        return z, labels[rows].to(self.device, non_blocking=True)

    def _rng(self, *position: int | str) -> torch.Generator:
        return generator(self.device, self.config.seed, *position, self.accelerator.process_index)


def _check_shares(config: Config, source: ImageSource, processes: int) -> None:
    """Every process and every part gets as many images, or the mean of their gradients is not the batch's."""
    training = config.training
    parts = processes * training.accumulate
    for key, size in (("batch_size", training.batch_size), ("generator_batch_size", training.fakes)):
        if size % parts:
            raise UserError(
                f"training.{key} is {size}: not a multiple of {processes} processes x accumulate {training.accumulate}"
            )
    if config.data.labels and source.num_classes < 2:
        raise UserError(
            f"data.labels: {source.name} has {source.num_classes} classes; for a folder, put each class in a sub-folder"
        )


def _adam(net: nn.Module, config: AdamConfig, interval: int) -> Adam:
    """Adam; with a lazy penalty every ``interval`` updates, corrected for the extra updates it makes.

    ``interval`` main updates come with one more for the penalty, so the rates are scaled as in Karras et al.
    2020b, appendix B: lr * s and beta ** s with s = interval / (interval + 1).
    """
    share = interval / (interval + 1) if interval > 1 else 1.0
    betas = (config.beta1**share if config.beta1 else 0.0, math.pow(config.beta2, share))
    fused = next(net.parameters()).device.type in ("cuda", "cpu")
    return Adam(net.parameters(), lr=config.lr * share, betas=betas, eps=config.eps, fused=fused)
