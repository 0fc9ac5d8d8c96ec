"""The wrappers that docs/guides/any-generator.md shows, around stand-ins that are called as the published nets are."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from orthogan.cli.main import main
from orthogan.errors import UserError
from orthogan.latent import first_layer_directions, in_space, list_spaces, model_hash, traverse
from orthogan.latent.discovery import discover
from orthogan.models.open import open_model

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "any-generator.md"


@pytest.fixture(scope="module")
def shown() -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "docs"}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), names)
    return names


class ZooDCGAN:
    """pytorch_GAN_zoo's: no module itself; its net takes (n, dim, 1, 1)."""

    def __init__(self) -> None:
        self.config = SimpleNamespace(latentVectorDim=6)
        self.net = nn.Sequential(nn.ConvTranspose2d(6, 4, 4, bias=False), nn.ConvTranspose2d(4, 3, 4, 2, 1), nn.Tanh())

    def getOriginalG(self) -> nn.Module:
        return self.net


class PretrainedBigGAN(nn.Module):
    """pytorch_pretrained_biggan's: z, a one-hot class and a truncation in (0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.Linear(1000, 8, bias=False)
        self.gen_z = nn.Linear(128 + 8, 3 * 16)

    def forward(self, z: Tensor, class_label: Tensor, truncation: float) -> Tensor:
        assert 0 < truncation <= 1
        assert class_label.sum(1).eq(1).all()
        return self.gen_z(torch.cat([z, self.embeddings(class_label)], 1)).view(-1, 3, 4, 4).tanh()


class PortedStyleGAN2(nn.Module):
    """rosinality's: a list of styles, (images, latents) out; w of each style in ``input_is_latent`` mode."""

    n_latent, style_dim = 4, 5

    def __init__(self) -> None:
        super().__init__()
        self.style = nn.Sequential(nn.Linear(5, 5), nn.Tanh())
        self.layers = nn.ModuleList(nn.Linear(5, 3 * 16) for _ in range(self.n_latent))

    def get_latent(self, z: Tensor) -> Tensor:
        return self.style(z)

    def mean_latent(self, n: int) -> Tensor:
        return self.style(torch.randn(n, 5)).mean(0, keepdim=True)

    def forward(self, styles: list[Tensor], *, input_is_latent: bool = False, randomize_noise: bool = True) -> Any:
        assert not randomize_noise
        w = styles[0] if input_is_latent else self.style(styles[0])
        ws = w if w.ndim == 3 else w[:, None].repeat(1, self.n_latent, 1)
        total = torch.stack([layer(ws[:, i]) for i, layer in enumerate(self.layers)]).sum(0)
        return total.view(-1, 3, 4, 4).tanh(), None


def test_a_dcgan_of_torch_hub_is_walked_along_its_first_layer(shown: dict[str, Any]) -> None:
    net = shown["HubDCGAN"](ZooDCGAN())
    directions = first_layer_directions(net)
    assert directions.layer == "net.0"
    assert traverse(net, directions, dims=[0, 1], steps=3).frames.shape == (2, 3, 3, 8, 8)


def test_a_big_gan_is_walked_in_its_class(shown: dict[str, Any]) -> None:
    net = shown["HubBigGAN"](PretrainedBigGAN())
    found = discover(net, "jacobian", components=2, samples=2, y=207, control=2)
    walked = traverse(net, found.directions, y=207, steps=3)
    assert walked.metadata["class"] == "207"
    assert walked.frames[:, 0].tolist() != walked.frames[:, 2].tolist()


def test_a_stylegan2_is_walked_in_w_and_in_some_of_its_layers(shown: dict[str, Any]) -> None:
    torch.manual_seed(0)
    net = shown["StyleGAN2"](PortedStyleGAN2())
    assert list_spaces(net) == ("z", "w")
    assert model_hash(in_space(net, "w")) == model_hash(net)
    v = in_space(net, "w").sample_latent(3, seed=1)
    z = torch.randn(3, 5, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(in_space(net, "w")(v), net(z))
    ranged = in_space(net, "w", layers=[1, 2], base=v[0])
    torch.testing.assert_close(ranged(v[:1]), net(z[:1]))
    assert not torch.allclose(ranged(v[1:2]), net(z[1:2]))
    found = discover(net, "pca", components=2, samples=64, space="w", layers=[1, 2], control=2)
    assert (found.directions.space, tuple(found.directions.layers)) == ("w", (1, 2))
    assert traverse(net, found.directions, steps=3).frames.shape == (2, 3, 3, 4, 4)


MODULE = """
import torch


class Net(torch.nn.Module):
    latent_dim, num_classes, class_names = 4, 2, ["left", "right"]

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 3 * 16)

    def forward(self, z, y=None):
        return (self.linear(z).view(-1, 3, 4, 4) + y[:, None, None, None]).tanh()


ready = Net()
broken = 3


def fails():
    raise RuntimeError("no weights here")
"""


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "foreign_net.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "foreign_net", raising=False)
    return "foreign_net"


def test_the_command_line_takes_a_class_or_a_net_of_somebody_else(foreign: str, tmp_path: Path) -> None:
    out = tmp_path / "rows.png"
    assert main(["traverse", f"{foreign}:Net", "--steps", "3", "--class", "right", "--out", str(out)]) == 0
    assert out.is_file()
    subject = open_model(f"{foreign}:ready")
    assert subject.class_names == ["left", "right"]
    assert not subject.generator.training
    first, second = (open_model(f"{foreign}:Net").generator for _ in range(2))
    assert model_hash(first) == model_hash(second)


@pytest.mark.parametrize(
    ("name", "says"),
    [("broken", "cannot be called"), ("fails", "no weights here"), ("Nett", "Nett")],
)
def test_what_makes_no_generator_is_named(foreign: str, name: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        _ = open_model(f"{foreign}:{name}").generator
