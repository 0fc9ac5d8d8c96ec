"""Muon for convolution kernels: the nearest orthogonal gradient with momentum, beside Adam on the same task.

    python examples/nog_as_muon.py --steps 300

torch.optim.Muon accepts matrices only. NearestOrthogonalGradient takes any kernel as the matrix (out, in * height *
width) and, with momentum, makes the whole step itself; the optimizer that it hooks into updates everything else.
"""

import argparse

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import orthogan
from orthogan import gradients

arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
arguments.add_argument("--steps", type=int, default=300)
arguments.add_argument("--test", type=int, default=2000, help="images that accuracy is measured on")
options = arguments.parse_args()

# The task: which of 23 kinds of clothes does a portrait wear? The factors of the faces are known.
train = orthogan.open_source("faces", resolution=32, count=20_000)
test = orthogan.open_source("faces", resolution=32, count=options.test, split="test")
column = train.factor_names.index("clothes")


def batch(source, indices):
    images, _ = source.read(indices)
    return torch.from_numpy(images).float() / 127.5 - 1, torch.from_numpy(source.factors[indices, column])


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(),
        nn.Conv2d(64, 64, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 4 * 4, 23),
    )  # fmt: skip


def train_with(muon: bool) -> float:
    net = small_net()
    if muon:
        # Kernels in a group of their own, since Muon needs another learning rate; biases and the last layer use Adam.
        kernels = [layer.weight for layer in net if isinstance(layer, nn.Conv2d)]
        others = [p for p in net.parameters() if all(p is not kernel for kernel in kernels)]
        optimizer = torch.optim.Adam([{"params": kernels, "lr": 0.02}, {"params": others, "lr": 1e-3}])
        gradients.NearestOrthogonalGradient(optimizer, net, layers="conv", momentum=0.95, nesterov=True)
    else:
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    rng = np.random.default_rng(0)
    for step in range(options.steps):
        images, labels = batch(train, rng.integers(0, len(train), 128))
        loss = functional.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for group, lr in zip(optimizer.param_groups, (0.02, 1e-3) if muon else (1e-3,), strict=True):
            group["lr"] = lr * (1 - (step + 1) / options.steps)
    with torch.no_grad():
        images, labels = batch(test, np.arange(len(test)))
        return (net(images).argmax(1) == labels).float().mean().item()


print(f"accuracy after {options.steps} steps of 128 portraits, on {len(test)} others (chance: {1 / 23:.3f})")
print(f"Adam:                      {train_with(muon=False):.3f}")
print(f"Muon on the kernels, Adam: {train_with(muon=True):.3f}")
