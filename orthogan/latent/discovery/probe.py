"""A linear probe: reads the attributes that some labeled pictures have from the features of any picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from orthogan.latent.discovery.boundary import check_values, correlation, folds, is_binary
from orthogan.latent.factors import Features
from orthogan.latent.labels import Labels
from orthogan.models.generate import generate
from orthogan.models.protocol import as_generator

PENALTIES = np.logspace(0, 5, 11)  # of ridge regression on standardized features; the best is chosen


class Probe:
    """A ``FactorReader`` by ridge regression of standardized features, cut to the range from 0 to 1.

    ``correlation``: for each name, that of the labels with what a probe reads that was not fitted to them.
    """

    def __init__(self, features: Features, labels: Labels, images: np.ndarray) -> None:
        self.features = features
        self.names, self.groups = tuple(labels.names), tuple(labels.groups)
        self.correlation: dict[str, float] = {}
        self._models = []
        seen = self._features(images)
        for at, name in enumerate(self.names):
            known = np.isfinite(labels.values[:, at])
            x, v = seen[known], labels.values[known, at]
            check_values(name, v)
            guessed = np.zeros(len(v))
            for held in folds(v):
                guessed[held] = _fitted(x[~held], v[~held]).predict(x[held])
            self._models.append(_fitted(x, v))
            self.correlation[name] = correlation(guessed, v)

    def read(self, images: np.ndarray) -> np.ndarray:
        """Return (n, columns) for images uint8 (n, c, h, w)."""
        seen = self._features(images)
        return np.stack([np.clip(model.predict(seen), 0, 1) for model in self._models], axis=1)

    @torch.no_grad()
    def _features(self, images: np.ndarray) -> np.ndarray:
        return self.features(torch.from_numpy(images)).double().cpu().numpy()


def _fitted(x: np.ndarray, v: np.ndarray) -> Any:
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    balanced = np.where(v > 0.5, 1 / max(v.mean(), 1e-9), 1 / max(1 - v.mean(), 1e-9)) if is_binary(v) else None
    return make_pipeline(StandardScaler(), RidgeCV(PENALTIES)).fit(x, v, ridgecv__sample_weight=balanced)


def fit_probe(generator: nn.Module, labels: Labels, features: Features) -> Probe:
    """Fit a ``Probe`` to the pictures that ``labels`` describes; ``generator`` may be a view of another space."""
    net = as_generator(generator)
    return Probe(features, labels, generate(net, labels.latents(net), labels.classes(net)))
