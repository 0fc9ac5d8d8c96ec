"""The classifier task: network, batches, scores and files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from orthogan import weights
from orthogan.config.schema import Config
from orthogan.data import Batches, ImageSource, open_configured, to_float
from orthogan.data.augment.crop import crop, crop_offsets
from orthogan.data.views import NoisyLabels, hold_out
from orthogan.device import memory_format
from orthogan.drawing.grid import image_grid, save_png
from orthogan.errors import UserError
from orthogan.evaluation import MetricResult
from orthogan.io import checkpoint
from orthogan.io.checkpoint import Part
from orthogan.models.build import build_classifier
from orthogan.models.saved import CLASSIFIER, CLASSIFIER_FORMAT, metadata
from orthogan.rng import derive, generator
from orthogan.size import size_in_words
from orthogan.training.classifier.phases import ClassifierBatch, classifier_loss
from orthogan.training.compiled import Compiler
from orthogan.training.conditioning import WeightRegularizers
from orthogan.training.ema import Ema
from orthogan.training.measure import check_classifier, measure_classifier, time_classifier_score
from orthogan.training.optimizer_state import load_optimizer, optimizer_tensors, respect_fixed
from orthogan.training.optimizers import CLASSIFIER_OPTIMIZER
from orthogan.training.task import Losses, Phase

if TYPE_CHECKING:
    from accelerate import Accelerator


def open_sources(config: Config) -> tuple[ImageSource, ImageSource]:
    """Open (training images with label noise, test images) of ``config``.

    Raises:
        UserError: the data cannot be opened, have no classes, or different classes in the two parts.
    """
    data = config.data
    source: ImageSource = open_configured(data)
    if source.num_classes < 2:
        raise UserError(
            f"data.source: {source.name} has {source.num_classes} classes, but a classifier needs at least 2; "
            f"{source.why_unlabeled or 'for a folder, put each class in a sub-folder'}"
        )
    if source.label_vectors is not None:
        raise UserError(
            f"data.source: the labels of {source.name} are vectors, but a classifier needs one class per image"
        )
    if data.holdout:
        source, test = hold_out(source, data.holdout)
    else:
        test = open_configured(data, split=data.test_split)
    if list(test.class_names) != list(source.class_names):
        raise UserError(f"data.test_split: {test.name} and {source.name} have different classes; choose another part")
    if data.label_noise:
        source = NoisyLabels(source, data.label_noise, config.seed)
    return source, test


class ClassifierTask:
    """A network that learns the labels of images. A step is one update.

    Random numbers (crops, flips) are drawn for the whole batch on every process, which then takes its rows, so that the
    batch does not depend on the number of processes.
    """

    def __init__(self, config: Config, source: ImageSource, test: ImageSource, accelerator: Accelerator) -> None:
        self.config, self.source, self.test, self.accelerator = config, source, test, accelerator
        self.device: torch.device = accelerator.device
        training, data = config.training, config.data
        self.net = build_classifier(config, num_classes=source.num_classes)
        _check_shares(config, self.net, accelerator.num_processes)
        self.net.to(self.device)
        self.layout = memory_format(self.net, channels_last=training.channels_last)
        self.net.to(memory_format=self.layout)  # pyright: ignore[reportCallIssue]
        self.nets: dict[str, nn.Module] = {"C": self.net}
        optimizer = CLASSIFIER_OPTIMIZER.resolved(config.optimizer.classifier)
        self.optimizers: dict[str, Optimizer] = {"C": optimizer.build(list(self.net.parameters()))}
        respect_fixed(self.optimizers["C"], self.net, "model.classifier")
        self.averages: dict[str, Ema] = {}
        self.conditioning = WeightRegularizers(
            self.net,
            self.optimizers["C"],
            config.model.classifier,
            key="model.classifier",
            seed=derive(config.seed, "conditioning", "C"),
        )
        self.compiler = Compiler(training.compile, self.device)
        self.loss = self.compiler(classifier_loss)
        self.advance = weights.PowerIterationScheduler(self.net)
        self.images_per_step = config.images_per_step
        self.period = 1
        self.batches = Batches(
            source,
            batch_size=training.batch_size,
            seed=derive(config.seed, "classified"),
            rank=accelerator.process_index,
            world=accelerator.num_processes,
            device=self.device,
            resident=data.resident,
            workers=data.workers,
            key="training.batch_size",
        )

    def phases(self, step: int) -> Iterator[Phase]:
        """The one update."""
        training = self.config.training
        self.compiler.begin()
        batch = self.batch(step)
        parts = training.accumulate

        def part(index: int) -> Losses:
            return self.loss(self.net, batch.part(index, parts), self.config.loss.label_smoothing)

        regular = partial(self.conditioning.weight_penalty, step / training.steps)
        yield Phase("C", "C", (partial(part, i) for i in range(parts)), parts, self.advance.hold, regular)

    def batch(self, step: int) -> ClassifierBatch:
        """Return this process's rows of the batch of ``step``, cropped and flipped: a function of seed and step."""
        images, labels = self._augmented(step)
        floats = to_float(images, dequantize=False)
        return ClassifierBatch(floats.contiguous(memory_format=self.layout), labels)

    def finish_step(self, step: int) -> None:
        """Merge rotations that are due."""
        self.conditioning.finish_step(step + 1)

    def scalars(self) -> dict[str, float]:
        """Return statistics of the optimal learning rate, if used."""
        return {f"C/{name}": value for name, value in self.conditioning.scalars().items()}

    def spectrum(self, step: int) -> dict[str, Mapping[str, float]]:
        """Return statistics of each constrained, penalized, transformed or whitened layer, by name."""
        return {f"C.{name}": numbers for name, numbers in self.conditioning.spectrum().items()}

    def watch(self, step: int) -> dict[str, float]:
        """Nothing: the accuracies tell of overfitting."""
        return {}

    def warnings(self) -> list[str]:
        """None are known of a classifier."""
        return []

    def files(self, step: int) -> dict[str, Part]:
        """Return classifier (loadable by itself), optimizer, and the state of gradient rules."""
        extra = {
            "step": str(step),
            "images": str(step * self.images_per_step),
            "class_names": json.dumps(list(self.source.class_names)),
        }
        tensors = self.net.state_dict()
        about = metadata(self.config, self.source.num_classes, extra, form=CLASSIFIER_FORMAT, tensors=tensors)
        return {
            CLASSIFIER: Part(tensors, about),
            "optimizer-classifier": Part(optimizer_tensors(self.net, self.optimizers["C"]), {}),
            "conditioning-classifier": Part(self.conditioning.state(), {}),
        }

    def restore(self, folder: Path) -> None:
        """Restore everything that ``files`` stored."""
        self.net.load_state_dict(checkpoint.read(folder, CLASSIFIER))
        load_optimizer(self.net, self.optimizers["C"], checkpoint.read(folder, "optimizer-classifier"))
        self.conditioning.load(checkpoint.read(folder, "conditioning-classifier"))

    def pictures(self, path: Path, step: int) -> None:
        """Once, beside ``path``: training images as the net sees them, cropped and flipped."""
        file = path.with_name("training-images.png")
        if not file.exists():
            images, _ = self._augmented(0)
            about = {"orthogan": "training images", "source": self.source.name}
            save_png(image_grid(images[: self.config.logging.samples]), file, about)

    def check_evaluation(self) -> None:
        """Refuse metrics that cannot be computed; accuracy only needs classes, which ``open_sources`` checks."""
        check_classifier(self.config, self.net, self.test, device=self.device)

    def evaluate(self, step: int) -> list[MetricResult]:
        """Compute the accuracy on test images and on training images without crops, and their gap."""
        return measure_classifier(self.config, self.net, self.source, self.test, step=step, device=self.device)

    def time_score(self) -> float:
        """Seconds that the accuracies take per score."""
        return time_classifier_score(self.config, self.net, self.source, self.test, device=self.device)

    def summary(self) -> dict[str, Any]:
        """Sizes of net and data."""
        facts: dict[str, Any] = {"C parameters": sum(p.numel() for p in self.net.parameters())}
        facts |= {f"C {what}": layers for what, layers in self.conditioning.describe().items()}
        facts["data"] = f"{self.source.name}, {len(self.source):,} images of {size_in_words(self.source.resolution)} px"
        facts["test data"] = f"{self.test.name}, {len(self.test):,} images"
        facts["classes"] = self.source.classes_in_words(used=True)
        return facts

    def close(self) -> None:
        """Stop reader processes."""
        self.batches.close()

    def _augmented(self, step: int) -> tuple[Tensor, Tensor]:
        """Return this process's rows of the batch of ``step`` as uint8, and their labels."""
        data, size = self.config.data, self.config.training.batch_size
        images, labels = self.batches.at(step * size)
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        rows = slice(rank * size // world, (rank + 1) * size // world)
        if data.crop:
            offsets = crop_offsets(size, data.crop, generator(self.device, self.config.seed, "crop", step))
            images = crop(images, offsets[rows], data.crop)
        if data.flip:
            coins = torch.rand(
                size, generator=generator(self.device, self.config.seed, "flip", step), device=self.device
            )
            images = torch.where((coins[rows] < 0.5).view(-1, 1, 1, 1), images.flip(3), images)
        return images, labels


def _check_shares(config: Config, net: nn.Module, processes: int) -> None:
    """Every process and every part gets as many images, and no part has statistics of its own."""
    training = config.training
    if training.batch_size % (processes * training.accumulate):
        raise UserError(
            f"training.batch_size is {training.batch_size}: not a multiple of {processes} processes x accumulate "
            f"{training.accumulate}"
        )
    if training.accumulate > 1 and any(hasattr(module, "running_mean") for module in net.modules()):
        raise UserError(
            f"training.accumulate is {training.accumulate}: {config.model.classifier.kind} has batch norms, whose "
            "statistics would be those of a part instead of the batch; set it to 1, and use more processes or a "
            "smaller batch"
        )
