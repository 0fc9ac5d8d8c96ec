"""A finished run, as measures read it: its config, log, scores, checkpoints and nets."""

from __future__ import annotations

import math
import os
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from orthogan.config.base import code_in
from orthogan.config.files import validate
from orthogan.config.read import read_yaml
from orthogan.config.schema import Config
from orthogan.errors import UserError
from orthogan.evaluation import MetricResult
from orthogan.io import checkpoint
from orthogan.models.open import open_model
from orthogan.named_code import Trust, require_trust
from orthogan.studies.outcome import sittings
from orthogan.training.resume import METRICS, own_scores, read_records
from orthogan.training.run_log import LOG


class CheckpointGone(UserError):
    """A checkpoint that a measure needs was deleted: once measured, a run of a study keeps only its last checkpoint."""


class FinishedRun:
    """The run in ``folder``.

    ``trust``: classes outside orthogan that its files may name, see ``orthogan.load``.

    Raises:
        UserError: it has no ``config.yaml``, or the config is not valid.
    """

    def __init__(self, folder: Path, *, trust: Trust = False) -> None:
        self.folder, self.trust = folder, trust
        file = folder / "config.yaml"
        if not os.path.isfile(file):
            raise UserError(f"{folder}: not a run of orthogan (it has no config.yaml)")
        self.config: Config = validate(read_yaml(file), {}, default_origin=str(file))
        require_trust(code_in(self.config.data, "data."), file, trust)

    @property
    def steps(self) -> int:
        """The length of the complete run [steps]."""
        return self.config.training.steps

    @cached_property
    def log(self) -> list[dict[str, Any]]:
        """The records of ``log.jsonl``."""
        file = self.folder / LOG
        return read_records(file, _check_logged) if os.path.lexists(file) else []

    @cached_property
    def reached(self) -> int:
        """The step of the newest checkpoint; 0 if there is none."""
        return max((step for step, _ in self.checkpoints()), default=0)

    @cached_property
    def scores(self) -> list[tuple[int, MetricResult]]:
        """Return (step, score) of the scores during training."""
        return own_scores(self.folder / METRICS, self.steps)

    def scores_of(self, metric: str) -> list[tuple[int, MetricResult]]:
        """Return the scores of one metric, in order of steps."""
        return sorted(((step, s) for step, s in self.scores if s.metric == metric), key=lambda pair: pair[0])

    @cached_property
    def images_per_step(self) -> float:
        """Return the images per step, from the log; 0 for a run without a log."""
        logged = [record for record in self.log if record["step"]]
        return logged[-1]["images"] / logged[-1]["step"] if logged else 0.0

    def curve(self, key: str, most: int = 200) -> list[tuple[float, float]]:
        """Return (images, value) of a logged number, averaged in groups if there are more than ``most``."""
        points = [(float(record["images"]), float(record[key])) for record in self.log if record.get(key) is not None]
        size = math.ceil(len(points) / most) if points else 1
        groups = [points[start : start + size] for start in range(0, len(points), size)]
        return [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]

    def spectra(self) -> dict[str, dict[str, list[tuple[float, float]]]]:
        """Return layer -> number -> [(images, value), …] of the logged spectra; null is read as infinite."""
        found: dict[str, dict[str, list[tuple[float, float]]]] = {}
        for record in self.log:
            for layer, numbers in record.get("spectrum", {}).items():
                for name, value in numbers.items():
                    value = math.inf if value is None else float(value)
                    found.setdefault(layer, {}).setdefault(name, []).append((float(record["images"]), value))
        return found

    def checkpoints(self) -> list[tuple[int, Path]]:
        """Return (step, folder) of each checkpoint, oldest first."""
        return checkpoint.steps(self.folder)

    def net(self, folder: Path | None = None) -> nn.Module:
        """Return the trained network (the generator of a GAN), or that of a checkpoint; in eval mode, on the CPU."""
        model = open_model(folder or self.folder, trust=self.trust)
        return model.classifier if self.config.task == "classifier" else model.generator

    @property
    def extractor(self) -> str:
        """Return the name of the extractor that scores the run.

        Raises:
            UserError: it is code that needs consent.
        """
        code = code_in(self.config.evaluation, "evaluation.")
        require_trust(code, self.folder / "config.yaml", self.trust)
        return self.config.evaluation.extractor

    @cached_property
    def sittings(self) -> list[dict[str, Any]]:
        """Return the sessions of work on the run, as recorded by a study; empty for other runs."""
        return sittings(self.folder)


def _check_logged(record: dict[str, Any]) -> None:
    """Raise a KeyError, TypeError, ValueError or the like for a record that training does not write."""
    for name in ("step", "images"):
        int(record[name])
    for name, value in record.items():
        if name == "spectrum":
            for numbers in value.values():
                for number in numbers.values():
                    _check_number(number)
        elif name != "warning":
            _check_number(value)


def _check_number(value: Any) -> None:
    if value is not None and not isinstance(value, int | float):
        raise TypeError(f"{value!r:.40} is not a number")
