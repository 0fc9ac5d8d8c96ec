"""The losses of a GAN as pure functions of networks, batch and random numbers, which can be compiled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from orthogan.data.augment import Augmentation, Drawn
from orthogan.losses import LOSSES, sign_mean
from orthogan.models.codes import Codes, codes_of
from orthogan.models.recognition import logits_and_codes
from orthogan.penalties.information import code_losses, information_bound
from orthogan.penalties.input_gradient import squared_norm, track_gradient, wgan_gp, zero_centered_gradient_penalty
from orthogan.penalties.total_correlation import total_correlation
from orthogan.training.config import LossConfig
from orthogan.training.task import Losses

Views = tuple[Drawn, ...]  # random numbers of the augmentation for each time that it is applied, in order


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
    net: nn.Module, batch: DiscriminatorBatch, config: LossConfig, augment: Augmentation, views: Views
) -> Losses:
    """Compute the adversarial loss of D, with the gradient penalty unless it is lazy.

    Reals and fakes go through D in one forward pass: D does not mix the images of a batch, and one pass reads every
    weight once.
    """
    loss = LOSSES.get(config.kind, "loss.kind")
    penalty = config.gradient_penalty
    both = torch.cat([batch.real, batch.fake])
    inline = penalty.kind in ("r1", "r2", "r1+r2") and penalty.interval == 1
    if inline:
        both = track_gradient(both, batch.origin)
    labels = _join(batch.real_labels, batch.fake_labels)
    logits, codes = _outputs(net, augment.apply(both, views[0]), labels, config)
    real, fake = logits.chunk(2)
    value = loss.discriminator(real, fake)
    logs = {"D/loss": value.detach(), "D/real": real.detach().mean(), "D/fake": fake.detach().mean()}
    logs["D/real_sign"] = sign_mean(real)
    if inline:
        on_real, on_fake = squared_norm(logits, both).chunk(2)
        chosen = {"r1": on_real, "r2": on_fake, "r1+r2": on_real + on_fake}[penalty.kind]
        regular = 0.5 * penalty.weight * chosen.mean()
        logs[f"D/{penalty.kind}"] = regular.detach()
        value = value + regular
    elif penalty.kind == "wgan-gp":
        regular = wgan_gp(
            lambda x, y: _logits(net, augment.apply(x, views[1]), y),
            batch.real,
            batch.fake,
            batch.real_labels,
            penalty.weight,
            batch.mix,
            batch.origin,
        )
        logs["D/wgan-gp"] = regular.detach()
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
    net: nn.Module, batch: DiscriminatorBatch, config: LossConfig, augment: Augmentation, views: Views
) -> Losses:
    """Compute only R1 and/or R2, scaled by the interval at which they are applied (Karras et al. 2020b, appendix B)."""
    penalty = config.gradient_penalty
    sides = [(batch.real, batch.real_labels)] if "r1" in penalty.kind else []
    if "r2" in penalty.kind:
        sides.append((batch.fake, batch.fake_labels))
    values = []
    for (images, labels), view in zip(sides, views, strict=True):

        def critic(x: Tensor, y: Tensor | None, view: Drawn = view) -> Tensor:
            return _logits(net, augment.apply(x, view), y)

        values.append(zero_centered_gradient_penalty(critic, images, labels, penalty.weight, batch.origin))
    value = torch.stack(values).sum()
    return value * penalty.interval, {f"D/{penalty.kind}": value.detach()}


def generator_loss(
    generator: nn.Module,
    net: nn.Module,
    batch: GeneratorBatch,
    config: LossConfig,
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
    loss = LOSSES.get(config.kind, "loss.kind")
    fake_images = augment.apply(generator(batch.z, batch.labels), views[0])
    outputs = [
        _outputs(net, images, labels, config) if critic_parts == 1 else _recomputed(net, images, labels, config)
        for images, labels in zip(fake_images.chunk(critic_parts), _chunks(batch.labels, critic_parts), strict=True)
    ]
    fake = torch.cat([logits for logits, _ in outputs])
    real = None
    if loss.paired and batch.real is not None:
        real = _logits(net, augment.apply(batch.real, views[1]), batch.real_labels)
    value = loss.generator(fake, real)
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


def views_of_discriminator(config: LossConfig) -> tuple[int, ...]:
    """How many batches' worth of images ``discriminator_loss`` augments, each time that it does."""
    return (2, 1) if config.gradient_penalty.kind == "wgan-gp" else (2,)


def views_of_penalty(config: LossConfig) -> tuple[int, ...]:
    """The same of ``lazy_penalty``."""
    return (1, 1) if config.gradient_penalty.kind == "r1+r2" else (1,)


def views_of_generator(config: LossConfig) -> tuple[int, ...]:
    """The same of ``generator_loss``."""
    return (1, 1) if LOSSES.get(config.kind, "loss.kind").paired else (1,)


def _logits(net: nn.Module, images: Tensor, labels: Tensor | None) -> Tensor:
    return net(images, labels).float()


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
