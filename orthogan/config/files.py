"""YAML files, ``base:`` and dotted overrides -> a Config; what is wrong in them -> one UserError."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from orthogan.config.base import KindOf, OpenSection, Section, code_in, literals, marker_of, section_class
from orthogan.config.read import read_chain
from orthogan.config.schema import Config, only_of, other_task
from orthogan.errors import UserError
from orthogan.io.read import printable, shown
from orthogan.io.terminal import shell_word
from orthogan.io.yaml_text import parse_yaml
from orthogan.named_code import Trust, require_trust
from orthogan.registry import did_you_mean

Overrides = Iterable[str | Mapping[str, Any]] | Mapping[str, Any] | str
MOST_MISTAKES = 10  # that one message names
_WORD = re.compile(r"""\s*(?:"[^"]*"|'[^']*')\s*(?=,|$)|[^,]+""")  # of a list: quotes protect commas
RUN_MARKS = ("checkpoints", "log.jsonl", "metrics.jsonl", "best")  # what lies beside the config.yaml of a run


def load_config(path: str | Path | None, overrides: Overrides = (), *, trust: Trust = False, only: str = "") -> Config:
    """The config of ``path`` (None: all defaults; also the name of a shipped one) with overrides, checked whole.

    Args:
        overrides: ``"key.sub=value"`` as on the command line, or ``{"key.sub": value}``; one, or several in order.
        trust: which ``module:Class`` the ``config.yaml`` of a run folder may name, which somebody else may have
            written. What a YAML file of the user's own or an override names is taken.
        only: the section that will be used, such as ``data``, or ``none``; the code that others name is not imported.

    Raises:
        UserError: naming the file, the key, the value and what would be right.

    Example:
        >>> import orthogan
        >>> config = orthogan.load_config(None, ["seed=3", "data.source=sprites", "data.channels=1"])
        >>> config.seed, config.data.source
        (3, 'sprites')
    """
    config, origin, runs = _load(path, overrides)
    _refuse_unused(config, origin)
    own, foreign = (
        {key: named for key, named in code.items() if not only or key.startswith(f"{only}.")}
        for code in _by_owner(config, origin, runs)
    )
    for file in dict.fromkeys(_origin_of(key, origin) for key in foreign):
        code = {key: named for key, named in foreign.items() if _origin_of(key, origin) == file}
        require_trust(code, file, trust or {name for name, _ in own.values()})
    if (own or foreign) and not only:  # the options of sections whose kind is the user's own
        config = validate(config.model_dump(), origin, default_origin=str(path or "defaults"), resolve=True)
    return config


def _refuse_unused(config: Config, origin: Mapping[str, str]) -> None:
    """Refuse an override of a key that has no effect, unless another override turned its section off."""
    for dotted, where in origin.items():
        place, _, name = dotted.rpartition(".")
        section: Any = config
        for part in place.split(".") if place else ():
            section = getattr(section, part, None)
        if not where.startswith("override ") or not isinstance(section, Section):
            continue
        switch, keys = section.unused()
        value, usual = getattr(section, name, None), type(section).model_fields.get(name)
        if name in keys and usual and value != usual.default and not _set_by_override(f"{place}.{switch}", origin):
            off = shown(getattr(section, switch))
            raise UserError(f"{where}: {dotted} has no effect while {place}.{switch} is {off}; set both, or omit it")


def _set_by_override(key: str, origin: Mapping[str, str]) -> bool:
    return origin.get(key, "").startswith("override ")


def own_names(path: str | Path | None) -> set[str]:
    """The ``module:Class`` names in a YAML file of the user's own; nothing for other files and for run folders'."""
    if path is None or not str(path).endswith((".yaml", ".yml")):
        return set()
    return {name for name, _ in _by_owner(*_load(path, ()))[0].values()}


def _by_owner(
    config: Config, origin: Mapping[str, str], runs: Collection[str]
) -> tuple[dict[str, tuple[str, dict[str, Any]]], dict[str, tuple[str, dict[str, Any]]]]:
    """The code that ``config`` names, as of ``code_in``: by the user, and by the files of run folders (``runs``)."""
    code = code_in(config)
    foreign = {key: named for key, named in code.items() if _origin_of(key, origin) in runs}
    return {key: named for key, named in code.items() if key not in foreign}, foreign


