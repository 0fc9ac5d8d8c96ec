"""Scoring of a run, in the training loop or in the background."""

from __future__ import annotations

from pathlib import Path

from accelerate import Accelerator

from orthogan.config.schema import Config
from orthogan.errors import Stopped, UserError
from orthogan.evaluation import MetricResult, append_jsonl
from orthogan.evaluation.config import EvaluationConfig
from orthogan.evaluation.finite import NoScore
from orthogan.io import checkpoint
from orthogan.io.json_lines import DAMAGE
from orthogan.progress import progress_bar
from orthogan.training.expected import Expected
from orthogan.training.resume import METRICS, RunState, own_scores, refuse_changes
from orthogan.training.run_log import RunLog
from orthogan.training.score_process import ScoreProcess
from orthogan.training.stop import StopSignal
from orthogan.training.task import Task

PATIENCE = 0.5  # seconds between checks for the stop signal


def is_due(section: EvaluationConfig, step: int, steps: int) -> bool:
    """Whether the config requires a score after ``step`` of ``steps``."""
    if step == 0:
        return section.at_start
    return section.every > 0 and (step % section.every == 0 or step == steps)


def is_scored(section: EvaluationConfig) -> bool:
    """Whether the config requires any score."""
    return section.every > 0 or section.at_start


def is_finished(run: Path, config: Config) -> bool:
    """Whether ``run`` has finished with exactly this config, according to its files."""
    try:
        stored = checkpoint.steps(run)
        if not stored or stored[-1][0] != config.training.steps:
            return False
        record = checkpoint.verify(stored[-1][1])
        if refuse_changes(record["config"], config, run, allow=False):
            return False
        state = RunState(config.training.steps)
        for step, result in own_scores(run / METRICS, state.step):
            state.record([result], config.evaluation.best, step)
    except (UserError, checkpoint.Damaged, *DAMAGE):
        return False  # opening the run reports why
    best = None if state.best is None else checkpoint.checkpoint_folder(run, state.best["step"])
    if best is not None and best.is_dir() and checkpoint.best_checkpoint(run) != best.resolve():
        return False  # it was killed before this was marked
    section = config.evaluation
    return all(
        state.has_metrics(step, section.metrics) or not is_due(section, step, config.training.steps)
        for step, _ in stored
    )


def in_background(section: EvaluationConfig, accelerator: Accelerator) -> bool:
    """Whether scores are computed in a separate process; the same on every process of the run.

    The number is the same either way. By default this is used if a single process trains on a GPU, which small networks
    do not saturate. On a CPU both would compete for cores, and several processes, which can share the work of a score,
    would wait for one of them.
    """
    if section.background == "auto":
        return accelerator.device.type == "cuda" and accelerator.num_processes == 1
    return section.background


def _refused(step: int, why: str) -> str:
    return f"step {step} could not be scored: {why}"


