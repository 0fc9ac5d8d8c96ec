"""Disentanglement of a VAE of your own: train it on faces, then score its codes against the known factors.

    python examples/disentangle_your_vae.py --steps 2000 --beta 2

The metrics are functions of two arrays: codes float (n, d) of any encoder, and factors int (n, k).
"""

import argparse

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import orthogan
from orthogan import disentanglement

arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
arguments.add_argument("--steps", type=int, default=2000)
arguments.add_argument("--beta", type=float, default=1.0, help="weight of the KL divergence; 1 = a plain VAE")
arguments.add_argument("--samples", type=int, default=5000, help="images that are scored")
options = arguments.parse_args()

# Fewer factors make a fair task for a small VAE: no hat, glasses, beard or accessories, one mouth and one background.
plain = {"hat": "none", "glasses": "none", "beard": "none", "accessories": "none", "mouth": 0, "background": 0}
faces = orthogan.open_source("faces", resolution=16, count=20_000, fixed=plain)
test = orthogan.open_source("faces", resolution=16, count=options.samples, split="test", fixed=plain)

torch.manual_seed(0)
latent_dim = 10
encoder = nn.Sequential(
    nn.Conv2d(3, 32, 4, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 4, 2, 1), nn.ReLU(), nn.Flatten(),
    nn.Linear(64 * 4 * 4, 128), nn.ReLU(), nn.Linear(128, 2 * latent_dim),
)  # fmt: skip
decoder = nn.Sequential(
    nn.Linear(latent_dim, 128), nn.ReLU(), nn.Linear(128, 64 * 4 * 4), nn.ReLU(), nn.Unflatten(1, (64, 4, 4)),
    nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(32, 3, 4, 2, 1), nn.Sigmoid(),
)  # fmt: skip


def images(source, indices) -> torch.Tensor:
    return torch.from_numpy(source.read(indices)[0]).float() / 255


optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=2e-3)
rng = np.random.default_rng(0)
for step in range(1, options.steps + 1):
    x = images(faces, rng.integers(0, len(faces), 128))
    mean, log_variance = encoder(x).chunk(2, dim=1)
    z = mean + torch.randn_like(mean) * (log_variance / 2).exp()
    fit = functional.binary_cross_entropy(decoder(z), x, reduction="sum") / len(x)
    divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1).mean()
    loss = fit + options.beta * divergence
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 200 == 0 or step == options.steps:
        print(f"step {step}: reconstruction {fit.item():.1f}, KL divergence {divergence.item():.1f}", flush=True)

with torch.no_grad():
    codes = encoder(images(test, np.arange(len(test))))[:, :latent_dim].double().numpy()
# Only the factors that vary. Long and short hair are the classes of the set, which is coarser than 45 styles of hair.
names = ["skin", "clothes color", "hair color", "hair length"]
factors = np.stack([test.factors[:, test.factor_names.index(name)] for name in names[:3]], axis=1)
factors = np.column_stack([factors, test.read(np.arange(len(test)))[1]])

# A score means little alone: a random rotation of the same codes holds the same information, but not along the axes.
rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((latent_dim, latent_dim)))[0]
metrics = {
    "MIG": lambda c: disentanglement.mig(c, factors),
    "DCI": lambda c: disentanglement.dci(c, factors, classifier="random_forest"),
    "SAP": lambda c: disentanglement.sap(c, factors),
}
print(f"factors: {', '.join(names)}")
for name, metric in metrics.items():
    print(f"{name}: {metric(codes).value:.3f} (rotated at random: {metric(codes @ rotation).value:.3f})")
