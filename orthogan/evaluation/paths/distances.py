"""Distances between two images, by name, to measure paths; among them LPIPS (Zhang et al. 2018)."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from orthogan.errors import UserError
from orthogan.evaluation.extractors.efficientnet_lite import SIZE, load_efficientnet_lite0
from orthogan.evaluation.extractors.torch_fidelity_nets import VGG16
from orthogan.evaluation.extractors.weights_files import find_weights, get_weights
from orthogan.evaluation.images import rgb
from orthogan.evaluation.metric import Inputs, Metric
from orthogan.io.hashing import file_sha256
from orthogan.io.weights import read_weights
from orthogan.words import counted

LPIPS, PIXEL, FEATURES = "lpips-vgg16", "pixel", "efficientnet-lite0"
DISTANCES = (LPIPS, PIXEL, FEATURES)
Function = Callable[[Tensor, Tensor], Tensor]
URL = VGG16
HEADS = "weights/v0.1/vgg.pth"  # within the package
SMALLEST = 16  # pixels; VGG16 halves the image four times
CHUNK = 16  # pairs; at 256 px their maps take about 2 GiB


@dataclass(frozen=True)
class Distance:
    """Maps two batches of images (n, c, h, w), float in [-1, 1], to distances (n,).

    ``what``: the formula, ``weights``: the SHA-256 of the net behind it; both for the protocol.
    ``square``: whether it is the square of a length, so that the length of a path is the sum of the square roots. LPIPS
    also grows with the square of a small step, but publications sum it as it is.
    """

    name: str
    what: str
    function: Function
    weights: str = "none"
    square: bool = False
    features: Callable[[Tensor], Tensor] | None = None  # of images, where the function is their squared distance

    def against(self, targets: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the distances (n,) of images from fixed ``targets`` (n, c, h, w), differentiable in the images."""
        if self.features is None:
            return lambda images: self.function(images, targets)
        features = self.features
        with torch.no_grad():
            goal = features(targets)
        return lambda images: (features(images) - goal).square().sum(1)

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Compute distances. Raises ``UserError`` if the function does not return one number per pair."""
        found = self.function(a, b)
        if found.shape != (len(a),):
            raise UserError(
                f"distance {self.name}: must return {counted(len(a), 'number')}, returned shape {tuple(found.shape)}"
            )
        return found.detach()

    def metric(self, perceptual: str, otherwise: str) -> str:
        """Return the name of a metric with this distance; only LPIPS makes it ``perceptual``."""
        kind = {LPIPS: perceptual, PIXEL: f"pixel_{otherwise}", FEATURES: f"feature_{otherwise}"}
        return kind.get(self.name, otherwise)

    def variant(self, *parts: str) -> str:
        """Return ``parts`` after the name of the distance, if the name of the metric does not include it."""
        return ",".join([*([] if self.name in (LPIPS, PIXEL) else [self.name]), *parts])


class DistanceMetric(Metric):
    """A metric of distances between images, with a named distance."""

    def __init__(self, name: str, distance: str) -> None:
        self.name, self.distance = name, distance

    def prepare(self, inputs: Inputs) -> None:
        """Load the network of the distance."""
        self.loaded(inputs)

    def loaded(self, inputs: Inputs) -> Distance:
        """Return the distance, loaded once for all metrics that use it."""
        return inputs.once(f"distance {self.distance}", lambda: load_distance(self.distance, device=inputs.device))


def load_distance(distance: str | Distance | Function, *, device: torch.device | str = "cpu") -> Distance:
    """Load a distance of images on ``device``.

    Args:
        distance: "lpips-vgg16"; "pixel", the mean squared difference of pixels; "efficientnet-lite0", the squared
            distance of the features of the embedded network (images are not rounded to bytes for it); or your own
            function or module of two batches of images (n, c, h, w) in [-1, 1] that returns distances (n,).
        device: device of the networks.

    Raises:
        UserError: unknown distance, or its weights are not available.

    Example:
        >>> import torch
        >>> from orthogan.evaluation.paths.distances import load_distance
        >>> distance = load_distance("pixel")
        >>> distance(torch.zeros(2, 3, 8, 8), torch.ones(2, 3, 8, 8)).tolist()
        [1.0, 1.0]
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
        net, digest = load_efficientnet_lite0()
        what = f"squared distance of features, images at {SIZE} px"
        features = _features_of(net.to(device))
        return Distance(FEATURES, what, _between(features), digest, square=True, features=features)
    raise UserError(f"distance {distance!r}: choose one of {', '.join(DISTANCES)}, or pass a function")


def _pixels(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().flatten(1).mean(1)


def _features_of(net: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda images: net((rgb(images) + 1) * 127.5)[0]


def _between(features: Callable[[Tensor], Tensor]) -> Function:
    return lambda a, b: (features(a) - features(b)).square().sum(1)


def nearest_to_perception() -> str:
    """Return the name of the best available distance: LPIPS if its package and weights are here, else EfficientNet."""
    found = importlib.util.find_spec("lpips") is not None and find_weights(URL) is not None
    return LPIPS if found else FEATURES


class Lpips(nn.Module):
    """Maps two batches of images (n, 1 or 3, h, w) in [-1, 1] to distances (n,) float32; 0 for equal images.

    The weighted squared differences between normalized channel vectors of VGG16, averaged over positions and summed
    over five layers. Grayscale images are repeated. ``net`` is the ``LPIPS`` of the ``lpips`` package (version 0.1,
    "vgg"): its architecture and linear heads, as in StyleGAN's PPL.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.eval().requires_grad_(False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Compute the distances. Raises ``UserError`` for images too small for VGG16."""
        if min(a.shape[2:]) < SMALLEST:
            raise UserError(f"LPIPS: images of {a.shape[3]}x{a.shape[2]} px: VGG16 needs at least {SMALLEST}")
        pairs = zip(a.float().split(CHUNK), b.float().split(CHUNK), strict=True)
        return torch.cat([self.net(rgb(x), rgb(y)).flatten() for x, y in pairs])


def load_lpips(weights: Path | None = None) -> tuple[Lpips, str]:
    """Load the distance on the CPU, and return it with the SHA-256 of the weights of VGG16 and of the heads.

    The file of VGG16 is searched like all weights (``weights_files``), else downloaded; the heads ship with the
    package. Both are read as plain tensors, not by the loader of the package, which unpickles and downloads.

    Args:
        weights: a VGG16 file in torchvision's format, to use instead.

    Raises:
        UserError: the package or the weights are missing, or do not match.
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
    """Build the network of the package without values: no memory, no random numbers, no file access."""
    package = _package()
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it uses a deprecated torchvision API
        return package.LPIPS(pretrained=False, pnet_rand=True, net="vgg", verbose=False)


def _heads() -> Path:
    return Path(str(resources.files(_package()) / HEADS))


def _package() -> ModuleType:
    try:
        return importlib.import_module("lpips")
    except ImportError:
        raise UserError("LPIPS needs lpips: pip install lpips; or choose a pixel or feature path length") from None


def _vgg16_file() -> Path:
    found = find_weights(URL)
    if found is not None:
        return found
    try:
        return get_weights(URL, "lpips-vgg16")
    except UserError as error:
        raise UserError(
            f"LPIPS: the weights of VGG16 were not found and cannot be downloaded. Put {URL.rsplit('/', 1)[-1]} from "
            f"{URL} into pretrained/, or choose pixel_path_length or feature_path_length, which need no download"
        ) from error
