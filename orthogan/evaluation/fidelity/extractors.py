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
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from orthogan.distributed import broadcast_json, rank_and_world
from orthogan.errors import UserError
from orthogan.evaluation.fidelity import dinov2
from orthogan.evaluation.fidelity.efficientnet_lite import SIZE, load_efficientnet_lite0
from orthogan.evaluation.fidelity.weights_files import find_weights, get_weights
from orthogan.evaluation.images import resized, rgb
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
DINOV2 = tuple(dinov2.SIZES)
CMMD = "clip-vit-l-14-336px-normalized"  # of arXiv 2401.09603: another resizing, and features of length 1
EXTRACTORS = ("inception", "efficientnet-lite0", "vgg16", *CLIP, *DINOV2, CMMD)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
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
    elif name == CMMD:
        extractor = _cmmd(path)
    elif name in DINOV2:
        extractor = _dinov2(name, path)
    else:
        extractor = _own(name, path)
    extractor.net.to(device).eval().requires_grad_(False)
    if ":" not in name:  # a user's class may need its own layout
        extractor.net.to(memory_format=torch.channels_last)
    return replace(extractor, bf16=bf16)


class Published(NamedTuple):
    """A published file of weights: its address, and the name under which it is searched and kept."""

    url: str
    name: str
    sha256: str  # or its first characters


def published(extractor: str) -> Published | None:
    """Return the file of weights of ``extractor``; None if none needs to be downloaded, or none is known.

    Example:
        >>> from orthogan.evaluation.fidelity.extractors import published
        >>> published("dinov2-vit-l-14").name
        'dinov2_vitl14_pretrain.pth'
    """
    if extractor in ("inception", "vgg16"):
        url = INCEPTION if extractor == "inception" else VGG16
        name = url.rsplit("/", 1)[-1]
        return Published(url, name, name.rsplit(".", 1)[0].rsplit("-", 1)[-1])
    if extractor in dinov2.SIZES:
        size = dinov2.SIZES[extractor]
        name = f"{size.file}_pretrain.pth"
        return Published(f"https://dl.fbaipublicfiles.com/dinov2/{size.file}/{name}", name, size.sha256)
    if extractor in (*CLIP, CMMD):
        from torch_fidelity import feature_extractor_clip as clip

        known = extractor.removesuffix("-normalized")
        sha256 = clip.MODEL_METADATA[known]["hash"]
        return Published(clip.MODEL_URLS[known], f"{known}-{sha256}.pt", sha256)
    return None


def at_hand(extractor: str) -> bool:
    """Whether ``extractor`` can be loaded without a download; a file with another hash is an error."""
    file = published(extractor)
    return file is None or (bool(file.sha256) and find_weights(file.url, file.name, file.sha256) is not None)


def missing(extractor: str) -> UserError | None:
    """Return which weights ``extractor`` lacks and how to get them, or None if they are here; nothing is downloaded.

    Example:
        >>> from orthogan.evaluation.fidelity.extractors import missing
        >>> missing("efficientnet-lite0") is None
        True
    """
    file = published(extractor)
    if file is None or at_hand(extractor):
        return None
    checked = f" (SHA-256 {file.sha256})" if len(file.sha256) == 64 else ""
    return UserError(
        f"the weights of {extractor} are not here: put {file.name}{checked} from {file.url} into pretrained/ or a "
        "folder of $ORTHOGAN_PRETRAINED"
    )


def _file(extractor: str, path: Path | None) -> Path:
    """Return the weights file given by the user, or the published one, found or downloaded."""
    if path is not None:
        return path
    file = published(extractor)
    assert file is not None
    if not file.sha256:
        raise UserError(
            f"extractor {extractor}: download {file.url} and name the file with --weights (in Python weights=); its "
            "SHA-256 is not known to orthogan, so it is not downloaded"
        )
    return get_weights(file.url, extractor, file.name, file.sha256)


def _inception(path: Path | None) -> Extractor:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    path = _file("inception", path)
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

    path = _file("vgg16", path)
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
    path = _file(name, path)
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
    file = _file(name, path)
    state = read_weights(file)
    net = _built(file, lambda: dinov2.build(name, state))
    return Extractor(name, file_sha256(file), f"antialiased bicubic {dinov2.SIDE}", net, lambda net, x: (net(x), None))


def _cmmd(path: Path | None) -> Extractor:
    """CLIP's embedding of images as CMMD uses it: antialiased bicubic resizing, and vectors of length 1."""
    base: Any = _clip(CMMD.removesuffix("-normalized"), path)

    def embed(net: Any, images: Tensor) -> tuple[Tensor, None]:
        mean, std = (torch.tensor(x, device=images.device)[:, None, None] for x in (CLIP_MEAN, CLIP_STD))
        x = (resized(images, net.resolution) / 255 - mean) / std
        return functional.normalize(net.model.visual(x).float()), None

    return Extractor(CMMD, base.weights, f"antialiased bicubic {base.net.resolution}", base.net, embed)


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
