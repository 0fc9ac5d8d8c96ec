"""The losses of a GAN as pure functions of networks, batch and random numbers, which can be compiled."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from orthogan.data.augment import Augmentation, Drawn
from orthogan.losses import LOSSES, AdversarialLoss, sign_mean
from orthogan.models.codes import Codes, codes_of
from orthogan.models.recognition import logits_and_codes
from orthogan.penalties.information import code_losses, information_bound
from orthogan.penalties.input_gradient import (
    GRADIENT_PENALTIES,
    GradientPenalty,
    between,
    squared_norm,
    track_gradient,
)
from orthogan.penalties.total_correlation import total_correlation
from orthogan.training.config import LossConfig
from orthogan.training.task import Losses

Views = tuple[Drawn, ...]  # random numbers of the augmentation for each time that it is applied, in order


@dataclass(frozen=True)
class GanLoss:
    """The section ``loss`` of a config with what it names, found once, because a compiled phase cannot import it."""

    config: LossConfig
    adversarial: AdversarialLoss
    penalty: GradientPenalty

    @classmethod
    def of(cls, config: LossConfig) -> GanLoss:
        """Find what ``config`` names. Raises ``UserError`` if it cannot be imported."""
        penalty = config.gradient_penalty.kind
        return cls(
            config,
            LOSSES.get(config.kind, "loss.kind"),
            GRADIENT_PENALTIES.get(penalty, "loss.gradient_penalty.kind"),
        )

    @property
    def lazy(self) -> bool:
        """Whether the gradient penalty has updates of its own."""
        return bool(self.penalty.on) and self.config.gradient_penalty.interval > 1

    @property
    def penalty_log(self) -> str:
        """The name of the gradient penalty in the log."""
        return f"D/{self.config.gradient_penalty.kind.rpartition(':')[2]}"


@dataclass(frozen=True)
class DiscriminatorBatch:
    """Reals and fakes (n, c, h, w) with their labels (n,) or None; n mixing numbers and the origin of penalties."""

    real: Tensor
    real_labels: Tensor | None
    fake: Tensor
    fake_labels: Tensor | None
    mix: Tensor
    origin: Tensor
    fake_codes: Tensor | None = None  # values of the codes of the fakes (n, d), for InfoGAN

    def part(self, index: int, of: int) -> DiscriminatorBatch:
        """Return the index-th of ``of`` equal parts; real i stays paired with fake i."""
        cut = slice(index * len(self.real) // of, (index + 1) * len(self.real) // of)
        return DiscriminatorBatch(
            self.real[cut],
            None if self.real_labels is None else self.real_labels[cut],
            self.fake[cut],
            None if self.fake_labels is None else self.fake_labels[cut],
            self.mix[cut],
            self.origin,
            None if self.fake_codes is None else self.fake_codes[cut],
        )


@dataclass(frozen=True)
class GeneratorBatch:
    """Latents (n, d) with labels, and n reals for a paired loss (else None)."""

    z: Tensor
    labels: Tensor | None
    real: Tensor | None
    real_labels: Tensor | None

    def part(self, index: int, of: int) -> GeneratorBatch:
        """The index-th of ``of`` equal parts."""
        cut = slice(index * len(self.z) // of, (index + 1) * len(self.z) // of)
        return GeneratorBatch(
            self.z[cut],
            None if self.labels is None else self.labels[cut],
            None if self.real is None else self.real[cut],
            None if self.real_labels is None else self.real_labels[cut],
        )


def discriminator_loss(
    net: nn.Module, batch: DiscriminatorBatch, loss: GanLoss, augment: Augmentation, views: Views
) -> Losses:
    """Compute the adversarial loss of D, with the gradient penalty unless it is lazy.

    Reals and fakes go through D in one forward pass: D does not mix the images of a batch, and one pass reads every
    weight once. A penalty at them uses the same pass.
    """
    config, penalty = loss.config, loss.penalty
    on = () if loss.lazy else penalty.on
    seen = [kind for kind in on if kind != "between"]
    both = torch.cat([batch.real, batch.fake])
    if seen:
        both = track_gradient(both, batch.origin)
    labels = _join(batch.real_labels, batch.fake_labels)
    logits, codes = _outputs(net, augment.apply(both, views[0]), labels, config)
    real, fake = logits.chunk(2)
    value = loss.adversarial.discriminator(real, fake)
    logs = {"D/loss": value.detach(), "D/real": real.detach().mean(), "D/fake": fake.detach().mean()}
    logs["D/real_sign"] = sign_mean(real)
    terms: list[Tensor] = []
    if seen:
        norms: dict[str, Tensor] = dict(zip(("real", "fake"), squared_norm(logits, both).chunk(2), strict=True))
        first, *others = (penalty.value(norms[kind]) for kind in seen)
        terms.append(sum(others, first).mean())
    if "between" in on:
        images = between(batch.real, batch.fake, batch.mix)
        critic = partial(_augmented, net, augment, views[1])
        terms.append(penalty.at(critic, images, batch.real_labels, batch.origin))
    if terms:
        regular = config.gradient_penalty.weight * sum(terms[1:], terms[0])
        logs[loss.penalty_log] = regular.detach()
        value = value + regular
    if codes is not None and batch.fake_codes is not None:
        extra, more = _information(net, codes.chunk(2)[1], batch.fake_codes, config)
        value, logs = value + extra, logs | {"D/information": more}
        if config.total_correlation.weight:
            parts = [total_correlation(part) for part in _means(net, codes).chunk(2)]
            value = value + config.total_correlation.weight * (parts[0] + parts[1]) / 2
            logs |= {"D/total_correlation": parts[0].detach()}  # of reals
    return value, logs


def lazy_penalty(
    net: nn.Module, batch: DiscriminatorBatch, loss: GanLoss, augment: Augmentation, views: Views
) -> Losses:
    """Compute only the gradient penalty, scaled by the interval at which it is applied (Karras et al. 2020b)."""
    section, values = loss.config.gradient_penalty, []
    for kind, view in zip(loss.penalty.on, views, strict=True):
        labels = batch.fake_labels if kind == "fake" else batch.real_labels
        if kind == "between":
            images = between(batch.real, batch.fake, batch.mix)
        else:
            images = batch.fake if kind == "fake" else batch.real
        critic = partial(_augmented, net, augment, view)
        values.append(section.weight * loss.penalty.at(critic, images, labels, batch.origin))
    value = torch.stack(values).sum()
    return value * section.interval, {loss.penalty_log: value.detach()}


def generator_loss(
    generator: nn.Module,
    net: nn.Module,
    batch: GeneratorBatch,
    loss: GanLoss,
    augment: Augmentation,
    views: Views,
    critic_parts: int = 1,
) -> Losses:
    """Compute the adversarial loss of G.

    Args:
        critic_parts: pass the fakes through D in this many parts, each recomputed in backward. Splitting the batch of a
            generator with batch statistics would change them; this way the memory of D is divided and the gradient
            stays that of the whole batch.
    """
    config = loss.config
    fake_images = augment.apply(generator(batch.z, batch.labels), views[0])
    outputs = [
        _outputs(net, images, labels, config) if critic_parts == 1 else _recomputed(net, images, labels, config)
        for images, labels in zip(fake_images.chunk(critic_parts), _chunks(batch.labels, critic_parts), strict=True)
    ]
    fake = torch.cat([logits for logits, _ in outputs])
    real = None
    if loss.adversarial.paired and batch.real is not None:
        real = _logits(net, augment.apply(batch.real, views[1]), batch.real_labels)
    value = loss.adversarial.generator(fake, real)
    logs = {"G/loss": value.detach(), "G/fake": fake.detach().mean()}
    layout = codes_of(generator) if config.information.weight else None
    if layout is not None:
        predicted = torch.cat([codes for _, codes in outputs if codes is not None])
        extra, more = _information(net, predicted, layout(batch.z), config)
        value, logs = value + extra, logs | {"G/information": more}
        if config.total_correlation.weight:
            extra = total_correlation(_means(net, predicted))
            value = value + config.total_correlation.weight * extra
            logs |= {"G/total_correlation": extra.detach()}
    return value, logs


def views_of_discriminator(loss: GanLoss) -> tuple[int, ...]:
    """How many batches' worth of images ``discriminator_loss`` augments, each time that it does."""
    return (2, 1) if "between" in loss.penalty.on and not loss.lazy else (2,)


