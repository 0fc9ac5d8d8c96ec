"""DINOv2, a vision transformer trained without labels (arXiv 2304.07193), from the published files of weights.

Only tensors are read: the code of facebookresearch/dinov2 is neither downloaded nor run. The modules are named as in
the files.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from orthogan.evaluation.extractors.extractor import EXTRACTORS, Extractor, ExtractorKind, Published, built
from orthogan.evaluation.images import resized
from orthogan.io.hashing import file_sha256
from orthogan.io.weights import read_weights

PATCH, SIDE = 14, 224  # pixels
GRID = 37  # patches per side of the images of 518 pixels that the position embedding was trained for
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
EPS = 1e-6


class Size(NamedTuple):
    """A published network: ``gated`` marks the feed-forward layers of ViT-g."""

    width: int
    depth: int
    heads: int
    gated: bool
    file: str
    sha256: str  # empty: not known to us, so the file must be named with --weights


SIZES = {
    "dinov2-vit-s-14": Size(
        384, 12, 6, False, "dinov2_vits14", "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9"
    ),
    "dinov2-vit-b-14": Size(
        768, 12, 12, False, "dinov2_vitb14", "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73"
    ),
    "dinov2-vit-l-14": Size(
        1024, 24, 16, False, "dinov2_vitl14", "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428"
    ),
    "dinov2-vit-g-14": Size(1536, 40, 24, True, "dinov2_vitg14", ""),
}


class Attention(nn.Module):
    """Self-attention of tokens (n, t, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(n, t, width) -> (n, t, width)."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Feedforward(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(n, t, width) -> (n, t, width)."""
        return self.fc2(functional.gelu(self.fc1(x)))


class Gated(nn.Module):
    """Two linear layers with a SwiGLU between them; the hidden width is 2/3 of 4 times the width, a multiple of 8."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = (4 * width * 2 // 3 + 7) // 8 * 8
        self.w12 = nn.Linear(width, 2 * hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(n, t, width) -> (n, t, width)."""
        gate, value = self.w12(x).chunk(2, 2)
        return self.w3(functional.silu(gate) * value)


class Scale(nn.Module):
    """A learned factor per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        return x * self.gamma


class Block(nn.Module):
    """Attention and feed-forward layers, each after a layer norm and added to its input."""

    def __init__(self, width: int, heads: int, gated: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, EPS), nn.LayerNorm(width, EPS)
        self.attn = Attention(width, heads)
        self.mlp = Gated(width) if gated else Feedforward(width)
        self.ls1, self.ls2 = Scale(width), Scale(width)

    def forward(self, x: Tensor) -> Tensor:
        """(n, t, width) -> (n, t, width)."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class Patches(nn.Module):
    """Squares of 14 pixels as tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, PATCH)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, h, w) -> (n, h w / 196, width)."""
        return self.proj(x).flatten(2).transpose(1, 2)


class DINOv2(nn.Module):
    """uint8 RGB images (n, 3, h, w) -> the normalized class token (n, width), as dgm-eval uses it (arXiv 2306.04675).

    Images are resized to 224 pixels by antialiased bicubic interpolation and normalized with ImageNet's mean and
    standard deviation. The position embedding is interpolated as in the published code, with an offset of 0.1.
    """

    def __init__(self, width: int, depth: int, heads: int, gated: bool = False) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + GRID**2, width))
        self.patch_embed = Patches(width)
        self.blocks = nn.ModuleList(Block(width, heads, gated) for _ in range(depth))
        self.norm = nn.LayerNorm(width, EPS)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the features of uint8 images."""
        mean, std = (torch.tensor(x, device=images.device)[:, None, None] for x in (MEAN, STD))
        x = (resized(images, SIDE).round().clamp(0, 255) / 255 - mean) / std
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), self.patch_embed(x)], 1)
        tokens = tokens + self._positions(x.shape[-1] // PATCH)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)[:, 0]

    def _positions(self, side: int) -> Tensor:
        """Return the position embedding of ``side`` x ``side`` patches."""
        first, rest = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        grid = rest.reshape(1, GRID, GRID, -1).permute(0, 3, 1, 2)
        scale = (side + 0.1) / GRID
        moved = functional.interpolate(grid, scale_factor=(scale, scale), mode="bicubic")
        return torch.cat([first, moved.flatten(2).transpose(1, 2)], 1)


class DINOv2Kind(ExtractorKind):
    """DINOv2 in a published size."""

    def published(self) -> Published:
        """Return the file of facebookresearch."""
        size = SIZES[self.name]
        name = f"{size.file}_pretrain.pth"
        return Published(f"https://dl.fbaipublicfiles.com/dinov2/{size.file}/{name}", name, size.sha256)

    def load(self, weights: Path | None) -> Extractor:
        """Load the network; the ``mask_token`` of a published file is not needed."""
        file, size = self.file(weights), SIZES[self.name]
        state = {key: value for key, value in read_weights(file).items() if key != "mask_token"}
        net = built(file, lambda: _filled(DINOv2(size.width, size.depth, size.heads, size.gated), state))
        return Extractor(self.name, file_sha256(file), f"antialiased bicubic {SIDE}", net, _features)


def _features(net: nn.Module, images: Tensor) -> tuple[Tensor, None]:
    return net(images), None


def _filled(net: DINOv2, state: dict[str, Tensor]) -> DINOv2:
    net.load_state_dict(state)
    return net


for _name in SIZES:
    EXTRACTORS.register(_name)(DINOv2Kind(_name))
