"""What the one door opens, what it reads for it, and what it says of anything else."""

from __future__ import annotations

import shutil
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from orthogan.config.files import load_config
from orthogan.config.schema import Config
from orthogan.errors import UserError
from orthogan.evaluation.spectrum.layer_spectrum import spectrum as measure
from orthogan.io import checkpoint, weights
from orthogan.io.checkpoint import Part
from orthogan.models import generate
from orthogan.models.build import build_classifier, build_discriminator, build_generator
from orthogan.models.open import Tensors, load_discriminator, open_model
from orthogan.models.saved import CLASSIFIER, CLASSIFIER_FORMAT, RAW, metadata, save_generator

PREBUILT = nn.Linear(3, 2)


class Small(nn.Module):
    """A user's net."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))


def factory() -> nn.Module:
    return Small()


def needs_more(width: int) -> nn.Module:
    return nn.Linear(width, width)


def breaks() -> nn.Module:
    raise KeyError("weights.bin")


def no_net() -> dict[str, int]:
    return {}


def settings() -> Config:
    small = ["model.generator.channels=8", "model.discriminator.channels=8", "model.generator.latent_dim=5"]
    return load_config(None, [*small, "model.discriminator.norm.kind=stable_rank"])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with one checkpoint: raw and averaged generator (twice the raw weights), constrained discriminator."""
    config, folder = settings(), tmp_path_factory.mktemp("runs") / "run"
    generator, critic = build_generator(config, num_classes=0), build_discriminator(config, num_classes=0)
    raw = generator.state_dict()
    twice = {key: value * 2 if value.is_floating_point() else value for key, value in raw.items()}
    about = metadata(config, 0, {"step": "3"})
    parts = {
        "generator": Part(raw, about),
        "generator-ema": Part(twice, about),
        "discriminator": Part(critic.state_dict(), {}),
    }
    checkpoint.save(folder, 3, parts, {})
    return folder


def step(run: Path) -> Path:
    return run / "checkpoints" / "step-000000003"


def test_a_run_and_a_checkpoint_give_both_nets_with_their_constraints(run: Path) -> None:
    for subject in (run, step(run)):
        model = open_model(subject)
        name, module = model.title, model.net
        assert name == str(step(run))
        rows = {row.name: row for row in measure(module)}
        want = build_discriminator(settings(), num_classes=0)
        assert [n for n in rows if n.startswith("D.")] == [f"D.{row.name}" for row in measure(want)]
        assert rows["D.blocks.0.conv2"].sigma == pytest.approx(1.0, abs=0.05)  # the effective weight
        assert "G.linear" in rows


def test_the_average_is_taken_unless_it_is_not_wanted(run: Path) -> None:
    averaged = measure(open_model(run).net, "G.linear")[0]
    raw = measure(open_model(run, ema=False).net, "G.linear")[0]
    assert averaged.sigma == pytest.approx(2 * raw.sigma, rel=1e-5)


def test_a_file_of_a_checkpoint_is_that_net_alone(run: Path) -> None:
    model = open_model(step(run) / "discriminator.safetensors")
    name, module = model.title, model.net
    assert name.endswith("discriminator.safetensors")
    assert measure(module, "blocks.0.conv2")[0].sigma == pytest.approx(1.0, abs=0.05)
    module = open_model(step(run) / "generator.safetensors").net
    assert "linear" in [row.name for row in measure(module)]


def test_a_discriminator_of_another_config_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "generator.safetensors").write_bytes((step(run) / "generator.safetensors").read_bytes())
    save_file({"linear.weight": torch.zeros(2, 2)}, tmp_path / "discriminator.safetensors")
    with pytest.raises(UserError, match=r"discriminator\.safetensors: does not fit"):
        _ = open_model(tmp_path / "discriminator.safetensors").net


