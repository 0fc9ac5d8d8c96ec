"""Files that this module writes in the layout of each project are recognized and give the project's own networks.

Each network below is written out again from plain torch layers, in the layout and with the names of its project.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import spectral_norm

import orthogan
from orthogan.errors import UserError
from orthogan.models.build import build_discriminator, build_generator
from orthogan.models.foreign.layout import LAYOUTS, read_content, recognize
from orthogan.models.imported import import_model
from orthogan.models.open import OpenedModel, load_discriminator, open_model
from orthogan.models.warm_start import WarmStart


class BaseConfig:
    """The config of pytorch_GAN_zoo."""

    lossCriterion: str


def deconvolutions(
    widths: list[int], first: int = 4, names: tuple[str, str] | None = None
) -> tuple[nn.Sequential, dict[str, Tensor]]:
    """A DCGAN generator without its last tanh, and its state under the names of the tutorial or of the zoo."""
    layers: list[nn.Module] = []
    for i in range(1, len(widths)):
        layers.append(
            nn.ConvTranspose2d(widths[i - 1], widths[i], 4 if i > 1 else first, min(i, 2), min(i - 1, 1), bias=False)
        )
        layers += [nn.BatchNorm2d(widths[i]), nn.ReLU()] if i < len(widths) - 1 else []
    net = settled(nn.Sequential(*layers), torch.randn(8, widths[0], 1, 1))
    return net, {f"main.{key}": value for key, value in net.state_dict().items()}


def convolutions(widths: list[int], top: int) -> tuple[nn.Sequential, dict[str, Tensor]]:
    """A DCGAN discriminator without its sigmoid."""
    layers: list[nn.Module] = []
    for i in range(1, len(widths)):
        layers.append(nn.Conv2d(widths[i - 1], widths[i], 4, 2, 1, bias=False))
        layers += [nn.BatchNorm2d(widths[i])] if i > 1 else []
        layers.append(nn.LeakyReLU(0.2))
    layers.append(nn.Conv2d(widths[-1], 1, top, bias=False))
    size = top << (len(widths) - 1)
    net = settled(nn.Sequential(*layers), torch.randn(8, widths[0], size, size))
    return net, {f"main.{key}": value for key, value in net.state_dict().items()}


@torch.no_grad()
def settled(net: nn.Module, *inputs: Tensor) -> Any:
    """Give the batch norms statistics of ``inputs``, with other gains and biases, and freeze the net."""
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # pyright: ignore[reportAttributeAccessIssue]
            if layer.affine:
                layer.weight.normal_(1, 0.2)
                layer.bias.normal_(0, 0.2)
    net.train()
    net(*inputs)
    return net.eval()


class Residual(nn.Module):
    """An SN-GAN generator of 32 px as the three projects write it; ``style`` chooses the names and upsampling."""

    def __init__(self, style: str, width: int = 8, dim: int = 6, classes: int = 0) -> None:
        super().__init__()
        self.style, self.width = style, width
        eps = 1e-4 if style == "studiogan" else 1e-5
        self.first = nn.Linear(dim, width * 16)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width, eps, affine=not classes) for _ in range(6))
        self.gains = nn.ModuleList(nn.Embedding(classes, width) for _ in range(6 if classes else 0))
        self.biases = nn.ModuleList(nn.Embedding(classes, width) for _ in range(6 if classes else 0))
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(6))
        self.shortcuts = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(3))
        self.last_norm, self.last = nn.BatchNorm2d(width, eps), nn.Conv2d(width, 3, 3, padding=1)

    def normed(self, i: int, x: Tensor, y: Tensor | None) -> Tensor:
        x = self.norms[i](x)
        if y is not None:
            x = x * self.gains[i](y)[:, :, None, None] + self.biases[i](y)[:, :, None, None]
        return x.relu()

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        bilinear = {"mode": "bilinear", "align_corners": False} if self.style == "mimicry" else {}
        x = self.first(z).view(-1, self.width, 4, 4)
        for i in range(3):
            h = functional.interpolate(self.normed(2 * i, x, y), scale_factor=2, **bilinear)
            h = self.convs[2 * i + 1](self.normed(2 * i + 1, self.convs[2 * i](h), y))
            x = h + self.shortcuts[i](functional.interpolate(x, scale_factor=2, **bilinear))
        return self.last(self.last_norm(x).relu()).tanh()

    def state(self) -> dict[str, Tensor]:
        names: dict[str, nn.Module] = {}
        for i in range(3):
            parts = [self.norms[2 * i], self.convs[2 * i], self.norms[2 * i + 1], self.convs[2 * i + 1]]
            places = {
                "mimicry": ("block{0}.b1", "block{0}.c1", "block{0}.b2", "block{0}.c2", "block{0}.c_sc"),
                "collections": [f"blocks.{{1}}.{part}" for part in ("residual.0", "residual.3", "residual.4")]
                + ["blocks.{1}.residual.6", "blocks.{1}.shortcut.1"],
                "studiogan": [f"blocks.{{1}}.0.{part}" for part in ("bn1", "conv2d1", "bn2", "conv2d2", "conv2d0")],
            }[self.style]
            for place, part in zip(places, [*parts, self.shortcuts[i]], strict=True):
                names[place.format(i + 2, i)] = part
        ends = {
            "mimicry": ("l1", "b5", "c5"),
            "collections": ("linear", "output.0", "output.2"),
            "studiogan": ("linear0", "bn4", "conv2d5"),
        }[self.style]
        names |= dict(zip(ends, (self.first, self.last_norm, self.last), strict=True))
        found: dict[str, Tensor] = {}
        for place, part in names.items():
            inner = "bn." if len(self.gains) and part in list(self.norms) else ""
            found |= {f"{place}.{inner}{key}": value for key, value in part.state_dict().items()}
            if inner:
                i = list(self.norms).index(part)
                gain, bias = self.gains[i].weight, self.biases[i].weight
                if self.style == "mimicry":
                    found[f"{place}.embed.weight"] = torch.cat([gain, bias], 1)
                else:
                    found |= {f"{place}.gain.weight": gain.t() - 1, f"{place}.bias.weight": bias.t()}
        return {key: value.detach().clone() for key, value in found.items()}


class Critic(nn.Module):
    """The discriminator of 32 px of pytorch-gan-collections, with torch's spectral norm, and its state."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        sizes = [(3, width), (width, width), (width, width), (width, width)]
        self.one = nn.ModuleList(spectral_norm(nn.Conv2d(a, b, 3, padding=1)) for a, b in sizes)
        self.two = nn.ModuleList(spectral_norm(nn.Conv2d(b, b, 3, padding=1)) for _, b in sizes)
        self.short = nn.ModuleList(spectral_norm(nn.Conv2d(a, b, 1)) for a, b in sizes[:2])
        self.linear = spectral_norm(nn.Linear(width, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        for i in range(4):
            h = self.two[i](self.one[i](x.relu() if i else x).relu())
            x = functional.avg_pool2d(h + self.short[i](x), 2) if i < 2 else h + x
        return self.linear(x.relu().sum((2, 3))).flatten()

    def state(self) -> dict[str, Tensor]:
        parts = {"linear": self.linear, "model.0.residual.0": self.one[0], "model.0.residual.2": self.two[0]}
        parts |= {"model.0.shortcut.1": self.short[0], "model.1.shortcut.0": self.short[1]}
        for i in range(1, 4):
            parts |= {f"model.{i}.residual.1": self.one[i], f"model.{i}.residual.3": self.two[i]}
        return {f"{place}.{key}": value for place, part in parts.items() for key, value in part.state_dict().items()}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def residual(style: str, classes: int = 0) -> Residual:
    labels = torch.arange(16) % classes if classes else None
    return settled(Residual(style, classes=classes), torch.randn(16, 6), *([] if labels is None else [labels]))


@torch.no_grad()
def agrees(opened: OpenedModel, net: nn.Module, latent: Any = lambda z: z, *, tanh: bool = False) -> None:
    """Check the generator against ``net``, which computes the same from plain layers."""
    generator = opened.generator
    z = generator.sample_latent(3, seed=1)
    y = torch.arange(3) % generator.num_classes if generator.num_classes else None
    wanted = net(latent(z)) if y is None else net(latent(z), y)
    wanted = wanted.tanh() if tanh else wanted
    assert float(wanted.std()) > 0.01
    torch.testing.assert_close(generator(z, y), wanted, rtol=1e-5, atol=1e-5)


def flat(z: Tensor) -> Tensor:
    return z[:, :, None, None]


@pytest.mark.parametrize("key", ["", "netG_state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_dcgan_of_the_tutorial(key: str, prefix: str, tmp_path: Path) -> None:
    net, state = deconvolutions([5, 16, 8, 3])
    critic, theirs = convolutions([3, 4, 8], 4)
    state = {f"{prefix}{name}": value for name, value in state.items()}
    torch.save({key: state, "netD": theirs, "epoch": 3} if key else state, tmp_path / "netG.pth")
    opened = open_model(tmp_path / "netG.pth")
    assert (opened.generator.latent_dim, opened.generator.resolution) == (5, 16)
    agrees(opened, net, flat, tanh=True)
    assert opened.has_discriminator == bool(key)
    if key:
        x = torch.randn(2, 3, 16, 16)
        torch.testing.assert_close(opened.discriminator(x), critic(x).flatten(), rtol=1e-5, atol=1e-5)
    assert opened.about.extra["origin"].startswith('{"file": "netG.pth", "sha256":')


def test_both_generators_of_a_dcgan_of_the_tutorial_can_be_read(tmp_path: Path) -> None:
    (raw, first), (mean, second) = (deconvolutions([5, 16, 8, 3]) for _ in range(2))
    torch.save({"netG": first, "netG_ema": second}, tmp_path / "both.pth")
    agrees(open_model(tmp_path / "both.pth"), mean, flat, tanh=True)
    agrees(open_model(tmp_path / "both.pth", ema=False), raw, flat, tanh=True)


@pytest.mark.parametrize("loss", ["DCGAN", "WGANGP"])
def test_a_dcgan_of_the_zoo_prefers_its_average(loss: str, tmp_path: Path) -> None:
    config = BaseConfig()
    config.lossCriterion = loss
    content: dict[str, Any] = {"config": config}
    nets = {}
    for key in ("netG", "avgG"):
        nets[key], state = deconvolutions([6, 8, 4, 3])
        names = list(dict.fromkeys(name.rpartition(".")[0] for name in state))
        ours = dict(
            zip(names, ["formatLayer", "main.batchNorm0", "main.convTranspose1", "main.batchNorm1"], strict=False)
        )
        ours[names[-1]] = "main.outlayer"
        content[key] = {f"{ours[n.rpartition('.')[0]]}.{n.rpartition('.')[2]}": value for n, value in state.items()}
    torch.save(content, tmp_path / "zoo.pth")
    opened = open_model(tmp_path / "zoo.pth")
    assert opened.foreign is not None
    assert opened.foreign.layout == "pytorch-gan-zoo-dcgan"
    agrees(opened, nets["avgG"], flat, tanh=loss == "DCGAN")
    agrees(open_model(tmp_path / "zoo.pth", ema=False), nets["netG"], flat, tanh=loss == "DCGAN")


def test_an_sngan_of_pytorch_gan_collections(tmp_path: Path) -> None:
    net = residual("collections")
    critic = Critic()
    for _ in range(2):
        critic(torch.randn(2, 3, 32, 32))
    critic.eval()
    torch.save({"net_G": net.state(), "net_D": critic.state(), "optim_G": {"state": {}}}, tmp_path / "model.pt")
    opened = open_model(tmp_path / "model.pt")
    agrees(opened, net)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(opened.discriminator(x), critic(x), rtol=1e-5, atol=1e-5)


def test_an_sn_dcgan_of_pytorch_gan_collections(tmp_path: Path) -> None:
    layers: list[nn.Module] = [nn.BatchNorm2d(16), nn.ReLU()]
    for width in (16, 8, 4):
        layers += [nn.ConvTranspose2d(width, width // 2, 4, 2, 1), nn.BatchNorm2d(width // 2), nn.ReLU()]
    main = nn.Sequential(*layers, nn.Conv2d(2, 3, 3, padding=1), nn.Tanh())
    net = nn.Sequential(nn.Linear(6, 16 * 16), nn.Unflatten(1, (16, 4, 4)), main)
    settled(net, torch.randn(8, 6))
    names = {"0": "linear", "2": "main"}
    state = {f"{names[key[0]]}{key[1:]}": value for key, value in net.state_dict().items()}
    torch.save({"net_G": state, "net_D": {}}, tmp_path / "model.pt")
    agrees(open_model(tmp_path / "model.pt"), net)


@pytest.mark.parametrize("classes", [0, 3])
def test_an_sngan_of_mimicry(classes: int, tmp_path: Path) -> None:
    net = residual("mimicry", classes)
    content = {"model_state_dict": net.state(), "optimizer_state_dict": None, "global_step": 70}
    torch.save(content, tmp_path / "netG_70_steps.pth")
    opened = open_model(tmp_path / "netG_70_steps.pth")
    agrees(opened, net)
    assert opened.about.extra["step"] == "70"
    assert not opened.has_discriminator


@pytest.mark.parametrize("classes", [0, 3])
def test_an_sngan_of_studiogan(classes: int, tmp_path: Path) -> None:
    net = residual("studiogan", classes)
    file = tmp_path / "model=G-best-weights-step=9.pth"
    torch.save({"state_dict": net.state(), "optimizer": {}}, file)
    agrees(open_model(file), net)


def test_a_channel_that_hardly_varies_keeps_its_scale_under_our_epsilon(tmp_path: Path) -> None:
    net = residual("collections")
    with torch.no_grad():  # its variance, 3e-6, is below the difference of the two epsilons
        net.norms[0].running_var[0], net.norms[0].running_mean[0] = 3e-6, 0
        net.first.weight[:16] *= 1e-4
        net.first.bias[:16] = 0
    torch.save({"net_G": net.state()}, tmp_path / "model.pt")
    agrees(open_model(tmp_path / "model.pt"), net)


def test_a_resnet_of_a_size_that_we_lack_says_so(tmp_path: Path) -> None:
    state = residual("collections").state()
    more = {
        key.replace("blocks.2.", f"blocks.{i}."): value
        for i in range(3, 7)
        for key, value in state.items()
        if "blocks.2." in key
    }
    torch.save({"net_G": {**state, **more}}, tmp_path / "model.pt")
    with pytest.raises(UserError, match="512 pixels; sngan supports 32, 48, 64, 128"):
        open_model(tmp_path / "model.pt")


def test_import_writes_a_folder_that_gives_the_same_pictures_with_its_origin(tmp_path: Path) -> None:
    _, state = deconvolutions([5, 16, 8, 3])
    _, critic = convolutions([3, 4, 8], 4)
    torch.save({"netG": state, "netD": critic}, tmp_path / "faces.pth")
    folder, opened = import_model(tmp_path / "faces.pth", tmp_path / "faces", license="cc0-1.0")
    assert sorted(file.name for file in folder.iterdir()) == [
        "README.md", "discriminator.safetensors", "generator.safetensors"
    ]  # fmt: skip
    mine = open_model(folder)
    z = torch.randn(2, 5)
    assert torch.equal(mine.generator(z), opened.generator(z))
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(load_discriminator(folder)(x), opened.discriminator(x))
    assert mine.about.extra["origin"] == opened.about.extra["origin"].replace(
        LAYOUTS.get("dcgan-tutorial").license, "cc0-1.0"
    )
    card = (folder / "README.md").read_text()
    assert opened.foreign is not None
    for words in ("faces.pth", opened.foreign.sha256, "cc0-1.0", "DCGAN of the PyTorch tutorial"):
        assert words in card
    with pytest.raises(UserError, match="already open this"):
        import_model(folder)
    single, _ = import_model(tmp_path / "faces.pth", tmp_path / "g.safetensors")
    assert torch.equal(orthogan.load(single)(z), opened.generator(z))
    (folder / "mine.txt").write_text("x")
    with pytest.raises(UserError, match=r"holds other files \(mine\.txt\)"):
        import_model(tmp_path / "faces.pth", folder)


def test_a_generator_is_not_written_beside_the_discriminator_of_another_model(tmp_path: Path) -> None:
    _, state = deconvolutions([5, 16, 8, 3])
    _, critic = convolutions([3, 4, 8], 4)
    torch.save({"netG": state, "netD": critic}, tmp_path / "both.pth")
    torch.save({key: value + 1 for key, value in state.items()}, tmp_path / "alone.pth")
    folder, _ = import_model(tmp_path / "both.pth", tmp_path / "model")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    other = orthogan.load(import_model(tmp_path / "alone.pth", tmp_path / "alone")[0])
    for write in (
        lambda: import_model(tmp_path / "alone.pth", folder),
        lambda: import_model(tmp_path / "alone.pth", folder / "alone.safetensors"),
        lambda: other.save_pretrained(folder),
    ):
        with pytest.raises(
            UserError, match=r"model/discriminator\.safetensors: belongs to another model.* another folder"
        ):
            write()
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    orthogan.load(folder).save_pretrained(folder)  # its own discriminator
    import_model(tmp_path / "both.pth", folder)
    assert open_model(folder).has_discriminator


def test_an_unknown_file_says_what_it_holds_and_what_to_do(tmp_path: Path) -> None:
    torch.save({"G": {"fc.weight": torch.ones(2, 3)}, "step": 4, "net": BaseConfig()}, tmp_path / "x.pth")
    message = (
        r"x\.pth: does not contain an orthogan generator.*mimicry.*G \(a mapping with the keys fc\.weight \(an array"
    )
    with pytest.raises(
        UserError, match=message + r".*step \(a int\), net \(an object of .*module:function.*foreign-models"
    ):
        orthogan.load(tmp_path / "x.pth")


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_refuses_what_is_not_its_own(name: str, tmp_path: Path) -> None:
    for content in (
        {}, [], None, 3, {"state_dict": {}}, {"model_state_dict": {}}, {"net_G": {}}, {"netG": {}}, {"g_ema": {}},
        {"state_dict": {"linear0.weight": torch.ones(2), "bn4.weight": torch.ones(1), "conv2d5.weight": torch.ones(1)}},
        {"net_G": {"blocks.0.residual.0.weight": torch.ones(2)}}, {"net_G": {"linear.weight": torch.ones(3, 3)}},
        {"main.0.weight": torch.ones(2, 3, 4, 4)}, {"main.0.weight": torch.ones(0, 3, 4, 4)},
    ):  # fmt: skip
        torch.save(content, tmp_path / "x.pth")
        assert recognize(tmp_path / "x.pth", read_content(tmp_path / "x.pth")) is None, name


def test_training_goes_on_from_a_foreign_file(tmp_path: Path) -> None:
    _, state = deconvolutions([5, 16, 8, 3])
    _, critic = convolutions([3, 4, 8], 4)
    torch.save({"netG": state, "netD": critic}, tmp_path / "dcgan.pth")
    nets = ["generator.kind=dcgan-tutorial", "generator.channels=8", "generator.latent_dim=5"]
    nets += ["discriminator.kind=dcgan-tutorial", "discriminator.channels=4"]
    config = orthogan.load_config(
        None, [f"model.init={tmp_path / 'dcgan.pth'}", "data.resolution=16", *(f"model.{one}" for one in nets)]
    )
    start = WarmStart(config, 0)
    net = build_generator(config, num_classes=0, start=start.generator)
    z = torch.randn(2, 5)
    assert torch.equal(net.eval()(z), orthogan.load(tmp_path / "dcgan.pth")(z))
    assert start.discriminator is not None
    build_discriminator(config.model_copy(), num_classes=0, start=start.discriminator)
    assert start.in_words().startswith("generator and discriminator of")


def test_a_dcgan_of_the_tutorial_as_safetensors(tmp_path: Path) -> None:
    net, state = deconvolutions([5, 32, 16, 8, 8, 3])  # main.12 is stored before main.3
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "netG.safetensors")
    agrees(open_model(tmp_path / "netG.safetensors"), net, flat, tanh=True)
