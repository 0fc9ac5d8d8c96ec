"""Inputs shared by the metrics of one generator, computed on first use: images with factors, encoders, controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any

import numpy as np
import torch
from torch import nn

from orthogan import __version__
from orthogan.data.factors import FactorGrid
from orthogan.data.order import subset
from orthogan.data.source import ImageSource
from orthogan.disentanglement.codes.coordinates import subject
from orthogan.disentanglement.codes.encoder import PostHocEncoder, train_encoder
from orthogan.disentanglement.codes.merging import get_merging
from orthogan.disentanglement.codes.oracle import FactorClassifier, factors_at, oracle_for, pieces
from orthogan.disentanglement.codes.predicted import Predicted, predicted_factors, varying_factors
from orthogan.disentanglement.codes.recognizer import Recognizer
from orthogan.disentanglement.codes.source import LabelledSource
from orthogan.disentanglement.registry import ENCODER, DisentanglementMetric, find_metric
from orthogan.disentanglement.score import Score
from orthogan.latent.directions import Directions, random_control
from orthogan.models.generate import model_hash
from orthogan.models.modes import get_device
from orthogan.models.protocol import as_generator
from orthogan.rng import derive

RANDOM, IDENTITY = "random basis", "latent axes"


@dataclass
class MetricInputs:
    """Generated images with predicted factors, real images and encoders, computed on first use."""

    generator: nn.Module
    source: ImageSource | None
    directions: Directions
    seeds: tuple[int, ...]
    samples: int
    y: int | None
    given_oracle: FactorClassifier | None
    least_accuracy: float
    encoder_options: dict[str, Any]
    progress: bool
    given_encoder: Recognizer | None = None
    _oracle: FactorClassifier | None = None
    _fakes: dict[int, Predicted] = field(default_factory=dict)
    _encoders: dict[tuple[str, int], PostHocEncoder | Recognizer] = field(default_factory=dict)
    _grid: LabelledSource | None = None

    def score(self, metric: str, basis: str, seed: int, given: Mapping[str, Any]) -> Score:
        """Compute ``metric`` along the directions of ``basis`` ("": the given ones)."""
        found = find_metric(metric)
        if metric.startswith(ENCODER):
            return self._encoded(found, basis, seed, given)
        lines = self._basis(basis, seed)
        if found.needs == "generator":
            return found(self.generator, lines, y=self.y, seed=seed, **given)
        if found.needs == "classifier":
            few = {"factors": self.oracle.kept(self.least_accuracy), **given}
            return found(self.generator, self.oracle, lines, y=self.y, seed=seed, **few)
        fakes = self._fakes_of(seed)
        codes = fakes.codes
        if basis:
            with subject(self.generator, lines, y=self.y) as seen:
                codes = seen.coordinates.of(fakes.latents).double().numpy()
        return found(codes, fakes.factors[:, self._used()], seed=seed, **given)

    @property
    def oracle(self) -> FactorClassifier:
        """Return the given, cached or newly trained oracle."""
        if self._oracle is None:
            assert self.source is not None or self.given_oracle is not None
            place = get_device(self.generator)
            self._oracle = self.given_oracle or oracle_for(self.source, device=place, progress=self.progress)  # pyright: ignore[reportArgumentType]
        return self._oracle

    def protocol(self, metric: str, confidence: float) -> dict[str, Any]:
        """Return what must be equal for two generators to be comparable."""
        lines, needs = self.directions, find_metric(metric).needs
        said: dict[str, Any] = {
            "directions": lines.method,
            "space": lines.space,
            **({"layer": lines.layer} if lines.layer else {}),
            **({"layers": list(lines.layers)} if lines.layers else {}),
            "k": len(lines),
            **({"class": "in turn" if self.y is None else self.y} if as_generator(self.generator).num_classes else {}),
            "metric seeds": list(self.seeds),
            "confidence": confidence,
        }
        if metric.startswith(ENCODER):
            assert self.source is not None
            rows = len(self.source) if needs == "source" else self._real_count
            said |= {"codes": self._encoders["", self.seeds[0]].variant, "data": f"{self.source.name}, {rows:,} images"}
            said |= {"merged": get_merging(self.source).variant}
        elif needs != "generator":
            oracle = self.oracle
            kept = oracle.kept(self.least_accuracy)
            used = self._used() if needs == "arrays" else kept
            names = oracle.merging.names
            said |= {
                "codes": "coordinates of latents of the prior",
                "oracle": f"{oracle.source}, {', '.join(f'{k} {v}' for k, v in asdict(oracle.teaching).items())}",
                "oracle accuracy": dict(oracle.accuracy),
                "merged": oracle.merging.variant,
                "factors": [names[j] for j in used],
                "read too badly": [name for j, name in enumerate(names) if j not in kept],
                "constant in fakes": [names[j] for j in kept if j not in used],
                "least accuracy": self.least_accuracy,
            }
            said |= {"fakes": self.samples} if needs == "arrays" else {}
        versions = {"orthogan": __version__, "torch": torch.__version__, "numpy": np.__version__}
        return said | versions | {"scikit-learn": metadata.version("scikit-learn")}

    def facts(self, metric: str) -> dict[str, Any]:
        """Return facts about this generator."""
        found: dict[str, Any] = {"model": model_hash(self.generator)[:12], "names": list(self.directions.names)}
        if metric.startswith(ENCODER):
            r2 = np.mean([self._encoders["", seed].r2 for seed in self.seeds], axis=0)
            found |= {"encoder R^2": float(r2.mean()), "R^2 of each": r2}
        elif find_metric(metric).needs == "arrays":
            names = self.oracle.merging.names
            sure = np.mean([self._fakes[seed].confidence for seed in self.seeds], axis=0)
            found |= {
                "confidence on fakes": dict(zip(names, sure.tolist(), strict=True)),
                "confidence on reals": dict(self.oracle.confidence),
            }
        return found

    def _basis(self, name: str, seed: int) -> Directions:
        """Return the given directions, or those of a control."""
        lines = self.directions
        if not name:
            return lines
        k, dim = len(lines), lines.latent_dim
        if name == IDENTITY:
            rows = np.eye(k, dim)
        else:
            span = np.linalg.qr(lines.matrix.T.astype(np.float64))[0].T
            rows = random_control(k, k, derive(seed, "random basis")).matrix.astype(np.float64) @ span
        return Directions(
            rows, method=name, space=lines.space, layers=lines.layers, model_hash=lines.model_hash, seed=seed
        )

    def _fakes_of(self, seed: int) -> Predicted:
        if seed not in self._fakes:
            self._fakes[seed] = predicted_factors(
                self.generator, self.oracle, self.directions, self.samples, seed, y=self.y, progress=self.progress
            )
        return self._fakes[seed]

    def _used(self) -> list[int]:
        """Return the factors that the oracle predicts well and that vary in the images of every seed."""
        kept = self.oracle.kept(self.least_accuracy)
        used = [j for j in kept if all(j in varying_factors(self._fakes_of(seed).factors) for seed in self.seeds)]
        if not used:
            names = [self.oracle.merging.names[j] for j in kept]
            raise ValueError(
                f"none of the factors that the oracle predicts well ({', '.join(names) or 'none'}) varies in the "
                "images: the generator has collapsed, or was trained on different data than the oracle"
            )
        return used

    def _encoder(self, basis: str, seed: int) -> PostHocEncoder | Recognizer:
        key = (basis, seed)
        if key not in self._encoders and basis == RANDOM:
            with subject(self.generator, self._basis(basis, seed), y=self.y) as seen:
                self._encoders[key] = self._encoder("", seed).along(seen.coordinates)
        elif key not in self._encoders and self.given_encoder is not None:
            self._encoders[key] = self.given_encoder
        elif key not in self._encoders:
            self._encoders[key] = train_encoder(
                self.generator,
                self._basis(basis, seed),
                y=self.y,
                seed=seed,
                progress=self.progress,
                **self.encoder_options,
            )
        return self._encoders[key]

    def _encoded(self, metric: DisentanglementMetric, basis: str, seed: int, given: Mapping[str, Any]) -> Score:
        assert self.source is not None
        encoder = self._encoder(basis, seed)
        if metric.needs == "source":
            if self._grid is None:
                # the sprites and the faces can be drawn with any combination of factors
                self._grid = (
                    self.source if isinstance(self.source, LabelledSource) else FactorGrid(self.source, occurring=True)
                )
            return metric(self._grid, encoder, seed=seed, **given)
        rows = subset(derive(seed, "real images"), len(self.source), self._real_count)
        codes = np.concatenate([encoder(self.source.read(piece)[0]) for piece in pieces(rows)])
        factors = get_merging(self.source)(factors_at(self.source, rows))
        return metric(codes, factors, seed=seed, **given)

    @property
    def _real_count(self) -> int:
        assert self.source is not None
        return min(self.samples, len(self.source))
