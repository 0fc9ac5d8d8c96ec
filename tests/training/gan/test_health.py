"""Overfitting and death of D and collapse of G, with nets that are made to do so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from orthogan.config.files import load_config
from orthogan.config.schema import Config
from orthogan.data import ArraySource, ImageSource
from orthogan.errors import UserError
from orthogan.models.generate import generate
from orthogan.models.label_table import LabelTable, add_label_table
from orthogan.models.protocol import Generator
from orthogan.training import train
from orthogan.training.gan.health import IN_A_ROW, Health, distances
from tests.fixtures.runs import TINY, tensors, tiny

CPU = torch.device("cpu")
SIDE = 16


class Smooth(Generator):
    """Smooth random images; ``scale`` draws all of them together, ``modes`` leaves so many different ones."""

    def __init__(self, *, shift: float = 0.0) -> None:
        super().__init__()
        self.latent_dim, self.num_classes, self.resolution, self.image_channels = 12, 0, SIDE, 1
        self.scale, self.modes, self.shift = 1.0, 0, shift
        self.weight = nn.Parameter(torch.randn(12, 16, generator=torch.Generator().manual_seed(0)) / 4)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        if self.modes:
            z = z[torch.arange(len(z)) % self.modes]
        coarse = (self.scale * z @ self.weight).view(-1, 1, 4, 4) + self.shift
        return nn.functional.interpolate(coarse, scale_factor=4, mode="bilinear").tanh()


class Critic(nn.Module):
    """Logits (n,) of a small fully connected net."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, 256), nn.ReLU(), nn.Linear(256, 1))

    def forward(self, images: Tensor, y: Tensor | None = None) -> Tensor:
        return self.net(images)[:, 0]


def images_of(net: Generator, count: int, seed: int) -> ArraySource:
    return ArraySource(f"images-{seed}", generate(net, net.sample_latent(count, seed=seed)))


def taught(reals: ImageSource, net: Generator, steps: int) -> Critic:
    """A critic that is trained on ``reals`` against ever new fakes."""
    critic = Critic()
    optimizer = torch.optim.Adam(critic.parameters(), lr=2e-3)
    pixels = torch.from_numpy(reals.read(np.arange(len(reals)))[0]).float() / 127.5 - 1
    for step in range(steps):
        with torch.no_grad():
            fakes = net(net.sample_latent(64, seed=1000 + step))
        rows = torch.randint(len(pixels), (64,), generator=torch.Generator().manual_seed(step))
        real, fake = critic(pixels[rows]), critic(fakes)
        loss = nn.functional.softplus(-real).mean() + nn.functional.softplus(fake).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return critic


def config(*overrides: str) -> Config:
    return load_config(None, [*TINY, "training.steps=1000", "data.dequantize=false", *overrides])


def health(reals: ImageSource, held: ImageSource | None, *overrides: str) -> Health:
    def opened() -> ImageSource:
        if held is None:
            raise UserError("there are none")
        return held

    return Health(config(*overrides), reals, opened, classes=0)


def test_a_critic_that_learns_a_few_images_by_heart_is_told_once() -> None:
    net = Smooth()
    reals, held = images_of(net, 48, 1), images_of(net, 256, 2)
    watch, critic = health(reals, held), taught(reals, net, 300)
    told = []
    for step in range(1, 5):
        numbers = watch.numbers(net, critic, step=step, device=CPU)
        told.append(watch.pop_warnings())
    assert 0.7 < numbers["overfit"] < 1.3
    assert numbers["logit_training"] > numbers["logit_held_out"]
    assert [len(lines) for lines in told] == [0] * (IN_A_ROW - 1) + [1] + [0] * (4 - IN_A_ROW)
    (line,) = told[IN_A_ROW - 1]
    assert "D overfits" in line
    assert "augment.kind" in line
    assert "loss.gradient_penalty" in line


def test_the_advice_follows_the_config() -> None:
    net = Smooth()
    reals, held = images_of(net, 48, 1), images_of(net, 256, 2)
    penalty = ("augment.kind=diffaugment", "loss.gradient_penalty.kind=r1", "loss.gradient_penalty.weight=2")
    watch, critic = health(reals, held, *penalty), taught(reals, net, 300)
    for step in range(IN_A_ROW):
        watch.numbers(net, critic, step=step, device=CPU)
    (line,) = watch.pop_warnings()
    assert "augment.kind" not in line
    assert "Raise loss.gradient_penalty.weight above 2" in line


