"""Record the scores of finished runs as the expected scores of their config; `orthogan train` shows them with its own.

Example: orthogan expected runs/seed0 runs/seed1 runs/seed2 --out configs/demo.expected.json
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from orthogan.cli.subjects import check_subject
from orthogan.errors import UserError


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="runs that differ in their random seed")
    parser.add_argument("--out", required=True, help="file to write: NAME.expected.json beside NAME.yaml")
    parser.add_argument(
        "--partial",
        action="store_true",
        help="accept runs that are not finished; nothing is expected after their last score",
    )
    parser.add_argument("--machine", default="", help="machine of the runs, such as '2 cores of a Xeon 6430'")


def run(arguments: Namespace) -> None:
    """Write the file."""
    for one in arguments.runs:
        check_subject(one)
    from orthogan.training.expected import SUFFIX, Expected, write_expected

    if not arguments.out.endswith(SUFFIX):
        raise UserError(f"--out {arguments.out}: the name must end with {SUFFIX}")
    found = write_expected(
        [Path(one) for one in arguments.runs],
        Path(arguments.out),
        machine=arguments.machine,
        partial=arguments.partial,
    )
    print(f"{arguments.out}: {Expected(arguments.out, found.expected).target()}")
