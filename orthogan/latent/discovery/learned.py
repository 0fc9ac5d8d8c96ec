"""Directions that a second network can distinguish: an orthonormal matrix and a reconstructor, trained together.

Voynov & Babenko, ICML 2020, "Unsupervised Discovery of Interpretable Directions in the GAN Latent Space".
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from orthogan.errors import UserError
from orthogan.fit import fit, seeded
from orthogan.latent.directions import Directions, random_control
from orthogan.latent.discovery.methods import DIRECTION_METHODS
from orthogan.latent.discovery.response import GeneratorFunction, trace_generator
from orthogan.latent.discovery.spectrum import check_components, check_positive
from orthogan.linalg.rotations import qr
from orthogan.models.generate import model_hash
from orthogan.models.protocol import as_generator
from orthogan.rng import derive
from orthogan.rng import generator as random_generator

RCA = "rca"
REACH = 6.0  # shifts are uniform in [-REACH, REACH] …
LEAST = 0.5  # … and pushed to at least this magnitude
SHIFT_WEIGHT = 0.25  # weight of the L1 loss of the shift relative to the cross-entropy


class Reconstructor(nn.Module):
    """Pairs of images (n, c, h, w) -> logits of the direction (n, k) and the shift along it (n,).

    Three convolutions of stride 2 with batch norm, a 4x4 map, one hidden layer. Its input is the first image and the
    difference: the same information as both images, but learned faster.
    """

    def __init__(self, channels: int, k: int, width: int = 32) -> None:
        super().__init__()
        widths = [2 * channels, width, 2 * width, 4 * width]
        stages = [
            nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in itertools.pairwise(widths)
        ]
        self.features = nn.Sequential(*stages, nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.hidden = nn.Sequential(nn.Linear(4 * width * 16, 8 * width), nn.ReLU())
        self.head = nn.Linear(8 * width, k + 1)

    def forward(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, k) of the direction and the offset (n,) between images ``before`` and ``after``."""
        out = self.head(self.hidden(self.features(torch.cat([before, after - before], dim=1))))
        return out[:, :-1], out[:, -1]


@DIRECTION_METHODS.register("learned")
def learned(
    generator: nn.Module,
    *,
    components: int | None = None,
    y: int | None = None,
    steps: int = 2000,
    batch_size: int = 32,
    lr: float = 1e-3,
    reach: float = REACH,
    pairs: int = 64,
    seed: int = 0,
) -> Directions:
    """Learn orthonormal directions together with a network that distinguishes them.

    The loss is the cross-entropy of which direction moved, plus 0.25 times the L1 error of how far, over shifts uniform
    in [-reach, reach] and at least 0.5 in magnitude. The score "rca" of a direction is the fraction of new pairs that
    the network classifies correctly; its mean over directions is the paper's reconstructor classification accuracy.
    Directions are sorted by it. Warns if the mean is no better than chance.

    Args:
        components: number of directions; None for latent_dim.
        y: class of a conditional generator; None cycles through all classes.
        steps, batch_size, lr: of the training by Adam; the paper trains 1e5 steps at 1e-4.
        reach: largest shift.
        pairs: new pairs per direction that measure "rca".
        seed: random seed.

    Raises:
        UserError: an argument is invalid.

    Source: Voynov & Babenko 2020, arXiv:2002.03754.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from orthogan.latent.discovery import learned
        >>> net = nn.Sequential(nn.Linear(3, 768), nn.Tanh(), nn.Unflatten(1, (3, 16, 16)))
        >>> net.latent_dim = 3
        >>> learned(net, components=2, steps=2, batch_size=4, pairs=4).matrix.shape
        (2, 3)
    """
    k = check_components(as_generator(generator), components)
    with trace_generator(generator, y=y) as response:
        start = random_control(response.dim, k, derive(seed, "learned", "start")).matrix
        root = torch.from_numpy(start.T.copy()).to(response.device).requires_grad_(True)
        net = teach(
            response, lambda: qr(root).T, [root], steps=steps, batch_size=batch_size, lr=lr, reach=reach, seed=seed
        )
        rows = qr(root.detach()).T
        right = accuracy(response, net, rows, pairs=pairs, reach=reach, seed=seed)
    warn_of_chance(right)
    found = Directions(
        rows.cpu().numpy(), method="learned", scores={RCA: right.tolist()}, model_hash=model_hash(generator), seed=seed
    )
    return found.oriented().sorted_by(RCA)


