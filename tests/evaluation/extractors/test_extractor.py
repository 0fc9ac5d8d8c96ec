"""Extractors: the embedded one is the published net, and no weights file is trusted."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from urllib.error import URLError

import pytest
import torch

from orthogan.errors import UserError
from orthogan.evaluation.extractors.efficientnet_lite import load_efficientnet_lite0, weights_path
from orthogan.evaluation.extractors.extractor import EXTRACTORS, _say_fallback, load_extractor, resolve_extractor
from orthogan.evaluation.extractors.torch_fidelity_nets import CMMD
from orthogan.evaluation.extractors.weights_files import find_weights, get_weights
from orthogan.io.weights import read_weights

CONTENT = b"weights"
PREFIX = hashlib.sha256(CONTENT).hexdigest()[:8]
URL = f"https://example.org/net-{PREFIX}.pth"


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The folders that are searched, empty, and no network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("ORTHOGAN_PRETRAINED", str(tmp_path / "extra"))

    def offline(*args: object, **options: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setattr("orthogan.evaluation.extractors.weights_files.urlopen", offline)
    found = {
        "here": tmp_path / "pretrained",
        "extra": tmp_path / "extra",
        "hub": tmp_path / "torch" / "hub" / "checkpoints",
    }
    for folder in found.values():
        folder.mkdir(parents=True)
    return found


def test_weights_are_searched_in_order(places: dict[str, Path]) -> None:
    assert find_weights(URL) is None
    for name in ("hub", "extra", "here"):
        file = places[name] / f"net-{PREFIX}.pth"
        file.write_bytes(CONTENT)
        found = find_weights(URL)
        assert found is not None
        assert found.resolve() == file
    assert get_weights(URL, "net").is_file()


def test_another_content_is_refused(places: dict[str, Path]) -> None:
    (places["here"] / f"net-{PREFIX}.pth").write_bytes(b"something else")
    with pytest.raises(UserError, match=rf"not {PREFIX}.*--weights"):
        find_weights(URL)


def test_without_network_the_error_says_what_to_put_where(places: dict[str, Path]) -> None:
    with pytest.raises(UserError) as caught:
        load_extractor("inception")
    message = str(caught.value)
    for part in ("weights-inception-2015-12-05-6726825d.pth", "https://", "pretrained/", "efficientnet-lite0"):
        assert part in message
    for name in ("vgg16", "clip-vit-b-32"):
        with pytest.raises(UserError, match="pretrained/"):
            load_extractor(name)


def test_auto_falls_back_and_says_so(places: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    _say_fallback.cache_clear()
    assert resolve_extractor("auto") == "efficientnet-lite0"
    assert "not FID" in capsys.readouterr().err
    resolve_extractor("auto")
    assert capsys.readouterr().err == ""
    assert resolve_extractor("vgg16") == "vgg16"


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch evil-was-here",)


def test_code_in_a_weights_file_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"w": Evil()}, "evil.pth")
    with pytest.raises(UserError, match="not a file of plain tensors"):
        read_weights(Path("evil.pth"))
    with pytest.raises(UserError):
        load_extractor("inception", weights="evil.pth")
    assert not Path("evil-was-here").exists()
    torch.save([torch.zeros(1)], "list.pth")
    with pytest.raises(UserError, match="not a dictionary of tensors"):
        read_weights(Path("list.pth"))
    torch.save({"w": torch.zeros(1)}, "small.pth")
    with pytest.raises(UserError, match=r"small\.pth: not the weights"):
        load_extractor("inception", weights="small.pth")


def test_efficientnet_lite0_is_the_published_net() -> None:
    # the efficientnet-lite-pytorch package gives the same logits to 1e-6 at 224 px; these are ours at 128 px
    net, digest = load_efficientnet_lite0()
    assert digest.startswith("57934424")
    image = ((torch.arange(3 * 64 * 64).reshape(1, 3, 64, 64) * 7) % 256).to(torch.uint8)
    features, logits = net(image)
    assert features.shape == (1, 1280)
    assert float(features.sum()) == pytest.approx(207.2577, rel=1e-3)
    torch.testing.assert_close(logits[0, :4], torch.tensor([-0.7188, 0.5827, -0.8302, -2.3746]), rtol=1e-3, atol=2e-3)
    assert int(logits.argmax()) == 905


def test_grey_images_are_repeated() -> None:
    extractor = load_extractor("efficientnet-lite0")
    grey = torch.randint(0, 256, (2, 1, 32, 32), dtype=torch.uint8)
    features, logits = extractor(grey)
    assert logits is not None
    assert torch.equal(features, extractor(grey.repeat(1, 3, 1, 1))[0])
    assert not features.requires_grad


def test_altered_packaged_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "weights.pth"
    data = bytearray(weights_path().read_bytes())
    data[len(data) // 2] ^= 1
    copy.write_bytes(data)
    monkeypatch.setattr("orthogan.evaluation.extractors.efficientnet_lite.weights_path", lambda: copy)
    with pytest.raises(UserError, match="SHA-256"):
        load_efficientnet_lite0()


def test_the_names_are_those_of_torch_fidelity() -> None:
    from torch_fidelity.feature_extractor_clip import MODEL_METADATA as clip
    from torch_fidelity.feature_extractor_dinov2 import MODEL_METADATA as dinov2

    assert set(EXTRACTORS) == {"inception", "efficientnet-lite0", "vgg16", CMMD, *clip, *dinov2}
