"""The schema of a run: the sections that the rooms declare, put together.

A YAML file in ``configs/`` holds only what differs from the defaults; ``orthogan config FILE`` prints the whole.
``orthogan.config.files`` reads the files and turns what is wrong in them into one clear message.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from orthogan.config.base import Place, Section, code_in
from orthogan.data.config import AUGMENTED, AugmentConfig, DataConfig
from orthogan.evaluation.config import EvaluationConfig
from orthogan.io.read import in_home
from orthogan.models.config import ModelConfig
from orthogan.training.config import (
    CheckpointConfig,
    LoggingConfig,
    LossConfig,
    OptimizerConfig,
    TrainingConfig,
)


class Config(Section):
    """The complete configuration of a run; ``orthogan config --explain`` describes every key.

    Example:
        >>> import orthogan
        >>> from orthogan import Config
        >>> config = Config(seed=3, data={"source": "sprites", "channels": 1})
        >>> config.seed, config.data.source, config.training.batch_size
        (3, 'sprites', 64)
    """

    only_for: ClassVar = {"gan": ("augment",)}

    task: Literal["gan", "classifier"] = Field(default="gan", description="what to train")
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = Field(default=0, description="random seed of the run")
    out: Place | None = Field(
        default=None, description="run folder; null = runs/ plus the path of the config inside configs/"
    )
    data: DataConfig = DataConfig()
    augment: Annotated[AugmentConfig, AUGMENTED] = AugmentConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    logging: LoggingConfig = LoggingConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @property
    def images_per_step(self) -> int:
        """Real images that D, or the classifier, sees in a step."""
        updates = self.training.d_steps_per_g_step if self.task == "gan" else 1
        return self.training.batch_size * updates

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, tree: Any) -> Any:
        """Where nothing was said, what the task has by default."""
        if not isinstance(tree, Mapping):
            return tree
        filled = dict(tree)
        for name, section in _sections():
            for key, value in section.task_defaults.get(str(tree.get("task")), {}).items():
                filled[name] = _with(filled.get(name, {}), key, value)
        return filled

    @field_validator("out")
    @classmethod
    def _home(cls, out: str | None) -> str | None:
        return None if out is None else in_home(out)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if (kimg := self.training.kimg) is not None:
            steps = max(1, math.ceil(kimg * 1000 / self.images_per_step))
            object.__setattr__(self, "training", self.training.model_copy(update={"steps": steps}))
        _check_task(self)
        for name, _ in _sections():
            getattr(self, name).check_run(self)
        return self


def only_of(task: str) -> list[str]:
    """The keys, and whole sections, that belong to ``task`` alone."""
    found = list(Config.only_for.get(task, ()))
    return found + [f"{name}.{key}" for name, section in _sections() for key in section.only_for.get(task, ())]


def other_task(task: str) -> str:
    """The task that ``task`` is not."""
    return "classifier" if task == "gan" else "gan"


def _sections() -> Iterator[tuple[str, type[Section]]]:
    for name, field in Config.model_fields.items():
        if isinstance(field.default, Section):
            yield name, type(field.default)


def _check_task(config: Config) -> None:
    """Refuse keys of another task."""
    other = other_task(config.task)
    for key in only_of(other):
        section, _, last = key.rpartition(".")
        mine: Section = getattr(config, section) if section else config
        default = type(mine).model_fields[last].default
        default = _filled(default, mine.task_defaults.get(config.task, {}).get(last))
        for name, value, expected in _changed(getattr(mine, last), default, key):
            raise ValueError(
                f"{name}: does not apply to task {config.task!r}, only to {other!r}, so it cannot be {_said(value)}; "
                f"omit it, or set it to {_said(expected)}"
            )


def _said(value: Any) -> str:
    """``value`` as it is written in YAML."""
    return json.dumps(value) if value is None or isinstance(value, bool) else repr(value)


def _filled(default: Any, other: Any) -> Any:
    """The default under a task that has the default ``other``, or parts of it."""
    if other is None:
        return default
    return default.model_copy(update=other) if isinstance(default, BaseModel) else other


def _with(tree: Any, key: str, value: Any) -> Any:
    """``tree`` with ``value`` at ``key``, unless something stands there; what is no mapping is left to be refused."""
    if isinstance(tree, BaseModel):
        tree = tree.model_dump(exclude_unset=True)
    if not isinstance(tree, Mapping):
        return tree
    if isinstance(value, Mapping):
        inner = tree.get(key, {})
        for name, one in value.items():
            inner = _with(inner, name, one)
        return {**tree, key: inner}
    return {key: value, **tree}


def _changed(value: Any, usual: Any, name: str) -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, value, usual value) of what differs from the usual below ``name``."""
    if isinstance(value, BaseModel) and isinstance(usual, BaseModel):
        for field in [name for name in type(value).model_fields if name in type(usual).model_fields]:
            yield from _changed(getattr(value, field), getattr(usual, field), f"{name}.{field}")
    elif value != usual:
        yield name, value, usual


def code_of_nets(config: Config) -> dict[str, tuple[str, dict[str, Any]]]:
    """The code, as of ``code_in``, that building the nets of ``config`` would import."""
    return code_in(config.model, "model.", without=("penalties", "gradient_transforms"))