def listed(overrides: Overrides) -> list[Any]:
    """Return overrides, of which a single one need not be in a list, as a list."""
    return [overrides] if isinstance(overrides, str | Mapping) else list(overrides)


def of_a_run(file: Path) -> bool:
    """Whether ``file``, or what it is a link to, is the ``config.yaml`` that training writes into its run folder."""
    return any(
        path.name == "config.yaml" and any(os.path.lexists(path.with_name(name)) for name in RUN_MARKS)
        for path in (file, Path(os.path.realpath(file)))
    )


def check_run_folder(path: str | Path | None, overrides: Overrides, config: Config) -> None:
    """Raise ``UserError`` if ``config`` was read from a run in another folder than its ``out``, which nobody chose.

    ``path`` and ``overrides`` are those of ``load_config``. Without this check, a run that was moved would begin again
    at its old place.
    """
    chosen = any("out" in one if isinstance(one, Mapping) else str(one).startswith("out=") for one in listed(overrides))
    if path is None or chosen or not of_a_run(file := Path(path)):
        return
    if Path(str(config.out)).resolve() != file.resolve().parent:
        raise UserError(
            f"{printable(file)}: the run in {printable(file.parent)} was moved, or started in another folder: its "
            f"config says out: {printable(config.out)}. Add out={printable(shell_word(file.parent))} to resume it, or "
            "out=FOLDER for a new run"
        )


def _load(
    path: str | Path | None, overrides: Iterable[str | Mapping[str, Any]] | Mapping[str, Any] | str
) -> tuple[Config, dict[str, str], set[str]]:
    """The config, for each dotted key which file or override set it, and which of the files are those of runs.

    What the ``config.yaml`` of a run builds on is also the run's.
    """
    tree: dict[str, Any] = {}
    origin: dict[str, str] = {}
    runs: set[str] = set()
    if path is not None:
        chain = read_chain(Path(path))
        path = chain[-1][0]
        for file, _ in reversed(chain):
            if runs or of_a_run(file):
                runs.add(str(file))
        for file, part in chain:
            _merge(tree, part, origin, str(file), "", Config)
    for override in listed(overrides):
        if isinstance(override, Mapping):
            for key, value in override.items():
                _merge(tree, _tree(key, value), origin, f"override {shown(f'{key}={value}')}", "", Config)
        else:
            _merge(tree, _override(override), origin, f"override {shown(override)}", "", Config)
    config = validate(tree, origin, default_origin=str(path or "defaults"))
    if config.out is None:
        config = config.model_copy(update={"out": _default_out(path)})
    return config, origin, runs


def validate(tree: dict[str, Any], origin: Mapping[str, str], default_origin: str, *, resolve: bool = False) -> Config:
    """``tree`` as a Config; ``origin`` says for each dotted key which file or override set it.

    Args:
        resolve: import the kinds of sections that the user names as ``module:Name``, to whom belong their options.
    """
    try:
        return Config.model_validate(tree, context={"resolve": resolve})
    except ValidationError as error:
        mistakes = error.errors(include_url=False)
        lines = [_explain(e, origin, default_origin, tree) for e in mistakes[:MOST_MISTAKES]]
        if len(mistakes) > MOST_MISTAKES:
            lines.append(f"{default_origin}: {len(mistakes) - MOST_MISTAKES:,} more mistakes like these")
        raise UserError("\n".join(lines)) from None


