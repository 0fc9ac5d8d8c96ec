"""What the classification studies have in common at one scale: data, length, and intervals of logging."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orthogan.data.sources.fashion_mnist import PACKAGED
from orthogan.studies.measures import FINAL_ERROR
from orthogan.studies.study import Search

# seconds per run: this only checks that everything works
SMOKE: dict[str, Any] = {
    "task": "classifier",
    "data": {"source": "sprites", "count": 400, "resolution": 32, "channels": 1, "holdout": 0.1, "resident": "device"},
    "training": {"steps": 8, "batch_size": 16, "device": "cpu", "precision": "fp32"},
    "evaluation": {"every": 8, "at_start": True, "samples": 40, "batch_size": 40},
    "checkpoint": {"every": 4, "keep": 100},
    "logging": {"every": 2, "spectrum_every": 4, "samples": 4, "tensorboard": False},
}
FASHION_PATH = PACKAGED  # on a system without Debian's package, set data.path
# a minute or two per run on one core, which is the reason for half the resolution.
FASHION_CPU: dict[str, Any] = {
    "task": "classifier",
    "data": {
        "source": "fashion-mnist",
        "path": FASHION_PATH,
        "resolution": 16,
        "channels": 1,
        "crop": 1,
        "flip": True,
    },
    "training": {"steps": 800, "batch_size": 128},
    "evaluation": {"every": 200, "at_start": True, "samples": 5000, "batch_size": 500},
    "checkpoint": {"every": 200, "keep": 100},
    "logging": {"every": 20, "spectrum_every": 200, "tensorboard": False},
}
# 20 epochs of Fashion-MNIST, as FASHION_CPU; five seeds find a difference of 1.7 standard deviations
FASHION_DECIDE: dict[str, Any] = {
    **FASHION_CPU,
    "training": {"steps": 9400, "batch_size": 128, "schedule": {"kind": "step", "milestones": [0.4, 0.667, 0.867]}},
    "evaluation": {"every": 940, "at_start": True, "samples": 10_000, "batch_size": 500},
    "checkpoint": {"every": 940, "keep": 100},
    "logging": {"every": 100, "spectrum_every": 940, "tensorboard": False},
}


def learning_rates(
    family: tuple[str, ...], rates: Sequence[float], key: str = "optimizer.classifier.lr", *, steps: int = 3134
) -> Search:
    """Return a search for the learning rate of a family, on a tenth of the training images, in runs of ``steps``.

    The default is a third of the steps of FASHION_DECIDE, with the whole schedule.
    """
    keys = {"data.holdout": 0.1, "training.steps": steps}
    return Search(family, {f"lr={rate:g}": {key: rate} for rate in rates}, FINAL_ERROR, keys)
