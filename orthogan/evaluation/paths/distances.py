"""Distances between two images, by name: what a path is measured with. Among them LPIPS (Zhang et al. 2018)."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from orthogan.errors import UserError, install
from orthogan.evaluation.fidelity.efficientnet_lite import SIZE, load_efficientnet_lite0
from orthogan.evaluation.fidelity.extractors import VGG16
from orthogan.evaluation.fidelity.weights_files import find_weights, get_weights
from orthogan.evaluation.images import rgb
from orthogan.evaluation.metric import Inputs, Metric
from orthogan.io.hashing import file_sha256
from orthogan.io.weights import read_weights

LPIPS, PIXEL, FEATURES = "lpips-vgg16", "pixel", "efficientnet-lite0"
DISTANCES = (LPIPS, PIXEL, FEATURES)
Function = Callable[[Tensor, Tensor], Tensor]
URL = VGG16
HEADS = "weights/v0.1/vgg.pth"  # within the package
SMALLEST = 16  # pixels; VGG16 halves the image four times
CHUNK = 16  # pairs; at 256 px their maps take about 2 GiB


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


class DistanceMetric(Metric):
    """A metric of the distances between images, with the distance of that name."""

    def __init__(self, name: str, distance: str) -> None:
        self.name, self.distance = name, distance

    def prepare(self, inputs: Inputs) -> None:
        """The net behind the distance."""
        self.loaded(inputs)

    def loaded(self, inputs: Inputs) -> Distance:
        """The distance, loaded once for all metrics that have it."""
        return inputs.once(f"distance {self.distance}", lambda: load_distance(self.distance, device=inputs.device))


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


class Lpips(nn.Module):
    """Images (n, 1 or 3, h, w) twice, in [-1, 1], grey repeated -> distances (n,) float32; 0 for equal images.

    The sum over five layers of VGG16 of the weighted squared differences between their channel vectors, each of
    length 1; averaged over positions. ``net`` is the ``LPIPS`` of the ``lpips`` package (version 0.1, "vgg"): its
    architecture and linear heads, the ones that StyleGAN's PPL has.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.eval().requires_grad_(False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Raises ``UserError`` for images too small for VGG16."""
        if min(a.shape[2:]) < SMALLEST:
            raise UserError(f"LPIPS: images of {a.shape[3]}x{a.shape[2]} px: VGG16 needs at least {SMALLEST}")
        pairs = zip(a.float().split(CHUNK), b.float().split(CHUNK), strict=True)
        return torch.cat([self.net(rgb(x), rgb(y)).flatten() for x, y in pairs])


def load_lpips(weights: Path | None = None) -> tuple[Lpips, str]:
    """The distance, on the CPU, and the SHA-256 of the weights of VGG16 and of the heads.

    VGG16's file is searched as all weights are (``weights_files``), else downloaded; the heads come with the package.
    Both are read as plain tensors, and neither by the package's own loader, which unpickles and downloads.

    Args:
        weights: a VGG16 file in torchvision's form, to use as it is.

    Raises:
        UserError: the package or the weights are missing, or do not fit.
    """
    path = weights or _vgg16_file()
    found, net, heads = read_weights(path), _architecture(), _heads()
    trained = read_weights(heads)
    state: dict[str, Tensor] = {}
    try:
        for name, present in net.state_dict().items():
            group, _, rest = name.partition(".")
            if group == "net":  # net.slice2.5.weight is features.5.weight of VGG16
                state[name] = found[f"features.{rest.partition('.')[2]}"]
            elif group == "lins":  # lins.0.… is lin0.…
                state[name] = trained[f"lin{rest}"]
            else:
                state[name] = trained[name] if group.startswith("lin") else present
        net.load_state_dict(state, assign=True)
    except (KeyError, RuntimeError) as error:
        raise UserError(f"{path}: not the weights of VGG16: {str(error).splitlines()[0]}") from None
    return Lpips(net), f"VGG16 {file_sha256(path)}, heads {file_sha256(heads)}"


def _architecture() -> nn.Module:
    """The package's net without numbers: no memory, no random draws, no file read."""
    package = _package()
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls torchvision as one did of old
        return package.LPIPS(pretrained=False, pnet_rand=True, net="vgg", verbose=False)


def _heads() -> Path:
    return Path(str(resources.files(_package()) / HEADS))


def _package() -> ModuleType:
    try:
        return importlib.import_module("lpips")
    except ImportError:
        raise UserError(f"LPIPS needs {install('lpips')}; or measure a pixel or feature path length") from None


def _vgg16_file() -> Path:
    found = find_weights(URL)
    if found is not None:
        return found
    try:
        return get_weights(URL, "lpips-vgg16")
    except UserError as error:
        raise UserError(
            f"LPIPS: the weights of VGG16 are not here and cannot be downloaded. Put {URL.rsplit('/', 1)[-1]} from "
            f"{URL} into pretrained/, or measure pixel_path_length or feature_path_length, which need no download"
        ) from error
