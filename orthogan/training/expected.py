"""Expected scores of a config, from the card of a shipped model or from a file beside the config.

``configs/NAME.expected.json`` lies beside ``configs/NAME.yaml``; ``orthogan expected RUN... --out FILE`` writes one.
Both are found from any folder: their config is compared with that of the run in all that the scores depend on.
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from pydantic import Field, ValidationError

from orthogan.config.base import Section
from orthogan.config.files import differences, validate
from orthogan.config.read import shipped_configs
from orthogan.config.schema import Config
from orthogan.errors import UserError
from orthogan.evaluation import MetricResult
from orthogan.io import checkpoint
from orthogan.io.read import parse_json, printable, read_json
from orthogan.io.weights import read_metadata
from orthogan.io.write import write_text
from orthogan.models.card import Curve, Point, card_of, comparable, fakes_in_words
from orthogan.models.shipped import GENERATOR, shipped_models
from orthogan.training.resume import METRICS, own_scores
from orthogan.training.schedules import keys_of_length

SUFFIX = ".expected.json"
# keys that do not affect the expected scores
INCIDENTAL = (
    "out",
    "seed",
    "logging",
    "checkpoint",
    "evaluation",
    "data.path",
    "data.root",
    "data.download",
    "data.bad_images",
    "data.bad_limit",
    "data.resident",
    "data.workers",
    "data.test_split",
    "training.compile",
    "training.device",
    "training.channels_last",
    "training.precision",
    "training.kimg",
    "training.threads",
)


class ExpectedFile(Section):
    """What lies beside a config."""

    config: dict[str, Any] = Field(description="of the runs, without what does not matter")
    expected: list[Curve]
    seconds: float | None = Field(default=None, description="mean time of a run, with its scores")
    machine: str = ""


@dataclass
class Expected:
    """The scores that a run should have, and where they are from; false where nothing is known."""

    origin: str = ""
    curves: Sequence[Curve] = ()
    seconds: float | None = None
    machine: str = ""
    _said: set[str] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.curves)

    def target(self) -> str:
        """The last known scores, in one line; empty where nothing is known."""
        found = [
            f"{_value(c.label, c.points[-1])} after {c.points[-1].images:,} images"
            + (", where the runs were stopped" if c.partial else "")
            for c in self.curves
        ]
        if not found:
            return ""
        return f"{', '.join(found)} ({self.origin}; {fakes_in_words(self.curves[0].protocol)})"

    def note(self, result: MetricResult, images: int) -> str:
        """What to say beside a score that was measured after so many real images: what was expected, or nothing.

        Scores of different protocols are not compared; the first time, this says why.
        """
        mine = [curve for curve in self.curves if curve.label == result.label]
        for curve in mine:
            point = curve.at(images)
            if point is not None and not curve.differences(result.protocol):
                return f"expected at this point: {_value(curve.label, point)} ({self.origin})"
        if not mine or result.label in self._said or any(not c.differences(result.protocol) for c in mine):
            return ""
        self._said.add(result.label)
        differ = ", ".join(mine[0].differences(result.protocol))
        return f"expected scores ({self.origin}) are not comparable with this one: {differ}"


def find_expected(config: Config) -> Expected:
    """What is known of ``config``: by the card of a shipped model, else by a file beside a shipped config."""
    mine, place = what_matters(config), config.data.path
    try:
        for name, path in shipped_models().items():
            file = path / GENERATOR if path.is_dir() else path
            # the config first: it is in the header of the file and read at once, unlike a card
            if not _same(parse_json(read_metadata(file).get("config", "null"), file), mine, place, str(file)):
                continue
            facts = card_of(path).facts
            if facts is not None and facts.expected:
                return Expected(f"card of {name}", facts.expected, facts.seconds, facts.machine)
        for file, found in expected_files():
            if _same(found.config, mine, place, str(file)):
                return Expected(file.name, found.expected, found.seconds, found.machine)
    except UserError as error:  # training does not depend on it
        print(f"orthogan: warning: no expected scores: {error}", file=sys.stderr)
    return Expected()


def expected_files() -> Iterator[tuple[Path, ExpectedFile]]:
    """The files beside the shipped configs. Raises ``UserError`` for one that makes no sense."""
    for file in sorted(shipped_configs().rglob(f"*{SUFFIX}")):
        yield file, read_expected(file)


def read_expected(file: Path) -> ExpectedFile:
    """A file beside a config. Raises ``UserError``."""
    try:
        return ExpectedFile.model_validate(read_json(file))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UserError(f"{printable(file)}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def what_matters(config: Config) -> dict[str, Any]:
    """The keys of ``config`` that decide which scores its runs should have; not the length, where nothing needs it."""
    tree = copy.deepcopy(config.model_dump())
    for key in (*INCIDENTAL, *(() if keys_of_length(config) else ("training.steps",))):
        section, _, last = key.rpartition(".")
        (tree[section] if section else tree).pop(last, None)
    return tree


def curves_of(scores: Sequence[tuple[int, MetricResult]], images_per_step: int) -> list[Curve]:
    """The curves of (step, score): one for each label and protocol."""
    found: dict[str, tuple[MetricResult, list[Point]]] = {}
    for step, score in sorted(scores, key=lambda pair: pair[0]):
        if math.isfinite(score.value):
            key = f"{score.label} {sorted(comparable(score.protocol).items(), key=str)}"
            points = found.setdefault(key, (score, []))[1]
            points.append(Point(images=step * images_per_step, value=round(score.value, 4)))
    return [
        Curve(label=score.label, protocol=comparable(score.protocol), points=points) for score, points in found.values()
    ]


def mean_curves(runs: Sequence[Sequence[Curve]]) -> list[Curve]:
    """The mean over runs of one config, with the standard deviation where there are several, at their common points."""
    found: list[Curve] = []
    for curve in runs[0]:
        same = [[c for c in other if c.label == curve.label and not c.differences(curve.protocol)] for other in runs]
        if not all(same):
            continue
        values = [{point.images: point.value for point in curves[0].points} for curves in same]
        points = []
        for images in sorted(set.intersection(*(set(one) for one in values))):
            at = [one[images] for one in values]
            points.append(
                Point(images=images, value=round(fmean(at), 4), std=round(stdev(at), 4) if len(at) > 1 else None)
            )
        if points:
            found.append(curve.model_copy(update={"points": points, "runs": len(runs)}))
    return found


def _same(tree: Any, mine: dict[str, Any], place: str | None, source: str) -> bool:
    """Whether a stored config, of this or an older version, with images at ``place``, is ``mine`` in what matters."""
    if not isinstance(tree, dict) or not isinstance(data := tree.get("data"), dict):
        return False
    if data.get("source") != mine["data"]["source"]:  # the reading of a whole config takes longer
        return False
    # where the images are does not matter and is not stored in a file, but some sources are invalid without it
    tree = tree | {"data": data | {"path": place}}
    try:
        return what_matters(validate(tree, {}, default_origin=source)) == mine
    except UserError:  # a key that this version no longer has
        return False


def _value(label: str, point: Point) -> str:
    return f"{label} {point.value:.4g}" + (f" ± {point.std:.2g}" if point.std is not None else "")


def write_expected(runs: Sequence[Path], out: Path, *, machine: str = "", partial: bool = False) -> ExpectedFile:
    """Write the mean scores of finished runs of one config as what it should give.

    Args:
        partial: accept runs that are not finished; what is expected after their last score remains unknown.

    Raises:
        UserError: a run that is not finished or has no scores, runs of several configs, or the same seed twice.
    """
    found: list[tuple[Config, list[Curve], float]] = []
    stopped = False
    for run in runs:
        newest = checkpoint.newest(run)
        if newest is None:
            raise UserError(f"{printable(run)}: not a run with a complete checkpoint")
        folder, record = newest
        config = validate(record["config"], {}, default_origin=str(folder / checkpoint.STATE))
        step = int(folder.name.removeprefix("step-"))
        stopped = stopped or step < config.training.steps
        if stopped and not partial:
            raise UserError(
                f"{printable(run)}: is at step {step} of {config.training.steps}; finish it first, or add --partial "
                "(in Python: partial=True) to record the scores until there"
            )
        curves = curves_of(own_scores(run / METRICS, step), config.images_per_step)
        if not curves:
            raise UserError(f"{printable(run)}: has no score yet; set evaluation.every")
        if not partial and not any(curve.points[-1].images == step * config.images_per_step for curve in curves):
            raise UserError(f"{printable(run)}: has no score at its last step; set evaluation.every")
        found.append((config, curves, float(record["seconds"])))
    first = what_matters(found[0][0])
    for run, (config, _, _) in zip(runs, found, strict=True):
        if what_matters(config) != first:
            keys = "; ".join(differences(first, what_matters(config)))
            raise UserError(f"{printable(run)}: has another config than {printable(runs[0])}: {keys}")
    seeds = [config.seed for config, _, _ in found]
    if len(set(seeds)) < len(seeds):
        raise UserError(
            f"two runs have the same random seed ({', '.join(map(str, seeds))}); use runs with different seeds"
        )
    made = ExpectedFile(
        config=first | {"training": first["training"] | {"steps": found[0][0].training.steps}},
        expected=[
            curve.model_copy(update={"partial": stopped}) for curve in mean_curves([curves for _, curves, _ in found])
        ],
        seconds=None if stopped else round(fmean(seconds for _, _, seconds in found), 1),
        machine=machine,
    )
    if not made.expected:
        raise UserError("the runs have no score in common at the same step and under the same protocol")
    write_text(out, made.model_dump_json(indent=1) + "\n")
    return made
