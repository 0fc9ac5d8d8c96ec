"""Extractors seldom at hand (VGG16, CLIP, DINOv2), as small random nets in the published formats; and own ones."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch_fidelity.feature_extractor_clip import MODEL_METADATA as CLIP
from torch_fidelity.feature_extractor_clip import CLIPVisual, FeatureExtractorCLIP
from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16

from orthogan.errors import UserError
from orthogan.evaluation import load_extractor
from orthogan.evaluation.extractors import torch_fidelity_nets
from orthogan.evaluation.extractors.dinov2 import SIZES, DINOv2, Gated
from orthogan.evaluation.extractors.extractor import EXTRACTORS
from orthogan.evaluation.extractors.weights_files import get_weights
from orthogan.io.hashing import file_sha256

IMAGES = torch.randint(0, 256, (3, 3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class SmallVGG(nn.Module):
    """As many classifier layers as VGG16, but few weights."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.classifier = nn.Sequential(
            *(nn.Linear(48, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 5))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pool(x).flatten(1))


def test_vgg16_is_torch_fidelitys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.models, "vgg16", SmallVGG)
    file = tmp_path / "vgg.pth"
    torch.save(SmallVGG().state_dict(), file)
    extractor = load_extractor("vgg16", weights=file)
    features, logits = extractor(IMAGES)
    theirs = FeatureExtractorVGG16("vgg16", ["fc2_relu"], feature_extractor_weights_path=str(file))
    assert torch.equal(features, theirs(IMAGES)[0])
    assert (features.shape, logits, extractor.weights) == ((3, 8), None, file_sha256(file))


def clip_archive(path: Path) -> None:
    """A CLIP of one layer at 32 px in the published form: a TorchScript archive with the text half's names."""
    torch.jit.save(torch.jit.trace(SmallCLIP(), torch.rand(1, 3, 32, 32)), str(path))


class SmallCLIP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.visual = CLIPVisual(16, 32, 1, 64, 16).visual
        self.text_projection = nn.Parameter(torch.randn(8, 16))
        self.logit_scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.visual(x) @ self.text_projection.T * self.logit_scale


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
def test_clip_is_torch_fidelitys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, plain = tmp_path / "clip.pt", tmp_path / "plain.pth"
    clip_archive(file)
    theirs = FeatureExtractorCLIP("clip-vit-b-16", ["clip"], feature_extractor_weights_path=str(file))
    torch.save(SmallCLIP().state_dict(), plain)
    monkeypatch.setitem(CLIP, "clip-vit-b-16", {"hash": file_sha256(file)})  # as if this were the published file
    for weights in (file, plain):
        extractor = load_extractor("clip-vit-b-16", weights=weights)
        features, logits = extractor(IMAGES)
        assert torch.equal(features, theirs(IMAGES)[0])
        assert (features.shape, logits, extractor.resize) == ((3, 16), None, "TensorFlow-1 bilinear 32")


class Writing(nn.Module):
    """TorchScript that writes a file when it is loaded."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: Tensor) -> Tensor:
        return x

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.path, self.training = state
        torch.save(torch.ones(1), self.path)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("extractor", ["clip-vit-b-16", "inception", "vgg16", "efficientnet-lite0"])
def test_torchscript_in_a_file_of_the_users_is_not_run(tmp_path: Path, extractor: str) -> None:
    file, written = tmp_path / "w.pt", tmp_path / "written"
    torch.jit.script(Writing(str(written))).save(str(file))
    torch.jit.load(str(file))
    assert written.exists()  # this is what it does where it runs
    written.unlink()
    with pytest.raises(UserError, match=r"w\.pt.*TorchScript"):
        load_extractor(extractor, weights=file)
    assert not written.exists()


@pytest.mark.parametrize("extractor", ["clip-vit-b-16", "inception", "vgg16", "efficientnet-lite0"])
@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("w.pth", b"", "empty"),
        ("w.pth", b"hello", "hello"),
        ("w.pth", b"<!DOCTYPE html><title>404</title>", "web page"),
        ("w.pth", b"version https://git-lfs.github.com/spec/v1\n", "LFS"),
        ("w.pth", b"PK\x03\x04 cut short", "damaged zip"),
        ("w.pth", b"\x80\x02 cut short", "damaged"),
        ("w.safetensors", b"", "not a readable safetensors"),
        ("w.pth", {101: torch.ones(2)}, "not the weights"),
        ("w.pth", {"visual.proj": torch.ones(2), "x": torch.ones(2)}, "not the weights"),
        ("w.pth", {"visual.layer1": torch.ones(2)}, "not the weights"),
        ("w.pth", {"w": torch.eye(3).to_sparse()}, "sparse"),
        ("w.pth", {"w": torch.ones(1).expand(10**12)}, "stored"),
        ("w.pth", {"w": nn.Linear}, "more than tensors"),
        ("w.pth", {"w": 3}, "not tensors"),
    ],
)
def test_what_is_no_file_of_weights_is_named(
    tmp_path: Path, extractor: str, name: str, content: object, says: str
) -> None:
    file = tmp_path / name
    file.write_bytes(content) if isinstance(content, bytes) else torch.save(content, file)
    with pytest.raises(UserError) as caught:
        load_extractor(extractor, weights=file)
    said = str(caught.value).splitlines()[0]
    assert str(file) in said
    assert says.replace("not the weights", "not the weights of") in said
    assert "weights_only=False" not in said
    assert "set to `False`" not in said


def test_dinov2_is_timms_network_with_the_published_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small network with random weights gives the features of timm's own code, whose tensors have other names."""
    vision = pytest.importorskip("timm.models.vision_transformer")
    monkeypatch.setitem(SIZES, "dinov2-vit-s-14", SIZES["dinov2-vit-s-14"]._replace(width=24, depth=2, heads=3))
    torch.manual_seed(0)
    net = DINOv2(24, 2, 3)
    state = {name: torch.randn_like(value) * 0.3 for name, value in net.state_dict().items()}
    torch.save({**state, "mask_token": torch.zeros(1, 24)}, tmp_path / "dino.pth")
    extractor = load_extractor("dinov2-vit-s-14", weights=tmp_path / "dino.pth")
    features, logits = extractor(IMAGES)
    net.load_state_dict(state)
    theirs = vision.VisionTransformer(
        img_size=224,
        patch_size=14,
        embed_dim=24,
        depth=2,
        num_heads=3,
        num_classes=0,
        init_values=1.0,
        global_pool="token",
    ).eval()
    # the published code interpolates 37 x 37 positions to 16 x 16 with a scale of 16.1 / 37
    theirs.load_state_dict({**state, "pos_embed": net._positions(16)}, strict=False)
    pictures = [Image.fromarray(x.permute(1, 2, 0).numpy()) for x in IMAGES]
    pixels = np.stack([np.array(picture.resize((224, 224), Image.Resampling.BICUBIC)) for picture in pictures])
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = theirs(torch.from_numpy((pixels / 255 - mean) / std).float().permute(0, 3, 1, 2))
    torch.testing.assert_close(features, expected, rtol=1e-3, atol=3e-3)  # Pillow rounds half a level elsewhere
    assert (logits, extractor.weights) == (None, file_sha256(tmp_path / "dino.pth"))
    torch.save({"mask_token": torch.zeros(1, 24)}, tmp_path / "empty.pth")
    with pytest.raises(UserError, match=r"empty\.pth: not the weights"):
        load_extractor("dinov2-vit-s-14", weights=tmp_path / "empty.pth")


