"""Reproduce the experiments of a paper: methods x settings x seeds, in one table and one report.

The same command resumes a study: finished runs are never repeated. REPORT.md, report.html and table.json are written
to OUT/NAME/SCALE.

Example: orthogan study opt --scale cpu --seeds 3 data.path=/usr/share/datasets/fashion-mnist
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from orthogan.cli.arguments import add_overrides, whole

if TYPE_CHECKING:
    from orthogan.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of the command."""
    parser.add_names("name", names=_study_names, nargs="?", help="{names}, or module:STUDY for your own")
    add_overrides(parser, "values that replace those of the config of all runs, such as training.steps=500")
    parser.add_argument("--list", action="store_true", help="list the studies and their sizes")
    parser.add_argument(
        "--scale",
        default="smoke",
        help="smoke: about a minute, results are meaningless; cpu: hours on two cores; full: as published "
        "(default: smoke)",
    )
    parser.add_argument(
        "--seeds", type=whole(1, 1000), help="runs per method, with seeds 0, 1, … (default: set by the scale)"
    )
    parser.add_argument("--out", default="runs/studies", help="folder of the studies (default: runs/studies)")
    parser.add_argument(
        "--jobs", type=whole(1, 1024), help="runs at the same time (default: one per core, at most 8; on a GPU 1)"
    )
    parser.add_argument(
        "--redo",
        action="append",
        default=[],
        metavar="METHOD",
        help="delete the runs of this method first (recorded in the report)",
    )


def _study_names() -> Iterable[str]:
    from orthogan.studies.study import STUDIES

    return STUDIES


def run(arguments: Namespace) -> None:
    """Run or resume a study and report it, or list all studies."""
    from orthogan.studies.study import get_study, listing

    if arguments.list or arguments.name is None:
        print(listing())
        return
    get_study(arguments.name)  # refuses an unknown name before training is imported
    import torch

    from orthogan.studies.pool import default_jobs
    from orthogan.studies.run_study import Request, run_study

    jobs = arguments.jobs or default_jobs(torch.cuda.is_available())
    out = Path(arguments.out)
    print(
        run_study(
            Request(arguments.name, arguments.scale, arguments.seeds, out, jobs, arguments.overrides, arguments.redo)
        )
    )
