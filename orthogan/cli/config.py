"""Print the complete config of a file and overrides, including all defaults, as YAML.

Example: orthogan config configs/demo.yaml training.steps=1000 --explain
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from orthogan.cli.arguments import add_config
from orthogan.cli.subjects import check_config


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    add_config(parser)
    parser.add_argument("--explain", action="store_true", help="add the meaning and unit of every key")


def run(arguments: Namespace) -> None:
    """Print the config."""
    check_config(arguments.config)
    from orthogan.config.files import dump, load_config

    settings = load_config(arguments.config, arguments.overrides, only="none")  # it is printed, not used
    print(dump(settings, explain=arguments.explain), end="")
