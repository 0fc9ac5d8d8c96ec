"""Train the model of a config; run the same command again to resume an interrupted run.

Example: orthogan train configs/cifar10/srngan.yaml seed=3 model.discriminator.norm.c=0.5
"""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from orthogan.cli.arguments import add_config, add_trust
from orthogan.cli.subjects import check_config
from orthogan.errors import UserError
from orthogan.io.read import user_path
from orthogan.io.terminal import shell_word
from orthogan.words import counted

if TYPE_CHECKING:
    from orthogan.config.schema import Config


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    add_config(parser)
    parser.add_argument("--dry-run", action="store_true", help="build everything, run one step of each phase, and stop")
    parser.add_argument("--allow-config-change", action="store_true", help="resume a run with a changed config")
    add_trust(parser)


def run(arguments: Namespace) -> None:
    """Train, or only try one step with --dry-run."""
    check_config(arguments.config)
    from orthogan.config.files import check_run_folder, load_config
    from orthogan.data.sources import DATA_SOURCES, DataSource

    settings = load_config(arguments.config, arguments.overrides, trust=arguments.trust)
    check_run_folder(arguments.config, arguments.overrides, settings)
    path = settings.data.path
    if path and ":" not in settings.data.source and not os.path.lexists(user_path(path)):
        source = DATA_SOURCES.get(settings.data.source)
        remedy = "" if source.needs == DataSource.needs else f"; {settings.data.source!r} needs {source.needs}"
        raise UserError(f"data.path: {path}: no such file or folder{remedy}")
    from accelerate.state import PartialState

    from orthogan import training

    options = {"allow_config_change": arguments.allow_config_change, "trust": arguments.trust}
    if arguments.dry_run:
        for name, value in training.dry_run(settings, **options).items():
            print(f"{name:>16}: {_short(value)}")
        return
    folder = training.train(settings, **options)
    if PartialState().is_main_process:
        _report(folder, settings)


def _short(value: object) -> str:
    """Return a fact of the dry run with separators of thousands, or four digits of a loss."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)


def _report(run: Path, settings: Config) -> None:
    """Print what a finished run holds, its first and last score, and what can be done with it."""
    from orthogan.config.base import code_in
    from orthogan.io import checkpoint
    from orthogan.progress import duration
    from orthogan.training.resume import METRICS, own_scores
    from orthogan.training.run_log import seconds_of

    took, steps = seconds_of(run), settings.training.steps
    print(f"{run}: complete, {counted(steps, 'step')}" + (f" in {duration(took)}" if took else ""))
    scores = own_scores(run / METRICS, settings.training.steps)
    if scores := [(step, score) for step, score in scores if score.metric == settings.evaluation.best]:
        form = ".2%" if settings.task == "classifier" else ".2f"
        ends = [scores[0], scores[-1]] if len(scores) > 1 else scores
        values = (f"{score.value:{form}} (step {step})" for step, score in ends)
        print(f"{scores[-1][1].label}: {' -> '.join(values)}")
    again, trust = shell_word(run), " --trust" if code_in(settings) else ""
    if settings.task == "classifier":
        best = checkpoint.best_checkpoint(run)
        print(f"best checkpoint: {best}" if best is not None else f"checkpoints: {run / checkpoint.FOLDER}")
        print(f"next:\n  orthogan evaluate {again} --metrics accuracy,corruptions{trust}")
        return
    names = ("reals.png", "fakes_init.png", *(file.name for file in sorted(run.glob("fakes-*.png"))[-1:]))
    print(f"pictures: {', '.join(str(run / name) for name in names if (run / name).is_file())}")
    commands = [f"sample {again}", f"traverse {again} --out traversal.html", f"evaluate {again} --metrics fid,prc"]
    if settings.training.ema.kind == "power":
        commands.append(f"ema {again} --search 0.02-0.2")
    print("next:", *(f"  orthogan {command}{trust}" for command in commands), sep="\n")
