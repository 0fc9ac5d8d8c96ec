"""The shipped models for torch.hub, each by its name.

    generator = torch.hub.load("orthogan/orthogan", "faces-srngan")
    torch.hub.list("orthogan/orthogan")

A generator maps latents (n, latent_dim) to images (n, c, h, w) in [-1, 1]: ``generator(generator.sample_latent(16))``.
"""

from functools import partial

import orthogan
from orthogan.models.card import shipped_cards

dependencies = ["accelerate", "numpy", "pydantic", "safetensors", "torch", "yaml"]


def generator(name, **options):
    """Return a generator, ready to sample; arguments are those of ``orthogan.load``."""
    return orthogan.load(name, **options)


for _name, _, _card in shipped_cards():
    globals()[_name] = partial(generator, _name)
    globals()[_name].__doc__ = f"{_card.summary}. Options are those of ``orthogan.load``."
