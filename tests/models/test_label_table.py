"""Networks whose labels are vectors."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import orthogan
from orthogan.data import ArraySource, open_configured
from orthogan.errors import UserError
from orthogan.evaluation.images import class_order
from orthogan.latent import model_hash
from orthogan.layers.batch_norm import ConditionalBatchNorm2d
from orthogan.models.families.sngan import SNGANGenerator
from orthogan.models.label_table import ClassEmbedding, LabelTable, add_label_table, draw_classes, label_table
from orthogan.models.open import load_discriminator, load_generator
from orthogan.models.protocol import DISCRIMINATORS, GENERATORS
from orthogan.models.samples import choose_classes
from orthogan.training import train
from tests.fixtures.runs import tiny

UNCONDITIONAL = ("dcgan-tutorial", "eigengan", "infogan", "simple-gan", "stylegan2-lucidrains")
CONDITIONAL = [kind for kind in GENERATORS if kind not in UNCONDITIONAL]
VECTORS = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.5, -0.25, 2.0]])


def pair(kind: str, *, colours: int = 3) -> tuple[Any, Any]:
    """Small networks for labels of three numbers."""
    torch.manual_seed(0)
    width, latent_dim = 1 if kind == "stylegan3" else 8, 8 if kind == "biggan" else 6
    shared = {"resolution": 32, "image_channels": colours, "num_classes": 3, "channels": width}
    return GENERATORS.get(kind)(latent_dim=latent_dim, **shared), DISCRIMINATORS.get(kind)(**shared)


def fill(net: nn.Module) -> None:
    """Give each class its own values; new class tables of some families are all equal."""
    torch.manual_seed(1)
    for part in net.modules():
        if isinstance(part, ClassEmbedding):
            nn.init.normal_(part.weight)
        if isinstance(part, ConditionalBatchNorm2d):
            nn.init.normal_(part.gain, 1)
            nn.init.normal_(part.bias)


@pytest.mark.parametrize("kind", CONDITIONAL)
def test_a_one_hot_vector_is_its_class_in_every_family(kind: str) -> None:
    generator, critic = pair(kind)
    nets = [generator, *([critic] if getattr(critic, "num_classes", 0) else [])]
    for net in nets:
        fill(net)
        net.eval()
    z, y = generator.sample_latent(2, seed=0), torch.tensor([2, 0])
    with torch.no_grad():
        images = generator(z, y)
        by_class = [images, *(net(images, y) for net in nets[1:])]
        for net in nets:
            add_label_table(net, LabelTable(VECTORS))
        by_vector = [generator(z, torch.tensor([0, 1])), *(net(images, torch.tensor([0, 1])) for net in nets[1:])]
        mixed = [generator(z, VECTORS[[2, 2]]), *(net(images, VECTORS[[2, 2]]) for net in nets[1:])]
        rows = [generator(z, torch.tensor([2, 2])), *(net(images, torch.tensor([2, 2])) for net in nets[1:])]
    assert nets[0].num_classes == len(VECTORS)
    for one, other in zip(by_class, by_vector, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    for one, other in zip(mixed, rows, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
        assert not torch.allclose(one, by_class[0] if one.dim() == 4 else by_class[1])


def test_sums_of_class_vectors() -> None:
    embedding, norm = ClassEmbedding(3, 4), ConditionalBatchNorm2d(4, 3).eval()
    fill(nn.ModuleList([embedding, norm]))
    torch.testing.assert_close(embedding(VECTORS), VECTORS @ embedding.weight)
    x = torch.randn(3, 4, 2, 2)
    gain, bias = torch.ones(3, 4), torch.zeros(3, 4)
    for n, row in enumerate(VECTORS):
        for c, v in enumerate(row):
            gain[n] += v * (norm.gain[c] - 1)
            bias[n] += v * norm.bias[c]
    wanted = gain[:, :, None, None] * x / (1 + 1e-5) ** 0.5 + bias[:, :, None, None]
    torch.testing.assert_close(norm(x, VECTORS), wanted, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="one per image"):
        norm(x, torch.zeros(3, 2))


def test_copies_and_w_have_the_vectors() -> None:
    generator, _ = pair("stylegan2")
    fill(generator)
    generator.eval()
    add_label_table(generator, LabelTable(VECTORS))
    z = generator.sample_latent(2, seed=0)
    other = copy.deepcopy(generator)
    label_table(other).vectors.zero_()  # pyright: ignore[reportOptionalMemberAccess]
    y = torch.tensor([1, 2])
    with torch.no_grad():
        assert not torch.equal(other(z, y), generator(z, y))
        seen = generator.latent_space("w", y=2)
        w = torch.stack([seen.sample_latent(1, seed=0)[0]])
        assert seen(w).shape == (1, 3, 32, 32)
        torch.testing.assert_close(generator.mapper(z, VECTORS[[1, 2]]), generator.mapper(z, y))  # pyright: ignore
        torch.testing.assert_close(generator(z, y=y), generator(z, VECTORS[[1, 2]]))


def test_fakes_have_the_labels_of_the_training_images() -> None:
    generator, _ = pair("dcgan")
    add_label_table(generator, LabelTable(VECTORS, torch.tensor([1, 6, 3])))
    order = class_order(generator, 1000, seed=0)
    np.testing.assert_allclose(np.bincount(order), [100, 600, 300], atol=3)
    assert not torch.equal(order, order.sort().values)
    drawn = draw_classes(generator, 10_000, rng=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(np.bincount(drawn) / 10_000, [0.1, 0.6, 0.3], atol=0.02)
    assert [int(label) for label in LabelTable(VECTORS).draw(torch.tensor([0.0, 0.4, 0.99999, 1.0]))] == [0, 1, 2, 2]


def test_classes_in_words() -> None:
    generator, _ = pair("dcgan")
    add_label_table(generator, LabelTable(VECTORS[:2], names=["red", "big hat", "blue"]))
    generator.class_names = ["blue", "red"]
    before = model_hash(generator)
    assert choose_classes(generator, "red, 0, 1 0 0") == [1, 0]
    for text, message in (
        ("red+blue", "no training image has the label"),
        ("1 0", "has 2 numbers; the label vectors have 3"),
        ("1 0 nan", "3 finite numbers"),
        ("rde", "'rde' is not a label.*names are red, big hat, blue"),
        ("7", "7 is out of range"),
    ):
        with pytest.raises(UserError, match=message):
            choose_classes(generator, text)
    assert choose_classes(generator, "red + big hat,none,0.5 0 0,0.5 0 0", new=True) == [2, 3, 4]
    assert generator.num_classes == 5
    assert list(generator.class_names)[2:] == ["red + big hat", "none", "0.5 0 0"]
    assert orthogan.sample(generator, 1, classes="0.5 0 0").labels == [4]
    assert model_hash(generator) == before


def labelled(folder: Path) -> list[str]:
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32), np.uint8)
    labels = np.stack([np.arange(40) % 5 / 4, np.arange(40) // 10 % 2], 1)
    np.savez(folder / "a.npz", images=images, labels=labels)
    return [
        *("data.source=array", f"data.path={folder / 'a.npz'}", "data.count=null", "data.labels=true"),
        "data.options.labels=vectors",
    ]


@pytest.mark.parametrize("kind", ["sngan", "stylegan2"])
def test_a_run_on_vectors_resumes_and_its_files_load(tmp_path: Path, kind: str) -> None:
    nets = [f"model.{net}.kind={kind}" for net in ("generator", "discriminator")]
    keys = [*labelled(tmp_path), *nets, "training.ema.half_life=10", "model.discriminator.norm.kind=spectral"]
    keys += ["training.schedule.kind=constant"]
    whole = train(tiny(tmp_path / "whole", *keys, "training.steps=4", "checkpoint.every=2"))
    train(tiny(tmp_path / "parts", *keys, "training.steps=2", "checkpoint.every=2"))
    parts = train(tiny(tmp_path / "parts", *keys, "training.steps=4", "checkpoint.every=2"))
    first, second = (load_generator(run) for run in (whole, parts))
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key
    table = label_table(first)
    assert table is not None
    source = open_configured(tiny(tmp_path, *keys).data)
    assert table.counts.tolist() == [4] * 10
    assert (first.num_classes, list(first.class_names)) == (10, list(source.class_names))
    np.testing.assert_array_equal(table.vectors, source.label_vectors)  # pyright: ignore[reportArgumentType]
    critic = load_discriminator(whole)
    z, y = first.sample_latent(2, seed=0), torch.tensor([3, 9])
    with torch.no_grad():
        images = first(z, y)
        torch.testing.assert_close(images, first(z, table.vectors[y]))
        torch.testing.assert_close(critic(images, y), critic(images, table.vectors[y]))
    again = train(tiny(tmp_path / "more", *keys, "training.steps=1", f"model.init={whole}"))
    assert load_generator(again).num_classes == 10
    with pytest.raises(UserError, match=r"model\.init: .*vectors of 2 numbers.*classes, or none"):
        train(tiny(tmp_path / "other", *nets, "training.steps=1", f"model.init={whole}"))


def test_label_tables_of_other_shapes_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from orthogan.io.weights import read_metadata

    run = train(tiny(tmp_path / "run", *labelled(tmp_path), "training.steps=1", "model.generator.kind=dcgan"))
    file = next(run.rglob("generator.safetensors"))
    about = {key: value for key, value in read_metadata(file).items() if "sha" not in key and "hash" not in key}
    for change in ({"label_table.vectors": torch.zeros(9, 2)}, {"label_table.counts": torch.ones(3)}):
        save_file({**load_file(file), **change}, tmp_path / "bad.safetensors", about)
        with pytest.raises(UserError, match=r"bad\.safetensors: .*label vectors"):
            load_generator(tmp_path / "bad.safetensors", trust=True)


def test_what_needs_one_class_per_image_says_so() -> None:
    vectors = VECTORS.numpy()
    source = ArraySource(
        "mine",
        np.zeros((3, 1, 32, 32), np.uint8),
        labels=np.arange(3),
        class_names=["a", "b", "c"],
        label_vectors=vectors,
    )
    generator, _ = pair("dcgan", colours=1)
    add_label_table(generator, LabelTable(VECTORS))
    with pytest.raises(UserError, match="class_fid needs images with one class each"):
        orthogan.evaluate(generator, source, metrics=["class_fid"], samples=3)


@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("y", [[0, 3], [-1, 0], [99, 99]])
def test_classes_that_do_not_exist_are_refused(table: bool, y: list[int]) -> None:
    net = SNGANGenerator(resolution=32, image_channels=1, channels=4, latent_dim=6, num_classes=3).eval()
    if table:
        add_label_table(net, LabelTable(torch.eye(3)))
    z = net.sample_latent(2)
    assert net(z, torch.tensor([0, 2])).shape == (2, 1, 32, 32)
    with pytest.raises(ValueError, match=rf"labels are from {min(y)} to {max(y)}, but the classes are 0 to 2"):
        net(z, torch.tensor(y))
    rows = torch.func.vmap(lambda y: net(z, y))(torch.tensor([[0, 2], [1, 1]]))  # not checked inside transforms
    assert torch.allclose(rows[0], net(z, torch.tensor([0, 2])), atol=1e-5)


def test_sampling_a_new_label_leaves_the_generator_as_it_was() -> None:
    generator, _ = pair("dcgan", colours=1)
    fill(generator)
    add_label_table(generator, LabelTable(VECTORS))
    generator.eval()
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    samples = orthogan.sample(generator, 2, classes="0.5 0 0,1 0 0")
    with torch.no_grad():
        wanted = generator(samples_of(generator), torch.tensor([[0.5, 0.0, 0.0], [1.0, 0.0, 0.0]]))
    np.testing.assert_allclose(samples.tensor, wanted, atol=1.01 / 127.5)
    assert samples.labels is not None
    assert samples.class_names[samples.labels[0]] == "0.5 0 0"
    with pytest.raises(UserError, match="99 is out of range"):
        orthogan.sample(generator, 2, classes="0.25 0 0,99")
    after = generator.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert (generator.num_classes, list(generator.class_names)) == (3, [])


def samples_of(generator: Any) -> torch.Tensor:
    """The latents of seeds 0 and 1."""
    return torch.cat([generator.sample_latent(1, seed=seed) for seed in (0, 1)])
