"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import math
from argparse import ArgumentParser
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from orthogan.errors import UserError
from orthogan.io.read import shown

if TYPE_CHECKING:
    from orthogan.cli.parser import Parser
    from orthogan.studies.executors import ExecutorRequest

LARGEST_SEED = 2**63 - 1


def add_subject(parser: ArgumentParser, help: str = "", **options: Any) -> None:
    """Add SUBJECT, with completion of paths and names of shipped models."""
    help = help or (
        "run, checkpoint, .safetensors file, name of a shipped model, user/model on the Hugging Face Hub, or "
        "module:Class"
    )
    action: Any = parser.add_argument("subject", metavar="SUBJECT", help=help, **options)

    def complete(prefix: str, **_: Any) -> list[str]:
        from argcomplete.completers import FilesCompleter

        from orthogan.models.shipped import shipped_names

        return [*shipped_names(), *FilesCompleter()(prefix)]

    action.completer = complete


def add_config(parser: ArgumentParser, **options: Any) -> None:
    """Add CONFIG and its overrides, with completion of paths and names of shipped configs."""
    help = "YAML file, or the name of a shipped config, such as cifar10/srngan (`orthogan config --list`)"
    action: Any = parser.add_argument("config", help=help, **options)

    def complete(prefix: str, **_: Any) -> list[str]:
        from argcomplete.completers import FilesCompleter

        from orthogan.config.read import shipped_config_names

        return [*shipped_config_names(), *FilesCompleter(("yaml", "yml"))(prefix)]

    action.completer = complete
    add_overrides(parser, "values that override those of CONFIG, for example training.batch_size=32")


def add_overrides(parser: ArgumentParser, help: str) -> None:
    """Add ``key=value``, which may also follow options."""
    action: Any = parser.add_argument("overrides", nargs="*", default=[], metavar="key=value", help=help)

    def complete(**_: Any) -> list[str]:
        from orthogan.config.files import all_keys

        return [f"{key}=" for key in all_keys()]

    action.completer = complete


def add_trust(parser: ArgumentParser) -> None:
    """Add --trust, the consent to use code and data that a file names."""
    parser.add_argument(
        "--trust",
        action="store_true",
        help="import and run the module:Class that a file names, and open the data that it names (see SECURITY.md)",
    )


def add_ema(parser: ArgumentParser) -> None:
    """Add --no-ema, which chooses the weights of a generator."""
    parser.add_argument("--no-ema", action="store_true", help="use the raw weights instead of their moving average")


def add_device(parser: ArgumentParser) -> None:
    """Add --device."""
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the fastest one available)")


def add_net(parser: ArgumentParser) -> None:
    """Add the options for opening a generator."""
    add_ema(parser)
    add_device(parser)
    add_trust(parser)


def add_classes(parser: ArgumentParser, help: str = "class of a conditional model, by number or name") -> None:
    """Add --classes for a conditional generator; argparse also accepts the abbreviation ``--class``."""
    parser.add_argument("--classes", help=help)


def add_seed(parser: ArgumentParser, help: str = "random seed", default: int = 0) -> None:
    """Add --seed, a single random seed."""
    parser.add_argument("--seed", type=whole(0, LARGEST_SEED), default=default, help=f"{help} (default: {default})")


def add_latent(
    parser: ArgumentParser, help: str = "start from the latents in this file, written by 'orthogan project'"
) -> None:
    """Add --latent, a file of latents."""
    parser.add_argument("--latent", metavar="FILE", help=help)


def add_features(parser: ArgumentParser) -> None:
    """Add --features, the network that compares pictures with those of the model."""
    parser.add_argument(
        "--features",
        choices=("auto", "none", "efficientnet-lite0", "lpips-vgg16"),
        default="auto",
        help="network that compares the pictures, in addition to their pixels; auto: LPIPS if its weights are "
        "available, else EfficientNet-Lite0 (default: auto)",
    )


def add_truncation(parser: ArgumentParser) -> None:
    """Add --truncation, the truncation of the latents."""
    parser.add_argument(
        "--truncation",
        type=real(0, 1),
        default=1.0,
        help="truncation of the latents, from 0 to 1 (default: 1, no truncation)",
    )


def add_json(parser: ArgumentParser, what: str = "the results with their protocols as JSON lines") -> None:
    """Add --json, output for programs."""
    parser.add_argument("--json", action="store_true", help=f"print {what}")


def add_method(parser: Parser, default: str | None, said: str = "") -> None:
    """Add --method, the methods that find directions, by their names in the registry; ``said``: of the default."""
    parser.add_names(
        "--method",
        names=lambda: direction_methods(),
        default=default,
        help=f"methods that find directions, comma-separated: {{names}}, or module:function "
        f"(default: {said or default})",
    )


