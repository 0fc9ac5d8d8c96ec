"""The YAML files of a config, as plain mappings: nothing heavy is imported for what is wrong with a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from orthogan.errors import UserError
from orthogan.io.read import read_regular, shown
from orthogan.io.yaml_text import parse_yaml
from orthogan.registry import did_you_mean

LARGEST_CONFIG = 1 << 18  # [bytes]
MOST_BASES = 100  # files that build on one another


def read_chain(path: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The files that ``path`` builds on, the lowest first, each without its ``base`` key."""
    chain: list[tuple[Path, dict[str, Any]]] = []
    seen: set[Path] = set()
    while True:
        tree = read_yaml(path)
        seen.add(path.resolve())
        base = tree.pop("base", None)
        chain.append((path, tree))
        if base is None:
            return chain[::-1]
        if not isinstance(base, str):
            raise UserError(f"{path}: base must be the path of another YAML file, not {shown(base)}")
        parent = path.parent / base
        if not os.path.exists(parent):
            raise UserError(f"{path}: base names {shown(base)}, but there is no file {parent}")
        if parent.resolve() in seen:
            raise UserError(f"{path}: 'base' comes back to {parent}; a config cannot build on itself")
        if len(chain) == MOST_BASES:
            raise UserError(f"{path}: more than {MOST_BASES} files build on one another; put some of them together")
        path = parent


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping; UserError with file and line when it is not one."""
    try:
        text = read_regular(path, LARGEST_CONFIG)
    except UserError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        hint = did_you_mean(str(path), [str(file) for file in path.parent.glob("*.yaml") if file.is_file()])
        raise UserError(f"{path}: no such config file{hint}") from None
    tree = parse_yaml(text, path)
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"{path}: a config is a mapping of keys to values, not a {type(tree).__name__}")
    return tree