def test_a_critic_that_tells_fakes_by_what_they_lack_does_not_overfit() -> None:
    net, bright = Smooth(), Smooth(shift=0.7)
    reals, held = images_of(bright, 1000, 1), images_of(bright, 256, 2)
    watch, critic = health(reals, held), taught(reals, net, 100)
    for step in range(4):
        numbers = watch.numbers(net, critic, step=step, device=CPU)
    assert numbers["logit_training"] > numbers["logit_fake"] + 1
    assert abs(numbers["overfit"]) < 0.15
    assert watch.pop_warnings() == []


def test_an_episode_that_ends_and_comes_again_is_told_again_also_by_a_resumed_run() -> None:
    net = Smooth()
    reals, held = images_of(net, 300, 1), images_of(net, 256, 2)
    watch, critic = health(reals, held), Critic()
    told = []
    for step, scale in enumerate([1.0, 1.0, 0.05, 0.05, 0.05, 1.0, 0.05, 0.05, 0.05]):
        net.scale = scale
        numbers = watch.numbers(net, critic, step=step, device=CPU)
        if warned := watch.pop_warnings():
            told.append((step, warned))
        stored, watch = watch.state(), health(reals, held)
        watch.load(stored)
    assert [step for step, _ in told] == [3, 7]
    assert "G collapses" in told[0][1][0]
    assert "all alike" in told[0][1][0]
    assert "optimizer.generator.lr" in told[0][1][0]
    assert numbers["spread"] < 0.1


def test_fakes_that_repeat_a_few_images_are_told_though_they_differ() -> None:
    net = Smooth()
    reals = images_of(net, 300, 1)
    watch, critic = health(reals, images_of(net, 64, 2)), Critic()
    for step in range(6):
        net.modes = 0 if step < 3 else 8
        numbers = watch.numbers(net, critic, step=step, device=CPU)
    assert numbers["spread"] > 0.7
    assert numbers["spacing"] < 0.01
    (line,) = watch.pop_warnings()
    assert "near copies" in line


def test_a_generator_that_never_varied_is_told_in_the_second_half_only() -> None:
    net = Smooth()
    net.scale = 0.02
    reals = images_of(Smooth(), 300, 1)
    watch, critic = health(reals, images_of(net, 64, 2)), Critic()
    told = {
        step: watch.pop_warnings()
        for step in range(100, 1000, 100)
        if watch.numbers(net, critic, step=step, device=CPU)
    }
    assert [step for step, lines in told.items() if lines] == [600]


def test_only_a_small_set_without_held_out_images_is_told_so() -> None:
    net, critic = Smooth(), Critic()
    watch = health(images_of(net, 300, 1), None)
    numbers = watch.numbers(net, critic, step=1, device=CPU)
    assert "overfit" not in numbers
    assert "spread" in numbers
    (line,) = watch.pop_warnings()
    assert "data.holdout" in line
    watch.numbers(net, critic, step=2, device=CPU)
    assert watch.pop_warnings() == []
    resumed = health(images_of(net, 300, 1), None)
    resumed.load(watch.state())
    resumed.numbers(net, critic, step=3, device=CPU)
    assert resumed.pop_warnings() == []
    augmented = health(images_of(net, 300, 1), None, "augment.kind=ada")
    augmented.numbers(net, critic, step=1, device=CPU)
    assert augmented.pop_warnings() == []


def test_distances_of_images_that_are_known() -> None:
    points = torch.zeros(3, 1, 2, 2)
    points[1], points[2, 0, 0, 0] = 1.0, 3.0
    # 2, 3 and (4 + 1 + 1 + 1) ** 0.5 apart
    mean, nearest = distances(points)
    assert mean == pytest.approx((2 + 3 + 7**0.5) / 3)
    assert nearest == pytest.approx(2.0)


