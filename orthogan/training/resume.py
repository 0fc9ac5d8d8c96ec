"""Starting or resuming a run: from the newest intact checkpoint, with the same config and data."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError

from orthogan.config.files import differences, dump, flatten
from orthogan.config.schema import Config
from orthogan.errors import UserError
from orthogan.evaluation import MetricResult
from orthogan.io import checkpoint
from orthogan.io.checkpoint import Damaged
from orthogan.io.json_lines import DAMAGE, keep_json_lines, read_json_lines
from orthogan.io.read import printable
from orthogan.io.terminal import shell_word
from orthogan.io.weights import read_metadata
from orthogan.io.write import disk_errors, free_name, write_text
from orthogan.models.saved import CLASSIFIER, RAW
from orthogan.threads import ThreadCount
from orthogan.training.run_log import LOG
from orthogan.training.schedules import factor, keys_of_length, resolved
from orthogan.training.task import Task

if TYPE_CHECKING:
    from accelerate import Accelerator

PLACE = ("out",)  # the location of a run is not part of its identity
# keys that determine which tensors exist
FIXED = (
    "task",
    "data.channels",
    "data.resolution",
    "data.labels",
    "model.*.kind",
    "model.*.channels",
    "model.generator.latent_dim",
    "optimizer.*.kind",
)
METRICS = "metrics.jsonl"
MOST_LISTED = 20  # names of classes in a message


@dataclass
class RunState:
    """The state of a run; everything else follows from the position, or is in the tensors.

    Scores, and which of them is the best, are only stored in ``metrics.jsonl``.
    """

    step: int = 0
    seconds: float = 0.0
    fresh: bool = True  # there was no checkpoint
    best: dict[str, Any] | None = None  # {"label", "value", "step"}
    measured: dict[int, set[str]] = field(default_factory=dict)  # step -> the metrics with valid numbers

    def has_metrics(self, step: int, metrics: Sequence[str]) -> bool:
        """Whether all ``metrics`` of ``step`` were measured."""
        return set(metrics) <= self.measured.get(step, set())

    def record(self, results: Sequence[MetricResult], metric: str, step: int) -> list[MetricResult]:
        """Record the scores of ``step``, the best by ``metric``; returns those that are new."""
        known = self.measured.setdefault(step, set())
        new = [result for result in results if result.metric not in known]
        known.update(result.metric for result in new)
        self.update_best(new, metric, step)
        return new

    def update_best(self, results: Sequence[MetricResult], metric: str, step: int) -> None:
        """Remember ``step`` if it is the best so far by ``metric``."""
        for result in results:
            comparable = self.best is not None and self.best["label"] == result.label
            if result.metric == metric and result.is_better(self.best["value"] if comparable and self.best else None):
                self.best = {"label": result.label, "value": result.value, "step": step}
                return

    def best_is(self, step: int) -> bool:
        """Whether the best score belongs to ``step``."""
        return self.best is not None and self.best["step"] == step


@dataclass(frozen=True)
class _Choice:
    """The checkpoint that the main process has chosen for all processes.

    ``folder``: the checkpoint, None for a new run. ``digest``: of its ``state.json``. ``record``: its content.
    ``place``: identifies the file, so that other processes detect a copy.
    """

    state: RunState
    folder: Path | None = None
    digest: str = ""
    record: dict[str, Any] = field(default_factory=dict)
    place: tuple[int, int] = (0, 0)


def continue_run(
    run: Path,
    task: Task,
    config: Config,
    accelerator: Accelerator,
    threads: ThreadCount,
    *,
    allow_config_change: bool,
) -> RunState:
    """Restore ``task`` from the newest intact checkpoint of ``run``, or prepare an empty run folder.

    The main process chooses the checkpoint. Every process calls this.

    Raises:
        UserError: the run in the folder has another config (each differing key is listed) or other classes, a process
            sees another folder, or it cannot be written.
    """
    choice = _choose(run, config) if accelerator.is_main_process else None
    if accelerator.num_processes > 1:
        from accelerate.utils import broadcast_object_list  # slow to import

        choice = broadcast_object_list([choice])[0]
    assert isinstance(choice, _Choice)
    state, folder = choice.state, choice.folder
    if number := choice.record.get("machine", {}).get("threads"):
        threads.begin_with(number)
    if folder is not None:
        if not accelerator.is_main_process:
            _check_same(folder, choice, accelerator.process_index)
        changed = refuse_changes(choice.record["config"], config, run, allow=allow_config_change)
        if accelerator.is_main_process:
            _compare_data(choice.record.get("data"), folder, task, config, run)
            _compare_machine(choice.record.get("machine", {}), accelerator)
            if note := _new_length(choice.record["config"], config, state.step):
                print(f"orthogan: {note}", file=sys.stderr)
        _restore(task, folder, changed)
    accelerator.wait_for_everyone()  # every process has read the folder before one of them writes to it
    if accelerator.is_main_process:
        checkpoint.sweep(run)
        write_text(run / "config.yaml", dump(config))
        if state.fresh:
            _keep_old_logs(run, config.checkpoint.every)
        last = -1 if state.fresh else state.step  # everything after the checkpoint will happen again
        keep_json_lines(run / LOG, lambda record: record["step"] <= last)
        forget_scores(run / METRICS, last)
    accelerator.wait_for_everyone()
    return state


def check_run(run: Path, task: Task, config: Config, *, allow_config_change: bool) -> None:
    """Check what ``continue_run`` would refuse, without changing anything.

    Raises:
        UserError: the run in the folder has another config or other classes, or all its checkpoints are damaged.
    """
    found = checkpoint.newest(run, check=_check_record)
    if found is None and checkpoint.steps(run):
        raise UserError(f"{run}: every checkpoint of this run is damaged; move the folder away to start again")
    if found is not None:
        folder, record = found
        refuse_changes(record["config"], config, run, allow=allow_config_change)
        _compare_data(record.get("data"), folder, task, config, run)


def record_of(task: Task, config: Config) -> dict[str, Any]:
    """Return the metadata of a run in a checkpoint, except its position and ``machine_of``."""
    source = task.source
    data = {"classes": _classes(task, config), "count": len(source), "fingerprint": source.fingerprint()}
    return {"config": config.model_dump(), "data": data}


def refuse_changes(old: dict[str, Any], config: Config, run: Path, *, allow: bool) -> list[str]:
    """Compare the config of a stored run with the one for resuming it.

    A longer run needs no consent, and neither does switching augmentation or averaging on or off.

    Returns the keys that differ, each with its two values.

    Raises:
        UserError: listing each key that differs, unless ``allow``; keys that determine the tensors even then.
    """
    new = config.model_dump()
    with suppress(ValidationError):  # keys of a later version have their defaults
        old = Config.model_validate(old).model_dump()
    changed = differences(
        {k: v for k, v in old.items() if k not in PLACE}, {k: v for k, v in new.items() if k not in PLACE}
    )
    keys = {line.partition(": ")[0]: line for line in changed}
    written = flatten(old)  # a key that it lacks, which an earlier version did not have, has no other value
    fixed = [line for key, line in keys.items() if key in written and any(fnmatchcase(key, p) for p in FIXED)]
    if fixed:
        raise UserError(
            f"{run} contains a run that cannot be resumed with other values of:\n   " + "\n  ".join(fixed) + "\n"
            f"Train into another folder with out=..., and start from its weights with model.init={shell_word(run)} if "
            "you like."
        )
    asked = [line for key, line in keys.items() if not _is_free(key, old, new)]
    if asked and not allow:
        listing = "\n  ".join(asked)
        raise UserError(
            f"{run} contains a run of another config:\n  {listing}\nResume it with its own config, choose another "
            "folder with out=..., or accept the changes with --allow-config-change."
        )
    return changed


def _new_length(old: dict[str, Any], config: Config, step: int) -> str:
    """What changes because the run ends at another step than it was to end at before; empty where nothing does."""
    before, after = old.get("training", {}).get("steps"), config.training.steps
    keys = keys_of_length(config)
    if not isinstance(before, int) or before == after or not keys:
        return ""
    schedule = resolved(config.training.schedule)
    rates = [factor(schedule, step, total) for total in (before, after)]
    rate = f"; the learning rate, which was at {rates[0]:.3g} times lr, continues at {rates[1]:.3g} times lr"
    follow = "follows" if len(keys) == 1 else "follow"
    return (
        f"the run now ends at step {after:,}, not at {before:,}, and {', '.join(keys)} {follow} the share of the run"
        + (rate if rates[0] != rates[1] else "")
    )


def _is_free(key: str, old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether a change of ``key`` needs no consent."""
    if key == "training.threads":
        return True
    if key in ("training.steps", "training.kimg"):
        return new["training"]["steps"] >= old["training"]["steps"]
    if key.startswith("augment."):
        return new["augment"]["kind"] != old["augment"]["kind"]
    if key.startswith("training.ema."):
        sections = [tree["training"]["ema"] for tree in (old, new)]
        before, now = (section.get("kind") == "power" or section["half_life"] > 0 for section in sections)
        return before != now
    return False


