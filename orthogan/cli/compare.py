"""Compare runs in one table, with means, confidence intervals, differences and curves.

Runs that differ only in the seed share a row. Scores with different protocols get separate columns.

Example: orthogan compare runs/sn-* runs/srn-* --out comparison
"""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

from orthogan.errors import UserError


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="run folders; differences are relative to the row of the first run"
    )
    parser.add_argument("--out", default="comparison", help="folder for the report (default: comparison)")


def run(arguments: Namespace) -> None:
    """Write the report and print its table."""
    for folder in arguments.runs:
        if not os.path.isdir(folder):
            raise UserError(f"{folder}: no such run folder")
    from orthogan.studies.compare import compare
    from orthogan.studies.report import numbers_table

    report, table = compare([Path(run) for run in arguments.runs], Path(arguments.out))
    print(numbers_table(table))
    print(f"\n{report}, {report.with_name('report.html')}")