@pytest.mark.parametrize("options", [(), ("data.holdout=0.2", "data.labels=true")], ids=["test part", "holdout"])
def test_watching_changes_no_bit_of_a_run(tmp_path: Path, options: tuple[str, ...]) -> None:
    common = ("training.steps=4", *options)
    run = train(tiny(tmp_path / "watched", "logging.watch_every=1", *common))
    before, after = tensors(train(tiny(tmp_path / "plain", "logging.watch_every=0", *common)), 4), tensors(run, 4)
    own = {"latent/health", "latent/health_best"}
    assert [name for name in before if name not in own and not torch.equal(before[name], after[name])] == []
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    watched = [record for record in records if "watch/overfit" in record]
    assert [record["step"] for record in watched] == [1, 2, 3, 4]
    assert {"watch/spread", "watch/spacing", "watch/logit_held_out"} <= watched[0].keys()


def test_held_out_images_are_not_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[ImageSource] = []
    real = Health.__init__

    def kept(self: Health, config: Config, source: ImageSource, *rest: object, **options: object) -> None:
        seen.append(source)
        real(self, config, source, *rest, **options)

    monkeypatch.setattr(Health, "__init__", kept)
    train(tiny(tmp_path / "run", "data.holdout=0.25", "training.steps=1"))
    assert len(seen[0]) == 72  # of 96


def test_a_dead_discriminator_is_reported_once_with_the_keys_to_change() -> None:
    net = Smooth()
    reals = images_of(net, 64, seed=1)
    watch = health(reals, None, "loss.gradient_penalty={kind: r1, weight: 3}", "model.discriminator.norm.kind=spectral")
    dead, alive = Critic(), Critic()
    with torch.no_grad():
        dead.net[-1].weight.zero_()
    found = []
    for step in range(4):
        watch.numbers(net, dead, step=step, device=CPU)
        found += watch.pop_warnings()
    told = [one for one in found if "D is dead" in one]
    assert len(told) == 1
    assert "step 1: " in told[0]
    for word in ("lower optimizer.discriminator.lr", "weight below 3", "model.discriminator.norm.kind=none"):
        assert word in told[0]
    watch.numbers(net, alive, step=4, device=CPU)
    for step in (5, 6):
        watch.numbers(net, dead, step=step, device=CPU)
    assert sum("D is dead" in one for one in watch.pop_warnings()) == 1


def test_a_state_of_an_earlier_version_is_read() -> None:
    watch = health(images_of(Smooth(), 64, seed=1), None)
    watch.load({"health": torch.ones(3, 2), "health_best": torch.ones(2)})
    assert watch.state()["health"].tolist() == [[1.0, 1.0]] * 3 + [[0.0, 0.0]]


class Asked(Critic):
    """A critic that notes the labels that it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.labels: list[Tensor] = []

    def forward(self, images: Tensor, y: Tensor | None = None) -> Tensor:
        assert y is not None
        self.labels.append(y)
        return super().forward(images)


def labelled(source: ArraySource, labels: list[int], names: list[str], vectors: np.ndarray | None) -> ArraySource:
    given = np.resize(labels, len(source))
    return ArraySource(source.name, source.images, labels=given, class_names=names, label_vectors=vectors)


def test_labels_of_held_out_images_mean_the_same() -> None:
    """The number of a class or vector of other images may mean something else, or not exist."""
    net = Smooth()
    images, other = images_of(net, 300, 1), images_of(net, 256, 2)
    net.num_classes = 2
    rows = np.array([[0.0, 1.0], [1.0, 0.5], [1.0, 1.0]], np.float32)
    for held, wanted in (
        (labelled(other, [0, 1], ["cat", "dog"], None), True),
        (labelled(other, [0, 1, 2], ["ape", "cat", "dog"], None), False),
        (labelled(other, [0, 1], ["0 1", "1 1"], rows[[0, 2]]), False),
    ):
        watch = Health(config(), labelled(images, [0, 1], ["cat", "dog"], None), lambda held=held: held, classes=2)
        numbers = watch.numbers(net, Asked(), step=1, device=CPU)
        assert ("logit_held_out" in numbers) == wanted
    held = labelled(other, [0, 1], ["0 1", "1 1"], rows[[0, 2]])
    reals, critic = labelled(images, [0, 1], ["0 1", "1 0.5"], rows[[0, 1]]), Asked()
    add_label_table(net, LabelTable(torch.from_numpy(rows[[0, 1]])))
    numbers = Health(config(), reals, lambda: held, classes=2).numbers(net, critic, step=1, device=CPU)
    assert "logit_held_out" in numbers
    assert {tuple(y.tolist()) for y in torch.cat([y for y in critic.labels if y.is_floating_point()])} == {
        tuple(row.tolist()) for row in rows
    }