def test_a_shared_generator_file_opens_by_itself(tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    save_generator(file, build_generator(settings(), num_classes=0), config=settings())
    for subject in (file, tmp_path):
        model = open_model(subject)
        name, module = model.title, model.net
        assert name == str(file)
        assert measure(module)[0].name == "linear"


@pytest.mark.parametrize("name", ["Small", "factory"])
def test_classes_and_functions_by_name_are_built_under_a_fixed_seed(name: str) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = open_model(f"{__name__}:{name}").net
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    second = open_model(f"{__name__}:{name}").net
    assert [row.name for row in measure(first)] == ["body.0", "body.2"]
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_a_net_by_name_is_taken_as_it_is() -> None:
    assert open_model(f"{__name__}:PREBUILT").net is PREBUILT


def foreign() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "features.0.weight": (4, 3, 3, 3),
        "features.0.bias": (4,),
        "line.weight": (2, 3, 5),
        "volume": (2, 2, 1, 2, 2),
        "attention.in_proj_weight": (6, 2),
        "weight": (3, 3),
        "type": (2, 2),  # an attribute of every nn.Module
        "tokens": (2, 1, 1, 1, 1, 3),
    }
    tensors = {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    return tensors | {"positions": torch.arange(6).reshape(2, 3), "empty": torch.zeros(0, 3)}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
def test_other_peoples_weights_keep_their_names(suffix: str, tmp_path: Path) -> None:
    file, tensors = tmp_path / f"net{suffix}", foreign()
    if suffix == ".safetensors":
        save_file(tensors, file)
    else:
        torch.save(OrderedDict(tensors), file)
    model = open_model(file)
    name, module = model.title, model.net
    assert name == str(file)
    rows = {row.name: row for row in measure(module)}
    assert {row.name: row.type for row in rows.values()} == {
        "features.0": "Conv2d",
        "line": "Conv1d",
        "volume": "Conv3d",
        "attention.in_proj_weight": "Linear",
        "weight": "Linear",
        "type": "Linear",
        "tokens": "Linear",
    }
    for key, row in (("features.0.weight", rows["features.0"]), ("tokens", rows["tokens"])):
        want = torch.linalg.svdvals(tensors[key].flatten(1))
        torch.testing.assert_close(row.singular_values, want)


def test_two_tensors_of_one_name_are_both_kept() -> None:
    names = [row.name for row in measure(Tensors({"a": torch.eye(2), "a.weight": torch.eye(3)}))]
    assert names == ["a", "a.weight"]


def test_bfloat16_weights_open(tmp_path: Path) -> None:
    save_file({"a.weight": torch.eye(3, dtype=torch.bfloat16) * 3}, tmp_path / "a.safetensors")
    assert measure(open_model(tmp_path / "a.safetensors").net)[0].sigma == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ({"state_dict": {"a": torch.eye(2)}, "epoch": 3}, ["state_dict, epoch are not tensors", "['state_dict']"]),
        ({"a": torch.eye(2), "epoch": 3}, ["epoch are not tensors", "alone"]),
        ([torch.eye(2)], ["contains a list", "state_dict()"]),
        (PREBUILT, ["more than tensors", "state_dict()", ".safetensors"]),
        ({"b": torch.zeros(3)}, ["none of its 1 tensor is a matrix or kernel"]),
    ],
)
def test_pickles_of_anything_else_are_refused(content: object, parts: list[str], tmp_path: Path) -> None:
    file = tmp_path / "net.pth"
    torch.save(content, file)
    with pytest.raises(UserError) as caught:
        _ = open_model(file).net
    assert all(part in str(caught.value) for part in [str(file), *parts])


def test_damaged_and_strange_files_are_named(tmp_path: Path) -> None:
    for name, part in (("a.safetensors", "not a readable"), ("a.pt", "is damaged"), ("a.txt", "module:Class")):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(UserError, match=part) as caught:
            _ = open_model(tmp_path / name).net
        assert str(tmp_path / name) in str(caught.value)
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="neither a run"):
        _ = open_model(tmp_path / "folder").net


@pytest.mark.parametrize(
    ("subject", "parts"),
    [
        ("nowhere/at/all", ["nowhere/at/all", "no such run, checkpoint, file or shipped model", "module:Class"]),
        ("gone.safetensors", ["no such run, checkpoint, file or shipped model"]),
        ("no.such.module:Net", ["no.such.module", "importable"]),
        (f"{__name__}:Missing", ["Missing", "importable"]),
        (f"{__name__}:needs_more", ["without arguments", "width", "a function"]),
        (f"{__name__}:breaks", ["KeyError", "weights.bin"]),
        (f"{__name__}:no_net", ["returns a dict", "nn.Module"]),
        (":Net", ["no such run, checkpoint, file or shipped model"]),
    ],
)
def test_names_of_nothing_are_refused_with_a_remedy(subject: str, parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        _ = open_model(subject).net
    assert all(part in str(caught.value) for part in parts)


def constrained(*overrides: str) -> Config:
    small = ["model.generator.channels=8", "model.discriminator.channels=8", "model.generator.latent_dim=5"]
    return load_config(None, [*small, "model.discriminator.norm.kind=stable_rank", *overrides])


def trained(folder: Path, settings: Config, classes: int = 0) -> nn.Module:
    """A run of one checkpoint; its discriminator."""
    torch.manual_seed(3)
    generator = build_generator(settings, num_classes=classes)
    net = build_discriminator(settings, num_classes=classes)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    parts = {
        RAW: Part(generator.state_dict(), metadata(settings, classes, {})),
        "discriminator": Part(net.state_dict(), {}),
    }
    checkpoint.save(folder, 7, parts, {})
    return net


def test_it_says_what_the_trained_one_said(tmp_path: Path) -> None:
    net = trained(tmp_path, constrained("data.labels=true"), classes=3).eval()
    folder = checkpoint.checkpoint_folder(tmp_path, 7)
    x, y = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 2])
    for place in (tmp_path, folder, folder / "discriminator.safetensors"):
        again = load_discriminator(place)
        assert not again.training
        assert again.num_classes == 3
        assert torch.equal(again(x, y), net(x, y))


