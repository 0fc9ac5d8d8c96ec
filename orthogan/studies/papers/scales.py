"""What the classification studies have in common at one scale: data, length, and intervals of logging."""

from __future__ import annotations

from typing import Any

# seconds per run: this only checks that everything works
SMOKE: dict[str, Any] = {
    "task": "classifier",
    "data": {"source": "sprites", "count": 400, "resolution": 32, "channels": 1, "holdout": 0.1, "resident": "device"},
    "training": {"steps": 8, "batch_size": 16, "device": "cpu", "precision": "fp32"},
    "evaluation": {"every": 8, "at_start": True, "samples": 40, "batch_size": 40},
    "checkpoint": {"every": 4, "keep": 100},
    "logging": {"every": 2, "spectrum_every": 4, "samples": 4, "tensorboard": False},
}
# the folder of the Debian package dataset-fashion-mnist; on other systems set data.path
FASHION_PATH = "/usr/share/datasets/fashion-mnist"
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