def teach(
    response: GeneratorFunction,
    rows: Callable[[], Tensor],
    learnt: list[Tensor],
    *,
    steps: int,
    batch_size: int,
    lr: float,
    reach: float,
    seed: int,
) -> Reconstructor:
    """A reconstructor trained, together with the tensors ``learnt``, on shifts along ``rows()`` (k, latent_dim)."""
    check_positive(steps=steps, batch_size=batch_size)
    if not (lr > 0 and reach > LEAST):
        raise UserError(f"lr={lr}, reach={reach}: needs a positive learning rate, and shifts of more than {LEAST}")
    k = len(rows())
    channels = response(*response.draw(1, seed=0)).shape[1]
    with seeded(seed, "reconstructor"):
        net = Reconstructor(channels, k)
    net.to(response.device).train()

    def loss(step: int) -> Tensor:
        source = random_generator("cpu", seed, "reconstructor", step)
        index = torch.randint(0, k, (batch_size,), generator=source).to(response.device)
        shift = shifts(batch_size, reach, source).to(response.device)
        logits, far = net(*_pair(response, rows(), index, shift, derive(seed, "reconstructor", step)))
        return functional.cross_entropy(logits, index) + SHIFT_WEIGHT * functional.l1_loss(far, shift)

    fit(torch.optim.Adam([*net.parameters(), *learnt], lr=lr), loss, steps, what="reconstructor")
    return net.eval()


def accuracy(
    response: GeneratorFunction,
    net: Reconstructor,
    rows: Tensor,
    *,
    pairs: int,
    reach: float,
    seed: int,
    batch_size: int = 64,
) -> np.ndarray:
    """(k,): the part of ``pairs`` fresh pairs of each of ``rows`` that ``net`` names rightly."""
    check_positive(pairs=pairs)
    k = len(rows)
    index = torch.arange(k).repeat(pairs).to(rows.device)
    shift = shifts(len(index), reach, random_generator("cpu", seed, "rca")).to(rows.device)
    right = torch.zeros(k, dtype=torch.float64)
    for part, few in enumerate(torch.arange(len(index)).split(batch_size)):
        logits, _ = net(*_pair(response, rows, index[few], shift[few], derive(seed, "rca", part)))
        right.index_add_(0, index[few].cpu(), (logits.argmax(1) == index[few]).double().cpu())
    return (right / pairs).numpy()


def shifts(n: int, reach: float, source: torch.Generator) -> Tensor:
    """(n,) uniform in [-reach, reach], those below 0.5 in magnitude pushed out to it."""
    even = (2 * torch.rand(n, generator=source) - 1) * reach
    return torch.where(even < 0, even.clamp_max(-LEAST), even.clamp_min(LEAST))


def warn_of_chance(right: np.ndarray) -> None:
    """Warn if the mean accuracy is below one and a half times the chance level."""
    if len(right) > 1 and right.mean() < 1.5 / len(right):
        warnings.warn(
            f"the directions are classified correctly in {right.mean():.1%} of the pairs ({1 / len(right):.1%} by "
            "chance); train longer, or use fewer directions",
            stacklevel=3,
        )


def _pair(response: GeneratorFunction, rows: Tensor, index: Tensor, shift: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """The images of fresh latents and of the same moved by ``shift`` along their row."""
    z, labels = response.draw(len(index), seed)
    with torch.no_grad():
        before = response(z, labels)
    return before, response(z + shift[:, None] * rows[index], labels)