def test_two_files_alone_are_enough(tmp_path: Path) -> None:
    net = trained(tmp_path / "run", constrained()).eval()
    for name in ("generator", "discriminator"):
        shutil.copy(checkpoint.checkpoint_folder(tmp_path / "run", 7) / f"{name}.safetensors", tmp_path)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(load_discriminator(tmp_path / "discriminator.safetensors")(x), net(x))


def test_what_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such run"):
        load_discriminator(tmp_path / "absent")
    settings = constrained()
    save_generator(tmp_path / "g.safetensors", build_generator(settings, num_classes=0), config=settings)
    with pytest.raises(UserError, match=r"no discriminator\.safetensors beside g\.safetensors"):
        load_discriminator(tmp_path / "g.safetensors")
    with pytest.raises(UserError, match=r"discriminator\.safetensors: no such run"):
        load_discriminator(tmp_path / "discriminator.safetensors")
    trained(tmp_path / "run", settings)
    folder = checkpoint.checkpoint_folder(tmp_path / "run", 7)
    other = constrained("model.discriminator.channels=16")
    save_generator(folder / f"{RAW}.safetensors", build_generator(other, num_classes=0), config=other)
    with pytest.raises(UserError, match="does not fit the config in"):
        load_discriminator(folder / "discriminator.safetensors")
    (folder / "discriminator.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match="does not fit the config in"):
        load_discriminator(folder / "discriminator.safetensors")


def test_a_classifier_has_none(tmp_path: Path) -> None:
    settings = load_config(None, ["task=classifier", "model.classifier.kind=mlp", "model.classifier.channels=4"])
    net = build_classifier(settings, num_classes=10)
    about = metadata(settings, 10, {}, form=CLASSIFIER_FORMAT)
    checkpoint.save(tmp_path, 1, {CLASSIFIER: Part(net.state_dict(), about)}, {})
    with pytest.raises(UserError, match="choose a run of a GAN"):
        load_discriminator(tmp_path)


def test_only_what_is_needed_is_read_and_hashed_and_that_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    digest = checkpoint._sha256
    monkeypatch.setattr(checkpoint, "_sha256", lambda path: read.append(path.name) or digest(path))
    monkeypatch.setattr(weights, "compute_seal", lambda *_: pytest.fail("the checkpoint has vouched for it already"))
    model = open_model(run)
    assert model.config == settings()
    assert model.generator is model.generator
    assert read == ["generator-ema.safetensors"]
    assert model.discriminator is model.discriminator
    assert read == ["generator-ema.safetensors", "discriminator.safetensors"]


def test_a_damaged_discriminator_does_not_keep_the_generator_from_being_looked_at(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    file = step(copy) / "discriminator.safetensors"
    data = bytearray(file.read_bytes())
    data[-10] ^= 1
    file.write_bytes(data)
    model = open_model(copy)
    assert model.generator.latent_dim == 5
    with pytest.raises(UserError, match="its content has changed"):
        _ = model.discriminator


def test_the_weights_are_hashed_once_and_anew_where_they_changed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, passes = open_model(run), []
    tensors = generate.tensor_bytes
    monkeypatch.setattr(generate, "tensor_bytes", lambda tensor: passes.append(1) or tensors(tensor))
    first = model.hash
    once = len(passes)
    assert generate.model_hash(model.generator) == first
    assert len(passes) == once > 0
    with torch.no_grad():
        next(model.generator.parameters()).add_(1)
    assert generate.model_hash(model.generator) != first


@pytest.mark.parametrize("subject", [None, 5, "", "  ", b"run", ["run"], torch.ones(3), torch.nn.Linear(2, 2)], ids=str)
def test_what_names_no_model_is_refused_by_type(subject: Any) -> None:
    with pytest.raises(TypeError, match=r"expected the path or the name of a model, not .*; shipped: .*sprites-sngan"):
        open_model(subject)


@pytest.mark.parametrize(
    ("device", "says"),
    [("gpu", "unknown device; choose cpu"), ("meta", "holds no data"), ("mps", "not available here")],
)
def test_a_device_that_cannot_be_used_is_named(device: str, says: str) -> None:
    with pytest.raises(UserError, match=f"^device '?{device}'?: .*{says}"):
        open_model("sprites-sngan", device=device)
