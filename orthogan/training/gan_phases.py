"""The losses of a GAN's phases as pure functions of nets, batch and random numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from orthogan import weights
from orthogan.config import LossConfig
from orthogan.training.gradient_penalty import squared_norm, wgan_gp, zero_centred
from orthogan.training.losses import LOSSES, sign_mean
from orthogan.training.task import Losses

Augment = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class DiscriminatorBatch:
    """Reals and fakes (n, c, h, w) with their labels (n,) or None, and the n mixing numbers of WGAN-GP."""

    real: Tensor
    real_labels: Tensor | None
    fake: Tensor
    fake_labels: Tensor | None
    mix: Tensor

    def part(self, index: int, of: int) -> DiscriminatorBatch:
        """The index-th of ``of`` equal parts; real i stays beside fake i."""
        cut = slice(index * len(self.real) // of, (index + 1) * len(self.real) // of)
        return DiscriminatorBatch(
            self.real[cut],
            None if self.real_labels is None else self.real_labels[cut],
            self.fake[cut],
            None if self.fake_labels is None else self.fake_labels[cut],
            self.mix[cut],
        )


@dataclass(frozen=True)
class GeneratorBatch:
    """Latents (n, d) with labels, and the n reals that a paired loss compares with (else None)."""

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
    net: nn.Module, batch: DiscriminatorBatch, config: LossConfig, augment: Augment, rng: torch.Generator
) -> Losses:
    """The adversarial loss of D, with a gradient penalty when that is not lazy.

    Reals and fakes go through D in one forward: nothing in D depends on the other images of a batch, and one
    forward reads every weight once.
    """
    loss = LOSSES[config.kind]
    penalty = config.gradient_penalty
    both = torch.cat([batch.real, batch.fake])
    inline = penalty.kind in ("r1", "r2", "r1+r2") and penalty.interval == 1
    if inline:
        both = both.detach().requires_grad_(True)
    labels = _join(batch.real_labels, batch.fake_labels)
    logits = _logits(net, augment(both, rng), labels)
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
            lambda x, y: _logits(net, augment(x, rng), y),
            batch.real,
            batch.fake,
            batch.real_labels,
            penalty.weight,
            batch.mix,
        )
        logs["D/wgan-gp"] = regular.detach()
        value = value + regular
    return value, logs


def lazy_penalty(
    net: nn.Module, batch: DiscriminatorBatch, config: LossConfig, augment: Augment, rng: torch.Generator
) -> Losses:
    """R1 and/or R2 alone, scaled by the interval at which it is applied (Karras et al. 2020b, appendix B)."""
    penalty = config.gradient_penalty

    def critic(images: Tensor, labels: Tensor | None) -> Tensor:
        return _logits(net, augment(images, rng), labels)

    values = []
    if "r1" in penalty.kind:
        values.append(zero_centred(critic, batch.real, batch.real_labels, penalty.weight))
    if "r2" in penalty.kind:
        values.append(zero_centred(critic, batch.fake, batch.fake_labels, penalty.weight))
    value = torch.stack(values).sum()
    return value * penalty.interval, {f"D/{penalty.kind}": value.detach()}


def generator_loss(
    generator: nn.Module,
    net: nn.Module,
    batch: GeneratorBatch,
    config: LossConfig,
    augment: Augment,
    rng: torch.Generator,
    critic_parts: int = 1,
) -> Losses:
    """The adversarial loss of G.

    Args:
        critic_parts: pass the fakes through D in so many parts, each recomputed in backward. A generator with
            batch statistics cannot see its batch in parts without changing them; this way the memory of D is
            divided and the gradient stays that of the whole batch.
    """
    loss = LOSSES[config.kind]
    fake_images = augment(generator(batch.z, batch.labels), rng)
    fake = torch.cat(
        [
            _logits(net, images, labels) if critic_parts == 1 else _recomputed(net, images, labels)
            for images, labels in zip(fake_images.chunk(critic_parts), _chunks(batch.labels, critic_parts), strict=True)
        ]
    )
    real = None
    if loss.paired and batch.real is not None:
        real = _logits(net, augment(batch.real, rng), batch.real_labels)
    value = loss.generator(fake, real)
    return value, {"G/loss": value.detach(), "G/fake": fake.detach().mean()}


@contextmanager
def one_power_iteration(*nets: nn.Module) -> Iterator[None]:
    """Advance the singular vectors of constrained weights once, then hold them for the whole phase.

    Every part of an accumulated batch then sees the same effective weight, and so does a recomputed forward.
    """
    with ExitStack() as stack:
        for net in nets:
            weights.advance(net)
            stack.enter_context(weights.frozen(net))
        yield


def _logits(net: nn.Module, images: Tensor, labels: Tensor | None) -> Tensor:
    return net(images, labels).float()


def _recomputed(net: nn.Module, images: Tensor, labels: Tensor | None) -> Tensor:
    value = checkpoint(_logits, net, images, labels, use_reentrant=False, preserve_rng_state=False)
    assert isinstance(value, Tensor)
    return value


def _join(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return None if a is None or b is None else torch.cat([a, b])


def _chunks(labels: Tensor | None, parts: int) -> tuple[Tensor | None, ...]:
    return (None,) * parts if labels is None else labels.chunk(parts)
