"""The GAN task: networks, batches, pictures, scores and files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import nn
from torch.optim import Optimizer

from orthogan import weights
from orthogan.config.schema import Config
from orthogan.data import ImageSource, open_held_out, permuted_index
from orthogan.data.augment import make_augment
from orthogan.data.views import hold_out
from orthogan.distributed import alone
from orthogan.drawing.grid import class_grid, image_grid, save_png
from orthogan.errors import UserError
from orthogan.evaluation import MetricResult
from orthogan.io import checkpoint
from orthogan.io.checkpoint import Part
from orthogan.models.build import build_discriminator, build_generator
from orthogan.models.codes import codes_of
from orthogan.models.generate import generate
from orthogan.models.label_table import LabelTable
from orthogan.models.protocol import Generator
from orthogan.models.saved import DISCRIMINATOR, EMA, RAW, metadata
from orthogan.models.warm_start import WarmStart
from orthogan.named_code import Trust
from orthogan.rng import derive
from orthogan.size import sides, size_in_words
from orthogan.training.compiled import Compiler, supports_compiled_double_backward
from orthogan.training.conditioning import WeightRegularizers
from orthogan.training.ema import Ema, PowerEma, make_average
from orthogan.training.gan.contrast import NET, Contrast
from orthogan.training.gan.draws import Draws, check_shares
from orthogan.training.gan.fakes import Fakes
from orthogan.training.gan.freeze import first_blocks, freeze
from orthogan.training.gan.health import Health
from orthogan.training.gan.phases import (
    DiscriminatorBatch,
    GanLoss,
    GeneratorBatch,
    Views,
    discriminator_loss,
    generator_loss,
    lazy_penalty,
    views_of_discriminator,
    views_of_generator,
    views_of_penalty,
)
from orthogan.training.latent_penalty import LatentPenalty
from orthogan.training.measure import check_generator, measure_generator, time_generator_score
from orthogan.training.optimizer_state import load_optimizer, optimizer_tensors, respect_fixed
from orthogan.training.optimizers import GAN_OPTIMIZER, GanOptimizerConfig
from orthogan.training.post_hoc_ema import snapshot_interval
from orthogan.training.task import Losses, Phase
from orthogan.training.tracking import Tracking


class GanTask:
    """A generator against a discriminator.

    A step is one update of G and then ``n_dis`` updates of D (the order of the SN-GAN authors' code), each of D with
    new reals and new fakes. A lazy regularizer of G's latent has a separate update after that of G.

    The weights of ``config.model.init`` are read when a run starts; a resumed run has its own. ``trust``: which
    external classes this file may name in addition to those in ``config``.
    """

    def __init__(self, config: Config, source: ImageSource, accelerator: Accelerator, *, trust: Trust = False) -> None:
        self.config = config
        self.source = source
        self.accelerator = accelerator
        self.device: torch.device = accelerator.device
        check_shares(config, source, accelerator.num_processes)
        self.classes = source.num_classes if config.data.labels else 0
        self.labels = _label_table(source) if config.data.labels else None
        begins = not checkpoint.steps(Path(str(config.out)))
        start = None
        if config.model.init is not None and begins:
            start = WarmStart(config, self.classes, class_names=source.class_names, labels=self.labels, trust=trust)
        frozen = config.training.freeze_d
        if frozen and start is not None and start.discriminator is None:
            raise UserError(f"training.freeze_d: there is no discriminator to keep: model.init is {start.in_words()}")
        form = {"num_classes": self.classes, "labels": self.labels}
        self.generator = build_generator(config, start=start and start.generator, **form)
        self.discriminator = build_discriminator(config, start=start and start.discriminator, **form)
        self.start = "" if start is None else start.in_words()
        self.frozen = first_blocks(self.discriminator, frozen, "training.freeze_d")
        self.nets: dict[str, nn.Module] = {"G": self.generator, "D": self.discriminator}
        trained_on, opens = source, partial(open_held_out, config.data)
        if config.data.holdout:
            trained_on, held_out = hold_out(source, config.data.holdout)
            opens = partial(_same, held_out)
        self.loss = GanLoss.of(config.loss)
        self.draws = Draws(config, trained_on, accelerator, self.generator, self.classes)
        self.health = Health(config, trained_on, opens, classes=self.classes)
        for net in self.nets.values():
            net.to(self.device)
            net.to(memory_format=self.draws.layout)  # pyright: ignore[reportCallIssue]
        self.latent_penalty = LatentPenalty(self.generator, config.loss.latent_penalty, self.device)
        self.codes = codes_of(self.generator)
        self.contrast = (
            Contrast(self.generator, config, self.draws, self.device) if config.loss.contrastive.weight else None
        )
        self.tracking = Tracking(self.generator)
        penalty, latent, rates = config.loss.gradient_penalty, config.loss.latent_penalty, config.optimizer
        self.optimizers: dict[str, Optimizer] = {
            "G": _optimizer(self.generator, rates.generator, latent.interval if self.latent_penalty.lazy else 1),
            "D": _optimizer(self.discriminator, rates.discriminator, penalty.interval if self.loss.lazy else 1),
        }
        if self.contrast is not None:
            self.nets[NET], self.optimizers[NET] = self.contrast.net, self.contrast.optimizer
        sections = {"G": ("generator", config.model.generator), "D": ("discriminator", config.model.discriminator)}
        for net, (name, _) in sections.items():
            respect_fixed(self.optimizers[net], self.nets[net], f"model.{name}")
        if self.frozen:
            freeze(self.optimizers["D"], [block for _, block in self.frozen])
        self.conditioning = {
            net: WeightRegularizers(
                self.nets[net],
                self.optimizers[net],
                section,
                key=f"model.{name}",
                seed=derive(config.seed, "conditioning", net),
            )
            for net, (name, section) in sections.items()
        }
        self.advance = {name: weights.PowerIterationScheduler(net) for name, net in self.nets.items()}
        self.advance["G and D"] = weights.PowerIterationScheduler(*self.nets.values())
        average = make_average(self.generator, config.training.ema)
        self.averages: dict[str, Ema[Generator]] = {} if average is None else {"G": average}
        self.augment = make_augment(config.augment)
        self.images_per_step = config.images_per_step
        self.period = max(
            math.ceil(penalty.interval / config.training.d_steps_per_g_step) if self.loss.lazy else 1,
            latent.interval if self.latent_penalty.lazy else 1,
        )
        self.compiler = Compiler(config.training.compile, self.device)
        self.fakes = Fakes(self.generator, self.draws, self.compiler)
        inline = bool(self.loss.penalty.on) and not self.loss.lazy
        compiled = self.compiler if supports_compiled_double_backward(self.discriminator) else lambda function: function
        self.discriminator_loss = (compiled if inline else self.compiler)(discriminator_loss)
        self.lazy_penalty = compiled(lazy_penalty)
        self.generator_loss = self.compiler(generator_loss)
        # batch statistics of a part differ from those of the batch, so the batch of such a generator is not split
        self.whole = any(
            hasattr(m, "running_mean") and not isinstance(m, nn.InstanceNorm2d) for m in self.generator.modules()
        )

    def phases(self, step: int) -> Iterator[Phase]:
        """Yield G, then n_dis times D (each with its lazy penalty if it is due)."""
        self.compiler.begin()
        yield self._generator_phase(step)
        if self.latent_penalty.lazy and self.latent_penalty.due(step, step / self.config.training.steps):
            yield self._latent_phase(step)
        if self.contrast is not None and self.contrast.due(step / self.config.training.steps):
            yield self.contrast.phase(step, 1 if self.whole else self.config.training.accumulate)
        for turn in range(self.config.training.d_steps_per_g_step):
            index = step * self.config.training.d_steps_per_g_step + turn
            self.compiler.begin()
            batch = self._discriminator_batch(index)
            yield self._discriminator_phase("D", self.discriminator_loss, batch, index)
            if self.loss.lazy and index % self.config.loss.gradient_penalty.interval == 0:
                yield self._discriminator_phase("Dreg", self.lazy_penalty, batch, index)

    def finish_step(self, step: int) -> None:
        """Update the adaptive augmentation and the mean path length; merge rotations that are due."""
        for conditioning in self.conditioning.values():
            conditioning.finish_step(step + 1)
        self.latent_penalty.finish_step(self.accelerator)
        self.augment.finish_step(self.images_per_step, self.accelerator)

    def scalars(self) -> dict[str, float]:
        """Return augmentation probability, mean path length and statistics of the optimal learning rate, if used."""
        found = self.augment.scalars() | self.latent_penalty.scalars()
        for net, conditioning in self.conditioning.items():
            found |= {f"{net}/{name}": value for name, value in conditioning.scalars().items()}
        return found

    def spectrum(self, step: int) -> dict[str, Mapping[str, float]]:
        """Return statistics of constrained, penalized, transformed and whitened layers, and G's activeness.

        They are grouped by network and name. Activeness is of the shown generator, on the main process only.
        """
        found: dict[str, Mapping[str, float]] = {
            f"{net}.{name}": numbers
            for net, conditioning in self.conditioning.items()
            for name, numbers in conditioning.spectrum().items()
        }
        if self.accelerator.is_main_process:
            seed, share = derive(self.config.seed, "tracking"), step / self.config.training.steps
            with alone():
                tracked = self.tracking.numbers(self.shown, step=step, share=share, seed=seed)
            for name, numbers in tracked.items():
                found[f"G.{name}"] = {**found.get(f"G.{name}", {}), **numbers}
        return found

    def watch(self, step: int) -> dict[str, float]:
        """Return measures of overfitting of D and collapse of G."""
        return self.health.numbers(self.generator, self.discriminator, step=step, device=self.device)

    def warnings(self) -> list[str]:
        """Return warnings about dead subspaces, overfitting of D and collapse of G."""
        return self.tracking.pop_warnings() + self.health.pop_warnings()

    def files(self, step: int) -> dict[str, Part]:
        """Return generator (raw and averaged, each loadable by itself), discriminator, optimizers and augmentation."""
        extra = {"step": str(step), "images": str(step * self.images_per_step)}
        if self.classes:
            extra["class_names"] = json.dumps(self.source.class_names)
        if self.labels is not None:
            extra["label_names"] = json.dumps(list(self.labels.names))
        tensors = self.generator.state_dict()
        raw = metadata(self.config, self.classes, extra | {"weights": "raw"}, tensors=tensors)
        parts = {
            RAW: Part(tensors, raw),
            DISCRIMINATOR: Part(self.discriminator.state_dict(), {}),
            "optimizer-generator": Part(optimizer_tensors(self.generator, self.optimizers["G"]), {}),
            "optimizer-discriminator": Part(optimizer_tensors(self.discriminator, self.optimizers["D"]), {}),
            "conditioning-generator": Part(self.conditioning["G"].state(), {}),
            "conditioning-discriminator": Part(self.conditioning["D"].state(), {}),
            "augment": Part(self.augment.state_dict(), {}),
            "latent": Part(self.latent_penalty.state() | self.tracking.state() | self.health.state(), {}),
        }
        if self.contrast is not None:
            parts |= {stem: Part(tensors, {}) for stem, tensors in self.contrast.files().items()}
        if "G" in self.averages:
            tensors = self.averages["G"].net.state_dict()
            averaged = metadata(self.config, self.classes, extra | {"weights": "ema"}, tensors=tensors)
            parts[EMA] = Part(tensors, averaged)
            for stem, net in self._further_averages().items():
                parts[stem] = Part(net.state_dict(), {})
        return parts

    def restore(self, folder: Path) -> None:
        """Restore everything that ``files`` stored."""
        self.generator.load_state_dict(checkpoint.read(folder, RAW))
        self.discriminator.load_state_dict(checkpoint.read(folder, DISCRIMINATOR))
        load_optimizer(self.generator, self.optimizers["G"], checkpoint.read(folder, "optimizer-generator"))
        load_optimizer(self.discriminator, self.optimizers["D"], checkpoint.read(folder, "optimizer-discriminator"))
        self.conditioning["G"].load(checkpoint.read(folder, "conditioning-generator"))
        self.conditioning["D"].load(checkpoint.read(folder, "conditioning-discriminator"))
        if stored := checkpoint.read(folder, "augment"):  # else it starts here
            self.augment.load_state_dict(stored)
        if (folder / "latent.safetensors").is_file():  # not in checkpoints of earlier versions
            latent = checkpoint.read(folder, "latent")
            self.latent_penalty.load(latent)
            self.tracking.load(latent)
            self.health.load(latent)
        if self.contrast is not None:
            self.contrast.load({stem: checkpoint.read(folder, stem) for stem in self.contrast.files()})
        if "G" in self.averages:
            averaged = (folder / f"{EMA}.safetensors").is_file()  # else the average starts here
            self.averages["G"].net.load_state_dict(checkpoint.read(folder, EMA if averaged else RAW))
            for stem, net in self._further_averages().items():
                stored = (folder / f"{stem}.safetensors").is_file()
                net.load_state_dict(checkpoint.read(folder, stem if stored else EMA if averaged else RAW))

    def pictures(self, path: Path, step: int) -> None:
        """Draw a grid of fakes from fixed latents, cycling through classes; also, once, a grid of reals."""
        count = self.config.logging.samples
        reals = path.parent / "reals.png"
        if not reals.exists():
            order = permuted_index(derive(self.config.seed, "reals"), len(self.source), 0, count)
            images, labels = self.source.read(order)
            if self.classes:
                by_class = labels.argsort(kind="stable")
                images, labels = images[by_class], labels[by_class]
            save_png(self._grid(images, labels), reals, {"orthogan": "reals", "source": self.source.name})
        seed = derive(self.config.seed, "pictures")
        classes = [i * self.classes // count for i in range(count)] if self.classes else None
        z = self.shown.sample_latent(count, seed=seed)
        images = generate(self.shown, z, classes, batch_size=self.config.evaluation.batch_size)
        about = {"orthogan": "fakes", "step": str(step), "seed": str(seed)}
        save_png(self._grid(images, classes), path, about)

    def _grid(self, images: Any, labels: Sequence[int] | np.ndarray | None) -> Image.Image:
        """``images`` with the names of their classes, as ``orthogan sample`` draws them, if it is conditional."""
        if self.classes and labels is not None:
            return class_grid(images, labels, self.source.class_names)
        return image_grid(images)

    def _further_averages(self) -> dict[str, Generator]:
        """The averages that are not shown, by their files in a checkpoint."""
        average = self.averages["G"]
        if not isinstance(average, PowerEma):
            return {}
        return {f"{EMA}-{length:g}": net for length, net in average.nets.items() if net is not average.net}

    @property
    def shown(self) -> Generator:
        """Return the generator that is shown and scored: the average if there is one."""
        return self.averages["G"].net if "G" in self.averages else self.generator

    def check_evaluation(self) -> None:
        """Check at the start whether scores can be computed. Raises ``UserError``."""
        check_generator(self.config, self.shown, self.source, device=self.device)

    def evaluate(self, step: int) -> list[MetricResult]:
        """Score the shown generator against the training data."""
        return measure_generator(self.config, self.shown, self.source, step=step, device=self.device)

    def time_score(self) -> float:
        """Seconds that the scores of the shown generator take together."""
        return time_generator_score(self.config, self.shown, device=self.device) / self.accelerator.num_processes

    def summary(self) -> dict[str, Any]:
        """Sizes of nets and data."""
        facts: dict[str, Any] = {
            f"{k} parameters": sum(p.numel() for p in n.parameters()) for k, n in self.nets.items()
        }
        for net, conditioning in self.conditioning.items():
            facts |= {f"{net} {what}": layers for what, layers in conditioning.describe().items()}
        ema = self.config.training.ema
        if ema.kind == "power":
            count = math.ceil(self.config.training.steps / snapshot_interval(ema, self.config.training.steps))
            size = 4 * len(ema.lengths) * sum(p.numel() for p in self.generator.parameters())
            facts["ema snapshots"] = f"{count} of {size / 2**20:.1f} MiB each, under {self.config.out}/ema"
        if self.start:
            facts["model.init"] = self.start
        if self.frozen:
            facts["fixed blocks of D"] = ", ".join(name for name, _ in self.frozen)
        facts["data"] = f"{self.source.name}, {len(self.source):,} images of {size_in_words(self.source.resolution)} px"
        facts["classes"] = self.source.classes_in_words(used=bool(self.classes))
        return facts

    def close(self) -> None:
        """Stop reader processes."""
        self.draws.close()

    def _generator_phase(self, step: int) -> Phase:
        training, latent = self.config.training, self.config.loss.latent_penalty
        share = step / training.steps
        z, labels = self.draws.latents("G", step, training.fakes)
        batch = GeneratorBatch(z, labels, *self.draws.paired_reals(step))
        parts, critic_parts = (1, training.accumulate) if self.whole else (training.accumulate, 1)
        regularised = not self.latent_penalty.lazy and self.latent_penalty.due(step, share)

        def part(index: int) -> Losses:
            mine = batch.part(index, parts)
            views = self._views(views_of_generator(self.loss), len(mine.z), "G", step, index)
            value, logs = self.generator_loss(
                self.generator, self.discriminator, mine, self.loss, self.augment, views, critic_parts
            )
            if regularised:
                extra, more = self._latent(mine.part(0, latent.shrink), step, index)
                value, logs = value + extra, logs | more
            if self.contrast is not None and self.contrast.due(share):
                extra, more = self.contrast.generator_loss(step, index, parts)
                value, logs = value + extra, logs | more
            return value, logs

        around = self.advance["G and D"].hold
        regular = partial(self.conditioning["G"].weight_penalty, share)
        return Phase("G", "G", (partial(part, i) for i in range(parts)), parts, around, regular)

    def _latent_phase(self, step: int) -> Phase:
        training = self.config.training
        size, parts = training.fakes // self.config.loss.latent_penalty.shrink, training.accumulate
        batch = GeneratorBatch(*self.draws.latents("Greg", step, size), None, None)
        losses = (partial(self._latent, batch.part(i, parts), step, i) for i in range(parts))
        share = 1 / self.config.loss.latent_penalty.interval
        return Phase("Greg", "G", losses, parts, self.advance["G"].hold, per_step=share)

    def _latent(self, batch: GeneratorBatch, step: int, index: int) -> Losses:
        """Compute the weighted regularizer of G's latent; the log contains it without its weight."""
        value, logs = self.latent_penalty(batch.z, batch.labels, self.draws.rng("latent penalty", step, index))
        return self.latent_penalty.factor(step / self.config.training.steps) * value, logs

    def _discriminator_phase(
        self, name: str, loss: Callable[..., Losses], batch: DiscriminatorBatch, index: int
    ) -> Phase:
        parts = self.config.training.accumulate

        times = views_of_penalty(self.loss) if name == "Dreg" else views_of_discriminator(self.loss)

        def part(number: int) -> Losses:
            mine = batch.part(number, parts)
            views = self._views(times, len(mine.real), name, index, number)
            value, logs = loss(self.discriminator, mine, self.loss, self.augment, views)
            if "D/real_sign" in logs:
                self.augment.observe(logs["D/real_sign"])
            return value, logs

        updates = self.config.training.d_steps_per_g_step
        phase = Phase(name, "D", (partial(part, i) for i in range(parts)), parts, self.advance["D"].hold)
        if name == "Dreg":
            return replace(phase, per_step=updates / self.config.loss.gradient_penalty.interval)
        phase = replace(phase, per_step=updates)
        share = index / (self.config.training.steps * updates)
        return replace(phase, weight_penalty=partial(self.conditioning["D"].weight_penalty, share))

    def _views(self, times: tuple[int, ...], n: int, phase: str, *position: int) -> Views:
        """What the augmentation draws for ``times`` n images, one after the other."""
        rng = self.draws.rng(f"augment {phase}", *position)
        shape = (self.source.channels, *sides(self.source.resolution))
        return tuple(self.augment.draw(n * many, shape, rng) for many in times)

    def _discriminator_batch(self, index: int) -> DiscriminatorBatch:
        real, real_labels = self.draws.reals(index)
        fake, labels = self.fakes.at(index)
        mix = torch.rand(len(real), generator=self.draws.rng("mix", index), device=self.device)
        origin = torch.zeros((), device=self.device, requires_grad=True)
        codes = None
        if self.codes is not None and self.config.loss.information.weight:
            codes = self.codes(self.draws.latents("D", index, self.config.training.batch_size)[0])
        return DiscriminatorBatch(real, real_labels, fake, labels, mix, origin, codes)


def _same(source: ImageSource) -> ImageSource:
    return source


def _optimizer(net: nn.Module, config: GanOptimizerConfig, interval: int) -> Optimizer:
    return GAN_OPTIMIZER.resolved(config).build(list(net.parameters()), interval)


def _label_table(source: ImageSource) -> LabelTable | None:
    """Return the label vectors of ``source`` and how often each occurs; None if its labels are classes."""
    if source.label_vectors is None:
        return None
    counts = np.bincount(source.labels, minlength=source.num_classes)
    return LabelTable(torch.from_numpy(source.label_vectors), torch.from_numpy(counts), source.label_names)
