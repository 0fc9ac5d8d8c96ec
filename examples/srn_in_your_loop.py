"""A GAN in a training loop of your own, with stable rank normalization on the discriminator.

    python examples/srn_in_your_loop.py --steps 1500

Nothing but torch does the training here. One line constrains the discriminator: every layer gets spectral norm 1 and a
stable rank of at most half of its smaller side, so the critic is 1-Lipschitz and cannot use all of its directions.
"""

import argparse

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

import orthogan
from orthogan import weights

arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
arguments.add_argument("--steps", type=int, default=1500)
arguments.add_argument("--out", default="srn-samples.png")
options = arguments.parse_args()


def up(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.ConvTranspose2d(inputs, outputs, 4, 2, 1), nn.BatchNorm2d(outputs), nn.ReLU())


# Portraits of 16 x 16 pixels, drawn on this machine: no download.
faces = orthogan.open_source("faces", resolution=16, count=20_000)

generator = nn.Sequential(
    nn.Linear(64, 128 * 4 * 4), nn.Unflatten(1, (128, 4, 4)), nn.BatchNorm2d(128), nn.ReLU(),
    up(128, 64), up(64, 32), nn.Conv2d(32, 3, 3, padding=1), nn.Tanh(),
)  # fmt: skip
discriminator = nn.Sequential(
    nn.Conv2d(3, 64, 3, padding=1), nn.LeakyReLU(0.1), nn.Conv2d(64, 64, 4, 2, 1), nn.LeakyReLU(0.1),
    nn.Conv2d(64, 128, 4, 2, 1), nn.LeakyReLU(0.1), nn.Flatten(), nn.Linear(128 * 4 * 4, 1),
)  # fmt: skip

# The one line of this example. "layers" chooses others, such as "conv" or "!last".
weights.apply(discriminator, "stable_rank", c=0.5)

g_optimizer = torch.optim.Adam(generator.parameters(), lr=4e-4, betas=(0.0, 0.9))
d_optimizer = torch.optim.Adam(discriminator.parameters(), lr=4e-4, betas=(0.0, 0.9))
rng = np.random.default_rng(0)
torch.manual_seed(0)
for step in range(1, options.steps + 1):
    images, _ = faces.read(rng.integers(0, len(faces), 64))
    real = torch.from_numpy(images).float() / 127.5 - 1
    fake = generator(torch.randn(64, 64))
    d_loss = functional.relu(1 - discriminator(real)).mean() + functional.relu(1 + discriminator(fake.detach())).mean()
    d_optimizer.zero_grad()
    d_loss.backward()
    d_optimizer.step()

    g_loss = -discriminator(generator(torch.randn(64, 64))).mean()
    g_optimizer.zero_grad()
    g_loss.backward()
    g_optimizer.step()
    if step % 100 == 0 or step == options.steps:
        print(f"step {step}: loss of D {d_loss.item():.3f}, of G {g_loss.item():.3f}", flush=True)

# What the constraint did to each layer.
for name, row in weights.report(discriminator).items():
    state = "bounded" if row["active"] else "free"
    print(f"layer {name}: norm {row['sigma_after']:.2f}, stable rank {row['stable_rank_after']:.1f} ({state})")

generator.eval()
with torch.no_grad():
    grid = ((generator(torch.randn(64, 64)) + 1) * 127.5).round().clamp(0, 255).byte().numpy()
grid = grid.reshape(8, 8, 3, 16, 16).transpose(0, 3, 1, 4, 2).reshape(128, 128, 3)
Image.fromarray(grid).resize((512, 512), Image.Resampling.NEAREST).save(options.out)
print(f"samples: {options.out}")