def test_dinov2_weights_come_from_a_file_whose_hash_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORTHOGAN_PRETRAINED", str(tmp_path))
    (tmp_path / "dinov2_vits14_pretrain.pth").write_bytes(b"something else")
    with pytest.raises(UserError, match=r"not b938bf1b"):
        load_extractor("dinov2-vit-s-14")
    with pytest.raises(UserError, match=r"dinov2_vitg14_pretrain\.pth.*--weights"):
        load_extractor("dinov2-vit-g-14")
    assert not EXTRACTORS.get("dinov2-vit-g-14").at_hand()
    assert not hasattr(torch_fidelity_nets, "FeatureExtractorDinoV2")


def test_swiglu_of_vit_g_is_the_published_one() -> None:
    layer = Gated(48)
    assert layer.w3.in_features == 128  # 4 * 48 * 2 / 3, rounded up to a multiple of 8
    x = torch.randn(2, 3, 48)
    gate, value = layer.w12(x)[..., :128], layer.w12(x)[..., 128:]
    torch.testing.assert_close(layer(x), layer.w3(gate * gate.sigmoid() * value))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
def test_cmmd_embeds_as_published(tmp_path: Path) -> None:
    """Antialiased bicubic resizing, CLIP's normalization, and embeddings of length 1."""
    file = tmp_path / "plain.pth"
    torch.save(SmallCLIP().state_dict(), file)
    extractor = load_extractor("clip-vit-l-14-336px-normalized", weights=file)
    features, logits = extractor(IMAGES)
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    weights = [pillow_bicubic(20, 32)] * 2
    pixels = torch.einsum("ih,jw,nchw->ncij", *weights, IMAGES.double()) / 255
    embedded = SmallCLIP().visual(((pixels - mean[:, None, None]) / std[:, None, None]).float())
    torch.testing.assert_close(features, embedded / embedded.norm(dim=1, keepdim=True), rtol=1e-3, atol=2e-4)
    assert (logits, extractor.resize) == (None, "antialiased bicubic 32")


def pillow_bicubic(before: int, after: int) -> Tensor:
    """The matrix (after, before) of cubic interpolation with a = -0.5, normalized at the border as in JAX."""
    centers = (torch.arange(after, dtype=torch.float64) + 0.5) * before / after - 0.5
    x = (centers[:, None] - torch.arange(before)).abs() / max(before / after, 1)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights = torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
    return weights / weights.sum(1, keepdim=True)


OWN = """
from torch import nn
class Net(nn.Module):
    def forward(self, images):
        return images.float().mean((2, 3)) * {factor}
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose modules can be imported."""
    monkeypatch.syspath_prepend(tmp_path)
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        del sys.modules[name]


def test_own_extractors_of_one_name_are_not_taken_for_each_other(modules: Path) -> None:
    # neither has a tensor: their code alone tells them, and their cached references, apart
    for name, factor in (("one_net", 1), ("another_net", 2), ("one_net_again", 1)):
        (modules / f"{name}.py").write_text(OWN.format(factor=factor))
    one, another, again = (load_extractor(f"{name}:Net") for name in ("one_net", "another_net", "one_net_again"))
    assert (one.name, another.name) == ("Net", "Net")
    assert one.weights != another.weights
    assert one.weights == again.weights


def test_a_server_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("orthogan.evaluation.extractors.weights_files.CONNECT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(UserError, match="pretrained/"):
        get_weights(f"http://127.0.0.1:{silent.getsockname()[1]}/net-01234567.pth", "net")