def views_of_penalty(loss: GanLoss) -> tuple[int, ...]:
    """The same of ``lazy_penalty``."""
    return (1,) * len(loss.penalty.on)


def views_of_generator(loss: GanLoss) -> tuple[int, ...]:
    """The same of ``generator_loss``."""
    return (1, 1) if loss.adversarial.paired else (1,)


def _logits(net: nn.Module, images: Tensor, labels: Tensor | None) -> Tensor:
    return net(images, labels).float()


def _augmented(net: nn.Module, augment: Augmentation, view: Drawn, images: Tensor, labels: Tensor | None) -> Tensor:
    return _logits(net, augment.apply(images, view), labels)


def _outputs(net: nn.Module, images: Tensor, labels: Tensor | None, config: LossConfig) -> tuple[Tensor, Tensor | None]:
    """Return the logits, and for InfoGAN the predicted codes."""
    if not config.information.weight:
        return _logits(net, images, labels), None
    logits, codes = logits_and_codes(net, images, labels)
    return logits.float(), codes.float()


def _recomputed(
    net: nn.Module, images: Tensor, labels: Tensor | None, config: LossConfig
) -> tuple[Tensor, Tensor | None]:
    value = checkpoint(_outputs, net, images, labels, config, use_reentrant=False, preserve_rng_state=False)
    assert isinstance(value, tuple)
    return value


def _means(net: nn.Module, outputs: Tensor) -> Tensor:
    """Return the predicted means of the continuous codes."""
    return outputs[:, : net.recognition.codes.continuous]  # pyright: ignore


def _information(net: nn.Module, outputs: Tensor, values: Tensor, config: LossConfig) -> tuple[Tensor, Tensor]:
    """Return the weighted loss of InfoGAN, and the bound on the mutual information of all codes, for the log."""
    layout: Codes = net.recognition.codes  # pyright: ignore
    sizes: dict[str, Any] = {"continuous": layout.continuous, "categorical": layout.categorical}
    value = config.information.weight * code_losses(outputs, values, **sizes).sum()
    known = information_bound(outputs.detach(), values, uniform=layout.distribution == "uniform", **sizes)
    return value, known.sum()


def _join(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return None if a is None or b is None else torch.cat([a, b])


def _chunks(labels: Tensor | None, parts: int) -> tuple[Tensor | None, ...]:
    return (None,) * parts if labels is None else labels.chunk(parts)
