"""Deterministic generation, so that images differ by their latents alone, down to the last digits of float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from orthogan.errors import UserError
from orthogan.evaluation.finite import Finite
from orthogan.models.modes import eval_mode, get_device
from orthogan.models.protocol import Generator


def choose_device(net: object, device: torch.device | str | None) -> torch.device:
    """Return ``device``, or the device of ``net``; for plain images, the GPU if there is one."""
    if device is not None:
        return torch.device(device)
    if isinstance(net, nn.Module):
        return get_device(net)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def deterministic_float32(net: nn.Module, device: torch.device) -> Iterator[None]:
    """Context with eval mode, no gradients, cached constrained weights, and no autocast, TF32 or bfloat16.

    Half precision and TF32 cannot resolve a step of 1e-4. Everything is restored at the end.
    """
    kinds: list[Any] = [  # its type stubs lack the submodules
        torch.backends.cuda.matmul,
        torch.backends.cudnn.conv,  # pyright: ignore[reportAttributeAccessIssue]
        torch.backends.mkldnn.matmul,  # pyright: ignore[reportAttributeAccessIssue]
        torch.backends.mkldnn.conv,  # pyright: ignore[reportAttributeAccessIssue]
    ]
    before = [kind.fp32_precision for kind in kinds]
    try:
        for kind in kinds:
            kind.fp32_precision = "ieee"
        with eval_mode(net), parametrize.cached(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        for kind, precision in zip(kinds, before, strict=True):
            kind.fp32_precision = precision


def generate_image(
    seen: Generator, points: Tensor, label: int | None, *, noise_seed: int, device: torch.device, finite: Finite
) -> Tensor:
    """Generate images (n, c, h, w) of latents ``points`` (n, latent_dim), all of class ``label``, on ``device``.

    A generator with random noise gets the same noise for the same ``noise_seed`` and n; the global random state is
    restored. ``finite`` watches the images; the caller checks it at the end.

    Raises:
        UserError: images in half precision, or not of shape (n, c, h, w).
    """
    z = points.to(device)
    y = torch.full((len(z),), label, device=device) if seen.num_classes and label is not None else None
    with torch.random.fork_rng([device] if device.type == "cuda" else [], device_type="cuda"):
        torch.default_generator.manual_seed(noise_seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(noise_seed)
        images = seen(z) if y is None else seen(z, y)
    if not isinstance(images, Tensor):
        raise UserError(f"{type(seen).__name__}: returns a {type(images).__name__}, not a tensor of images")
    if images.ndim != 4 or len(images) != len(z):
        raise UserError(
            f"{type(seen).__name__}: returns shape {tuple(images.shape)}, not one (c, h, w) image per latent"
        )
    if images.dtype in (torch.float16, torch.bfloat16):
        raise UserError(
            f"{type(seen).__name__}: returns images in {images.dtype}, which is not precise enough; call .float()"
        )
    if not images.is_floating_point():
        raise UserError(
            f"{type(seen).__name__}: returns images in {images.dtype}; a generator must return floats in [-1, 1]"
        )
    finite.watch(images)
    return images


class _Labelled(Generator):
    """A generator with fixed classes: image i has class ``labels[i]``."""

    def __init__(self, net: Generator, labels: Tensor) -> None:
        super().__init__()
        self.net, self.labels = net, labels

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.net(z, self.labels)


def fake_batch(
    net: Generator, z: Tensor, labels: Tensor | None, *, noise_seed: int, device: torch.device, finite: Finite
) -> Tensor:
    """Generate images (n, c, h, w) of latents ``z`` (n, latent_dim) and optional ``labels`` (n,), on ``device``.

    Random noise of the generator depends on ``noise_seed``; ``finite`` and errors as in ``generate_image``.
    """
    seen = net if labels is None else _Labelled(net, labels.to(device))
    return generate_image(seen, z, None, noise_seed=noise_seed, device=device, finite=finite)
