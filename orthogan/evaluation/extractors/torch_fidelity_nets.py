"""The networks of torch-fidelity: Inception (FID), VGG16, CLIP, and CLIP as CMMD uses it.

torch-fidelity is slow to import, so it is imported where it is needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from orthogan.errors import UserError
from orthogan.evaluation.extractors.extractor import EXTRACTORS, Extractor, ExtractorKind, Published, built, run
from orthogan.evaluation.images import resized
from orthogan.io.hashing import file_sha256
from orthogan.io.read import read_regular
from orthogan.io.weights import read_weights

INCEPTION = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
VGG16 = "https://download.pytorch.org/models/vgg16-397923af.pth"  # torchvision's VGG16_Weights.IMAGENET1K_V1
# a copy, because torch-fidelity is slow to import
CLIP = ("rn50", "rn101", "rn50x4", "rn50x16", "rn50x64", "vit-b-32", "vit-b-16", "vit-l-14", "vit-l-14-336px")
NORMALIZED = "-normalized"
CMMD = f"clip-vit-l-14-336px{NORMALIZED}"  # of arXiv 2401.09603: another resizing, and features of length 1
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
LARGEST_CLIP = 1 << 32  # bytes
TENSORFLOW = "TensorFlow-1 bilinear"  # torch-fidelity resizes as the original FID code did


class InceptionKind(ExtractorKind):
    """The Inception network of the original FID code: features (n, 2048) and logits (n, 1008)."""

    def published(self) -> Published:
        """Return the file of torch-fidelity."""
        return _named_by_hash(INCEPTION)

    def load(self, weights: Path | None) -> Extractor:
        """Load the network."""
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        path = self.file(weights)
        state = read_weights(path)
        net = built(
            path,
            lambda: FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=_handed(state)
            ),
        )
        return Extractor(self.name, file_sha256(path), f"{TENSORFLOW} 299", net, run)


class VGG16Kind(ExtractorKind):
    """VGG16, its second fully connected layer: features (n, 4096)."""

    def published(self) -> Published:
        """Return the file of torchvision."""
        return _named_by_hash(VGG16)

    def load(self, weights: Path | None) -> Extractor:
        """Load the network."""
        from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16

        path = self.file(weights)
        state = read_weights(path)
        net = built(
            path, lambda: FeatureExtractorVGG16("vgg16", ["fc2_relu"], feature_extractor_weights_path=_handed(state))
        )
        return Extractor(self.name, file_sha256(path), f"{TENSORFLOW} 224", net, _first)


class CLIPKind(ExtractorKind):
    """The image half of CLIP. The published file is a TorchScript program, which runs only if its checksum matches."""

    def published(self) -> Published:
        """Return the file of OpenAI."""
        from torch_fidelity import feature_extractor_clip as clip

        name = self.name.removesuffix(NORMALIZED)
        sha256 = clip.MODEL_METADATA[name]["hash"]
        return Published(clip.MODEL_URLS[name], f"{name}-{sha256}.pt", sha256)

    def load(self, weights: Path | None) -> Extractor:
        """Load the network."""
        net, digest = self.net(weights)
        return Extractor(self.name, digest, f"{TENSORFLOW} {net.resolution}", net, _first)

    def net(self, weights: Path | None) -> tuple[Any, str]:
        """Return torch-fidelity's network with these weights, and the SHA-256 of their file."""
        from torch_fidelity import feature_extractor_clip as clip
        from torch_fidelity.feature_extractor_base import FeatureExtractorBase

        name = self.name.removesuffix(NORMALIZED)

        class Net(clip.FeatureExtractorCLIP):
            """Its own constructor runs the TorchScript of any file."""

            def __init__(self, state: Mapping[str, Tensor]) -> None:
                FeatureExtractorBase.__init__(self, name, [self.get_default_feature_layer_for_metric("fid")])
                self.feature_extractor_internal_dtype = torch.float32
                self.model = clip.build_model(dict(state), torch.float32)
                self.resolution = self.model.visual.input_resolution

        published = clip.MODEL_METADATA[name]["hash"]
        path = self.file(weights)
        content = read_regular(path, LARGEST_CLIP)
        digest = hashlib.sha256(content).hexdigest()
        if digest == published:
            state = torch.jit.load(BytesIO(content), map_location="cpu").state_dict()
        else:
            try:
                state = read_weights(path)
            except UserError as error:
                raise UserError(f"{error}. Or use the published file, whose SHA-256 is {published}") from None
        return built(path, lambda: Net(state)), digest


class CMMDKind(CLIPKind):
    """CLIP's embedding of images as CMMD uses it: antialiased bicubic resizing, and vectors of length 1."""

    def load(self, weights: Path | None) -> Extractor:
        """Load the network."""
        net, digest = self.net(weights)
        return Extractor(self.name, digest, f"antialiased bicubic {net.resolution}", net, _embed)


def _embed(net: Any, images: Tensor) -> tuple[Tensor, None]:
    mean, std = (torch.tensor(x, device=images.device)[:, None, None] for x in (CLIP_MEAN, CLIP_STD))
    x = (resized(images, net.resolution) / 255 - mean) / std
    return functional.normalize(net.model.visual(x).float()), None


def _first(net: nn.Module, images: Tensor) -> tuple[Tensor, None]:
    return net(images)[0], None


def _named_by_hash(url: str) -> Published:
    """Return a file whose name ends in the first characters of its SHA-256, as torch.hub expects."""
    name = url.rsplit("/", 1)[-1]
    return Published(url, name, Path(name).stem.rsplit("-", 1)[-1])


def _handed(state: dict[str, Tensor]) -> BytesIO:
    """Write ``state`` to a file with plain tensors only, because torch-fidelity unpickles its file."""
    file = BytesIO()
    torch.save(state, file)
    file.seek(0)
    return file


EXTRACTORS.register("inception")(InceptionKind("inception"))
EXTRACTORS.register("vgg16")(VGG16Kind("vgg16"))
for _name in (f"clip-{net}" for net in CLIP):
    EXTRACTORS.register(_name)(CLIPKind(_name))
EXTRACTORS.register(CMMD)(CMMDKind(CMMD))