def dump(config: Config, *, explain: bool = False) -> str:
    """The complete config as YAML; with ``explain`` the keys of its task, each with its meaning and unit."""
    if not explain:
        tree = config.model_dump()
        if config.training.kimg is not None:
            del tree["training"]["steps"]  # it follows
        text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
        # PyYAML writes this line break as it is, and reads it back as a space
        return text if "\x85" not in text else yaml.safe_dump(tree, sort_keys=False)
    return "\n".join(_explained(config, "", only_of(other_task(config.task)), set())) + "\n"


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'a': {'b': 1}} -> {'a.b': 1}; an empty mapping stays a value."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def command_word(value: Any) -> str:
    """Return a value of a config as it stands after ``key=`` on the command line, quoted for the shell if needed."""
    return shlex.quote(value if isinstance(value, str) else json.dumps(value))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line for each dotted key whose value differs: ``key: old -> new``."""
    a, b = flatten(old), flatten(new)
    keys = list(dict.fromkeys([*a, *b]))
    differ = [k for k in keys if a.get(k) != b.get(k) and repr(a.get(k)) != repr(b.get(k))]  # NaN is not equal to NaN
    return [f"{k}: {a.get(k, '(absent)')} -> {b.get(k, '(absent)')}" for k in differ]


def _override(text: str) -> dict[str, Any]:
    """``key.sub=value`` as a tree. The value of a key that holds text is taken as it stands, any other as YAML."""
    key, sign, value = text.partition("=")
    if not sign:
        raise UserError(f"override {shown(text)}: write key.subkey=value, for example training.batch_size=32")
    return _tree(key, _value(value, _annotation(key.split(".")), f"override {shown(text)}"))


def holds_list(key: str) -> bool:
    """Whether the value of a dotted key is a list."""
    return get_origin(_annotation(key.split("."))) is list


def _tree(key: str, value: Any) -> dict[str, Any]:
    if not re.fullmatch(r"\w+(\.[\w-]+){0,15}", key):
        raise UserError(f"override {shown(key)}: write key.subkey=value, for example training.batch_size=32")
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


def _value(text: str, annotation: Any, source: str) -> Any:
    if _is_text(annotation):
        return None if text in ("", "null") and type(None) in get_args(annotation) else text
    if get_origin(annotation) is list and _is_text(get_args(annotation)[0]):
        if text == "null":
            return None
        inner = text.strip()
        inner = inner[1:-1] if inner.startswith("[") and inner.endswith("]") else inner
        words = [match.group().strip() for match in _WORD.finditer(inner)]
        return [w[1:-1] if len(w) > 1 and w[0] == w[-1] and w[0] in "\"'" else w for w in words if w]
    return parse_yaml(text, source) if text else None


def _annotation(names: list[str]) -> Any:
    """The type of the key at this place of the schema; None where there is no such key."""
    sections: list[type[Section]] = [Config]
    annotation: Any = None
    for name in names:
        fields = [field for section in sections if (field := _field(section, name)) is not None]
        if not fields:
            return None
        annotation = fields[0].annotation
        sections = [section for field in fields for section in _sections(field)]
    return annotation


def _field(section: type[Section], name: str) -> FieldInfo | None:
    return section.model_fields.get(section.renamed.get(name, name))


def _sections(field: FieldInfo) -> list[type[Section]]:
    """The section classes that a key may hold: none, one, or one per kind."""
    marker: OpenSection | None = marker_of(field.rebuild_annotation(), OpenSection)
    if marker is not None:
        return [section_class(field.annotation) or Section, *(section for _, section in marker.kinds())]
    found = section_class(field.annotation)
    return [] if found is None else [found]


def _is_text(annotation: Any) -> bool:
    """Whether a value of this type is text (or null), whatever it looks like."""
    inner = get_args(annotation)
    if get_origin(annotation) is Annotated:
        return _is_text(inner[0])
    if get_origin(annotation) is Literal:
        return all(isinstance(choice, str) for choice in inner)
    if get_origin(annotation) in (Union, UnionType):
        return all(one is type(None) or _is_text(one) for one in inner)
    return annotation is str


def _merge(
    tree: dict[str, Any],
    part: Mapping[str, Any],
    origin: dict[str, str],
    name: str,
    prefix: str,
    section: type[Section] | None,
) -> None:
    """Put ``part``, which ``name`` holds, over ``tree``, a section or a part of one."""
    for group in () if section is None else section.exclusive:
        given = [key for key in group if part.get(key) is not None]
        if len(given) > 1:
            both = " and ".join(f"{prefix}{key}" for key in given)
            raise UserError(f"{printable(name)}: {both} set the same thing; remove one of them")
        if given:
            for key in group:
                tree.pop(key, None)
    if section is not None:
        _drop_other_options(tree, part, origin, prefix, section)
    for key, value in part.items():
        if section is not None and key in section.renamed:
            now = f"{prefix}{section.renamed[key]}"
            print(f"orthogan: {printable(name)}: {prefix}{key} was renamed to {now}", file=sys.stderr)
            key = section.renamed[key]
        nested = section is not None and key in section.flattened and isinstance(value, Mapping)
        if nested and key == part.get("kind", tree.get("kind")):
            here = prefix.removesuffix(".")
            print(f"orthogan: {printable(name)}: the options of {prefix}{key} were moved to {here}", file=sys.stderr)
            _merge(tree, value, origin, name, prefix, section)
            continue
        dotted = f"{prefix}{key}"
        origin[dotted] = name
        field = None if section is None else section.model_fields.get(key)
        below = None if field is None else section_class(field.annotation)
        if isinstance(value, Mapping):
            if not isinstance(tree.get(key), dict):
                tree[key] = {}
            elif field is not None and "kind" in value:
                _drop_options(tree[key], value["kind"], field)
            _merge(tree[key], value, origin, name, f"{dotted}.", below)
        else:
            tree[key] = value


def _drop_other_options(
    tree: dict[str, Any], part: Mapping[str, Any], origin: Mapping[str, str], prefix: str, section: type[Section]
) -> None:
    """Where ``part`` chooses another source or kind, take the options out of ``tree`` that it does not have.

    Only those of a file: a user who gives options on the command line is told that they do not belong there.
    """
    key = section.chooses_options
    options, choice = tree.get("options"), part.get(key)
    if not key or not isinstance(options, dict) or not isinstance(choice, str) or choice == tree.get(key):
        return
    with suppress(UserError):  # an unknown choice is refused later, by name
        if (known := section.option_names(choice)) is not None:
            for name in [name for name in options if name not in known]:
                if not _origin_of(f"{prefix}options.{name}", origin).startswith("override "):
                    del options[name]


def _drop_options(tree: dict[str, Any], kind: Any, field: FieldInfo) -> None:
    """Take the options out of ``tree``, the keys of an open section, that only the kind it had until now has."""
    marker: OpenSection | None = marker_of(field.rebuild_annotation(), OpenSection)
    known = {} if marker is None else dict(marker.kinds())
    if tree.get("kind") not in known or kind == tree["kind"]:
        return
    old, new = known[tree["kind"]], known.get(kind, section_class(field.annotation) or Section)
    for key in [key for key in tree if key in old.model_fields and key not in new.model_fields]:
        del tree[key]


# what pydantic adds to the place of an error in a value that may have several types
_TYPES = {"list", "tuple", "dict", "int", "float", "str", "bool", "none"}


def _explain(error: Any, origin: Mapping[str, str], default_origin: str, tree: Mapping[str, Any]) -> str:
    location = [str(part) for part in error["loc"]]
    unknown = error["type"] == "extra_forbidden"
    key = ".".join(part for part in location if unknown or not (part in _TYPES or "[" in part))
    # a section's own check starts its message with the key it is about
    message: str = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        inner, _, message = message.partition(": ")
        key = f"{key}.{inner}" if key else inner
    where = printable(_origin_of(key, origin) or default_origin)
    if error["type"] in ("model_type", "model_attributes_type", "dict_type"):
        message = "must be a mapping of keys to values" + "; remove the key to use its defaults" * (
            error["input"] is None
        )
    if unknown:
        return f"{where}: unknown key {shown(key)}{_nearest(location, tree)}"
    value = "" if error["type"] in ("value_error", "missing") else f" is {shown(error['input'])}:"
    quotes = "; put it in quotes" if error["type"] == "string_type" and error["input"] is not None else ""
    return f"{where}: {key}{value or ':'} {_lower(message)}{quotes}"


def _origin_of(key: str, origin: Mapping[str, str]) -> str:
    """Which file or override set ``key``, or the list or section that it is in; "" for a default."""
    return next((origin[k] for k in _ancestors(key) if k in origin), "")


def _ancestors(key: str) -> Iterator[str]:
    parts = key.split(".")
    for end in range(len(parts), 0, -1):
        yield ".".join(parts[:end])


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


def _nearest(location: list[str], tree: Any) -> str:
    """The closest valid key to a mistyped one: among its sisters first, then anywhere in the schema."""
    model: type[Section] = Config
    others: dict[str, type[Section]] = {}
    marker: OpenSection | None = None
    for part in location[:-1]:
        tree = tree[int(part)] if part.isdigit() else tree[part]
        if not part.isdigit():  # else a place in a list of sections
            field = model.model_fields[part]
            marker = marker_of(field.rebuild_annotation(), OpenSection)
            model = section_class(field.annotation) or Section
        if marker is not None and isinstance(tree, Mapping):
            others = dict(marker.kinds())
            model = marker.of(tree.get("kind", model.model_fields["kind"].default))
    prefix = "".join(f"{part}." for part in location[:-1])
    if hint := did_you_mean(location[-1], model.model_fields, prefix):
        return hint
    if kinds := [kind for kind, section in others.items() if location[-1] in section.model_fields]:
        return f"; it is an option of kind {' or '.join(map(repr, kinds))}"
    elsewhere = [k for k in all_keys() if k.rsplit(".", 1)[-1] == location[-1]]
    if elsewhere:
        return f"; did you mean {' or '.join(map(repr, elsewhere))}?"
    return f"; valid here: {', '.join(model.model_fields)}"


@cache
def all_keys() -> list[str]:
    """Every dotted key of a default config."""
    return list(flatten(Config().model_dump()))


def _explained(section: BaseModel, prefix: str, others: Collection[str], said: set[str]) -> Iterator[str]:
    """The lines of ``section``, without the keys of ``others``, which another task alone has.

    ``said``: the registries whose kinds have been explained.
    """
    pad = "  " * prefix.count(".")
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if f"{prefix}{name}" in others:
            continue
        annotation = field.rebuild_annotation()
        if isinstance(value, BaseModel):
            yield f"{pad}{name}:"
            yield from _explained(value, f"{prefix}{name}.", others, said)
        else:
            plain = section.model_dump(include={name})
            text = yaml.safe_dump(plain, default_flow_style=True, allow_unicode=True, width=10**6, sort_keys=False)
            named: KindOf | None = marker_of(annotation, KindOf)
            known = f" [{' | '.join(choices)}]" if (choices := literals(annotation)) else ""
            known = known if named is None else f": {', '.join(named.registry)}, or module:Name"
            yield f"{pad}{text.strip()[1:-1]}" + (f"  # {field.description}{known}" if field.description else "")
        if (marker := marker_of(annotation, OpenSection)) is not None:
            yield from _kinds(marker, f"{pad}  # ", said)


def _kinds(marker: OpenSection, pad: str, said: set[str]) -> Iterator[str]:
    """The kinds of an open section with their own options, as comments; once for each registry."""
    what = marker.registry.what
    if what in said:
        yield f"{pad}each kind of {what} has the options listed above"
        return
    said.add(what)
    for kind, section in marker.kinds():
        own = [name for name in section.model_fields if name not in marker.base.model_fields]
        yield f"{pad}kind: {kind}" + ("" if own else " (no options)")
        for name in own:
            field = section.model_fields[name]
            default = "required" if field.is_required() else yaml.safe_dump(field.default).split("\n")[0]
            known = f" [{' | '.join(choices)}]" if (choices := literals(field.rebuild_annotation())) else ""
            yield f"{pad}  {name}: {default}" + (f"  {field.description}{known}" if field.description else "")
    yield f"{pad}kind: module:Name for your own"


def _default_out(path: str | Path | None) -> str:
    """``configs/cifar10/sngan.yaml`` -> ``runs/cifar10/sngan``."""
    if path is None:
        return "runs/default"
    parts = Path(path).with_suffix("").parts
    tail = parts[parts.index("configs") + 1 :] if "configs" in parts else parts[-1:]
    return str(Path("runs", *tail))