class Scoring:
    """The scores of a run.

    In the training loop, all processes compute a score together, immediately. In the background, the main process saves
    a checkpoint of the step, which is kept until a separate process has scored it. Scores that are due but not in
    ``metrics.jsonl`` are computed when the run resumes, so none is lost or computed twice.
    """

    def __init__(
        self, run: Path, task: Task, config: Config, accelerator: Accelerator, state: RunState, expected: Expected
    ) -> None:
        self.run, self.task, self.config, self.state, self.expected = run, task, config, state, expected
        self.main = accelerator.is_main_process
        self.background = in_background(config.evaluation, accelerator)
        self._process: ScoreProcess | None = None
        self._waiting = self._unscored() if self.background else []
        self._mark()  # it may have been killed just before
        section = config.evaluation
        begins = state.step < config.training.steps
        if self._waiting or (begins and is_scored(section)):
            task.check_evaluation()
            if self.background and self.main:
                self._process = ScoreProcess(run, config, accelerator.device)
                for step in self._waiting:
                    self._process.add(step)

    @property
    def complete(self) -> bool:
        """Whether the run has finished, with all its scores."""
        return self.state.step == self.config.training.steps and not self._waiting

    def due(self, step: int) -> bool:
        """Whether ``step`` still has to be scored."""
        section = self.config.evaluation
        return is_due(section, step, self.config.training.steps) and not self.state.has_metrics(step, section.metrics)

    def is_made_now(self, step: int) -> bool:
        """Whether ``score_now`` scores ``step``: it is due, and not done in the background."""
        return not self.background and self.due(step)

    def score_now(self, step: int, log: RunLog) -> None:
        """Score ``step`` if it is due, unless that is done in the background.

        Images or logits that cannot be measured give only a warning instead of a score: training itself detects
        divergence.
        """
        if not self.is_made_now(step):
            return
        try:
            results = self.task.evaluate(step)
        except NoScore as error:
            log.warn(step, [_refused(step, str(error))])
            return
        self._take(step, results, log)

    def needs_checkpoint(self, step: int) -> bool:
        """Whether ``step`` must be saved because it is the best, or still has to be scored."""
        return self.due(step) if self.background else self.state.best_is(step)

    def saved(self, step: int) -> None:
        """Queue the newly saved checkpoint of ``step``, and delete unneeded ones (main process)."""
        if self._process is not None and self.due(step):
            self._process.add(step)
        self._mark()
        self._prune()

    def poll(self, log: RunLog, seconds: float = 0.0) -> bool:
        """Record a score from the background, waiting at most until the timeout; returns whether there was one."""
        scored = self._process.poll(seconds) if self._process is not None else None
        if scored is None:
            return False
        if scored.error:
            log.warn(scored.step, [_refused(scored.step, scored.error)])
        else:
            self._take(scored.step, scored.results, log)
        return True

    def finish(self, stop: StopSignal, log: RunLog) -> None:
        """Wait for running scores (main process only).

        Raises:
            Stopped: by a signal.
            UserError: some scores failed; everything else of the run is complete.
        """
        if self._process is None:
            return
        if self._process.left:
            with progress_bar(total=self._process.left, desc="scores", unit="scores") as bar:
                while self._process.left:
                    if stop.name is not None:
                        raise Stopped(
                            f"stopped by {stop.name} after the last step, with {self._process.left} scores left; the "
                            "same command computes them"
                        )
                    bar.update(self.poll(log, PATIENCE))
            self._prune()
        if failed := self._process.failed:
            lines = "\n  ".join(f"step {step}: {error}" for step, error in sorted(failed.items()))
            raise UserError(
                f"{self.run}: training is complete, but {len(failed)} of its scores could not be computed:\n  {lines}\n"
                "Their checkpoints are kept, so the same command tries again."
            )

    def close(self) -> None:
        """End the scoring process; what it was at is made when the run continues."""
        if self._process is not None:
            self._process.close()

    def _unscored(self) -> list[int]:
        """Steps that have a checkpoint and lack their score."""
        return [step for step, _ in checkpoint.steps(self.run) if step <= self.state.step and self.due(step)]

    def _mark(self) -> None:
        """Let ``best`` point to the best checkpoint, if that is there already."""
        if not self.main or self.state.best is None:
            return
        folder = checkpoint.checkpoint_folder(self.run, self.state.best["step"])
        if folder.is_dir():
            checkpoint.mark_best(self.run, folder)
        else:  # it was damaged
            checkpoint.unmark_best(self.run)

    def _prune(self) -> None:
        spare = self._process.unscored if self._process is not None else ()
        checkpoint.prune(self.run, self.config.checkpoint.keep, spare)

    def _take(self, step: int, results: list[MetricResult], log: RunLog) -> None:
        new = self.state.record(results, self.config.evaluation.best, step)
        if self.main and new:
            append_jsonl(self.run / METRICS, new)
        self._mark()
        for result in new:
            note = self.expected.note(result, step * self.task.images_per_step)
            log.message(f"{result.one_line()}; {note}" if note else result.one_line())
            log.plot(step, {f"score/{result.label}": result.value})
