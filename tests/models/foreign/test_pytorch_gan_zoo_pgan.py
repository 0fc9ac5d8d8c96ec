"""Progressive GANs of pytorch_GAN_zoo: random tensors in its layout give what its layers compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from orthogan.errors import UserError
from orthogan.models.imported import import_model
from orthogan.models.open import OpenedModel, load_discriminator, open_model

WIDTHS = [12, 16, 8, 8]  # at 4, 8, 16 and 32 px
State = dict[str, Tensor]


class BaseConfig:
    """The config of pytorch_GAN_zoo, under another module."""

    def __init__(self, **fields: Any) -> None:
        vars(self).update(fields)


def layers(shapes: dict[str, tuple[int, ...]], inner: str) -> State:
    """Random layers; ``inner``: "module." in newer files, empty in those of torch.hub."""
    found: State = {}
    for name, shape in shapes.items():
        found |= {f"{name}.{inner}weight": torch.randn(shape), f"{name}.{inner}bias": 3 * torch.randn(shape[0])}
    return found


def generator_state(inputs: int, inner: str, widths: list[int], colours: int = 3) -> State:
    first = widths[0]
    shapes: dict[str, tuple[int, ...]] = {"groupScale0.0": (first, first, 3, 3), "formatLayer": (first * 16, inputs)}
    for i, width in enumerate(widths):
        shapes[f"toRGBLayers.{i}"] = (colours, width, 1, 1)
        if i:
            shapes[f"scaleLayers.{i - 1}.0"] = (width, widths[i - 1], 3, 3)
            shapes[f"scaleLayers.{i - 1}.1"] = (width, width, 3, 3)
    return layers(shapes, inner)


def critic_state(inner: str, widths: list[int], deviation: bool, outputs: int = 1) -> State:
    first = widths[0]
    shapes: dict[str, tuple[int, ...]] = {
        "decisionLayer": (outputs, first),
        "groupScaleZero.0": (first, first + deviation, 3, 3),
        "groupScaleZero.1": (first, first * 16),
    }
    for i, width in enumerate(widths):
        shapes[f"fromRGBLayers.{i}"] = (width, 3, 1, 1)
        if i:
            shapes[f"scaleLayers.{i - 1}.0"] = (width, width, 3, 3)
            shapes[f"scaleLayers.{i - 1}.1"] = (widths[i - 1], width, 3, 3)
    return layers(shapes, inner)


class Theirs:
    """What the zoo computes with a state, in float64."""

    def __init__(self, state: State, *, alpha: float, slope: float, equalized: bool) -> None:
        self.state = {key.replace(".module.", "."): value.double() for key, value in state.items()}
        self.last = max(int(key.split(".")[1]) for key in self.state if "RGBLayers" in key)
        self.alpha, self.slope, self.equalized = alpha, slope, equalized

    def layer(self, name: str, x: Tensor) -> Tensor:
        """The plain layer, then the constant of He on all of its output."""
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        if weight.dim() == 2:
            x = x @ weight.T + bias
        else:
            side = weight.shape[-1]
            n, _, h, w = x.shape
            patches = functional.unfold(x, side, padding=side // 2)
            x = (weight.flatten(1) @ patches).view(n, -1, h, w) + bias[:, None, None]
        return x * (2 / weight[0].numel()) ** 0.5 if self.equalized else x

    def active(self, name: str, x: Tensor) -> Tensor:
        x = self.layer(name, x)
        return torch.where(x > 0, x, self.slope * x)

    def images(self, z: Tensor) -> Tensor:
        def norm(x: Tensor) -> Tensor:
            return x / (x.pow(2).mean(1, keepdim=True) + 1e-8).sqrt()

        def twice(x: Tensor) -> Tensor:
            return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

        x = self.active("formatLayer", norm(z.double()))
        x = norm(self.active("groupScale0.0", norm(x.view(len(x), -1, 4, 4))))
        before = x
        for i in range(self.last):
            before, x = x, twice(x)
            for j in range(2):
                x = norm(self.active(f"scaleLayers.{i}.{j}", x))
        small = twice(self.layer(f"toRGBLayers.{self.last - 1}", before))
        return self.alpha * small + (1 - self.alpha) * self.layer(f"toRGBLayers.{self.last}", x)

    def values(self, images: Tensor, group: int) -> Tensor:
        def half(x: Tensor) -> Tensor:
            return (x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]) / 4

        images = images.double()
        x = self.active(f"fromRGBLayers.{self.last}", images)
        for i in reversed(range(self.last)):
            x = half(self.active(f"scaleLayers.{i}.1", self.active(f"scaleLayers.{i}.0", x)))
            if i == self.last - 1 and self.last > 1:
                small = self.active(f"fromRGBLayers.{i}", half(images))
                x = self.alpha * small + (1 - self.alpha) * x
        if self.state["groupScaleZero.0.weight"].shape[1] > x.shape[1]:
            spreads = torch.zeros(len(x), 1, 4, 4, dtype=x.dtype)
            for start in range(0, len(x), group) if group > 1 else ():
                some = x[start : start + group]
                variance = (some - some.mean(0)).pow(2).sum(0) / (group - 1)
                spreads[start : start + group] = (variance + 1e-8).sqrt().mean()
            x = torch.cat([x, spreads], 1)
        x = self.active("groupScaleZero.1", self.active("groupScaleZero.0", x).flatten(1))
        return self.layer("decisionLayer", x)[:, 0]


def same_images(opened: OpenedModel, wanted: Tensor, y: Tensor | None = None) -> None:
    generator = opened.generator.double()
    assert float(wanted.std()) > 0.05
    images = generator(generator.sample_latent(len(wanted), seed=1).double(), y)
    torch.testing.assert_close(images, wanted, rtol=1e-5, atol=1e-5)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("inner", "fields", "widths", "deviation"),
    [
        ("", {"lossCriterion": "WGANGP", "alpha": 0, "leakyReluLeak": 0.2, "equalizedlR": True}, [16, 16, 8, 4], True),
        ("module.", {"lossCriterion": "DCGAN", "alpha": 0.3, "leakyReluLeak": 0.1}, WIDTHS, False),
        ("module.", {"lossCriterion": "WGANGP", "alpha": 0.6}, [16, 8], True),
        ("module.", {"lossCriterion": "Logistic", "equalizedlR": False}, WIDTHS, True),
        ("", None, WIDTHS, True),
    ],
    ids=["torch.hub", "growing", "8 px", "not equalized", "no config"],
)
def test_a_pgan(inner: str, fields: dict[str, Any] | None, widths: list[int], deviation: bool, tmp_path: Path) -> None:
    content: dict[str, Any] = {} if fields is None else {"config": BaseConfig(**fields)}
    fields = fields or {}
    content |= {key: generator_state(6, inner, widths) for key in ("netG", "avgG")}
    content["netD"] = critic_state(inner, widths, deviation)
    if not fields.get("equalizedlR", True):
        for state in (content["netG"], content["avgG"], content["netD"]):
            for key in state:
                state[key] *= 0.1
    torch.save(content, tmp_path / "pgan.pth")
    how = {"alpha": fields.get("alpha", 0), "slope": fields.get("leakyReluLeak", 0.2)}
    theirs = {
        key: Theirs(content[key], **how, equalized=fields.get("equalizedlR", True)) for key in ("netG", "avgG", "netD")
    }
    opened = open_model(tmp_path / "pgan.pth")
    assert opened.foreign is not None
    assert opened.foreign.layout == "pytorch-gan-zoo-pgan"
    assert opened.generator.resolution == 4 << (len(widths) - 1)
    z = opened.generator.sample_latent(3, seed=1)
    end = torch.tanh if fields.get("lossCriterion") == "DCGAN" else torch.clone
    same_images(opened, end(theirs["avgG"].images(z)))
    same_images(open_model(tmp_path / "pgan.pth", ema=False), end(theirs["netG"].images(z)))
    size = opened.generator.resolution
    critic = opened.discriminator.double()
    for n, group in ((1, 1), (3, 3), (6, 6), (8, 4)):
        x = torch.randn(n, 3, size, size)
        torch.testing.assert_close(critic(x.double()), theirs["netD"].values(x, group), rtol=1e-5, atol=1e-5)


def test_a_conditional_pgan_has_a_class_per_combination(tmp_path: Path) -> None:
    orders = {
        "Nation": {"order": 1, "values": ["english", "french", "indian"]},
        "Gender": {"order": 0, "values": ["M", "W"]},
    }
    config = BaseConfig(attribKeysOrder=orders, categoryVectorDim=5, lossCriterion="WGANGP", alpha=0)
    state = generator_state(6 + 5, "module.", WIDTHS, colours=1)
    critic = critic_state("module.", WIDTHS, True, outputs=6)
    torch.save({"config": config, "netG": state, "netD": critic}, tmp_path / "pgan.pt")
    opened = open_model(tmp_path / "pgan.pt")
    assert (opened.generator.latent_dim, opened.generator.num_classes) == (6, 6)
    assert opened.generator.class_names[4] == "Gender W, Nation french"
    assert not opened.has_discriminator
    codes = torch.tensor([[1, 0, 1, 0, 0], [1, 0, 0, 0, 1], [0, 1, 0, 1, 0]])  # gender, nation
    z = opened.generator.sample_latent(3, seed=1)
    theirs = Theirs(state, alpha=0, slope=0.2, equalized=True)
    same_images(opened, theirs.images(torch.cat([z, codes], 1)), torch.tensor([0, 2, 4]))


def test_one_attribute_gives_its_values_as_classes_and_the_import_keeps_everything(tmp_path: Path) -> None:
    config = BaseConfig(attribKeysOrder={"Gender": {"order": 0, "values": ["M", "W"]}})
    torch.save({"config": config, "netG": generator_state(6, "", WIDTHS)}, tmp_path / "pgan.pth")
    folder, opened = import_model(tmp_path / "pgan.pth", tmp_path / "pgan")
    assert list(opened.generator.class_names) == ["M", "W"]
    z, y = opened.generator.sample_latent(2), torch.tensor([1, 0])
    mine = open_model(folder)
    assert torch.equal(mine.generator(z, y), opened.generator(z, y))
    assert list(mine.generator.class_names) == ["M", "W"]
    assert "PGAN of pytorch_GAN_zoo" in (folder / "README.md").read_text()


def test_the_import_keeps_a_discriminator_that_grows(tmp_path: Path) -> None:
    content = {"netG": generator_state(6, "", WIDTHS), "netD": critic_state("", WIDTHS, True)}
    torch.save({"config": BaseConfig(alpha=0.5), **content}, tmp_path / "pgan.pth")
    folder, opened = import_model(tmp_path / "pgan.pth", tmp_path / "pgan")
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(load_discriminator(folder)(x), opened.discriminator(x))


def test_too_many_combinations_are_refused(tmp_path: Path) -> None:
    orders = {f"a{i}": {"order": i, "values": ["no", "yes"]} for i in range(14)}
    state = generator_state(40, "", WIDTHS)
    torch.save({"config": BaseConfig(attribKeysOrder=orders), "netG": state}, tmp_path / "pgan.pth")
    with pytest.raises(UserError, match=r"pgan\.pth: this PGAN has 14 attributes with 16,384 combinations"):
        open_model(tmp_path / "pgan.pth")
