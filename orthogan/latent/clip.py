"""CLIP: embeddings of texts and images in one space, from a local folder in the layout of Hugging Face."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from orthogan.drawing.grid import on_white
from orthogan.errors import UserError, install
from orthogan.io.hashing import file_sha256
from orthogan.io.read import describe_error, printable
from orthogan.words import counted

WEIGHTS, CONFIG = "model.safetensors", "config.json"
# OpenAI's constants of ``preprocess``: of images in [0, 1]
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
BATCH = 64
NEUTRAL = "a picture"


class TextModel(Protocol):
    """Embeds texts and images in one space; the embeddings need not have unit length."""

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Return (n, d) for n texts."""
        ...

    def embed_images(self, images: Tensor) -> Tensor:
        """Return (n, d) for images uint8 (n, c, h, w) with 1 or 3 channels."""
        ...


class Clip:
    """CLIP of the library ``transformers``; made by ``load_clip``. ``sha256``: of the file of its weights."""

    def __init__(self, net: Any, tokenizer: Any, sha256: str, device: torch.device | str = "cpu") -> None:
        self.net, self.tokenizer, self.sha256 = net.to(device).eval().requires_grad_(False), tokenizer, sha256
        self.device = torch.device(device)
        self.side = int(net.config.vision_config.image_size)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Return (n, d) float32 on the CPU for n texts, cut at the longest length that the model takes."""
        longest = int(self.net.config.text_config.max_position_embeddings)
        tokens = self.tokenizer(list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt")
        given = {key: tokens[key].to(self.device) for key in ("input_ids", "attention_mask")}
        return self.net.text_projection(self.net.text_model(**given).pooler_output).float().cpu()

    @torch.no_grad()
    def embed_images(self, images: Tensor) -> Tensor:
        """Return (n, d) float32 on the CPU for images uint8 (n, c, h, w), which are resized to the model's size.

        Alpha is composited on white; of more than four channels the first three are used.
        """
        mean, std = (torch.tensor(values, device=self.device).view(1, 3, 1, 1) for values in (MEAN, STD))
        found = []
        for part in images.split(BATCH):
            x = torch.from_numpy(on_white(part.cpu().numpy())).to(self.device).float() / 255
            x = x.expand(-1, 3, -1, -1)
            size = (self.side, self.side)
            x = functional.interpolate(x, size=size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
            out = self.net.vision_model(pixel_values=(x - mean) / std).pooler_output
            found.append(self.net.visual_projection(out).float().cpu())
        return torch.cat(found)


def load_clip(folder: str | os.PathLike[str], *, sha256: str = "", device: torch.device | str = "cpu") -> Clip:
    """Load CLIP from a local ``folder`` as the Hugging Face Hub has it, for example openai/clip-vit-base-patch32.

    The folder contains ``config.json``, ``model.safetensors`` and the files of the tokenizer. Nothing is downloaded,
    and no code or pickle in the folder is executed. It needs the package ``transformers`` (extra ``text``).

    Args:
        sha256: refuse weights whose SHA-256 differs (64 hex digits, or the first ones).

    Raises:
        UserError: the package or a file is missing, the weights are others, or they are not those of CLIP.

    Example:
        >>> from orthogan.latent import load_clip
        >>> clip = load_clip("clip-vit-base-patch32")  # doctest: +SKIP
        >>> clip.embed_texts(["a face with glasses"]).shape  # doctest: +SKIP
        torch.Size([1, 512])
    """
    place, where = Path(folder), printable(folder)
    missing = [name for name in (CONFIG, WEIGHTS) if not (place / name).is_file()]
    if missing:
        raise UserError(
            f"{where}: contains no {missing[0]}; give the folder of a CLIP model, for example a copy of "
            "openai/clip-vit-base-patch32 from the Hugging Face Hub with model.safetensors"
        )
    digest = file_sha256(place / WEIGHTS)
    if sha256 and not digest.startswith(sha256.lower()):
        raise UserError(f"{where}/{WEIGHTS}: its SHA-256 is {digest}, not {sha256}; download the file again")
    try:
        from transformers import CLIPModel, CLIPTokenizer
    except ImportError:
        raise UserError(f"CLIP needs the package transformers: {install('text')}") from None
    offline: Any = {"local_files_only": True}
    try:
        loaded: Any = CLIPModel.from_pretrained(
            os.fspath(place), use_safetensors=True, output_loading_info=True, dtype=torch.float32, **offline
        )
        net, report = loaded
        tokenizer = CLIPTokenizer.from_pretrained(os.fspath(place), **offline)
    except Exception as error:  # of another library, for files of any content
        raise UserError(f"{where}: cannot be read as a CLIP model: {describe_error(error)}") from error
    if absent := sorted(report["missing_keys"]):
        raise UserError(
            f"{where}/{WEIGHTS}: lacks {counted(len(absent), 'weight')} of CLIP, such as {printable(absent[0])}"
        )
    return Clip(net, tokenizer, digest, device)


class TextReader:
    """A ``FactorReader``: how much more each picture resembles each of ``prompts`` than ``neutral``.

    It reads the cosine of the image embedding with the difference of the embeddings of both texts.

    Raises ``UserError`` for a prompt that equals the neutral text.
    """

    def __init__(self, model: TextModel, prompts: Sequence[str], neutral: str) -> None:
        self.model = model
        self.names = self.groups = tuple(prompts)
        embedded = functional.normalize(model.embed_texts([neutral, *prompts]).double(), dim=1)
        steps = embedded[1:] - embedded[:1]
        for prompt, step in zip(prompts, steps, strict=True):
            if float(step.norm()) < 1e-6:
                raise UserError(f"text '{printable(prompt)}': means the same to the model as the neutral '{neutral}'")
        self.steps = functional.normalize(steps, dim=1)

    def read(self, images: np.ndarray) -> np.ndarray:
        """Return (n, prompts) cosines for images uint8 (n, c, h, w)."""
        seen = functional.normalize(self.model.embed_images(torch.from_numpy(images)).double(), dim=1)
        return (seen @ self.steps.T).numpy()
