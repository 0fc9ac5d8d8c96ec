"""NaN and infinite images, features and logits never give a number, whatever is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import orthogan
from orthogan.cli.main import main
from orthogan.data import ArraySource
from orthogan.disentanglement import activity
from orthogan.errors import UserError
from orthogan.evaluation import evaluate, path_length, traversal_length
from orthogan.evaluation.critic.complexity import complexity
from orthogan.evaluation.critic.critic import Recipe
from orthogan.evaluation.critic.lipschitz import lipschitz
from orthogan.evaluation.critic.neural_divergence import neural_divergence
from orthogan.evaluation.finite import FEATURES, IMAGES, LOGITS, Finite, Images, NotFinite, WrongRange
from orthogan.evaluation.robustness.accuracy import accuracy
from orthogan.evaluation.robustness.corruptions import corruption_accuracy
from orthogan.latent import Directions
from orthogan.training import train
from tests.fixtures.runs import tiny
from tests.fixtures.scored import EXTRACTOR, Patches, source

OWN = "tests.evaluation.test_finite:"
CLASSIFYING = "tests.fixtures.scored:Classifying"
VALUES = [float("nan"), float("inf"), float("-inf")]


class Damaged(Patches):
    """One pixel of the images of one latent in a hundred or so is ``value``."""

    def __init__(self, value: float, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.value, self.dtype = value, dtype

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        images = super().forward(z, y).clone()
        images[z[:, 0] > 2.2, 0, 0, 0] = self.value
        return images.to(self.dtype)


class NaNForLight(nn.Module):
    """Features, finite for black images alone."""

    def forward(self, images: Tensor) -> Tensor:
        x = nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)
        return torch.where(x > 150, torch.nan, x)


class NeverFinite(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.float().flatten(1)[:, :3] * torch.inf


class NaNLogits(nn.Module):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)
        return x, torch.where(x > 150, torch.inf, x)


class Pairs(nn.Module):
    def forward(self, images: Tensor) -> list[Tensor]:
        return [images.float().flatten(1)[:, :3]]


class Shortened(nn.Module):
    """Loses an image of each larger batch."""

    def forward(self, images: Tensor) -> Tensor:
        return images[: max(2, len(images) - 1)].float().flatten(1)[:, :3]


class Judge(nn.Module):
    """A discriminator, and a classifier with ``outputs`` classes, which fails on light images if ``value`` is given."""

    def __init__(self, outputs: int = 1, value: float | None = None) -> None:
        super().__init__()
        self.value = value
        self.net = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, outputs)
        )

    def forward(self, images: Tensor, y: Tensor | None = None) -> Tensor:
        found = self.net(images)
        if self.value is not None:
            found = torch.where(images.mean((1, 2, 3))[:, None] > 0, self.value, found)
        return found.squeeze(1) if found.shape[1] == 1 else found


def measured(metric: str, net: Patches) -> object:
    options: dict[str, Any] = {"samples": 300, "batch_size": 50, "progress": False}
    if metric == "neural_divergence":
        recipe = Recipe(steps=8, batch_size=64, width=2)
        return neural_divergence(net, source(64), recipe=recipe, samples=256, progress=False)
    if metric == "lipschitz":
        return lipschitz(Judge(), net, source(300), pairs=300, progress=False)
    if metric == "traversal_length":
        return traversal_length(net, distance="pixel", samples=20, steps=3, progress=False)
    if metric == "activity":
        return activity(net, samples=60)
    if metric == "own distance":
        return path_length(net, "ppl_zfull_any", distance=lambda a, b: torch.zeros(len(a)), **options)
    alone = metric == "isc" or metric.endswith("path_length")
    return evaluate(net, None if alone else source(300), metrics=[metric], extractor=CLASSIFYING, **options)


METRICS = ["fid", "isc", "kid", "prc", "pixel_path_length", "own distance", "traversal_length", "neural_divergence"]
METRICS += ["lipschitz", "activity"]


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("metric", METRICS)
def test_no_metric_of_a_generator_with_a_few_damaged_images(
    metric: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orthogan.evaluation.fidelity.kid.SUBSET_SIZE", 50)
    with pytest.raises(UserError) as caught:
        measured(metric, Damaged(value))
    assert str(caught.value) == IMAGES


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_overflow_in_another_number_format_is_found(dtype: torch.dtype) -> None:
    with pytest.raises(NotFinite, match="images contain NaN"):
        evaluate(Damaged(float("inf"), dtype), source(), samples=300, extractor=CLASSIFYING, progress=False)


def test_values_far_outside_the_range_are_clipped() -> None:
    """They are finite; a picture shows them as black or white."""
    far, near = (
        evaluate(Damaged(v), source(), samples=300, extractor=CLASSIFYING, progress=False)[0] for v in (1e30, 1.0)
    )
    assert far.value == near.value


@pytest.mark.parametrize("metric", ["fid", "isc", "prc"])
@pytest.mark.parametrize("bright", ["subject", "reference"])
def test_features_and_logits_that_are_not_finite(metric: str, bright: str) -> None:
    dark, light = (
        ArraySource(name, np.full((40, 3, 16, 16), level, np.uint8)) for name, level in (("d", 9), ("l", 200))
    )
    subject, reference = (light, dark) if bright == "subject" else (dark, light)
    extractor = OWN + ("NaNLogits" if metric == "isc" else "NaNForLight")
    arguments = {"metrics": [metric], "extractor": extractor, "progress": False}
    if metric == "isc":
        subject, reference = light, None
    with pytest.raises(NotFinite) as caught:
        evaluate(subject, reference, **arguments)
    assert str(caught.value) == FEATURES


@pytest.mark.parametrize(
    ("extractor", "said"),
    [("Pairs", "a tensor of features, returned a list"), ("Shortened", "returned torch.float32 (63, 3) for n = 64")],
)
def test_an_extractor_that_gives_something_else_is_refused(extractor: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        evaluate(Patches(), source(), samples=100, extractor=OWN + extractor, progress=False)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (lambda z: (torch.zeros(len(z), 3, 8, 8), None), "returns a tuple"),
        (lambda z: torch.zeros(len(z), 17, 8, 8), "1 to 16, h, w"),
        (lambda z: torch.zeros(len(z), 3, 8), "1 to 16, h, w"),
        (lambda z: torch.zeros(1, 3, 8, 8), "for 64 latents"),
        (lambda z: torch.zeros(len(z), 3, 8, 8, dtype=torch.uint8), "images in torch.uint8"),
    ],
)
def test_a_generator_that_gives_no_images_is_refused(
    images: object, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Patches, "forward", lambda self, z, y=None: images(z))
    with pytest.raises(UserError) as caught:
        evaluate(Patches(), source(), samples=64, extractor=CLASSIFYING, progress=False)
    assert said in str(caught.value)


def test_a_source_that_gives_floats_is_refused() -> None:
    floats = source()
    floats.read = lambda indices: (np.zeros((len(indices), 3, 16, 16), np.float32), np.zeros(len(indices), np.int64))
    with pytest.raises(UserError, match="images in float32"):
        evaluate(floats, source(), extractor=CLASSIFYING, progress=False)


@pytest.mark.parametrize("value", VALUES)
def test_no_accuracy_of_logits_that_are_not_finite(value: float) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 16, 16), np.uint8)
    labelled = ArraySource("l", images, labels=np.arange(40) % 2, class_names=["a", "b"])
    net = Judge(2, value)
    for call in (
        lambda: accuracy(net, labelled),
        lambda: corruption_accuracy(net, labelled, names=["contrast"], severities=[1], progress=False),
    ):
        with pytest.raises(NotFinite) as caught:
            call()
        assert str(caught.value) == LOGITS
    with pytest.raises(UserError, match="NaN or infinite"):
        complexity(net, labelled, progress=False)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shipped model, one of whose tensors is NaN."""
    shipped = Path(orthogan.__file__).parents[1] / "pretrained/sprites-sngan/generator.safetensors"
    with safe_open(shipped, "pt") as file:
        about, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tensors["blocks.0.conv1.weight"].fill_(float("nan"))
    path = tmp_path_factory.mktemp("damaged") / "nan.safetensors"
    about.pop("orthogan-sha256", None)
    save_file(tensors, path, about)
    return path


