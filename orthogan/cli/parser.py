"""The parser of the command line: the commands are the modules of this folder that have a ``run`` function."""

from __future__ import annotations

import argparse
import importlib
import itertools
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from types import ModuleType
from typing import Any

import orthogan.cli
from orthogan import __version__
from orthogan.errors import UserError
from orthogan.io.read import in_home
from orthogan.registry import did_you_mean

MOST_NAMED = 2  # commands with an option, beyond which a message does not list them


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a command line; ends the process with a message if it is invalid.

    ``key=value`` may also follow options, where argparse does not accept it. ``orthogan`` alone and
    ``orthogan help [COMMAND]`` print the help.
    """
    if "_ARGCOMPLETE" in os.environ:  # a shell asks for completions
        import argcomplete

        argcomplete.autocomplete(top_level())  # ends the process
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] == "help":
        words = [*words[1:2], "--help"]
    _refuse_empty(words)
    arguments, rest = top_level().parse_known_args(words)
    late = [word for word in rest if "=" in word and not word.startswith("-")] if "overrides" in arguments else []
    if len(late) < len(rest):
        unknown = " ".join(word for word in rest if word not in late)
        parsers()[arguments.command].error(f"unrecognized arguments: {unknown}")
    if late:
        arguments.overrides = [*arguments.overrides, *late]
    for name, value in vars(arguments).items():
        if isinstance(value, str):
            setattr(arguments, name, in_home(value))
        elif isinstance(value, list):
            setattr(arguments, name, [in_home(one) if isinstance(one, str) else one for one in value])
    return arguments


def _refuse_empty(words: Sequence[str]) -> None:
    """Refuse an empty argument, as argparse does for an option: an unset variable of the shell would pass for a choice.

    Raises:
        UserError: an argument that belongs to no option is empty.
    """
    why = "the value is empty; give one, or omit it (is a variable of your shell unset?)"
    for before, word in itertools.pairwise(["", *words]):
        if re.fullmatch(r"[a-z][\w.]*=\s*", word) and not before.startswith("--"):
            raise UserError(f"override {word!r}: {why}; to clear a key, write {word.rstrip()}null")
        if re.fullmatch(r"--[\w-]+=\s*", word):
            option = word.rstrip().removesuffix("=")
        elif not word.strip():
            option = before if before.startswith("--") and "=" not in before else ""
        else:
            continue
        if not option:
            raise UserError(f"an argument: {why}")
        parsers().get(words[0], top_level()).error(f"argument {option}: {why}")


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` whose errors suggest the nearest option and whose help can list names of a registry."""

    def add_names(
        self, *flags: str, names: Callable[[], Iterable[str]], help: str, complete: bool = True, **options: Any
    ) -> None:
        """Add an argument whose help shows ``names()`` for "{names}"; they are imported only when they are needed.

        ``complete``: offer the names for completion; several values may be given, separated by commas.
        """
        action: Any = self.add_argument(*flags, help=help.replace("{names}", "…"), **options)
        action.listing = lambda: help.replace("{names}", ", ".join(names()))
        if complete:
            action.completer = lambda prefix, **_: [prefix[: prefix.rfind(",") + 1] + name for name in names()]

    def format_help(self) -> str:
        """Return the help, including the names in the registries."""
        for action in self._actions:
            if hasattr(action, "listing"):
                action.help = action.listing()  # pyright: ignore[reportAttributeAccessIssue]
        return super().format_help()

    def error(self, message: str) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Print the usage and ``message``, suggest the nearest option of this command, and end the process."""
        if "unrecognized" in message:
            known = [option for action in self._actions for option in action.option_strings]
            unknown = [word.split("=")[0] for word in message.split() if word.startswith("--")]
            hint = next((hint for word in unknown if (hint := did_you_mean(word, known))), "")
            hint = hint or next((hint for word in unknown if (hint := _elsewhere(word))), "")
            if not hint and unknown and "overrides" in {action.dest for action in self._actions}:
                hint = "; to set a key of the config write key=value, for example out=runs/mine"
            message += hint
        if (wrong := re.search(r"COMMAND: invalid choice: '([^']*)'", message)) is not None:
            message += did_you_mean(wrong[1], commands())
        super().error(message)


def _elsewhere(option: str) -> str:
    """Return which one or two other commands have this option, or nothing."""
    names = [f"orthogan {name}" for name, parser in parsers().items() if option in parser._option_string_actions]
    return f"; {option} is an option of {' and '.join(names)} only" if 0 < len(names) <= MOST_NAMED else ""


@cache
def commands() -> Mapping[str, ModuleType]:
    """Return the module of each command, by its name."""
    modules = {
        found.name: importlib.import_module(f"orthogan.cli.{found.name}")
        for found in pkgutil.iter_modules(orthogan.cli.__path__)
        if not found.name.startswith("_")
    }
    return {name: module for name, module in modules.items() if hasattr(module, "run")}


@cache
def top_level() -> argparse.ArgumentParser:
    """Return the parser of ``orthogan``."""
    parser = Parser(
        prog="orthogan",
        description="Train GANs with well-conditioned layers, score them, and explore their latent space.",
        epilog="`orthogan COMMAND --help` describes a command and shows an example.",
    )
    parser.add_argument("--version", action="version", version=f"orthogan {__version__}")
    found = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for name, module in commands().items():
        description, _, example = (module.__doc__ or "").rpartition("\n\n")
        summary = description.partition("\n\n")[0].removesuffix(".")
        command = found.add_parser(name, help=summary, description=description, epilog=example)
        module.add_arguments(command)
    return parser


def parsers() -> Mapping[str, Parser]:
    """Return the parser of each command, by its name."""
    action = next(action for action in top_level()._actions if isinstance(action, argparse._SubParsersAction))
    return action.choices
