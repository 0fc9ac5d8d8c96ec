"""Using a generator: its latent spaces, latents by seed, images, and a hash of its weights."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from orthogan.arguments import checked, integers, shown
from orthogan.drawing.grid import as_pixels
from orthogan.errors import UserError
from orthogan.io.hashing import tensor_bytes
from orthogan.models.label_table import TABLE, classes_at, label_table
from orthogan.models.modes import eval_mode, get_device, need_numbers
from orthogan.models.protocol import Generator, as_generator
from orthogan.size import as_resolution
from orthogan.words import counted, there_are

PERIOD = 4096  # label vectors repeat after this many seeds


def generate(
    generator: Generator,
    z: Tensor,
    labels: Sequence[int] | np.ndarray | None = None,
    *,
    batch_size: int = 64,
    device: torch.device | str | None = None,
) -> np.ndarray:
    """Generate images uint8 (n, c, h, w) of ``z`` (n, latent_dim) and ``labels`` (n,), in eval mode without gradients.

    ``labels`` must be given for a conditional generator and must be None for an unconditional one. ``device``: the
    generator is moved there (default: where it is).
    Raises ``UserError`` if the batch size is below 1, the labels do not fit, or the output is not an image.
    """
    need_numbers(generator)
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size}: must be at least 1")
    if labels is None and generator.num_classes:
        raise UserError(f"this generator has {generator.num_classes} classes: pass one class per image")
    if labels is not None:
        labels = integers("labels", labels)
        check_has_classes(generator, labels)
        if len(labels) != len(z):
            raise UserError(
                f"{there_are(len(labels), 'label')} for {counted(len(z), 'latent')}; pass one label per latent"
            )
    if device is not None:
        generator.to(device)
    place = get_device(generator)
    y = None if labels is None else torch.as_tensor(np.asarray(labels), dtype=torch.int64)
    parts: list[np.ndarray] = []
    with eval_mode(generator):
        for start in np.arange(0, len(z), batch_size):
            part = slice(int(start), int(start) + batch_size)
            images = generator(z[part].to(place)) if y is None else generator(z[part].to(place), y[part].to(place))
            if not isinstance(images, Tensor):
                raise UserError(
                    f"{type(generator).__name__}: returns a {type(images).__name__}, not a tensor of images (n, c, "
                    "h, w); wrap it so that it only returns the images"
                )
            parts.append(as_pixels(images))
    return np.concatenate(parts)


@checked
def sample_latents(generator: Generator, seeds: Sequence[int], truncation: float = 1.0) -> Tensor:
    """Return latents (n, latent_dim), float32 on the CPU; each depends only on its seed (and on the truncation)."""
    with torch.no_grad():  # a user's own prior may run a network
        return truncate(torch.cat([generator.sample_latent(1, seed=seed) for seed in seeds]), truncation)


def sample_label(generator: Generator, seed: int, classes: Sequence[int] | None = None) -> int | None:
    """Return the class that goes with ``seed``: ``classes[seed % len(classes)]`` (default: all); None if unconditional.

    Consecutive seeds thus cycle through the classes, and the class of a seed does not depend on the other seeds. Label
    vectors are by default as frequent as among the training images.
    Raises ``UserError`` for classes of an unconditional generator, or classes out of range.
    """
    if generator.num_classes == 0:
        if classes is not None:
            check_has_classes(generator, classes)
        return None
    if classes is None:
        return int(classes_at(generator, torch.tensor([seed if label_table(generator) is None else seed % PERIOD])))
    chosen = list(classes)
    if not chosen:
        raise UserError("no class given: name at least one, or omit the classes to use all of them")
    chosen = integers("class", chosen)
    check_has_classes(generator, chosen)
    return int(chosen[seed % len(chosen)])


def check_has_classes(generator: Generator, classes: Sequence[int]) -> None:
    """Raise ``UserError`` if ``generator`` has no classes, or not all of ``classes``."""
    count = generator.num_classes
    if not count:
        raise UserError("this generator is unconditional and has no classes; omit the class")
    wrong = [label for label in classes if not 0 <= label < count]
    if wrong:
        raise UserError(f"class {wrong[0]}: this generator has {count} classes, 0 to {count - 1}")


def image_size(generator: Generator) -> tuple[int, Any]:
    """Return channels and resolution of a generator's images: from its attributes, else from one generated image.

    The resolution is a number, or (height, width) of rectangles [pixels]. Raises ``UserError`` as ``generate``.
    """
    channels, side = getattr(generator, "image_channels", None), getattr(generator, "resolution", None)
    if isinstance(channels, int) and isinstance(side, int | tuple):
        return channels, side
    label = sample_label(generator, 0)
    found = generate(generator, sample_latents(generator, [0]), None if label is None else [label]).shape
    return found[1], as_resolution(found[2], found[3])


@checked
def truncate(z: Tensor, truncation: float) -> Tensor:
    """Map standard normal entries to a truncated normal that keeps the central share ``truncation`` of the mass.

    Each entry is mapped by the normal CDF, shrunk toward the median, and mapped back: ``z' = Phi^-1(1/2 + truncation *
    (Phi(z) - 1/2))``. So every |z'| <= ``threshold(truncation)``, and the result is exactly the truncated normal if z
    is normal. It depends only on z; nothing is drawn again. The "truncated normal with threshold t" of BigGAN is
    ``truncation = 2 Phi(t) - 1`` (0.683 for t = 1, 0.383 for t = 0.5). This is not StyleGAN's psi, which scales w.

    Args:
        z: latents of any shape.
        truncation: from 0, which returns the mode, to 1, which returns z itself.

    Raises:
        UserError: ``truncation`` is not from 0 to 1.

    Example:
        >>> import torch
        >>> from orthogan.latent import truncate
        >>> truncate(torch.tensor([-3.0, 0.0, 3.0]), 0.5).round(decimals=2)
        tensor([-0.6700,  0.0000,  0.6700])
    """
    if not 0 <= truncation <= 1:
        raise UserError(f"truncation={truncation}: must be between 0 (always the mode) and 1 (the whole prior)")
    if truncation == 1:
        return z
    z = z if z.is_floating_point() else z.float()
    # Use the error function, which is odd and exact near zero: Phi(z) - 1/2 = erf(z / sqrt 2) / 2.
    share = torch.special.erf(z.double() * math.sqrt(0.5)) * truncation
    return (torch.special.erfinv(share) * math.sqrt(2)).to(z.dtype)


def threshold(truncation: float) -> float:
    """Return the largest magnitude, in latent std, that ``truncate`` allows; infinite for 1."""
    if not 0 <= truncation <= 1:
        raise UserError(f"truncation={truncation}: must be between 0 (always the mode) and 1 (the whole prior)")
    if truncation == 1:
        return math.inf
    return math.sqrt(2) * float(torch.special.erfinv(torch.tensor(truncation, dtype=torch.float64)))


def list_spaces(generator: nn.Module) -> tuple[str, ...]:
    """Return the spaces that ``in_space`` knows for this generator: "z", then those of its attribute ``spaces``.

    Example:
        >>> import orthogan
        >>> from orthogan.latent import list_spaces
        >>> list_spaces(orthogan.load("sprites-sngan"))
        ('z',)
    """
    return tuple(dict.fromkeys(("z", *getattr(generator, "spaces", ()))))


@checked
def in_space(
    generator: nn.Module, space: str, *, y: int | None = None, layers: Sequence[int] = (), base: Tensor | None = None
) -> Generator:
    """Return a view of a generator whose latent is in another space: itself for "z", else its own ``latent_space``.

    A generator, or a user's wrapper of one, provides W by an attribute ``spaces = ("z", "w")`` and a method
    ``latent_space(name, *, y=None, layers=(), base=None)``, as in ``orthogan.models.protocol.Generator``.

    Args:
        space: one of ``list_spaces(generator)``.
        y: the class whose latents the view draws; a view other than "z" has no classes.
        layers: numbers of the layers that take the latent; empty for all.
        base: latent (latent_dim,) that the other layers take; zero by default.

    Raises:
        UserError: the generator does not provide the space, or ``layers`` are given for z, which has none.

    Example:
        >>> import torch
        >>> from orthogan.latent import in_space
        >>> from orthogan.models import StyleGAN2Generator
        >>> generator = StyleGAN2Generator(resolution=32, image_channels=1, channels=4, latent_dim=8, w_dim=16)
        >>> in_space(generator, "w").latent_dim
        16
    """
    net = as_generator(generator)
    if space not in list_spaces(net):
        offered = ", ".join(map(repr, list_spaces(net)))
        raise UserError(
            f"space '{space}': {type(net).__name__} has {offered}; a generator declares further spaces by an "
            "attribute 'spaces' and a method 'latent_space'"
        )
    if space != "z":
        return as_generator(net.latent_space(space, y=y, layers=tuple(layers), base=base))
    if layers:
        raise UserError(
            f"layers {shown(list(layers))}: 'z' enters the generator in a single layer; choose layers of another space"
        )
    return net


def truncate_in_space(latents: Tensor, truncation: float, space: str) -> Tensor:
    """Truncate latents of ``space`` toward its mean: z by ``truncate``; others times ``truncation``, StyleGAN's psi.

    Raises ``UserError`` unless 0 <= truncation <= 1.
    """
    if space == "z":
        return truncate(latents, truncation)
    if not 0 <= truncation <= 1:
        raise UserError(f"truncation={truncation}: must be between 0 (the mean of {space}) and 1 (no truncation)")
    return latents * truncation


Net = TypeVar("Net", bound=nn.Module)
# Networks whose hash is cached, with the state of the weights that it belongs to.
_KEPT: WeakKeyDictionary[nn.Module, tuple[object, str]] = WeakKeyDictionary()


def keep_hash(net: Net) -> Net:
    """Cache the ``model_hash`` of ``net`` and return ``net``.

    The hash is recomputed only after an operation changed the weights. Changes through ``.data`` are not noticed, so
    use this only for networks that are not trained.
    """
    _KEPT[net] = None, ""
    return net


def model_hash(generator: nn.Module) -> str:
    """Return the SHA-256 (64 hex digits) of types, shapes and bytes of all tensors in the state dict, by sorted name.

    The same weights give the same hash on any device, in any memory layout, and inside a wrapper that only adds a
    prefix to the names; state that is not a tensor does not count, and neither do label vectors, which are inputs.

    Example:
        >>> import orthogan
        >>> from orthogan.latent import model_hash
        >>> len(model_hash(orthogan.load("sprites-sngan")))
        64
    """
    need_numbers(generator)
    state = {
        name: tensor
        for name, tensor in sorted(generator.state_dict().items())
        if isinstance(tensor, Tensor) and TABLE not in name.split(".")
    }
    now = None
    if generator in _KEPT and not any(parameter.requires_grad for parameter in generator.parameters()):
        now = [(name, tensor.data_ptr(), tensor._version) for name, tensor in state.items()]
        before, found = _KEPT[generator]
        if before == now:
            return found
    digest = hashlib.sha256()
    for tensor in state.values():
        digest.update(f"{tensor.dtype}\x1f{tuple(tensor.shape)}\x1f".encode())
        digest.update(tensor_bytes(tensor))
    if now is not None:
        _KEPT[generator] = now, digest.hexdigest()
    return digest.hexdigest()
