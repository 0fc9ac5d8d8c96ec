"""What the audit can open, what it says of it, and what it says of anything else."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from orthogan.config.files import load_config
from orthogan.config.schema import Config
from orthogan.errors import UserError
from orthogan.evaluation.spectrum.layer_spectrum import spectrum as measure
from orthogan.evaluation.spectrum.subject import Tensors, open_subject, spectrum
from orthogan.io import checkpoint
from orthogan.io.checkpoint import Part
from orthogan.models.build import build_discriminator, build_generator
from orthogan.models.saved import metadata, save_generator

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
        name, module = open_subject(subject)
        assert name == str(step(run))
        rows = {row.name: row for row in measure(module)}
        want = build_discriminator(settings(), num_classes=0)
        assert [n for n in rows if n.startswith("D.")] == [f"D.{row.name}" for row in measure(want)]
        assert rows["D.blocks.0.conv2"].sigma == pytest.approx(1.0, abs=0.05)  # the effective weight
        assert "G.linear" in rows


def test_the_average_is_taken_unless_it_is_not_wanted(run: Path) -> None:
    averaged = measure(open_subject(run)[1], "G.linear")[0]
    raw = measure(open_subject(run, ema=False)[1], "G.linear")[0]
    assert averaged.sigma == pytest.approx(2 * raw.sigma, rel=1e-5)


def test_a_file_of_a_checkpoint_is_that_net_alone(run: Path) -> None:
    name, module = open_subject(step(run) / "discriminator.safetensors")
    assert name.endswith("discriminator.safetensors")
    assert measure(module, "blocks.0.conv2")[0].sigma == pytest.approx(1.0, abs=0.05)
    _, module = open_subject(step(run) / "generator.safetensors")
    assert "linear" in [row.name for row in measure(module)]


def test_a_discriminator_of_another_config_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "generator.safetensors").write_bytes((step(run) / "generator.safetensors").read_bytes())
    save_file({"linear.weight": torch.zeros(2, 2)}, tmp_path / "discriminator.safetensors")
    with pytest.raises(UserError, match=r"discriminator\.safetensors: does not fit"):
        open_subject(tmp_path / "discriminator.safetensors")


def test_a_shared_generator_file_opens_by_itself(tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    save_generator(file, build_generator(settings(), num_classes=0), config=settings())
    for subject in (file, tmp_path):
        name, module = open_subject(subject)
        assert name == str(file)
        assert measure(module)[0].name == "linear"


@pytest.mark.parametrize("name", ["Small", "factory"])
def test_classes_and_functions_by_name_are_built_under_a_fixed_seed(name: str) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = open_subject(f"{__name__}:{name}")[1]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    second = open_subject(f"{__name__}:{name}")[1]
    assert [row.name for row in measure(first)] == ["body.0", "body.2"]
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_a_net_by_name_is_taken_as_it_is() -> None:
    assert open_subject(f"{__name__}:PREBUILT")[1] is PREBUILT


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
    name, module = open_subject(file)
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
    assert measure(open_subject(tmp_path / "a.safetensors")[1])[0].sigma == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ({"state_dict": {"a": torch.eye(2)}, "epoch": 3}, ["state_dict, epoch are no tensors", "['state_dict']"]),
        ({"a": torch.eye(2), "epoch": 3}, ["epoch are no tensors", "alone"]),
        ([torch.eye(2)], ["holds a list", "state_dict()"]),
        (PREBUILT, ["more than tensors", "state_dict()", ".safetensors"]),
        ({"b": torch.zeros(3)}, ["no matrix or kernel among its 1 tensors"]),
    ],
)
def test_pickles_of_anything_else_are_refused(content: object, parts: list[str], tmp_path: Path) -> None:
    file = tmp_path / "net.pth"
    torch.save(content, file)
    with pytest.raises(UserError) as caught:
        open_subject(file)
    assert all(part in str(caught.value) for part in [str(file), *parts])


def test_damaged_and_strange_files_are_named(tmp_path: Path) -> None:
    for name, part in (("a.safetensors", "not a readable"), ("a.pt", "is damaged"), ("a.txt", "module:Class")):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(UserError, match=part) as caught:
            open_subject(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="neither a run"):
        open_subject(tmp_path / "folder")


@pytest.mark.parametrize(
    ("subject", "parts"),
    [
        ("nowhere/at/all", ["nowhere/at/all", "no such file", "module:Class"]),
        ("gone.safetensors", ["no such file"]),
        ("no.such.module:Net", ["no.such.module", "importable"]),
        (f"{__name__}:Missing", ["Missing", "importable"]),
        (f"{__name__}:needs_more", ["without arguments", "width", "a function"]),
        (f"{__name__}:breaks", ["KeyError", "weights.bin"]),
        (f"{__name__}:no_net", ["gives a dict", "nn.Module"]),
        (":Net", ["no such file"]),
    ],
)
def test_names_of_nothing_are_refused_with_a_remedy(subject: str, parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        open_subject(subject)
    assert all(part in str(caught.value) for part in parts)


def test_the_text_has_a_line_for_every_layer(run: Path, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    text = spectrum(str(run), layers="G.*", plot=picture)
    rows = measure(open_subject(run)[1], "G.*")
    lines = text.splitlines()
    assert all(any(line.split()[:1] == [row.name] for line in lines) for row in rows)
    assert "D.linear" not in text
    assert "a heuristic" in text
    assert lines[-1] == f"picture: {picture}"
    assert Image.open(picture).text["subject"] == str(step(run))  # pyright: ignore


def test_the_json_is_one_strict_object(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_file({"a.weight": torch.zeros(2, 3), "b.weight": torch.eye(2)}, file)

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    found = json.loads(spectrum(str(file), size=4, as_json=True), parse_constant=refuse)
    assert found["subject"] == str(file)
    assert found["size"] == 4
    assert found["not_measured"] == []
    assert found["log10_product_of_norms"] == {"reshaped": None, "operator": None}
    assert [layer["name"] for layer in found["layers"]] == ["a", "b"]
    assert found["layers"][1]["singular_values"] == [1.0, 1.0]


def test_a_state_dict_warns_of_what_it_does_not_say_and_a_net_of_what_is_left_out(tmp_path: Path) -> None:
    save_file({"a.weight": torch.eye(2)}, tmp_path / "a.safetensors")
    assert "stride 1 without groups" in spectrum(str(tmp_path / "a.safetensors"))
    assert "not measured" not in spectrum(f"{__name__}:Small")
    assert "rnn.weight_ih_l0" in spectrum(f"{__name__}:Recurrent")


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(2, 3), nn.Linear(3, 2)


def test_mistakes_are_met_before_the_work_and_as_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.png"):
        spectrum("nowhere", plot=tmp_path / "a.pdf")
    with pytest.raises(UserError, match=r"Small.*did you mean 'linear'"):
        spectrum(f"{__name__}:Small", layers="linaer")
    with pytest.raises(UserError, match="size is 0"):
        spectrum(f"{__name__}:Small", size=0)
