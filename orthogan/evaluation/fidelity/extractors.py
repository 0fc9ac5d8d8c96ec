"""Feature extractors by name: those of torch-fidelity, EfficientNet-Lite0, or a user's class.

torch-fidelity and torchvision are slow to import, so they are imported where they are needed.
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
# a copy, because torch-fidelity is slow to import
_CLIP = ("rn50", "rn101", "rn50x4", "rn50x16", "rn50x64", "vit-b-32", "vit-b-16", "vit-l-14", "vit-l-14-336px")
CLIP = tuple(f"clip-{net}" for net in _CLIP)
DINOV2 = tuple(f"dinov2-vit-{size}-14" for size in "sblg")
EXTRACTORS = ("inception", "efficientnet-lite0", "vgg16", *CLIP, *DINOV2)
LARGEST_CLIP = 1 << 32  # bytes
TENSORFLOW = "TensorFlow-1 bilinear"  # torch-fidelity resizes as the original FID code did


@dataclass(frozen=True)
class Extractor:
    """Maps uint8 images to features; its identity and preprocessing are part of the protocol.

    Example:
        >>> import torch
        >>> from orthogan.evaluation import load_extractor
        >>> extractor = load_extractor("efficientnet-lite0")
        >>> features, logits = extractor(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
        >>> features.shape
        torch.Size([2, 1280])
    """

    name: str
    weights: str  # SHA-256, or their origin
    resize: str
    net: nn.Module
    output: Callable[[nn.Module, Tensor], tuple[Tensor, Tensor | None]]
    bf16: bool = False  # under autocast; resizing stays float32

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """uint8 (n, 1 or 3, h, w), gray repeated -> features (n, d) and class logits (n, k) or None; float32.

        Raises:
            UserError: the output is something else (for example from a user's class).
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
            raise UserError(f"extractor {self.name}: must return a tensor of {what}, returned a {type(found).__name__}")
        if found.ndim != 2 or len(found) != count or not found.shape[1] or found.is_complex():
            gave = f"{found.dtype} {tuple(found.shape)}"
            raise UserError(f"extractor {self.name}: must return (n, d) {what}, returned {gave} for n = {count}")

    def probe(self, device: torch.device) -> tuple[int, bool]:
        """Return the length of the features and whether there are logits, by running two black images.

        Raises:
            UserError: the output is not one row of features per image.
        """
        features, logits = self(torch.zeros(2, 3, 32, 32, dtype=torch.uint8, device=device))
        return features.shape[1], logits is not None


def resolve_extractor(name: str) -> str:
    """Resolve "auto" to inception if its weights are available, else efficientnet-lite0, and log the choice.

    All processes follow the first one, so they must call this together.

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
    """Warn once per process."""
    print(
        "orthogan: the weights of Inception are not available, so EfficientNet-Lite0 computes the features: the "
        "distance is FD[efficientnet-lite0], not FID",
        file=sys.stderr,
    )


def check_extractor(name: str) -> None:
    """Raise ``UserError`` if there is no extractor of this name; "auto" and any ``module:Class`` pass."""
    if name not in EXTRACTORS and name != "auto" and ":" not in name:
        hint = did_you_mean(name, EXTRACTORS)
        raise UserError(f"unknown extractor {name!r}{hint}; choose one of {', '.join(EXTRACTORS)}, or module:Class")


def load_extractor(
    name: str, *, device: torch.device | str = "cpu", weights: str | Path | None = None, bf16: bool = False
) -> Extractor:
    """Load the extractor called ``name`` on ``device``.

    Args:
        weights: a file of weights instead of the published one: a state dict (``.pth``) or ``.safetensors`` of plain
            tensors, or a copy of the published file. No code in it is executed. A user's class gets its path.
        bf16: run it under bfloat16 autocast.

    Raises:
        UserError: there is no such extractor, or its weights are not available or readable.

    Example:
        >>> from orthogan.evaluation import load_extractor
        >>> load_extractor("efficientnet-lite0").name
        'efficientnet-lite0'
    """
    if not isinstance(name, str):
        raise TypeError(
            f"extractor is a {type(name).__name__}: must be a name, such as 'inception', or 'module:Class' for your own"
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
    if ":" not in name:  # a user's class may need its own layout
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
    """Write ``state`` to a file with plain tensors only, because torch-fidelity unpickles its file."""
    file = BytesIO()
    torch.save(state, file)
    file.seek(0)
    return file


def _clip(name: str, path: Path | None) -> Extractor:
    """Load CLIP. The published file is a TorchScript program, which is run only if its checksum matches."""
    from torch_fidelity import feature_extractor_clip as clip
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase

    class Clip(clip.FeatureExtractorCLIP):
        """The network of torch-fidelity with these weights; whose own constructor runs the TorchScript of any file."""

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
            raise UserError(f"{error}. Or use the published file, whose SHA-256 is {published}") from None
    net = _built(path, lambda: Clip(state))
    return Extractor(name, digest, f"{TENSORFLOW} {net.resolution}", net, _first)


def _dinov2(name: str, path: Path | None) -> Extractor:
    from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2

    if path is not None:
        raise UserError(f"weights: {name} is loaded from torch.hub together with its code and accepts no weights file")
    try:
        net = FeatureExtractorDinoV2(name, ["dinov2"])
    except Exception as error:  # torch.hub raises any error of the network or the code of the repository
        raise UserError(
            f"extractor {name}: torch.hub could not load facebookresearch/dinov2 ({_reason(error)}); "
            "the extractor efficientnet-lite0 needs no download"
        ) from None
    return Extractor(name, f"tensors {tensors_sha256(net.state_dict())}", f"{TENSORFLOW} 224", net, _first)


def _own(name: str, path: Path | None) -> Extractor:
    """Load ``module:Class``, built without arguments (or with the weights file) and called with uint8 RGB images.

    It is identified by its code and tensors, so cached references of a changed class are not reused.
    """
    make = import_class(name, "extractor", nn.Module)
    try:
        net = make() if path is None else make(str(path))
    except Exception as error:  # user code may raise anything
        raise UserError(f"extractor {name!r}: cannot be created: {type(error).__name__}: {error}") from error
    digest = f"code and tensors {tensors_sha256(net.state_dict(), _source(make))}"
    return Extractor(make.__name__, digest, str(getattr(net, "resize", "its own")), net, _features_or_both)


def _source(kind: type) -> str:
    """Return the source file of a class; for one without (defined in a shell), its name."""
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
        raise UserError(
            f"extractor {type(net).__name__}: must return features, or features and logits, not {len(out)} outputs"
        )
    return out


Net = TypeVar("Net", bound=nn.Module)


def _built(path: Path, make: Callable[[], Net]) -> Net:
    try:
        return make()
    except Exception as error:  # unexpected tensors in foreign code
        raise UserError(f"{printable(path)}: not the weights of this extractor: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """Return the first line of an error, without torch's advice to load files unsafely."""
    line = next(iter(str(error).splitlines()), "")
    return type(error).__name__ if not line or "weights_only" in line else printable(line)
