"""Train a config with several values of some keys, over random seeds, and rank the results in one table.

A key with several values is key=a,b,c; all combinations are run. The same command resumes: finished runs are never
repeated, and further values or seeds add runs. With --sampler, optuna chooses the values of --trials combinations from
lists and ranges, key=low..high or key=low..high:log. REPORT.md, report.html and table.json are written to OUT.

Example: orthogan sweep sprites/srngan model.discriminator.norm.c=0.5,0.7,0.9 training.batch_size=32,64 --seeds 3
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from orthogan.cli.arguments import add_config, add_executor, add_trust, read_executor, refuse_unused, whole
from orthogan.cli.subjects import check_config

if TYPE_CHECKING:
    from orthogan.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of the command."""
    add_config(parser)
    parser.add_argument("--seeds", type=whole(1, 1000), default=1, help="runs per combination (default: 1)")
    parser.add_argument("--out", help="folder for the runs and the report (default: runs/sweep/CONFIG)")
    parser.add_argument(
        "--jobs", type=whole(1, 1024), help="number of parallel runs (default: one per core, at most 8; 1 on a GPU)"
    )
    parser.add_names(
        "--sampler",
        names=_samplers,
        help="let optuna choose the values: {names}, or module:function that returns a sampler of optuna (default: run "
        "all combinations)",
    )
    parser.add_argument(
        "--trials", type=whole(1, 100_000), default=20, help="combinations that --sampler tries (default: 20)"
    )
    add_executor(parser)
    add_trust(parser)


def _samplers() -> Iterable[str]:
    from orthogan.studies.samplers import SAMPLERS

    return SAMPLERS


def run(arguments: Namespace) -> None:
    """Run or resume a sweep and write its report."""
    check_config(arguments.config)
    if arguments.sampler is None:
        refuse_unused(arguments, ["trials"], "applies only with --sampler")
    executor = read_executor(arguments)
    import torch

    from orthogan.studies.pool import default_jobs
    from orthogan.studies.sweep import SweepRequest, run_sweep

    name = Path(arguments.config).with_suffix("")
    parts = name.parts[name.parts.index("configs") + 1 :] if "configs" in name.parts else name.parts[-2:]
    out = Path(arguments.out or Path("runs", "sweep", *(part for part in parts if part not in ("/", ".."))))
    print(
        run_sweep(
            SweepRequest(
                arguments.config,
                arguments.overrides,
                arguments.seeds,
                out,
                arguments.jobs or default_jobs(torch.cuda.is_available()),
                arguments.sampler,
                arguments.trials,
                executor,
                arguments.trust,
            )
        )
    )
