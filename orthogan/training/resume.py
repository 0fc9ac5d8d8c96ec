"""Beginning a run or continuing it: the newest whole checkpoint, under the config it was made with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from pydantic import ValidationError

from orthogan import checkpoint
from orthogan.config import Config
from orthogan.config_file import differences, dump
from orthogan.errors import UserError
from orthogan.evaluation import MetricResult
from orthogan.io.write import write_text
from orthogan.training.task import Task

PLACE = ("out",)  # where a run lies is not what it is
METRICS = "metrics.jsonl"


@dataclass
class RunState:
    """Where a run stands: the rest follows from the position, or is in the tensors.

    What was scored, and which score is the best, is read from ``metrics.jsonl`` and kept nowhere else.
    """

    step: int = 0
    seconds: float = 0.0
    fresh: bool = True  # no checkpoint was there
    best: dict[str, Any] | None = None  # {"label", "value", "step"}
    measured: dict[int, set[str]] = field(default_factory=dict)  # step -> the metrics whose numbers stand

    def stands(self, step: int, metrics: Sequence[str]) -> bool:
        """Whether all ``metrics`` of ``step`` were measured."""
        return set(metrics) <= self.measured.get(step, set())

    def take(self, results: Sequence[MetricResult], metric: str, step: int) -> list[MetricResult]:
        """Note the scores of ``step``, the best by ``metric``; returns those that did not stand already."""
        known = self.measured.setdefault(step, set())
        new = [result for result in results if result.metric not in known]
        known.update(result.metric for result in new)
        self.consider(new, metric, step)
        return new

    def consider(self, results: Sequence[MetricResult], metric: str, step: int) -> None:
        """Remember ``step`` if it is the best so far by ``metric``."""
        for result in results:
            comparable = self.best is not None and self.best["label"] == result.label
            if result.metric == metric and result.is_better(self.best["value"] if comparable and self.best else None):
                self.best = {"label": result.label, "value": result.value, "step": step}
                return

    def best_is(self, step: int) -> bool:
        """Whether the best score belongs to ``step``."""
        return self.best is not None and self.best["step"] == step


def continue_run(
    run: Path, task: Task, config: Config, accelerator: Accelerator, *, allow_config_change: bool
) -> RunState:
    """Restore ``task`` from the newest whole checkpoint of ``run``, or prepare an empty run folder.

    Raises:
        UserError: the folder's run has another config (each differing key is listed), or cannot be written.
    """
    found = checkpoint.newest(run)
    state = RunState()
    if found is not None:
        folder, record = found
        refuse_changes(record["config"], config, run, allow=allow_config_change)
        task.restore(folder)
        step = int(folder.name.removeprefix("step-"))
        state = RunState(step, record["seconds"], fresh=False)
    elif checkpoint.steps(run):
        raise UserError(f"{run}: every checkpoint of this run is damaged; move the folder away to start anew")
    # what came after the checkpoint is about to happen again
    last = -1 if state.fresh else state.step
    for step, result in own_scores(run / METRICS, last):
        state.take([result], config.evaluation.best, step)
    accelerator.wait_for_everyone()  # every process has read the folder before one of them writes there
    if accelerator.is_main_process:
        try:
            run.mkdir(parents=True, exist_ok=True)
            write_text(run / "config.yaml", dump(config))
            forget_scores(run / METRICS, last)
        except OSError as error:
            raise UserError(f"out: {run} cannot be written: {error}") from None
    accelerator.wait_for_everyone()
    return state


def refuse_changes(old: dict[str, Any], config: Config, run: Path, *, allow: bool) -> None:
    """Compare the config of a stored run with the one it is to be continued under.

    Raises:
        UserError: listing each key that differs, unless ``allow``.
    """
    new = config.model_dump()
    with suppress(ValidationError):  # what came with a later version is at its default, as it was
        old = Config.model_validate(old).model_dump()
    changed = differences(
        {k: v for k, v in old.items() if k not in PLACE}, {k: v for k, v in new.items() if k not in PLACE}
    )
    if changed and not allow:
        listing = "\n  ".join(changed)
        raise UserError(
            f"{run} holds a run of another config:\n  {listing}\n"
            "Continue it as it was, choose another folder with out=..., or accept with --allow-config-change."
        )


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a ``log.jsonl`` or ``metrics.jsonl``; a line cut short by a kill is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with suppress(ValueError):
            records.append(json.loads(line))
    return records


def own_scores(path: Path, last: int) -> list[tuple[int, MetricResult]]:
    """(step, score) of what training itself measured, up to the step ``last``, in the order of the file."""
    found = []
    for record in read_records(path) if path.exists() else []:
        step = _own_step(record)
        if step is not None and step <= last:
            fields = {key: value for key, value in record.items() if key != "label"}
            found.append((step, MetricResult(**fields)))
    return found


def forget_scores(path: Path, last: int) -> None:
    """Drop training's own scores of steps after ``last``, and a line cut short; other lines stay as they are."""
    if not path.exists():
        return
    lines, kept = path.read_text(encoding="utf-8").splitlines(), []
    for line in lines:
        with suppress(ValueError):
            step = _own_step(json.loads(line))
            if step is None or step <= last:
                kept.append(line)
    if kept != lines:
        write_text(path, "".join(line + "\n" for line in kept))


def _own_step(record: dict[str, Any]) -> int | None:
    """The step of a score that training made; those of ``orthogan evaluate`` name their subject."""
    protocol = record.get("protocol", {})
    return int(protocol["step"]) if "step" in protocol and "subject" not in protocol else None
