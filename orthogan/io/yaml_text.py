"""Parsing of YAML: limited size, plain tags, no surprises of YAML 1.1, and errors that name the source."""

from __future__ import annotations

import re
from typing import Any

import yaml

from orthogan.errors import UserError
from orthogan.io.read import printable, shown

MOST_NODES = 20_000  # values in a document, counting each use of an alias
MOST_LEVELS = 64  # nesting levels
_MERGE = "tag:yaml.org,2002:merge"
_LONGEST_NUMBER = 400  # characters; a float needs fewer than 330
_SURPRISE = re.compile(r"[-+]?(?:0[\d_]*[\d]|[\d_]+(?::[\d_.]+)+)")  # 010 is read as octal, 1:30 in base 60


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys and reads 2e-4 as a number, like YAML 1.2. Keys stay text."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = f"line {key_node.start_mark.line + 1}"
        if not isinstance(key_node, yaml.ScalarNode):
            raise UserError(f"{line}: a key must be a single word, not a list or a mapping")
        key = key_node.value
        if key_node.tag == _MERGE:
            raise UserError(f"{line}: merge keys (<<) are not supported; write out the keys that it stands for")
        if key in found:
            raise UserError(f"{line}: the key {shown(key)} occurs twice")
        found[key] = loader.construct_object(value_node, deep=True)
    return found


def _number(loader: _Loader, node: yaml.ScalarNode) -> int | float:
    text = node.value
    if _SURPRISE.fullmatch(text):
        raise UserError(
            f"line {node.start_mark.line + 1}: {shown(text)} would be read as a number in base 8 or 60; write the "
            "number without leading zeros and colons, or put the value in quotes if it is text"
        )
    if len(text) > _LONGEST_NUMBER:
        raise UserError(f"line {node.start_mark.line + 1}: {shown(text)} has too many digits")
    if node.tag.endswith("int"):
        return loader.construct_yaml_int(node)
    return loader.construct_yaml_float(node)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Loader.add_constructor("tag:yaml.org,2002:int", _number)
_Loader.add_constructor("tag:yaml.org,2002:float", _number)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d[\d_]*)(?:\.[\d_]*)?[eE][-+]?\d+$"),
    list("-+0123456789"),
)


def parse_yaml(text: str | bytes, source: object) -> Any:
    """Parse a YAML document; returns None if it is empty.

    Raises UserError, naming ``source`` and if possible the line, for anything that is not YAML, is nested deeper than
    ``MOST_LEVELS``, or contains more than ``MOST_NODES`` values after expanding aliases.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _measure(node, {}, 0)
        return loader.construct_document(node)
    except UserError as error:
        raise UserError(f"{printable(source)}: {error}") from None
    except RecursionError:
        raise UserError(f"{printable(source)}: the YAML is nested too deeply") from None
    except yaml.YAMLError as error:
        said = re.sub(r' in "<(byte|unicode) string>",', " at", " ".join(str(error).split()))
        cure = "; indent with spaces instead of tabs" if r"'\t'" in said else ""
        cure = "; save the file as UTF-8" if "unacceptable character" in said and "special" not in said else cure
        raise UserError(f"{printable(source)}: not valid YAML: {said}{cure}") from None
    except (
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        OverflowError,
    ) as error:  # values that do not match a tag
        raise UserError(f"{printable(source)}: not valid YAML: {printable(str(error))}") from None


def _measure(node: yaml.Node, known: dict[int, tuple[int, int]], level: int) -> tuple[int, int]:
    """Return (values, levels) of ``node`` with aliases expanded; each node is visited once."""
    if id(node) in known:
        size, depth = known[id(node)]
    else:
        known[id(node)] = MOST_NODES + 1, 0  # an alias of itself never ends
        size, depth = 1, 1
        if isinstance(node, yaml.CollectionNode):
            parts = [part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,))]
            for part in parts:
                inner, below = _measure(part, known, level + 1)
                size, depth = size + inner, max(depth, below + 1)
        known[id(node)] = size, depth
    if size > MOST_NODES:
        raise UserError(f"more than {MOST_NODES:,} values, counting each use of an alias; make the document smaller")
    if level + depth > MOST_LEVELS:
        raise UserError(f"the YAML is nested more than {MOST_LEVELS} levels deep; make it flatter")
    return size, depth
