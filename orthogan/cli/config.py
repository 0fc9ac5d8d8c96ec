"""Print the complete config of a file and overrides, including all defaults, as YAML; or list the configs that ship.

Example: orthogan config configs/demo.yaml training.steps=1000 --explain
"""

from __future__ import annotations

import textwrap
from argparse import ArgumentParser, Namespace

from orthogan.cli.arguments import add_config, refuse_unused
from orthogan.cli.subjects import check_config
from orthogan.errors import UserError

WIDTH = 80  # of a column of text [characters]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    add_config(parser, nargs="?")
    parser.add_argument("--list", action="store_true", help="list the configs that ship with orthogan, by name")
    parser.add_argument("--explain", action="store_true", help="add the meaning and unit of every key")


def run(arguments: Namespace) -> None:
    """Print the config, or the list."""
    if arguments.list:
        refuse_unused(arguments, ["config", "explain"], "does not apply with --list")
        print_list()
        return
    if arguments.config is None:
        raise UserError("name a config, such as cifar10/srngan; `orthogan config --list` shows those that ship")
    check_config(arguments.config)
    from orthogan.config.files import dump, load_config

    settings = load_config(arguments.config, arguments.overrides, only="none")  # it is printed, not used
    print(dump(settings, explain=arguments.explain), end="")


def print_list() -> None:
    """Print the name of each config, and the first sentence of its comment."""
    from orthogan.config.read import shipped_config_names, shipped_configs, summary_of
    from orthogan.io.terminal import text_table

    folder = shipped_configs()
    rows = [[name, textwrap.fill(summary_of(folder / f"{name}.yaml"), WIDTH)] for name in shipped_config_names()]
    print(text_table(rows, "ll", ["NAME", "WHAT"]))
    print(f"\n`orthogan train NAME` trains it, from any folder; `orthogan config NAME` prints it. Files: {folder}")
