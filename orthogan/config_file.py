"""YAML files, ``base:`` and dotted overrides -> a Config; what is wrong in them -> one UserError."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from orthogan.config import Config
from orthogan.errors import UserError


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice and reads 2e-4 as a number, as YAML 1.2 does."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    seen: set[str] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if key in seen:
            raise UserError(f"{key_node.start_mark.name}, line {key_node.start_mark.line + 1}: {key!r} is given twice")
        seen.add(key)
    return {str(key): value for key, value in loader.construct_mapping(node, deep=True).items()}


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d[\d_]*)(?:\.[\d_]*)?[eE][-+]?\d+$"),
    list("-+0123456789"),
)


def load_config(path: str | Path | None, overrides: Iterable[str] = ()) -> Config:
    """The config of ``path`` (None: all defaults) with ``key.sub=value`` overrides, checked whole.

    Raises:
        UserError: naming the file, the key, the value and what would be right.
    """
    tree: dict[str, Any] = {}
    origin: dict[str, str] = {}
    if path is not None:
        for file, part in _chain(Path(path), ()):
            _merge(tree, part, origin, str(file), "")
    for text in overrides:
        _merge(tree, _override(text), origin, f"override {text!r}", "")
    config = validate(tree, origin, default_origin=str(path or "defaults"))
    if config.out is None:
        config = config.model_copy(update={"out": _default_out(path)})
    return config


def validate(tree: dict[str, Any], origin: Mapping[str, str], default_origin: str) -> Config:
    """``tree`` as a Config; ``origin`` says for each dotted key which file or override set it."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(e, origin, default_origin) for e in error.errors()]
        raise UserError("\n".join(lines)) from None


def dump(config: Config, *, explain: bool = False) -> str:
    """The complete config as YAML; with ``explain`` every key carries its meaning and unit as a comment."""
    if not explain:
        return yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True)
    return "\n".join(_explained(config, 0)) + "\n"


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'a': {'b': 1}} -> {'a.b': 1}; an empty mapping stays a value."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line for each dotted key whose value differs: ``key: old -> new``."""
    a, b = flatten(old), flatten(new)
    keys = list(dict.fromkeys([*a, *b]))
    return [f"{k}: {a.get(k, '(absent)')} -> {b.get(k, '(absent)')}" for k in keys if a.get(k) != b.get(k)]


def _chain(path: Path, seen: tuple[Path, ...]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The files that ``path`` builds on, ground first, each without its ``base`` key."""
    if path.resolve() in seen:
        raise UserError(f"{path}: 'base' comes back to {path}; a config cannot build on itself")
    tree = read_yaml(path)
    base = tree.pop("base", None)
    if base is not None:
        if not isinstance(base, str):
            raise UserError(f"{path}: base must be the path of another YAML file, not {base!r}")
        parent = path.parent / base
        if not parent.is_file():
            raise UserError(f"{path}: base names {base!r}, but there is no file {parent}")
        yield from _chain(parent, (*seen, path.resolve()))
    yield path, tree


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping; UserError with file and line when it is not one."""
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.yaml")], 1)
        raise UserError(f"{path}: no such config file" + (f"; did you mean {path.parent / near[0]}?" if near else ""))
    try:
        with path.open(encoding="utf-8") as stream:
            tree = yaml.load(stream, _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as YAML: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"{path}: a config is a mapping of keys to values, not a {type(tree).__name__}")
    return tree


def _override(text: str) -> dict[str, Any]:
    key, sign, value = text.partition("=")
    if not sign or not re.fullmatch(r"\w+(\.[\w-]+)*", key):
        raise UserError(f"override {text!r}: write key.subkey=value, for example training.batch_size=32")
    try:
        part: Any = yaml.load(value, _Loader) if value else None
    except yaml.YAMLError:
        part = value
    for name in reversed(key.split(".")):
        part = {name: part}
    return part


def _merge(tree: dict[str, Any], part: Mapping[str, Any], origin: dict[str, str], name: str, prefix: str) -> None:
    for key, value in part.items():
        dotted = f"{prefix}{key}"
        origin[dotted] = name
        if isinstance(value, Mapping) and isinstance(tree.get(key), dict):
            _merge(tree[key], value, origin, name, f"{dotted}.")
        elif isinstance(value, Mapping):
            tree[key] = {}
            _merge(tree[key], value, origin, name, f"{dotted}.")
        else:
            tree[key] = value


def _explain(error: Any, origin: Mapping[str, str], default_origin: str) -> str:
    location = [str(part) for part in error["loc"]]
    key = ".".join(location)
    # a section's own check starts its message with the key it is about
    message: str = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        inner, _, message = message.partition(": ")
        key = f"{key}.{inner}" if key else inner
    where = next((origin[k] for k in _ancestors(key) if k in origin), default_origin)
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key {key!r}{_nearest(location)}"
    value = "" if error["type"] in ("value_error", "missing") else f" is {error['input']!r}:"
    return f"{where}: {key}{value or ':'} {_lower(message)}"


def _ancestors(key: str) -> Iterator[str]:
    parts = key.split(".")
    for end in range(len(parts), 0, -1):
        yield ".".join(parts[:end])


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


def _nearest(location: list[str]) -> str:
    """The closest valid key to a mistyped one: among its sisters first, then anywhere in the schema."""
    model: type[BaseModel] = Config
    for part in location[:-1]:
        if part.isdigit():  # a place in a list of sections
            continue
        inner = _section(model.model_fields[part].annotation) if part in model.model_fields else None
        if inner is None:
            break
        model = inner
    prefix = ".".join(location[:-1])
    sisters = difflib.get_close_matches(location[-1], list(model.model_fields), 1, 0.6)
    if sisters:
        return f"; did you mean {prefix + '.' if prefix else ''}{sisters[0]}?"
    elsewhere = [k for k in flatten(Config().model_dump()) if k.rsplit(".", 1)[-1] == location[-1]]
    if elsewhere:
        return f"; did you mean {' or '.join(elsewhere)}?"
    return f"; valid here: {', '.join(model.model_fields)}"


def _section(annotation: Any) -> type[BaseModel] | None:
    for candidate in (annotation, *get_args(annotation)):
        if get_origin(candidate) is None and isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _explained(section: BaseModel, indent: int) -> Iterator[str]:
    pad = "  " * indent
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield f"{pad}{name}:"
            yield from _explained(value, indent + 1)
        else:
            plain = section.model_dump(include={name})
            text = yaml.safe_dump(plain, default_flow_style=True, allow_unicode=True, width=10**6)
            yield f"{pad}{text.strip()[1:-1]}" + (f"  # {field.description}" if field.description else "")


def _default_out(path: str | Path | None) -> str:
    """``configs/cifar10/sngan.yaml`` -> ``runs/cifar10/sngan``."""
    if path is None:
        return "runs/default"
    parts = Path(path).with_suffix("").parts
    tail = parts[parts.index("configs") + 1 :] if "configs" in parts else parts[-1:]
    return str(Path("runs", *tail))