@pytest.mark.parametrize("metrics", ["fid", "isc,prc", "pixel_path_length"])
def test_the_command_ends_with_code_2(damaged: Path, metrics: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", str(damaged), "--metrics", metrics, "--samples", "16", "--extractor", CLASSIFYING]
    few = [] if metrics == "pixel_path_length" else ["--reference-samples", "20"]
    assert main([*words, *few, "--device", "cpu"]) == 2
    out, err = capsys.readouterr()
    assert "NaN or infinite values" in err
    assert not out


def test_the_flag_is_one_for_all_batches() -> None:
    finite = Finite(IMAGES)
    finite.check()
    finite.watch(torch.ones(3))
    finite.check()
    finite.watch(torch.tensor([1.0, torch.nan]))
    finite.watch(torch.ones(3))
    with pytest.raises(NotFinite, match="images"):
        finite.check()


def test_a_training_goes_on_without_the_score(tmp_path: Path) -> None:
    words = ["training.steps=3", "evaluation.every=3", "evaluation.at_start=true", "evaluation.background=false"]
    words += ["evaluation.samples=8", "evaluation.reference_samples=8", f"evaluation.extractor={OWN}NeverFinite"]
    run = train(tiny(tmp_path / "run", *words))
    warnings = [json.loads(line).get("warning") for line in (run / "log.jsonl").read_text().splitlines()]
    assert [text for text in warnings if text] == [f"step {step} could not be scored: {FEATURES}" for step in (0, 3)]
    assert not (run / "metrics.jsonl").exists() or not (run / "metrics.jsonl").read_text()


class Ranged(nn.Module):
    """A generator of random images from ``low`` to ``high``."""

    latent_dim, image_channels, resolution = 4, 3, 16

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high
        self.first = nn.Linear(4, 768)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return (self.low + (self.high - self.low) * self.first(z).sigmoid()).view(-1, 3, 16, 16)


REALS = source(24, seed=5)
TWO = np.eye(2, 4)


@pytest.mark.parametrize(
    "measure",
    [
        lambda net: evaluate(net, REALS, samples=20, extractor=EXTRACTOR, progress=False),
        lambda net: evaluate(REALS, net, samples=20, extractor=EXTRACTOR, progress=False),
        lambda net: evaluate(net, metrics="isc", samples=20, extractor=CLASSIFYING, progress=False),
        lambda net: neural_divergence(
            net, REALS, recipe=Recipe(steps=2, batch_size=4, width=2), samples=8, progress=False
        ),
        lambda net: traversal_length(net, Directions(TWO, "own"), distance="pixel", samples=4, steps=3, progress=False),
    ],
)
def test_generators_whose_images_are_not_between_minus_one_and_one_are_refused(measure: Any) -> None:
    for low, high in ((0, 1), (0, 255), (0.2, 0.9)):
        with pytest.raises(WrongRange, match=r"no negative value \(.*must return images in \[-1, 1\]"):
            measure(Ranged(low, high))
    measure(Ranged(-1, 1))


def test_equal_images_and_networks_of_this_package_are_not_refused() -> None:
    for net in (Ranged(0.5, 0.5), nn.Identity()):
        watch = Images(net)
        watch.watch(torch.full((2, 3, 8, 8), 0.5))
        watch.check()
    trusted = Images(orthogan.load("sprites-sngan"))
    trusted.watch(torch.rand(2, 3, 8, 8))
    trusted.check()
