"""Reproduce the experiments of a paper and report all methods, settings and seeds in one table.

The same command resumes a study: finished runs are never repeated. REPORT.md, report.html and table.json are written
to OUT/NAME/SCALE.

Example: orthogan study opt --scale cpu --seeds 3
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from orthogan.cli.arguments import add_executor, add_overrides, read_executor, refuse_unused, whole

if TYPE_CHECKING:
    from orthogan.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of the command."""
    parser.add_names("name", names=_study_names, nargs="?", help="{names}, or module:STUDY for your own")
    add_overrides(parser, "values that override the config of all runs, for example training.steps=500")
    parser.add_argument("--list", action="store_true", help="list the studies and their sizes")
    parser.add_argument(
        "--scale",
        default="smoke",
        help="smoke: about a minute, with meaningless results; cpu: hours on two cores; decide: a day or more on two "
        "cores, with longer runs and more seeds; full: as published (default: smoke)",
    )
    parser.add_argument(
        "--seeds", type=whole(1, 1000), help="runs per method, with seeds 0, 1, … (default: set by the scale)"
    )
    parser.add_argument("--out", default="runs/studies", help="folder for the studies (default: runs/studies)")
    parser.add_argument(
        "--jobs", type=whole(1, 1024), help="number of parallel runs (default: one per core, at most 8; 1 on a GPU)"
    )
    parser.add_argument(
        "--redo",
        action="append",
        default=[],
        metavar="METHOD",
        help="delete the runs of this method first (recorded in the report)",
    )
    add_executor(parser)


def _study_names() -> Iterable[str]:
    from orthogan.studies.study import STUDIES

    return STUDIES


def run(arguments: Namespace) -> None:
    """Run or resume a study and write its report, or list all studies."""
    from orthogan.studies.study import get_study, listing

    if arguments.name is None:
        options = ("scale", "seeds", "out", "jobs", "redo", "executor", "scheduler", "executor_option")
        refuse_unused(arguments, options, "applies only to a study", f"name one of {', '.join(_study_names())}")
    if arguments.list or arguments.name is None:
        print(listing())
        return
    executor = read_executor(arguments)
    get_study(arguments.name)  # refuse an unknown name before importing training
    import torch

    from orthogan.studies.pool import default_jobs
    from orthogan.studies.run_study import Request, run_study

    jobs = arguments.jobs or default_jobs(torch.cuda.is_available())
    out = Path(arguments.out)
    seeds, redo = arguments.seeds, arguments.redo
    print(run_study(Request(arguments.name, arguments.scale, seeds, out, jobs, arguments.overrides, redo, executor)))
