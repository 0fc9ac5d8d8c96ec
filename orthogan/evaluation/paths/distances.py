"""Distances between two images, by name: what a path is measured with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from orthogan.errors import UserError
from orthogan.evaluation.fidelity.efficientnet_lite import SIZE, load_efficientnet_lite0
from orthogan.evaluation.images import rgb
from orthogan.evaluation.paths.perceptual import load_lpips

LPIPS, PIXEL, FEATURES = "lpips-vgg16", "pixel", "efficientnet-lite0"
DISTANCES = (LPIPS, PIXEL, FEATURES)
Function = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Distance:
    """Images (n, c, h, w) twice, float in [-1, 1] -> (n,).

    ``what``: the formula, ``weights``: the SHA-256 of the net behind it; both for the protocol.
    ``square``: whether it is the square of a length, so that the length of a long path is the sum of the roots.
    LPIPS grows with the square of a small step too, but what was published adds it up as it is.
    """

    name: str
    what: str
    function: Function
    weights: str = "none"
    square: bool = False

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Raises ``UserError`` where the function gives something else than a number for each pair."""
        found = self.function(a, b)
        if found.shape != (len(a),):
            raise UserError(f"distance {self.name}: must give ({len(a)},) numbers, gave {tuple(found.shape)}")
        return found.detach()

    def metric(self, perceptual: str, otherwise: str) -> str:
        """The name of a metric measured with it: only LPIPS makes a ``perceptual`` one."""
        kind = {LPIPS: perceptual, PIXEL: f"pixel_{otherwise}", FEATURES: f"feature_{otherwise}"}
        return kind.get(self.name, otherwise)

    def variant(self, *parts: str) -> str:
        """``parts`` behind the name of the distance, where the metric's name does not say it."""
        return ",".join([*([] if self.name in (LPIPS, PIXEL) else [self.name]), *parts])


def load_distance(distance: str | Distance | Function, *, device: torch.device | str = "cpu") -> Distance:
    """The distance of that name on ``device``; a function (or module, as it is) of one's own is wrapped.

    "lpips-vgg16"; "pixel": the mean squared difference of pixels; "efficientnet-lite0": the squared distance of the
    features of the embedded net (images are not rounded to bytes for it).

    Raises:
        UserError: no such distance, or its weights cannot be had.
    """
    if isinstance(distance, Distance):
        return distance
    if not isinstance(distance, str):
        name = getattr(distance, "__name__", type(distance).__name__)
        return Distance(name, f"{name}, one's own", distance, weights="one's own")
    if distance == LPIPS:
        net, digest = load_lpips()
        return Distance(LPIPS, "LPIPS 0.1, VGG16", net.to(device), digest)
    if distance == PIXEL:
        return Distance(PIXEL, "mean squared difference of pixels in [-1, 1]", _pixels, square=True)
    if distance == FEATURES:
        features, digest = load_efficientnet_lite0()
        what = f"squared distance of features, images at {SIZE} px"
        return Distance(FEATURES, what, _of_features(features.to(device)), digest, square=True)
    raise UserError(f"distance {distance!r}: choose one of {', '.join(DISTANCES)}, or give a function")


def _pixels(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().flatten(1).mean(1)


def _of_features(net: nn.Module) -> Function:
    def features(images: Tensor) -> Tensor:
        return net((rgb(images) + 1) * 127.5)[0]

    return lambda a, b: (features(a) - features(b)).square().sum(1)
