"""Nets of every kind as generators: other precisions, odd attributes, outputs that are no images; all tools alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from orthogan.disentanglement import disentangle
from orthogan.errors import UserError
from orthogan.evaluation.images import generate_images
from orthogan.latent import first_layer_directions, native_directions, sample_images, traverse
from orthogan.latent.discovery import discover
from orthogan.models.modes import eval_mode
from orthogan.models.protocol import GENERATORS, as_generator

TOOLS: dict[str, Callable[[nn.Module], object]] = {
    "sample": lambda net: sample_images(net, [0, 1]).images,
    "truncated": lambda net: sample_images(net, [0], truncation=0.5).images,
    "traverse": lambda net: traverse(net, native_directions(net), dims=[0], steps=3).frames,
    "first layer": lambda net: traverse(net, first_layer_directions(net), dims=[0], steps=3).frames,
    "sefa": lambda net: discover(net, "sefa", control=1, components=1).table(),
    "jacobian": lambda net: discover(net, "jacobian", control=1, components=1, samples=2).table(),
    "disentangle": lambda net: disentangle(net, ["activeness"], seeds=[0], samples=8)[0].value,
    "evaluate": lambda net: drawn(net),
}


def drawn(net: nn.Module) -> Tensor:
    """Fakes as orthogan.evaluate draws them."""
    with eval_mode(net):
        cpu = torch.device("cpu")
        return next(generate_images(as_generator(net), 4, seed=0, batch_size=4, truncation=1.0, device=cpu))


class Wrapped(nn.Module):
    """As docs/guides/any-generator.md wraps somebody else's net: two attributes and forward."""

    latent_dim: Any = 6
    num_classes: Any = 0

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(6, 3 * 16)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Any:
        return self.net(z).tanh().view(-1, 3, 4, 4)


class Pair(Wrapped):
    def forward(self, z: Tensor, y: Tensor | None = None) -> Any:
        return super().forward(z), None


class Dictionary(Wrapped):
    def forward(self, z: Tensor, y: Tensor | None = None) -> Any:
        return {"images": super().forward(z)}


class Listed(Wrapped):
    def forward(self, z: Tensor, y: Tensor | None = None) -> Any:
        return list(super().forward(z))


class Array(Wrapped):
    def forward(self, z: Tensor, y: Tensor | None = None) -> Any:
        return super().forward(z).detach().numpy()


class Flat(Wrapped):
    def forward(self, z: Tensor, y: Tensor | None = None) -> Any:
        return super().forward(z).flatten(1)


class Property(Wrapped):
    @property
    def latent_dim(self) -> Any:
        return np.int64(6)


def with_attributes(**values: Any) -> Wrapped:
    net = Wrapped()
    for name, value in values.items():
        setattr(net, name, value)
    return net


WORKS: dict[str, Callable[[], nn.Module]] = {
    "plain": Wrapped,
    "bfloat16": lambda: Wrapped().bfloat16(),
    "float16": lambda: Wrapped().half(),
    "float64": lambda: Wrapped().double(),
    "num_classes None": lambda: with_attributes(num_classes=None),
    "latent_dim of NumPy": lambda: with_attributes(latent_dim=np.int64(6)),
    "num_classes of NumPy": lambda: with_attributes(num_classes=np.int32(0)),
    "latent_dim as a tensor": lambda: with_attributes(latent_dim=torch.tensor(6)),
    "latent_dim as a property": Property,
}


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("kind", WORKS)
def test_every_tool_takes_the_generator(kind: str, tool: str) -> None:
    net = WORKS[kind]()
    before = {name: tensor.dtype for name, tensor in net.state_dict().items()}
    TOOLS[tool](net)
    assert {name: tensor.dtype for name, tensor in net.state_dict().items()} == before
    assert not net._forward_pre_hooks


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_images_of_another_precision_are_those_of_its_own_latents(dtype: torch.dtype) -> None:
    net = Wrapped().to(dtype)
    latents = torch.cat([as_generator(net).sample_latent(1, seed=seed) for seed in (0, 1)])
    expected = ((net(latents.to(dtype)).float().clamp(-1, 1) * 127.5) + 127.5).round().to(torch.uint8)
    assert torch.equal(torch.from_numpy(sample_images(net, [0, 1]).images), expected)


NO_IMAGES = [(net, tool) for net in (Pair, Dictionary, Listed, Array) for tool in ("jacobian", "disentangle")]
NO_IMAGES += [
    (net, tool) for net in (Pair, Dictionary, Listed, Array, Flat) for tool in ("sample", "traverse", "evaluate")
]


@pytest.mark.parametrize(("net", "tool"), NO_IMAGES)
def test_what_gives_no_images_is_refused_by_name(net: type[Wrapped], tool: str) -> None:
    with pytest.raises(UserError):
        TOOLS[tool](net())


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"latent_dim": None}, "docs/guides/any-generator.md"),
        ({"latent_dim": 0}, "latent_dim"),
        ({"latent_dim": "6"}, "latent_dim"),
        ({"latent_dim": 6.0}, "latent_dim"),
        ({"latent_dim": True}, "latent_dim"),
        ({"num_classes": "3"}, "num_classes"),
        ({"num_classes": -1}, "num_classes"),
    ],
    ids=repr,
)
def test_attributes_that_are_wrong_are_named_with_the_cure(values: dict[str, Any], says: str) -> None:
    for tool in ("sample", "traverse", "sefa"):
        with pytest.raises(UserError, match=says):
            TOOLS[tool](with_attributes(**values))


def test_a_net_without_numbers_or_no_net_at_all_is_refused() -> None:
    with pytest.raises(UserError, match="meta device"):
        TOOLS["sample"](Wrapped().to("meta"))
    with pytest.raises(UserError, match=r"docs/guides/any-generator\.md"):
        TOOLS["sample"]("sprites-sngan")


@pytest.mark.parametrize("kind", GENERATORS)
def test_a_generator_of_ours_refuses_labels_that_it_does_not_know_and_other_latents(kind: str) -> None:
    sizes = {"resolution": 32, "image_channels": 3, "channels": 8, "latent_dim": 32}
    net = GENERATORS.get(kind)(**sizes, num_classes=0)
    z = net.sample_latent(2)
    assert torch.equal(z, net.sample_latent(2, seed=0))
    with pytest.raises(ValueError, match="takes no labels"):
        net(z, torch.tensor([0, 1]))
    for wrong in (z[:, :-1], z[0], z[:, :, None, None]):
        with pytest.raises(ValueError, match=r"needs \(n, 32\)"):
            net(wrong)
    if kind not in ("dcgan-tutorial", "eigengan", "simple-gan", "infogan", "stylegan2-lucidrains"):
        conditional = GENERATORS.get(kind)(**sizes, num_classes=3)
        with pytest.raises(ValueError, match="needs labels"):
            conditional(z)