def read_records(path: Path, check: Callable[[dict[str, Any]], object] = bool) -> list[dict[str, Any]]:
    """Read the records of a ``log.jsonl`` or ``metrics.jsonl``; damaged lines are skipped and reported on stderr.

    ``check``: as in ``read_json_lines``.
    """
    records, problems = read_json_lines(path, check)
    for problem in problems:
        print(f"orthogan: {printable(path)}, {problem}: skipped", file=sys.stderr)
    return records


def own_scores(path: Path, last: int) -> list[tuple[int, MetricResult]]:
    """Return (step, score) of scores of training itself up to step ``last``, in the order of the file."""
    found = []
    for record in read_json_lines(path, _score)[0] if path.is_file() else []:
        step, score = _score(record)
        if score is not None and step <= last:
            found.append((step, score))
    return found


def forget_scores(path: Path, last: int) -> None:
    """Remove scores of training for steps after ``last``, and damaged lines; other lines are kept."""

    def wanted(record: dict[str, Any]) -> bool:
        step, score = _score(record)
        return score is None or step <= last

    keep_json_lines(path, wanted)


def _score(record: dict[str, Any]) -> tuple[int, MetricResult | None]:
    """Return (step, score) of a score of training; for those of ``orthogan evaluate``, (0, None).

    Raises one of ``DAMAGE`` for a record that is not a score.
    """
    protocol = record["protocol"]
    if "step" not in protocol or "subject" in protocol:
        return 0, None
    score = MetricResult(**{key: value for key, value in record.items() if key != "label"})
    float(score.value)
    return int(protocol["step"]), score