def direction_methods(option: str | None = None) -> list[str]:
    """List the methods that find directions, or only those that have ``option``."""
    from orthogan.latent.discovery import DIRECTION_METHODS, options_of

    return [name for name in DIRECTION_METHODS if option is None or option in options_of(name)]


def add_directions(parser: Parser, method: str | None = "native", said: str = "") -> None:
    """Add the options that choose directions: from a method or from a file."""
    add_method(parser, method, said)
    parser.add_argument("--directions", help="read a Directions file instead of using --method")
    parser.add_argument(
        "--layers", help="in w space, styles that the directions change, such as 0-3 or blocks.0.* (default: all)"
    )


def check_directions(arguments: argparse.Namespace) -> None:
    """Check the options of ``add_directions`` before the model is opened. Raises ``UserError``."""
    from orthogan.cli.subjects import check_file

    check_file(arguments.directions)
    if arguments.directions:
        refuse_unused(arguments, ["method"], "does not apply with --directions, a file that has directions")


def add_factors(parser: Parser, said: str = "") -> None:
    """Add --data, images with known factors; ``said``: what for."""
    help = f"images with known factors{said}: {{names}}, or a YAML config of others"
    parser.add_names("--data", names=_factor_sources, help=help)


def _factor_sources() -> list[str]:
    """List the data sources with known factors that need no files."""
    from orthogan.data.sources import DATA_SOURCES, generated_sources

    return [name for name in generated_sources() if DATA_SOURCES.get(name).factors]


def _executors() -> Iterable[str]:
    from orthogan.studies.executors import EXECUTORS

    return EXECUTORS


def add_executor(parser: Parser) -> None:
    """Add the options that run a study or sweep on other machines."""
    parser.add_names(
        "--executor",
        names=_executors,
        help="where the runs are trained: {names}, or module:function that returns an executor of "
        "concurrent.futures (default: on this machine)",
    )
    parser.add_argument("--scheduler", metavar="ADDRESS", help="scheduler of --executor dask, such as tcp://host:8786")
    add_options(
        parser,
        "--executor-option",
        "option of the executor, such as slurm_partition=gpu, gpus_per_node=1, cpus_per_task=4, timeout_min=240",
    )


def read_executor(arguments: argparse.Namespace) -> ExecutorRequest | None:
    """Return the executor of ``add_executor``; None for this machine."""
    if arguments.executor is None:
        if arguments.scheduler or arguments.executor_option:
            raise UserError("--scheduler and --executor-option need --executor, such as --executor dask; add it")
        return None
    from orthogan.studies.executors import EXECUTORS, ExecutorRequest

    EXECUTORS.get(arguments.executor, "--executor")
    options = read_options("--executor-option", arguments.executor_option)
    return ExecutorRequest(arguments.executor, arguments.scheduler, options)


def add_options(parser: Parser, flag: str, help: str) -> None:
    """Add ``flag``, which may be given several times, each time with one option NAME=VALUE."""
    parser.add_argument(flag, action="append", default=[], metavar="NAME=VALUE", help=help)


def read_options(flag: str, words: Iterable[str]) -> dict[str, Any]:
    """Return the options of ``add_options``; the values are read as YAML. Raises ``UserError``."""
    from orthogan.io.yaml_text import parse_yaml

    options: dict[str, Any] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or not name:
            raise UserError(f"{flag} {shown(word)}: write NAME=VALUE")
        options[name] = parse_yaml(value, flag)
    return options


def refuse_unused(arguments: argparse.Namespace, options: Iterable[str], why: str, fix: str = "omit it") -> None:
    """Refuse options that would have no effect; ``options``: their names in ``arguments``.

    Raises:
        UserError: one of them was given; the message is its name, ``why`` and ``fix``.
    """
    from orthogan.cli.parser import parsers

    actions = {action.dest: action for action in reversed(parsers()[arguments.command]._actions)}
    for name in options:
        if vars(arguments)[name] != actions[name].default:
            raise UserError(f"{(actions[name].option_strings or [name])[0]} {why}; {fix}")


def whole(least: int, most: int) -> Callable[[str], int]:
    """Return a parser of integers from ``least`` to ``most``."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{shown(text)}: must be an integer") from None
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{shown(text)}: must be from {least:,} to {most:,}")
        return value

    return read


def real(least: float, most: float) -> Callable[[str], float]:
    """Return a parser of numbers from ``least`` to ``most``."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{shown(text)}: must be a number from {least:g} to {most:g}")
        return value

    return read


samples = whole(1, 10**7)
