"""The small convolutional network of the oracle and the post-hoc encoder, and its training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from orthogan.errors import UserError
from orthogan.fit import cosine, fit, seeded

Precision = Literal["float32", "bfloat16"]
FIRST, WIDTH = 32, 64  # channels of the first map, and of all others
BOTTOM = 8  # side of the last map, which is flattened: pooling would lose positions
DEPTH = 3  # convolutions at this size; on the sprites they help more than wider maps or as many more steps
HIDDEN = 256
WARM = 0.1  # fraction of the steps with a rising learning rate; it then falls to 0 as a cosine


class Trunk(nn.Module):
    """Images (n, c, s, s) in [-1, 1] -> (n, outputs): convolutions of stride 2 to 8x8, three more, a hidden layer."""

    def __init__(self, channels: int, resolution: int, outputs: int) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        side, before = resolution, channels
        while side > BOTTOM:
            stages += _layer(before, FIRST if before == channels else WIDTH, stride=2)
            side, before = (side + 1) // 2, FIRST if before == channels else WIDTH
        for _ in range(DEPTH):
            stages += _layer(before, WIDTH)
            before = WIDTH
        self.features = nn.Sequential(*stages, nn.Flatten())
        self.head = nn.Sequential(nn.Linear(before * side**2, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, outputs))

    def forward(self, images: Tensor) -> Tensor:
        """Return the outputs of the head (n, ...) for ``images`` (n, c, h, w)."""
        return self.head(self.features(images.contiguous(memory_format=torch.channels_last)))


def _layer(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]


def new_trunk(channels: int, resolution: Any, outputs: int, *, seed: int) -> Trunk:
    """Build a trunk whose initial weights depend on the arguments alone; the global random state is not changed."""
    if not isinstance(resolution, int):
        raise UserError("disentanglement: oracles and encoders need square images; use a metric of the generator alone")
    with seeded(seed, "trunk"):
        net = Trunk(channels, resolution, outputs)
    return net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def fit_trunk(
    net: nn.Module,
    batch: Callable[[int], tuple[Tensor, Tensor]],
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    steps: int,
    lr: float,
    precision: Precision,
    what: str,
    progress: bool,
) -> None:
    """Train with ``steps`` steps of Adam on ``loss(net(inputs), targets)`` in float32; leaves ``net`` in eval mode.

    ``batch``: step -> inputs and targets, on the device of ``net``. With "bfloat16" the net runs in autocast.
    Raises ValueError for no steps, a learning rate of 0, an unknown precision, or a non-finite loss.
    """
    if steps < 1 or not lr > 0 or precision not in get_args(Precision):
        raise ValueError(
            f"steps={steps}, lr={lr}, precision={precision!r}: must be at least 1, positive, and float32 or bfloat16"
        )
    place = next(net.parameters()).device

    def value(step: int) -> Tensor:
        inputs, targets = batch(step)
        with torch.autocast(place.type, torch.bfloat16, enabled=precision == "bfloat16"):
            out = net(inputs)
        return loss(out.float(), targets)

    net.train()
    rate = cosine(lr, steps, max(1, round(WARM * steps)))
    fit(torch.optim.Adam(net.parameters(), lr=lr), value, steps, what=what, rate=rate, progress=progress)
    net.eval()


def prepare_images(images: np.ndarray | Tensor, channels: int, resolution: int, who: str) -> Tensor:
    """Return ``images`` as a tensor uint8 (n, channels, resolution, resolution).

    Raises ValueError if the network called ``who`` was trained on images of another size or type.
    """
    given = torch.as_tensor(images)
    wanted = (channels, resolution, resolution)
    if given.dtype != torch.uint8 or given.ndim != 4 or tuple(given.shape[1:]) != wanted:
        raise ValueError(
            f"the {who} was trained on uint8 images {wanted}, not {given.dtype} {tuple(given.shape[1:])}; "
            "open the data at the resolution and channels of the generator"
        )
    return given
