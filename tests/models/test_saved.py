"""From a config to nets, and from a net to a file that carries its config, and back."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from orthogan.config.files import load_config
from orthogan.config.schema import Config
from orthogan.errors import UserError
from orthogan.io import checkpoint
from orthogan.io.checkpoint import Part
from orthogan.models.build import build_discriminator, build_generator
from orthogan.models.modes import eval_mode
from orthogan.models.open import load_generator, open_model
from orthogan.models.protocol import as_generator
from orthogan.models.saved import EMA, RAW, metadata, save_generator
from orthogan.weights.network import list_constrained


class Wrapper(nn.Module):
    """What a user writes around a net of their own."""

    num_classes = 0

    def __init__(self, latent_dim: int, resolution: int, width: int = 4) -> None:
        super().__init__()
        self.latent_dim, self.side = latent_dim, resolution
        self.net = nn.Sequential(nn.Linear(latent_dim, width), nn.Linear(width, resolution**2))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.net(z).tanh().view(-1, 1, self.side, self.side)


def config(*overrides: str) -> Config:
    small = ["model.generator.channels=8", "model.discriminator.channels=8", "model.generator.latent_dim=5"]
    return load_config(None, [*small, *overrides])


def test_initial_weights_follow_from_the_seed_and_disturb_nobody() -> None:
    torch.manual_seed(77)
    state = torch.get_rng_state()
    one = build_generator(config(), num_classes=0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    two, other = build_generator(config(), num_classes=0), build_generator(config("seed=1"), num_classes=0)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.first_layer().weight, other.first_layer().weight)


def test_norms_go_where_the_config_says() -> None:
    settings = config("model.generator.norm.kind=spectral", "model.discriminator.norm.kind=stable_rank")
    generator = build_generator(settings, num_classes=3)
    discriminator = build_discriminator(settings, num_classes=3)
    names = [name for name, *_ in list_constrained(generator)]
    assert "linear" in names
    assert not any("norm" in name for name in names)  # the gains of conditional batch norm are no matrices
    assert "embedding" in [name for name, *_ in list_constrained(discriminator)]
    assert list(list_constrained(build_generator(config(), num_classes=0))) == []


def test_a_class_of_the_users_own() -> None:
    kind = f"model.generator.kind={__name__}:Wrapper"
    net = build_generator(config(kind, "model.generator.options={width: 7}"), num_classes=0)
    assert isinstance(net, nn.Module)
    assert net.net[0].out_features == 7
    assert net.sample_latent(3, seed=1).shape == (3, 5)
    assert net(net.sample_latent(2, seed=1)).shape == (2, 1, 32, 32)


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["model.generator.kind=sgnan"], ["model.generator.kind", "'sgnan'", "sngan"]),
        (["model.generator.kind=nowhere.at.all:Net"], ["model.generator.kind", "nowhere"]),
        ([f"model.generator.kind={__name__}:Gone"], ["Gone"]),
        (["model.generator.options={a: 1}"], ["model.generator.options"]),
        (["data.resolution=40"], ["data.resolution is 40", "another model.generator.kind"]),
    ],
)
def test_what_cannot_be_built_is_named(overrides: list[str], parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        build_generator(config(*overrides), num_classes=0)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("kind", ["sngan", "dcgan", "simple-gan"])
def test_a_size_that_a_discriminator_does_not_support_names_its_key(kind: str) -> None:
    wrong = config("data.resolution=18", f"model.discriminator.kind={kind}")
    with pytest.raises(UserError, match=rf"data.resolution is 18: {kind} .*another model.discriminator.kind"):
        build_discriminator(wrong, num_classes=0)


def test_as_generator_fills_in_and_refuses() -> None:
    net = as_generator(Wrapper(4, 8))
    assert torch.equal(net.sample_latent(2, seed=5), net.sample_latent(2, seed=5))
    again = pickle.loads(pickle.dumps(net))  # torch.save(net), or another process
    assert torch.equal(again.sample_latent(2, seed=5), net.sample_latent(2, seed=5))
    assert torch.equal(net.sample_latent(2), net.sample_latent(2, seed=0))
    assert again.sample.args[0] is again
    with pytest.raises(UserError, match="latent_dim"):
        as_generator(nn.Linear(2, 2))


def test_frozen_restores_every_mode() -> None:
    net = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout())
    net[0].eval()
    with eval_mode(net):
        assert not any(m.training for m in net.modules())
        assert not net(torch.ones(1, 2)).requires_grad
    assert (net.training, net[0].training, net[1].training) == (True, False, True)


def test_a_file_carries_all_that_is_needed(tmp_path: Path) -> None:
    settings = config("data.labels=true", "model.generator.norm.kind=spectral")
    net = build_generator(settings, num_classes=3)
    names = json.dumps(["a", "b", "c"])
    save_generator(tmp_path / "g.safetensors", net, config=settings, extra={"step": "12", "class_names": names})
    saved = open_model(tmp_path / "g.safetensors").about
    assert saved.config == settings
    assert (saved.num_classes, saved.class_names, saved.extra["step"]) == (3, ["a", "b", "c"], "12")
    again = load_generator(tmp_path / "g.safetensors")
    z, y = net.sample_latent(2, seed=0), torch.tensor([0, 2])
    assert not again.training
    assert torch.equal(again(z, y), net.eval()(z, y))
    with safe_open(tmp_path / "g.safetensors", "pt") as file:
        assert json.loads(file.metadata()["config"])["model"]["generator"]["channels"] == 8


def test_a_run_gives_its_newest_average(tmp_path: Path) -> None:
    settings = config()
    nets = [build_generator(config(f"seed={seed}"), num_classes=0) for seed in range(3)]
    head = metadata(settings, 0, {})
    for step, (raw, averaged) in enumerate([(nets[0], nets[0]), (nets[1], nets[2])]):
        parts = {RAW: Part(raw.state_dict(), head), EMA: Part(averaged.state_dict(), head)}
        checkpoint.save(tmp_path, step, parts, {})
    folder = tmp_path / "checkpoints" / "step-000000001"
    for place in (tmp_path, folder, folder / "generator-ema.safetensors"):
        assert torch.equal(load_generator(place).linear.weight, nets[2].linear.weight)
    assert torch.equal(load_generator(tmp_path, ema=False).linear.weight, nets[1].linear.weight)
    (folder / "generator-ema.safetensors").write_bytes(b"x")
    assert torch.equal(load_generator(tmp_path).linear.weight, nets[0].linear.weight)
    with pytest.raises(UserError, match=r"bytes, .* were written"):
        load_generator(folder)


def test_what_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such run"):
        load_generator(tmp_path / "absent")
    with pytest.raises(UserError, match="neither a run"):
        load_generator(tmp_path)
    (tmp_path / "junk.safetensors").write_bytes(b"not tensors")
    with pytest.raises(UserError, match="not a readable safetensors"):
        load_generator(tmp_path / "junk.safetensors")
    save_file({"w": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="does not contain an orthogan generator"):
        load_generator(tmp_path / "other.safetensors")
    save_file({"w": torch.zeros(2)}, tmp_path / "wrong.safetensors", metadata(config(), 0, {}))
    with pytest.raises(UserError, match="do not match its config"):
        load_generator(tmp_path / "wrong.safetensors")


def test_known_kinds_take_the_options_they_have() -> None:
    kind = "model.generator.kind=eigengan"
    net = build_generator(
        config(kind, "model.generator.latent_dim=40", "model.generator.options={dims: 4}"), num_classes=0
    )
    assert len(net.native_directions()) == 12  # three layers of four
    with pytest.raises(UserError, match=r"options\.dim: 'eigengan' has no such option; it has dims, injection"):
        build_generator(
            config(kind, "model.generator.latent_dim=40", "model.generator.options={dim: 4}"), num_classes=0
        )
