"""Files of lucidrains/stylegan2-pytorch: random tensors give what its layers compute."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from orthogan.errors import UserError
from orthogan.models.open import load_generator, open_model

WIDTHS, W, DEPTH = (8, 8, 4), 6, 2  # at 4, 8 and 16 px


def tensors(mapper: str, main: str, seed: int) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    found = {f"{main}.initial_block": draw(1, WIDTHS[0], 4, 4)}
    found |= {f"{main}.initial_conv.weight": draw(8, 8, 3, 3) / 9, f"{main}.initial_conv.bias": draw(8)}
    for i in range(DEPTH):
        found |= {f"{mapper}.net.{2 * i}.weight": 5 * draw(W, W), f"{mapper}.net.{2 * i}.bias": draw(W)}
    for i, width in enumerate(WIDTHS):
        at, before = f"{main}.blocks.{i}", WIDTHS[max(0, i - 1)]
        for name, inputs, outputs in (("1", before, width), ("2", width, width)):
            found |= {f"{at}.to_style{name}.weight": draw(inputs, W), f"{at}.to_style{name}.bias": draw(inputs)}
            found |= {f"{at}.to_noise{name}.weight": draw(outputs, 1), f"{at}.to_noise{name}.bias": draw(outputs)}
            found[f"{at}.conv{name}.weight"] = draw(outputs, inputs, 3, 3)
        found |= {f"{at}.to_rgb.to_style.weight": draw(width, W), f"{at}.to_rgb.to_style.bias": draw(width)}
        found[f"{at}.to_rgb.conv.weight"] = draw(3, width, 1, 1) / width
        if i < len(WIDTHS) - 1:
            found[f"{at}.to_rgb.upsample.1.f"] = torch.tensor([1.0, 2.0, 1.0])
    return found


def linear(t: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return t[f"{name}.weight"] @ x + t[f"{name}.bias"]


def image_of(t: dict[str, Tensor], w: Tensor, noise: Tensor) -> Tensor:
    """One image, with a weight of its own for every layer."""
    x = functional.conv2d(t["GE.initial_block"], t["GE.initial_conv.weight"], t["GE.initial_conv.bias"], padding=1)
    image = torch.zeros(())
    for i in range(len(WIDTHS)):
        at = f"GE.blocks.{i}"
        x = functional.interpolate(x, scale_factor=2, mode="bilinear") if i else x
        for name in "12":
            weight = t[f"{at}.conv{name}.weight"] * (1 + linear(t, f"{at}.to_style{name}", w))[:, None, None]
            weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
            x = functional.conv2d(x, weight, padding=1)
            added = t[f"{at}.to_noise{name}.weight"] * noise[: x.shape[2], : x.shape[3]].T.reshape(1, -1)
            added = added + t[f"{at}.to_noise{name}.bias"][:, None]
            x = functional.leaky_relu(x + added.view(1, -1, *x.shape[2:]), 0.2)
        style = 1 + linear(t, f"{at}.to_rgb.to_style", w)
        image = image + functional.conv2d(x, t[f"{at}.to_rgb.conv.weight"] * style[:, None, None])
        if i < len(WIDTHS) - 1:
            wide = functional.interpolate(image, scale_factor=2, mode="bilinear")
            wide = functional.pad(wide, (1, 1, 1, 1), mode="reflect")
            wide = (wide[..., :-2] + 2 * wide[..., 1:-1] + wide[..., 2:]) / 4
            image = (wide[..., :-2, :] + 2 * wide[..., 1:-1, :] + wide[..., 2:, :]) / 4
    return 2 * image[0] - 1


def test_images_are_those_of_its_layers(tmp_path: Path) -> None:
    given = tensors("SE", "GE", 1) | tensors("S", "G", 2) | {"D.final_conv.weight": torch.zeros(2)}
    torch.save({"GAN": given, "version": "1.9.0"}, tmp_path / "model_5.pt")
    opened = open_model(tmp_path / "model_5.pt")
    generator = opened.generator
    assert (generator.latent_dim, generator.resolution, opened.has_discriminator) == (W, 16, False)
    t = {name: value.double() for name, value in given.items()}
    z = generator.sample_latent(2, seed=1)
    w = z.double() / z.double().norm(dim=1, keepdim=True)
    for i in range(DEPTH):
        layer = f"SE.net.{2 * i}"
        w = functional.leaky_relu(0.1 * (w @ t[f"{layer}.weight"].T + t[f"{layer}.bias"]), 0.2)
    torch.testing.assert_close(generator.mapping(z).double(), w, rtol=1e-4, atol=1e-6)
    want = torch.stack([image_of(t, row, generator.noise_const.double()) for row in w])
    torch.testing.assert_close(generator(z).double(), want, rtol=1e-4, atol=2e-5)
    many = generator.mapping(generator.sample_latent(4000, seed=9))
    assert float((many.mean(0) - generator.w_mean).abs().max()) < 0.1 * float(many.std())
    raw = load_generator(tmp_path / "model_5.pt", ema=False)
    assert not torch.allclose(raw.constant, generator.constant)
    assert torch.equal(load_generator(tmp_path / "model_5.pt").noise_const, generator.noise_const)


def test_attention_is_refused(tmp_path: Path) -> None:
    given = tensors("SE", "GE", 1) | {"GE.attns.1.0.fn.norm.g": torch.ones(1)}
    torch.save({"GAN": given}, tmp_path / "model_5.pt")
    with pytest.raises(UserError, match=r"model_5\.pt: this generator has attention"):
        open_model(tmp_path / "model_5.pt")
