"""The training loop: steps, optimizers and processes. A Task defines what is trained."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from orthogan import __version__
from orthogan.config.schema import Config
from orthogan.distributed import all_true, alone
from orthogan.errors import CannotWrite, Stopped
from orthogan.io import checkpoint
from orthogan.memory import peak_memory
from orthogan.progress import duration
from orthogan.threads import ThreadCount
from orthogan.training.expected import Expected, find_expected
from orthogan.training.optimizer_state import FIXED
from orthogan.training.pace import Pace, remaining
from orthogan.training.post_hoc_ema import forget_snapshots, is_snapshot_due, write_snapshot
from orthogan.training.resume import RunState, continue_run, machine_of, record_of
from orthogan.training.run_log import Means, RunLog
from orthogan.training.schedules import factor, resolved
from orthogan.training.scoring import Scoring, in_background
from orthogan.training.stop import StopSignal
from orthogan.training.task import Phase, Task
from orthogan.training.trackers.tracker import TENSORBOARD
from orthogan.training.watch import FiniteWatch
from orthogan.words import counted

PATIENCE = 5.0  # seconds for further steps of a dry run, to time them


def train_task(task: Task, config: Config, accelerator: Accelerator, *, allow_config_change: bool = False) -> Path:
    """Train ``task`` to the end of its config, resuming from the newest checkpoint of the run folder if there is one.

    Returns the run folder.

    Raises:
        Diverged: a loss, gradient or weight is not finite.
        Stopped: by a signal, after saving the state; the same call resumes.
        UserError: the run folder contains a run of another config, a score cannot be computed, or the disk cannot be
            written (``CannotWrite``, which says what is safe).
    """
    alone_on_cpu = accelerator.device.type == "cpu" and accelerator.num_processes == 1
    with ThreadCount(config.training.threads, follow=alone_on_cpu) as threads:
        return _train(task, config, accelerator, threads, allow_config_change=allow_config_change)


def _train(
    task: Task, config: Config, accelerator: Accelerator, threads: ThreadCount, *, allow_config_change: bool
) -> Path:
    run = Path(str(config.out))
    main = accelerator.is_main_process
    training, logging = config.training, config.logging
    state = continue_run(run, task, config, accelerator, threads, allow_config_change=allow_config_change)
    about = record_of(task, config) if main else {}
    expected = find_expected(config) if main else Expected()
    scoring = Scoring(run, task, config, accelerator, state, expected)
    if scoring.complete:
        return run
    schedule = resolved(training.schedule)
    rates = {name: [g["lr"] for g in o.param_groups] for name, o in task.optimizers.items()}
    total = training.steps * task.images_per_step
    watch, means = FiniteWatch(), Means()
    log = _open_log(run, task, config, state, expected, main=main)
    pace = Pace(training.steps, intervals(config, accelerator), period=task.period, device=accelerator.device)
    if main:
        forget_snapshots(run, 0 if state.fresh else state.step)
    whole = None if state.fresh else state.step

    def save(step: int) -> None:
        nonlocal whole
        watch.check(task.nets)
        with pace.event("checkpoint"):
            if main:
                log.flush()
                now = {"machine": machine_of(accelerator), "seconds": log.seconds, "orthogan": __version__}
                checkpoint.save(run, step, task.files(step), about | now)
                whole = step
                scoring.saved(step)
            accelerator.wait_for_everyone()

    def score(step: int) -> None:
        if scoring.is_made_now(step):
            with pace.event("score"):
                scoring.score_now(step, log)

    def draw(name: str, step: int) -> None:
        try:
            with alone(), pace.event("picture"):
                task.pictures(run / name, step)
            log.picture(step, run / name)
        except CannotWrite as error:
            log.warn(step, [f"a picture could not be written: {error}"])

    def look(step: int) -> None:
        with pace.event("spectrum"):
            log.spectrum(step, task.spectrum(step))
        log.warn(step, task.warnings())

    with StopSignal() as stop:
        try:
            if state.fresh:
                if logging.spectrum_every:
                    look(0)
                if main:
                    draw("fakes_init.png", 0)
            else:
                log.message(f"Resuming at step {state.step} of {training.steps}")
            score(state.step)  # the first one, or the one that was delayed by a stop
            if state.fresh and scoring.needs_checkpoint(0):
                save(0)
            if main and pace.wants_guess("score", state.step):
                with alone():
                    pace.guesses["score"] = task.time_score()
            log.begin()
            for step in range(state.step, training.steps):
                images = step * task.images_per_step
                for name, optimizer in task.optimizers.items():
                    for group, rate in zip(optimizer.param_groups, rates[name], strict=True):
                        group["lr"] = rate * factor(schedule, images, total)
                for phase in task.phases(step):
                    means.add(update(phase, task, accelerator, watch, step))
                for name, average in task.averages.items():
                    average.update(task.nets[name], images + task.images_per_step, task.images_per_step)
                task.finish_step(step)
                done = step + 1
                if main and is_snapshot_due(training.ema, done, training.steps):
                    for average in task.averages.values():
                        write_snapshot(run, average, done, done * task.images_per_step)
                threads.check()
                if pace.step():
                    log.estimate(done, pace)
                log.advance(pace.left(done))

                last = done == training.steps
                stopping = stop.agree(accelerator, done) and not last
                if done % logging.every == 0 or last:
                    log.scalars(done, means.fetch(), task.scalars(), pace)
                    watch.check(task.nets)
                if logging.spectrum_every and (done % logging.spectrum_every == 0 or last):
                    look(done)
                if main and logging.watch_every and done % logging.watch_every == 0:
                    with alone(), pace.event("watch"):
                        log.watch(done, task.watch(done))
                    log.warn(done, task.warnings())
                if main and (last or (logging.samples_every and done % logging.samples_every == 0)):
                    draw(f"fakes-{done:07d}.png", done)
                if not stopping:
                    score(done)
                if done % config.checkpoint.every == 0 or last or stopping or scoring.needs_checkpoint(done):
                    save(done)
                if stopping:
                    raise Stopped(f"stopped by {stop.name or 'a signal'} after step {done}; the same command resumes")
                scoring.poll(log)
            scoring.finish(stop, log)
        except CannotWrite as error:
            safe = f"resumes the run; the checkpoint of step {whole} is intact"
            if whole is None or not checkpoint.checkpoint_folder(run, whole).is_dir():
                safe = f"starts again; there is no checkpoint {'yet' if whole is None else 'any more'}"
            raise CannotWrite(f"{error}. Then the same command {safe}.") from error
        finally:
            scoring.close()
            log.close()
    return run


def _open_log(run: Path, task: Task, config: Config, state: RunState, expected: Expected, *, main: bool) -> RunLog:
    """Open the log of a run, and describe the run in its first lines."""
    logging = config.logging
    log = RunLog(
        run,
        start=state.step,
        steps=config.training.steps,
        images_per_step=task.images_per_step,
        seconds=state.seconds,
        main=main,
        tensorboard=logging.tensorboard and TENSORBOARD in logging.trackers,
        trackers=logging.trackers,
        project=logging.project,
        config=config.model_dump(mode="json") if main else None,
        spectra=logging.tensorboard_spectrum,
        fresh=state.fresh,
    )
    facts = task.summary()
    log.message(f"data: {facts['data']}; classes: {facts['classes']}")
    for fact in ("model.init", "fixed blocks of D"):
        if fact in facts:
            log.message(f"{fact}: {facts[fact]}")
    if state.fresh and expected:
        log.message(f"expected: {expected.target()}")
    return log


def update(phase: Phase, task: Task, accelerator: Accelerator, watch: FiniteWatch, step: int) -> dict[str, Tensor]:
    """Make one optimizer update: the parts of a batch, the mean gradient over all processes, a step. Returns logs."""
    give_turn(task.optimizers, phase.net)
    net, optimizer = task.nets[phase.net], task.optimizers[phase.net]
    optimizer.zero_grad(set_to_none=True)
    logs: dict[str, Tensor] = {}
    value = torch.zeros((), device=accelerator.device)
    with phase.context():
        for losses in phase.losses:
            with accelerator.autocast():
                loss, part = losses()
            accelerator.backward(loss / phase.micro_batches)
            value = value + loss.detach().float() / phase.micro_batches
            for key, number in part.items():
                share = number / phase.micro_batches
                logs[key] = logs[key] + share if key in logs else share
        if (regular := phase.weight_penalty()) is not None:
            penalty, part = regular
            accelerator.backward(penalty)
            value = value + penalty.detach()
            logs |= {f"{phase.net}/{key}": number for key, number in part.items()}
    average_gradients(net, accelerator)
    watch.inspect(phase.name, step, value, net)
    optimizer.step()
    return logs


def give_turn(optimizers: Mapping[str, Optimizer], net: str) -> None:
    """Enable gradients only for the parameters of ``net``; does nothing if the last phase had the same network."""
    for name, optimizer in optimizers.items():
        for group in optimizer.param_groups:
            on = name == net and not group.get(FIXED, False)
            if group["params"] and group["params"][0].requires_grad != on:
                for parameter in group["params"]:
                    parameter.requires_grad_(on)


def average_gradients(net: nn.Module, accelerator: Accelerator) -> None:
    """Average the gradients over the processes, with one all-reduce of a flat tensor.

    This replaces DistributedDataParallel, whose hooks and buffer broadcasts fail with double backward, two forward
    passes before a backward pass, and several networks in a step.
    """
    if accelerator.num_processes == 1:
        return
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    if not gradients:
        return
    flat = accelerator.reduce(torch.cat([g.flatten() for g in gradients]), "mean")
    assert isinstance(flat, Tensor)
    parts = flat.split([g.numel() for g in gradients])
    torch._foreach_copy_(gradients, [part.view(g.shape) for part, g in zip(parts, gradients, strict=True)])  # pyright: ignore


def intervals(config: Config, accelerator: Accelerator) -> dict[str, int]:
    """Steps between two events of each kind that take the time of training; 0 = never. See ``Pace``."""
    logging, section = config.logging, config.evaluation
    return {
        "score": 0 if in_background(section, accelerator) else section.every,
        "picture": logging.samples_every or config.training.steps,
        "spectrum": logging.spectrum_every,
        "watch": logging.watch_every if config.task == "gan" else 0,
        "checkpoint": config.checkpoint.every,
    }


def try_out(task: Task, config: Config, accelerator: Accelerator) -> dict[str, Any]:
    """Some steps on the real nets and data; sizes, losses, peak memory and an estimate of the time. Writes nothing.

    The first step warms up. It is then repeated, so that lazy phases, which only some steps have, are timed as well.

    Raises:
        Diverged: a value is already not finite.
    """
    watch, losses = FiniteWatch(), dict[str, float]()
    times: dict[str, list[float]] = {"rest": []}
    per_step = {"rest": 1.0}
    began = time.perf_counter()
    for step in (0, *range(min(config.training.steps, 3))):
        means = Means()
        before = _now(accelerator)
        for phase in task.phases(step):
            means.add(update(phase, task, accelerator, watch, step))
            now = _now(accelerator)
            times.setdefault(phase.name, []).append(now - before)
            per_step[phase.name] = phase.per_step
            before = now
        task.finish_step(step)
        watch.check(task.nets)
        times["rest"].append(_now(accelerator) - before)
        if not losses:
            losses = means.fetch()
            times = {name: [] for name in times}
        elif not all_true(time.perf_counter() - began < PATIENCE):
            break
    seconds = sum(per_step[name] * sum(some) / len(some) for name, some in times.items())
    return (
        task.summary()
        | {"phases": ", ".join(name for name in times if name != "rest")}
        | losses
        | {"peak memory": _peak_memory(accelerator), "time": _time(task, config, accelerator, seconds)}
    )


def _time(task: Task, config: Config, accelerator: Accelerator, seconds: float) -> str:
    """An estimate for the whole run, of steps that take ``seconds`` each, with its scores and pictures."""
    steps, every = config.training.steps, intervals(config, accelerator)
    taken = {"score": task.time_score() if every["score"] or config.evaluation.at_start else 0.0}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):  # the first one also draws real images
            began = time.perf_counter()
            task.pictures(Path(folder) / "fakes.png", 0)
            taken["picture"] = time.perf_counter() - began
    total = remaining(0, steps, seconds, every, taken) + config.evaluation.at_start * taken["score"]
    parts = [f"{counted(steps, 'step')} of {seconds:.2g} s"]
    scores = config.evaluation.at_start + (math.ceil(steps / every["score"]) if every["score"] else 0)
    if scores:
        parts.append(f"{counted(scores, 'score')} of about {duration(taken['score'])}")
    return f"about {duration(total)} on this machine ({', '.join(parts)})"


def _now(accelerator: Accelerator) -> float:
    if accelerator.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _peak_memory(accelerator: Accelerator) -> str:
    if accelerator.device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated() / 2**20:.0f} MiB on the device"
    return f"{peak_memory():.0f} MiB of the process"
