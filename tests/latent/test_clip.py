"""CLIP from a local folder: a tiny one with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from orthogan.errors import UserError
from orthogan.latent import load_clip
from orthogan.latent.clip import MEAN, STD, TextReader

transformers = pytest.importorskip("transformers", reason="needs the extra text")
LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("clip")
    tokens = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    (place / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (place / "merges.txt").write_text("#version: 0.2\n")
    small = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1, "pad_token_id": len(tokens) - 1}
    torch.manual_seed(0)
    net = transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config={**small, **ends, "vocab_size": len(tokens), "max_position_embeddings": 12},
            vision_config={**small, "image_size": 16, "patch_size": 8},
            projection_dim=4,
        )
    )
    net.save_pretrained(place)
    (place / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    return place


def test_embeddings_are_those_of_the_library(folder: Path) -> None:
    clip = load_clip(folder)
    net = transformers.CLIPModel.from_pretrained(folder).eval()
    ends = [len(LETTERS) * 2, len(LETTERS) * 2 + 1]
    words = [0, 1 + len(LETTERS)]  # "a", "b</w>"
    with torch.no_grad():
        seen = net.text_model(input_ids=torch.tensor([[ends[0], *words, ends[1]]]))
        expected = net.text_projection(seen.pooler_output)
    torch.testing.assert_close(clip.embed_texts(["ab"]), expected)
    # the length of the longest text does not change the others, and long ones are cut
    both = clip.embed_texts(["ab", "a long text of many letters"])
    torch.testing.assert_close(both[:1], expected)

    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels = (images / 255 - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    with torch.no_grad():
        expected = net.visual_projection(net.vision_model(pixel_values=pixels).pooler_output)
    torch.testing.assert_close(clip.embed_images(images), expected, atol=1e-5, rtol=1e-5)
    assert clip.embed_images(images[:, :1]).shape == (3, 4)
    alpha = torch.full_like(images[:, :1], 51)
    pale = (images * 0.2 + 204).round().to(torch.uint8)  # on white
    torch.testing.assert_close(clip.embed_images(torch.cat([images, alpha], 1)), clip.embed_images(pale))
    gray = clip.embed_images(torch.cat([images[:, :1], alpha], 1))
    torch.testing.assert_close(gray, clip.embed_images(pale[:, :1]))

    reader = TextReader(clip, ["red hat", "cat"], "a face")
    texts = functional.normalize(clip.embed_texts(["a face", "red hat", "cat"]).double(), dim=1)
    steps = functional.normalize(texts[1:] - texts[0], dim=1)
    seen = functional.normalize(clip.embed_images(images).double(), dim=1)
    np.testing.assert_allclose(reader.read(images.numpy()), (seen @ steps.T).numpy(), atol=1e-6)


def test_other_files_are_refused_by_name(folder: Path, tmp_path: Path) -> None:
    digest = load_clip(folder).sha256
    assert load_clip(folder, sha256=digest[:12]).sha256 == digest
    with pytest.raises(UserError, match=r"model\.safetensors: its SHA-256 is .*, not abc"):
        load_clip(folder, sha256="abc")
    with pytest.raises(UserError, match=r"contains no config\.json"):
        load_clip(tmp_path)
    for name in ("config.json", "vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle is never read")
    with pytest.raises(UserError, match=r"contains no model\.safetensors"):
        load_clip(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(UserError, match="cannot be read as a CLIP model"):
        load_clip(tmp_path)