def _choose(run: Path, config: Config) -> _Choice:
    """Return the newest intact checkpoint of ``run``, and the scores up to it."""
    with disk_errors(run):
        folder = run / checkpoint.FOLDER
        if os.path.lexists(folder) and not folder.is_dir():
            raise UserError(f"{folder}: is a file or a broken link, not a folder; move it away to start a new run")
        found = checkpoint.newest(run, aside=True, check=_check_record)
        if found is None:
            if checkpoint.steps(run):
                raise UserError(f"{run}: every checkpoint of this run is damaged; move the folder away to start again")
            return _Choice(RunState())
    folder, record = found
    state = RunState(int(folder.name.removeprefix("step-")), record["seconds"], fresh=False)
    for step, result in own_scores(run / METRICS, state.step):
        state.record([result], config.evaluation.best, step)
    return _Choice(state, folder, checkpoint.digest(folder), record, _place(folder))


def _check_record(record: dict[str, Any]) -> None:
    """Raise one of ``DAMAGE`` for an invalid record."""
    float(record["seconds"])
    dict(record["config"])


def _check_same(folder: Path, choice: _Choice, rank: int) -> None:
    """Raise UserError if this process does not see the checkpoint that the main process has chosen."""
    why = ""
    try:
        if checkpoint.digest(folder) != choice.digest:
            why = "its state.json is different"
        elif _place(folder) != choice.place:  # a copy, which has not been verified yet
            checkpoint.verify(folder)
    except (UserError, Damaged, OSError) as error:
        why = str(error)
    if why:
        raise UserError(
            f"process {rank} does not see the checkpoint {folder} that the main process resumes from ({why}); "
            "put the run folder on a disk that all processes share"
        )


