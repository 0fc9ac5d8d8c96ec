"""Random inputs of the updates of a GAN: reals, latents, labels and noise, as functions of the position."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor

from orthogan.config.schema import Config
from orthogan.data import Batches, ImageSource, flip, to_float
from orthogan.errors import UserError
from orthogan.losses import LOSSES
from orthogan.models.label_table import draw_classes
from orthogan.models.protocol import Generator
from orthogan.rng import derive, generator


class Draws:
    """The batches of a run for this process.

    Latents and fake labels are drawn for the whole batch on every process, which then takes its rows, so that the batch
    does not depend on the number of processes.

    Args:
        net: generator that defines the prior of the latents.
        classes: number of classes; 0 for no labels.
    """

    def __init__(
        self, config: Config, source: ImageSource, accelerator: Accelerator, net: Generator, classes: int
    ) -> None:
        self.config, self.source, self.accelerator, self.net = config, source, accelerator, net
        self.device: torch.device = accelerator.device
        self.layout = torch.channels_last if config.training.channels_last else torch.contiguous_format
        self.classes = classes
        training = config.training
        self.batches = self._open(training.batch_size, "reals")
        self.paired = (
            self._open(training.fakes, "paired reals") if LOSSES.get(config.loss.kind, "loss.kind").paired else None
        )

    def reals(self, index: int) -> tuple[Tensor, Tensor | None]:
        """Return reals and labels of D update ``index``."""
        return self._reals(self.batches, "D", index, self.config.training.batch_size)

    def paired_reals(self, step: int) -> tuple[Tensor | None, Tensor | None]:
        """Reals and labels that a paired loss compares the fakes of G update ``step`` with; None for other losses."""
        if self.paired is None:
            return None, None
        return self._reals(self.paired, "paired", step, self.config.training.fakes)

    def latents(self, purpose: str, index: int, size: int) -> tuple[Tensor, Tensor | None]:
        """Return this process's rows of ``size`` latents, and of their labels for a conditional generator."""
        seed = derive(self.config.seed, "latents", purpose, index)
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        rows = slice(rank * size // world, (rank + 1) * size // world)
        z = self.net.sample_latent(size, seed=seed)[rows].to(self.device, non_blocking=True)
        if not self.classes:
            return z, None
        labels = draw_classes(self.net, size, rng=generator("cpu", seed, "labels"))
        return z, labels[rows].to(self.device, non_blocking=True)

    def rng(self, *position: int | str) -> torch.Generator:
        """Return the random generator of this process at ``position``, on the device."""
        return generator(self.device, self.config.seed, *position, self.accelerator.process_index)

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
            key="training.generator_batch_size" if purpose == "paired reals" else "training.batch_size",
        )

    def _reals(self, batches: Batches, purpose: str, index: int, size: int) -> tuple[Tensor, Tensor | None]:
        images, labels = batches.at(index * size)
        data = self.config.data
        rng = self.rng(f"reals {purpose}", index)
        if data.flip:
            images = flip(images, rng)
        images = to_float(images, dequantize=data.dequantize, generator=rng)
        return images.contiguous(memory_format=self.layout), labels if self.classes else None


def check_shares(config: Config, source: ImageSource, processes: int) -> None:
    """Check that all processes and parts get the same number of images, so that gradients average correctly.

    Raises:
        UserError: the batch cannot be divided evenly, a part is too small for a covariance, or there are no classes.
    """
    training, latent = config.training, config.loss.latent_penalty
    parts = processes * training.accumulate
    sizes = [("training.batch_size", training.batch_size), ("training.generator_batch_size", training.fakes)]
    if (contrast := config.loss.contrastive).weight and contrast.batch_size:
        sizes.append(("loss.contrastive.batch_size", contrast.batch_size))
    for key, size in sizes:
        if size % parts:
            raise UserError(
                f"{key} is {size}: not a multiple of {processes} processes x accumulate {training.accumulate}"
            )
    codes, smallest = config.model.generator.codes.continuous, min(training.batch_size, training.fakes)
    if config.loss.total_correlation.weight and smallest // parts <= codes:
        raise UserError(
            f"loss.total_correlation.weight: {codes} continuous codes need parts of more than {codes} images; "
            f"{processes} processes x accumulate {training.accumulate} leave {smallest // parts} of {smallest}; use "
            "larger batches, or a smaller training.accumulate"
        )
    if latent.kind != "none" and training.fakes % (parts * latent.shrink):
        raise UserError(
            f"loss.latent_penalty.shrink is {latent.shrink}: training.generator_batch_size = {training.fakes} is not a "
            f"multiple of it x {processes} processes x accumulate {training.accumulate}"
        )
    if config.data.labels and source.num_classes < 2:
        raise UserError(
            f"data.labels: {source.name} has {source.num_classes} classes; "
            f"{source.why_unlabeled or 'for a folder, put each class in a sub-folder'}"
        )
