"""LPIPS: the published formula on any weights, found where weights are sought, read without trust."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import Tensor
from torch.nn import functional

from orthogan.errors import UserError
from orthogan.evaluation.paths.distances import _heads, load_distance, load_lpips
from orthogan.evaluation.paths.path_length import PRESETS, path_length
from orthogan.io.hashing import file_sha256
from orthogan.io.weights import read_weights
from tests.fixtures.scored import Patches

pytest.importorskip("lpips")
LAYERS = (3, 8, 15, 22, 29)  # the last ReLU before each pooling, and after conv5_3


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the form of torchvision's file, without the classifier (which is 90 % of it)."""
    with torch.device("meta"):
        shapes = torchvision.models.vgg16(weights=None).features.state_dict()
    rng = torch.Generator().manual_seed(0)
    state = {
        f"features.{name}": torch.randn(t.shape, generator=rng) * (2 / t[0].numel()) ** 0.5
        if t.ndim == 4
        else torch.zeros(t.shape)
        for name, t in shapes.items()
    }
    folder = tmp_path_factory.mktemp("vgg")
    torch.save(state, folder / "file")
    return (folder / "file").rename(folder / f"vgg16-{file_sha256(folder / 'file')[:8]}.pth")


def by_the_formula(weights: Path, a: Tensor, b: Tensor) -> Tensor:
    """Zhang et al. 2018, equation 1, in float64, with ImageNet's own normalisation of pixels in [0, 1]."""
    state, heads = read_weights(weights), read_weights(_heads())
    mean, std = (
        torch.tensor(v, dtype=torch.float64)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    x = torch.cat([a, b]).double()
    x = ((x + 1) / 2 - mean) / std
    total = torch.zeros(len(a), dtype=torch.float64)
    index = 0
    for stage, convolutions in enumerate((2, 2, 3, 3, 3)):
        for _ in range(convolutions):
            weight, bias = (state[f"features.{index}.{kind}"].double() for kind in ("weight", "bias"))
            x = functional.conv2d(x, weight, bias, padding=1).relu()
            index += 2
        assert index - 1 == LAYERS[stage]
        first, second = functional.normalize(x, dim=1).chunk(2)
        total += (heads[f"lin{stage}.model.1.weight"].double()[0] * (first - second) ** 2).sum(1).mean((1, 2))
        x = functional.max_pool2d(x, 2)
        index += 1
    return total


def test_it_is_the_published_formula(vgg: Path) -> None:
    net, digest = load_lpips(vgg)
    a, b = torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(2)) * 2 - 1
    torch.testing.assert_close(net(a, b).double(), by_the_formula(vgg, a, b), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(net(a, b), net(b, a))
    assert not net(a, a).any()
    grey = a[:, :1]
    torch.testing.assert_close(net(grey, b), net(grey.repeat(1, 3, 1, 1), b))
    assert file_sha256(vgg) in digest
    assert not any(parameter.requires_grad for parameter in net.parameters())
    with pytest.raises(UserError, match="at least 16"):
        net(a[..., :8, :8], b[..., :8, :8])


@pytest.fixture
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty pretrained/ folder, and no network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("ORTHOGAN_PRETRAINED", raising=False)

    def offline(*args: object, **options: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setattr("orthogan.evaluation.extractors.weights_files.urlopen", offline)
    (tmp_path / "pretrained").mkdir()
    return tmp_path / "pretrained"


def test_weights_are_taken_from_the_usual_folders_if_their_checksum_holds(
    vgg: Path, no_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orthogan.evaluation.paths.distances.URL", f"https://example.org/{vgg.name}")
    (no_weights / vgg.name).symlink_to(vgg)
    before = torch.random.get_rng_state()
    result = path_length(Patches(), "ppl_zend_any", samples=2, progress=False)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert result.label == "ppl_zend_any"
    assert result.extractor == "lpips-vgg16"
    assert file_sha256(vgg) in result.protocol["distance weights"]
    assert result.value > 0
    (no_weights / vgg.name).unlink()
    (no_weights / vgg.name).write_bytes(b"something else")
    with pytest.raises(UserError, match="SHA-256"):
        load_distance("lpips-vgg16")


def test_without_weights_the_error_says_what_to_put_where(no_weights: Path) -> None:
    with pytest.raises(UserError, match=r"vgg16-397923af\.pth from https://.*pretrained/.*pixel_path_length"):
        path_length(Patches(), PRESETS["ppl_zend_any"], samples=2, progress=False)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch evil-was-here",)


def test_code_in_a_weights_file_does_not_run(no_weights: Path) -> None:
    torch.save({"features.0.weight": Evil()}, "evil.pth")
    with pytest.raises(UserError, match="not a file of plain tensors"):
        load_lpips(Path("evil.pth"))
    assert not Path("evil-was-here").exists()
    torch.save({"features.0.weight": torch.zeros(1)}, "small.pth")
    with pytest.raises(UserError, match=r"small\.pth: not the weights of VGG16"):
        load_lpips(Path("small.pth"))


def test_without_the_package_the_error_says_what_to_install(vgg: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(UserError, match="pip install lpips"):
        load_lpips(vgg)


@pytest.mark.parametrize("name", ["efficientnet-lite0", "lpips-vgg16"])
def test_alpha_is_seen_on_white(name: str, vgg: Path) -> None:
    distance = load_distance(name) if name != "lpips-vgg16" else load_distance(load_lpips(vgg)[0])
    rng = torch.Generator().manual_seed(0)
    one, two = (torch.rand(2, 3, 32, 32, generator=rng) * 2 - 1 for _ in range(2))
    alpha = torch.rand(2, 1, 32, 32, generator=rng) * 2 - 1
    white = 1 - (1 + alpha) / 2 * (1 - one)
    expected = distance(white, two)
    assert bool((expected > 0).all())
    images = torch.cat([one, alpha], 1).requires_grad_()
    opaque = torch.cat([two, torch.ones_like(alpha)], 1)
    torch.testing.assert_close(distance(images, opaque), expected, rtol=1e-4, atol=1e-6)
    (gradient,) = torch.autograd.grad(distance.function(images, opaque).sum(), images)
    assert bool((gradient.abs().amax((0, 2, 3)) > 0).all())
