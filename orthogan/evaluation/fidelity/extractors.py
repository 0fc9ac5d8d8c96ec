"""Feature extractors by name: torch-fidelity's own, the embedded EfficientNet-Lite0, or a class of the user's.

torch-fidelity and torchvision take as long to import as torch, so this is done where they are needed.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from orthogan.distributed import broadcast_json, rank_and_world
from orthogan.errors import UserError
from orthogan.evaluation.fidelity.efficientnet_lite import SIZE, load_efficientnet_lite0
from orthogan.evaluation.fidelity.weights_files import find_weights, get_weights
from orthogan.evaluation.images import rgb
from orthogan.evaluation.precision import autocast
from orthogan.io.hashing import file_sha256, tensors_sha256
from orthogan.io.read import printable, read_regular, user_path
from orthogan.io.weights import read_weights
from orthogan.named_code import import_class
from orthogan.registry import did_you_mean

INCEPTION = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
VGG16 = "https://download.pytorch.org/models/vgg16-397923af.pth"  # torchvision's VGG16_Weights.IMAGENET1K_V1
# torch-fidelity, which has them, takes as long to import as torch
_CLIP = ("rn50", "rn101", "rn50x4", "rn50x16", "rn50x64", "vit-b-32", "vit-b-16", "vit-l-14", "vit-l-14-336px")
CLIP = tuple(f"clip-{net}" for net in _CLIP)
DINOV2 = tuple(f"dinov2-vit-{size}-14" for size in "sblg")
EXTRACTORS = ("inception", "efficientnet-lite0", "vgg16", *CLIP, *DINOV2)
LARGEST_CLIP = 1 << 32  # bytes
TENSORFLOW = "TensorFlow-1 bilinear"  # torch-fidelity resizes as the original FID code did


@dataclass(frozen=True)
class Extractor:
    """uint8 images in, features out; what it is and how it sees an image goes into the protocol.

    Example:
        >>> import torch
        >>> from orthogan.evaluation import load_extractor
        >>> extractor = load_extractor("efficientnet-lite0")
        >>> features, logits = extractor(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
        >>> features.shape
        torch.Size([2, 1280])
    """

    name: str
    weights: str  # SHA-256, or where they come from
    resize: str
    net: nn.Module
    output: Callable[[nn.Module, Tensor], tuple[Tensor, Tensor | None]]
    bf16: bool = False  # under autocast: resizing is no product and stays float32

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """uint8 (n, 1 or 3, h, w), grey repeated -> features (n, d) and class logits (n, k) or None; float32.

        Raises:
            UserError: something else comes out (a user's own class may err).
        """
        with autocast(images.device, self.bf16):
            features, logits = self.output(self.net, rgb(images))
        self._check("features", features, len(images))
        if logits is None:
            return features.float(), None
        self._check("logits", logits, len(images))
        return features.float(), logits.float()

    def _check(self, what: str, found: object, count: int) -> None:
        if not isinstance(found, Tensor):
            raise UserError(f"extractor {self.name}: must give a tensor of {what}, gave a {type(found).__name__}")
        if found.ndim != 2 or len(found) != count or not found.shape[1] or found.is_complex():
            gave = f"{found.dtype} {tuple(found.shape)}"
            raise UserError(f"extractor {self.name}: must give (n, d) {what}, gave {gave} for n = {count}")

    def probe(self, device: torch.device) -> tuple[int, bool]:
        """Length of the features, and whether there are logits, by a look at two black images.

        Raises:
            UserError: what comes out is not a row of features for each image.
        """
        features, logits = self(torch.zeros(2, 3, 32, 32, dtype=torch.uint8, device=device))
        return features.shape[1], logits is not None


def resolve_extractor(name: str) -> str:
    """Turn "auto" into inception where its weights are here, else efficientnet-lite0, and log the choice.

    Several processes follow the first, so all call this together.

    Example:
        >>> from orthogan.evaluation import resolve_extractor
        >>> resolve_extractor("efficientnet-lite0")
        'efficientnet-lite0'
    """
    if name != "auto":
        return name
    if broadcast_json(find_weights(INCEPTION) is not None):
        return "inception"
    if rank_and_world()[0] == 0:
        _say_fallback()
    return "efficientnet-lite0"


@cache
def _say_fallback() -> None:
    """Once a process is enough."""
    print(
        "orthogan: Inception's weights are not here, so features are EfficientNet-Lite0's: the distance is "
        "FD[efficientnet-lite0], not FID",
        file=sys.stderr,
    )


def check_extractor(name: str) -> None:
    """Raise ``UserError`` if there is no extractor of this name; "auto" and any ``module:Class`` pass."""
    if name not in EXTRACTORS and name != "auto" and ":" not in name:
        hint = did_you_mean(name, EXTRACTORS)
        raise UserError(
            f"extractor {name!r} is not known{hint}; choose one of {', '.join(EXTRACTORS)}, or module:Class"
        )


def load_extractor(
    name: str, *, device: torch.device | str = "cpu", weights: str | Path | None = None, bf16: bool = False
) -> Extractor:
    """The extractor called ``name``, on ``device``.

    Args:
        weights: a file of weights instead of the published one: a state dict (``.pth``) or ``.safetensors`` of plain
            tensors, or a copy of the published file. Nothing in it runs. A class of the user's own gets its path.
        bf16: run it under bfloat16 autocast.

    Raises:
        UserError: no such extractor, or its weights cannot be had or read.

    Example:
        >>> from orthogan.evaluation import load_extractor
        >>> load_extractor("efficientnet-lite0").name
        'efficientnet-lite0'
    """
    if not isinstance(name, str):
        raise TypeError(
            f"extractor is a {type(name).__name__}: give a name, such as 'inception', or 'module:Class' of your own"
        )
    check_extractor(name)
    path = user_path(weights) if weights is not None else None
    if name == "inception":
        extractor = _inception(path)
    elif name == "efficientnet-lite0":
        net, digest = load_efficientnet_lite0(path)
        extractor = Extractor(name, digest, f"antialiased bicubic {SIZE}", net, lambda net, x: net(x))
    elif name == "vgg16":
        extractor = _vgg16(path)
    elif name in CLIP:
        extractor = _clip(name, path)
    elif name in DINOV2:
        extractor = _dinov2(name, path)
    else:
        extractor = _own(name, path)
    extractor.net.to(device).eval().requires_grad_(False)
    if ":" not in name:  # a class of the user's may want its own layout
        extractor.net.to(memory_format=torch.channels_last)
    return replace(extractor, bf16=bf16)


def _inception(path: Path | None) -> Extractor:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    path = path or get_weights(INCEPTION, "inception")
    state = read_weights(path)
    net = _built(
        path,
        lambda: FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=_handed(state)
        ),
    )
    return Extractor("inception", file_sha256(path), f"{TENSORFLOW} 299", net, lambda net, x: net(x))


def _vgg16(path: Path | None) -> Extractor:
    from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16

    path = path or get_weights(VGG16, "vgg16")
    state = read_weights(path)
    net = _built(
        path, lambda: FeatureExtractorVGG16("vgg16", ["fc2_relu"], feature_extractor_weights_path=_handed(state))
    )
    return Extractor("vgg16", file_sha256(path), f"{TENSORFLOW} 224", net, _first)


def _handed(state: dict[str, Tensor]) -> BytesIO:
    """``state`` for torch-fidelity, which reads a file with all that is in it: this one holds plain tensors alone."""
    file = BytesIO()
    torch.save(state, file)
    file.seek(0)
    return file


def _clip(name: str, path: Path | None) -> Extractor:
    """The published file is a TorchScript program: it is run only if it is that very file."""
    from torch_fidelity import feature_extractor_clip as clip
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase

    class Clip(clip.FeatureExtractorCLIP):
        """torch-fidelity's net with these weights; its own constructor runs the TorchScript of any file."""

        def __init__(self, state: Mapping[str, Tensor]) -> None:
            FeatureExtractorBase.__init__(self, name, [self.get_default_feature_layer_for_metric("fid")])
            self.feature_extractor_internal_dtype = torch.float32
            self.model = clip.build_model(dict(state), torch.float32)
            self.resolution = self.model.visual.input_resolution

    published = clip.MODEL_METADATA[name]["hash"]
    path = path or get_weights(clip.MODEL_URLS[name], name, f"{name}-{published}.pt")
    content = read_regular(path, LARGEST_CLIP)
    digest = hashlib.sha256(content).hexdigest()
    if digest == published:
        state = torch.jit.load(BytesIO(content), map_location="cpu").state_dict()
    else:
        try:
            state = read_weights(path)
        except UserError as error:
            raise UserError(f"{error}. Or take the published file, whose SHA-256 is {published}") from None
    net = _built(path, lambda: Clip(state))
    return Extractor(name, digest, f"{TENSORFLOW} {net.resolution}", net, _first)


def _dinov2(name: str, path: Path | None) -> Extractor:
    from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2

    if path is not None:
        raise UserError(f"weights: {name} comes with its code from torch.hub and takes no weights file")
    try:
        net = FeatureExtractorDinoV2(name, ["dinov2"])
    except Exception as error:  # torch.hub raises whatever the network or the repository's code does
        raise UserError(
            f"extractor {name}: torch.hub could not load facebookresearch/dinov2 ({_reason(error)}); "
            "the extractor efficientnet-lite0 needs no download"
        ) from None
    return Extractor(name, f"tensors {tensors_sha256(net.state_dict())}", f"{TENSORFLOW} 224", net, _first)


def _own(name: str, path: Path | None) -> Extractor:
    """``module:Class``: built without arguments (or with the weights file), called with uint8 RGB images.

    It is known by its code and its tensors: cached references of a class that was changed are not taken for its own.
    """
    make = import_class(name, "extractor", nn.Module)
    try:
        net = make() if path is None else make(str(path))
    except Exception as error:  # anything may happen in code that is not ours
        raise UserError(f"extractor {name!r}: cannot be built: {type(error).__name__}: {error}") from error
    digest = f"code and tensors {tensors_sha256(net.state_dict(), _source(make))}"
    return Extractor(make.__name__, digest, str(getattr(net, "resize", "its own")), net, _features_or_both)


def _source(kind: type) -> str:
    """The file a class is written in; of one without (built in a shell), its name."""
    try:
        return inspect.getsource(inspect.getmodule(kind) or kind)
    except (OSError, TypeError):
        return f"{kind.__module__}.{kind.__qualname__}"


def _first(net: nn.Module, images: Tensor) -> tuple[Tensor, None]:
    return net(images)[0], None


def _features_or_both(net: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
    out = net(images)
    if not isinstance(out, tuple):
        return out, None
    if len(out) != 2:
        raise UserError(f"extractor {type(net).__name__}: must give features, or features and logits, not {len(out)}")
    return out


Net = TypeVar("Net", bound=nn.Module)


def _built(path: Path, make: Callable[[], Net]) -> Net:
    try:
        return make()
    except Exception as error:  # foreign numbers in somebody else's code
        raise UserError(f"{printable(path)}: not the weights of this extractor: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """The first line of an error, unless that is torch's advice to read a file unsafely."""
    line = next(iter(str(error).splitlines()), "")
    return type(error).__name__ if not line or "weights_only" in line else printable(line)
