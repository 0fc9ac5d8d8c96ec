"""Draws the pictures of docs/guides/toolbox.md: one small net, trained with each tool on the shapes of the sprites.

    python docs/toolbox_pictures.py

The net, the data, the seed and the optimizer (SGD, momentum 0.9, no weight decay) are the same every time; what is
drawn is the spectrum of its middle convolution (48 x 432) at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from orthogan import open_source, penalties, weights
from orthogan.drawing.plots import plot_spectra
from orthogan.evaluation.spectrum.layer_spectrum import LayerSpectrum, spectrum
from orthogan.gradients import CayleyRetraction, NearestOrthogonalGradient, OptimalLearningRate
from orthogan.layers import decorrelate

IMAGES = Path(__file__).parent / "images"
STEPS, BATCH, LAYER = 300, 64, "3"
Prepare = Callable[[nn.Module], None]
Penalty = tuple[str, float] | tuple[str, float, dict[str, object]]  # name, weight, options
Rules = Callable[[torch.optim.Optimizer, nn.Module], object]


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 48, 3, stride=2, padding=1),
        nn.BatchNorm2d(48),
        nn.ReLU(),
        nn.Conv2d(48, 48, 3, stride=2, padding=1),
        nn.BatchNorm2d(48),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(192, 3),
    )


def data() -> tuple[Tensor, Tensor]:
    source = open_source("sprites", resolution=32, channels=1, count=4096)
    images, labels = (torch.from_numpy(array) for array in source.read(range(4096)))
    return images.float() / 127.5 - 1, labels.long()


def trained(
    images: Tensor, labels: Tensor, prepare: Prepare | None, penalty: Penalty | None, rules: Rules | None
) -> nn.Sequential:
    model = net()
    if prepare is not None:
        prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    if rules is not None:
        rules(optimizer, model)
    term = penalties.Penalty(model, *penalty[:2], LAYER, **dict(*penalty[2:])) if penalty else None
    order = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        rows = torch.randint(len(images), (BATCH,), generator=order)
        loss = functional.cross_entropy(model(images[rows]), labels[rows])
        if term is not None:
            loss = loss + term()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def on_layer(tool: Callable[..., nn.Module], **options: object) -> Prepare:
    return lambda model: (tool(model.get_submodule(LAYER), **options), None)[1]


GROUPS: dict[str, dict[str, tuple[Prepare | None, tuple[str, float] | None, Rules | None]]] = {
    "constraints": {
        "plain": (None, None, None),
        "spectral_norm": (on_layer(weights.spectral_norm), None, None),
        "stable_rank_norm c=0.15": (on_layer(weights.stable_rank_norm, c=0.15), None, None),
        "stable_rank_norm c=0.15 k=0": (on_layer(weights.stable_rank_norm, c=0.15, k=0), None, None),
        "stable_rank_norm c=0.15 k=8": (on_layer(weights.stable_rank_norm, c=0.15, k=8), None, None),
        "rotation qr": (on_layer(weights.rotation), None, None),
        "rotation relaxed": (on_layer(weights.rotation, method="relaxed"), None, None),
        "orthogonal qr": (on_layer(weights.orthogonal), None, None),
    },
    "penalties": {
        "plain": (None, None, None),
        "soft_orthogonality 1e-2": (None, ("soft_orthogonality", 1e-2), None),
        "mutual_coherence 1e-1": (None, ("mutual_coherence", 1e-1), None),
        "srip 1e-1": (None, ("srip", 1e-1, {"squared": False}), None),
        "conv_orthogonality 1e-2": (None, ("conv_orthogonality", 1e-2), None),
        "off_diagonal 1e-2": (None, ("off_diagonal", 1e-2), None),
        "disentangled_norm 1e-2": (None, ("disentangled_norm", 1e-2), None),
        "hyperspherical_energy 10": (None, ("hyperspherical_energy", 10.0), None),
    },
    "gradients": {
        "plain": (None, None, None),
        "NearestOrthogonalGradient": (None, None, lambda o, m: NearestOrthogonalGradient(o, m, layers=LAYER)),
        "same, scale=frobenius": (
            None,
            None,
            lambda o, m: NearestOrthogonalGradient(o, m, layers=LAYER, scale="frobenius"),
        ),
        "same, momentum=0.95": (
            None,
            None,
            lambda o, m: NearestOrthogonalGradient(o, m, layers=LAYER, momentum=0.95),
        ),
        "OptimalLearningRate": (None, None, lambda o, m: OptimalLearningRate(o, m, layers=LAYER)),
        "OptimalLearningRate matrix": (
            None,
            None,
            lambda o, m: OptimalLearningRate(o, m, layers=LAYER, form="matrix"),
        ),
        "rotation ogd": (
            on_layer(weights.rotation, method="ogd"),
            None,
            lambda o, m: CayleyRetraction(o, m, lr=0.02),
        ),
    },
}


def one(model: nn.Module, name: str) -> LayerSpectrum:
    (row,) = spectrum(model, LAYER)
    return replace(row, name=name)


@torch.no_grad()
def covariance(model: nn.Sequential, images: Tensor, name: str) -> LayerSpectrum:
    """Of the channels behind the second norm, over positions, as a spectrum."""
    x = model.train()[:5](images[:512]).transpose(0, 1).flatten(1)
    x = x - x.mean(1, keepdim=True)
    holder = nn.Linear(len(x), len(x), bias=False)
    holder.weight.copy_(x @ x.T / x.shape[1])
    return replace(spectrum(holder)[0], name=name)


def main() -> None:
    images, labels = data()
    for group, tools in GROUPS.items():
        rows = [one(trained(images, labels, *how), name) for name, how in tqdm(tools.items(), desc=group)]
        plot_spectra(rows, IMAGES / f"toolbox-{group}.png", title=f"one layer after {STEPS} steps, by tool")
    plain = trained(images, labels, None, None, None)
    white = trained(images, labels, lambda m: (decorrelate(m, "4"), None)[1], None, None)
    part = trained(images, labels, lambda m: (decorrelate(m, "4", groups=4), None)[1], None, None)
    rows = [covariance(plain, images, "batch norm"), covariance(part, images, "decorrelated, groups=4")]
    rows.append(covariance(white, images, "decorrelated"))
    plot_spectra(rows, IMAGES / "toolbox-layers.png", title="the channels' covariance behind a norm", of="a covariance")


if __name__ == "__main__":
    main()
