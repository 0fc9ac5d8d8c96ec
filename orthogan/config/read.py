"""The YAML files of a config, as plain mappings: nothing heavy is imported for what is wrong with a file."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path
from typing import Any

from orthogan.errors import UserError
from orthogan.io.read import in_home, printable, read_regular, shown
from orthogan.io.yaml_text import parse_yaml
from orthogan.registry import did_you_mean

LARGEST_CONFIG = 1 << 18  # [bytes]
MOST_BASES = 100  # files that build on one another


def shipped_configs() -> Path:
    """Where the configs of experiments are: inside an installed package, or ``configs/`` of a clone."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "configs"  # setup.py puts it into a wheel
    return inside if inside.is_dir() else package.parent / "configs"


def find_config(path: Path) -> Path:
    """``path``, or where there is no such file, the config that ships under this name.

    Such a name is ``configs/cifar10/srngan.yaml``, ``cifar10/srngan.yaml`` or ``cifar10/srngan``.
    """
    if os.path.lexists(path) or path.is_absolute() or ".." in path.parts:
        return path
    name = path.as_posix().removeprefix("configs/").removesuffix(".yaml")
    file = shipped_configs() / f"{name}.yaml"
    return file if os.path.isfile(file) else path


def read_chain(path: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The files that ``path`` builds on, the lowest first, each without its ``base`` key.

    Args:
        path: of a file, or the name of a config that ships with orthogan, as of ``find_config``.
    """
    path = find_config(path)
    chain: list[tuple[Path, dict[str, Any]]] = []
    seen: set[Path] = set()
    while True:
        tree, where = read_yaml(path), printable(path)
        seen.add(path.resolve())
        base = tree.pop("base", None)
        chain.append((path, tree))
        if base is None:
            return chain[::-1]
        if not isinstance(base, str) or not base.strip():
            raise UserError(f"{where}: base must be the path of another YAML file, not {shown(base)}")
        named = path.parent / in_home(base)
        parent = named
        if not os.path.exists(parent):
            parent = find_config(Path(base))
        if not os.path.exists(parent):
            raise UserError(f"{where}: base names {shown(base)}, but {printable(named)} does not exist")
        if parent.resolve() in seen:
            raise UserError(f"{where}: 'base' refers back to {printable(parent)}; remove one of the references")
        if len(chain) == MOST_BASES:
            raise UserError(f"{where}: the chain of 'base' files is longer than {MOST_BASES}; merge some of them")
        path = parent


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping; UserError with file and line when it is not one."""
    try:
        text = read_regular(path, LARGEST_CONFIG)
    except UserError as error:
        if os.path.isdir(path):
            inside = path / "config.yaml"
            advice = (
                f"to resume this run, name its config, {printable(inside)}" if inside.is_file() else "name a YAML file"
            )
            raise UserError(f"{printable(path)}: this is a folder; {advice}") from None
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        known = [str(file) for file in path.parent.glob("*.y*ml") if file.is_file()]
        folder = shipped_configs()
        known += [file.relative_to(folder).with_suffix("").as_posix() for file in folder.rglob("*.yaml")]
        longer = (path.with_name(path.name + suffix) for suffix in (".yaml", ".yml"))
        same = next((f"; did you mean {printable(file)!r}?" for file in longer if file.is_file()), "")
        hint = same or did_you_mean(str(path), known) or "; `orthogan config --list` shows those that ship"
        raise UserError(f"{printable(path)}: no such config file{hint}") from None
    tree = parse_yaml(text, path)
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"{printable(path)}: a config is a mapping of keys to values, not a {type(tree).__name__}")
    return tree


def shipped_config_names() -> list[str]:
    """The names of the configs that ship with orthogan, such as ``cifar10/srngan``; recipes, to build on, come last."""
    folder = shipped_configs()
    names = [file.relative_to(folder).with_suffix("").as_posix() for file in folder.rglob("*.yaml")]
    return sorted(names, key=lambda name: (name.startswith("recipes/"), "/" in name, name))


def summary_of(file: Path) -> str:
    """The first sentence of the comment at the top of a config file; "" if there is none."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), file.read_text(encoding="utf-8").splitlines())
    text = " ".join(line.lstrip("# ") for line in lines)
    return re.split(r"(?<!\bal)\.\s", text, maxsplit=1)[0].rstrip(".")