def _place(folder: Path) -> tuple[int, int]:
    status = (folder / checkpoint.STATE).stat()
    return status.st_ino, status.st_mtime_ns


def _restore(task: Task, folder: Path, changed: list[str]) -> None:
    try:
        task.restore(folder)
    except (*DAMAGE, RuntimeError, OSError, SafetensorError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        reason = reason if len(reason) < 400 else f"{reason[:400]} …"
        if changed:
            listing = "\n  ".join(changed)
            raise UserError(
                f"{folder} does not match the config; it was written with other values of:\n  {listing}\n({reason})"
            ) from error
        raise UserError(f"{folder} does not match the networks of this config: {reason}") from error


def _classes(task: Task, config: Config) -> list[str]:
    """Return the class names of the networks, in label order."""
    conditional = config.data.labels or config.task == "classifier"
    return [str(name) for name in task.source.class_names] if conditional else []


def _compare_data(old: dict[str, Any] | None, folder: Path, task: Task, config: Config, run: Path) -> None:
    """Refuse classes that differ from those of the run, and report changed images."""
    now, before = _classes(task, config), old["classes"] if old else _stored_classes(folder)
    if before != now:
        raise UserError(
            f"{run} was trained on classes ({len(before)}: {_few(before)}) that are not those of the data "
            f"({len(now)}: {_few(now)}); restore the classes of the run, or choose another folder with out=..."
        )
    if old is None:
        return
    count = len(task.source)
    if count != old["count"]:
        print(f"orthogan: the data has {count} images, but the run started with {old['count']}", file=sys.stderr)
    elif task.source.fingerprint() != old["fingerprint"]:
        print("orthogan: the images are different from those that the run was trained on so far", file=sys.stderr)


def _few(names: list[str]) -> str:
    return ", ".join(names[:MOST_LISTED]) + ", ..." * (len(names) > MOST_LISTED)


def _stored_classes(folder: Path) -> list[str]:
    """Return the classes of a checkpoint of version 0.1, which are in the metadata of its network."""
    for stem in (RAW, CLASSIFIER):
        file = folder / f"{stem}.safetensors"
        if file.is_file():
            return json.loads(read_metadata(file).get("class_names", "[]"))
    return []


def machine_of(accelerator: Accelerator) -> dict[str, Any]:
    """Return what the last digits depend on."""
    return {
        "processes": accelerator.num_processes,
        "threads": torch.get_num_threads(),
        "device": accelerator.device.type,
        "torch": torch.__version__,
    }


def _compare_machine(old: dict[str, Any], accelerator: Accelerator) -> None:
    new = machine_of(accelerator)
    changed = [f"{name}: {old[name]} -> {new[name]}" for name in new if name in old and old[name] != new[name]]
    if changed:
        what = ", ".join(changed)
        print(f"orthogan: {what}: the last digits will differ from those of an uninterrupted run", file=sys.stderr)


def _keep_old_logs(run: Path, every: int) -> None:
    """Rename the logs of a run whose checkpoints were deleted, so that the new run does not overwrite them."""
    with suppress(UserError):
        steps = [r["step"] for r in read_json_lines(run / LOG, lambda r: r["step"] >= 0)[0]]
        if max(steps, default=0) < every:
            return
        for name in (LOG, METRICS):
            if (run / name).is_file():
                with disk_errors(run / name):
                    old = (run / name).rename(free_name(run / f"{name}.old"))
                print(f"orthogan: {run} has no checkpoint, so it starts again; its {name} is kept as {old.name}")
