"""The parts of pages that come from the code: a comment in a page, such as those below, becomes the API or a table.

<!-- api: orthogan.weights -->              every public object of a module
<!-- api: orthogan.models.open load -->     or the named ones
<!-- registry: orthogan.weights:CONSTRAINTS -->
<!-- config -->                             every key of a config
<!-- cli -->                                every command
"""

from __future__ import annotations

import argparse
import functools
import importlib
import inspect
import re
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, Literal, get_args, get_origin

import yaml

from orthogan.cli.parser import parsers
from orthogan.config.base import KindOf, OpenSection, Section, marker_of, section_class
from orthogan.config.schema import Config
from orthogan.registry import Registry

PLACE = re.compile(r"^<!-- (api|registry|config|cli)(?:: (.*?))? -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Write out the comments of a page."""
    return PLACE.sub(lambda place: "\n".join(MAKERS[place[1]](*(place[2] or "").split())), markdown)


def api(module: str, *names: str) -> Iterator[str]:
    """A summary of the public objects of a module, and then each with its whole docstring."""
    found = importlib.import_module(module)
    objects = {name: getattr(found, name) for name in names or found.__all__}
    told = {name: thing for name, thing in objects.items() if inspect.isclass(thing) or inspect.isroutine(thing)}
    homes = {name: home(module, name, thing) for name, thing in told.items()}
    yield from ("| name | what it is |", "|---|---|")
    for name, thing in told.items():
        yield f"| [`{name}`][{homes[name]}] | {cell(first_sentence(thing))} |"
    for path in homes.values():
        yield f"\n::: {path}"


def home(module: str, name: str, thing: Any) -> str:
    """Where mkdocstrings finds an object: a function may have the name of the file it is in."""
    submodule = thing.__module__ != module and find_spec(f"{module}.{name}")
    return f"{thing.__module__}.{name}" if submodule else f"{module}.{name}"


def registry(place: str) -> Iterator[str]:
    """The names in a registry, what each is, and its options."""
    module, name = place.split(":")
    found: Registry[Any] = getattr(importlib.import_module(module), name)
    other: dict[str, list[str]] = {}
    for alias, thing in found._aliases.items():
        other.setdefault(thing, []).append(alias)
    rows = [(key, *(about(thing) if key != "none" else ("Nothing is done.", []))) for key, thing in found.items()]
    optional = any(options for _, _, options in rows)
    yield "| name | what it is |" + " options |" * optional
    yield "|---|---|" + "---|" * optional
    for key, what, options in rows:
        also = f" (also {', '.join(f'`{alias}`' for alias in other[key])})" if key in other else ""
        row = f"| `{key}`{also} | {cell(what)} |"
        yield row + (f" {'<br>'.join(cell(one) for one in options)} |" if optional else "")


def about(thing: Any) -> tuple[str, list[str]]:
    """What a registered thing is, in one sentence, and its options with their defaults."""
    section: Any = thing if inspect.isclass(thing) and issubclass(thing, Section) else None
    section = section or getattr(thing, "section", None) or getattr(thing, "config", None)
    if inspect.isclass(section) and issubclass(section, Section):
        base = [Section, *(one for one in section.__mro__[1:] if "kind" in getattr(one, "model_fields", {}))][-1]
        own = {name: field for name, field in section.model_fields.items() if name not in base.model_fields}
        options = [f"`{name}{value(field)}` {field.description or ''}".strip() for name, field in own.items()]
        return first_sentence(getattr(thing, "function", thing)), options
    if isinstance(thing, functools.partial):
        keywords = ", ".join(f"{key}={value!r}" for key, value in thing.keywords.items())
        positional = ", ".join(map(repr, thing.args))
        return f"{thing.func.__name__}({', '.join(filter(None, (positional, keywords)))})", []
    function = getattr(thing, "function", thing)
    if not (inspect.isclass(function) or inspect.isroutine(function)):
        if summary := getattr(thing, "title", "") or getattr(thing, "about", ""):
            return summary, []
        return first_sentence(type(thing)), []
    if inspect.isclass(function):
        return first_sentence(function), []
    return first_sentence(function), [
        f"`{name}={value.default!r}`"
        for name, value in inspect.signature(function).parameters.items()
        if value.kind is value.KEYWORD_ONLY and value.default is not value.empty
    ]


def config() -> Iterator[str]:
    """A table for each section of a config."""
    done: set[type[Section]] = set()

    def tables(section: type[Section], prefix: str) -> Iterator[str]:
        inner = []
        plain = {}
        for name, field in section.model_fields.items():
            marker = marker_of(field.rebuild_annotation(), OpenSection)
            below = section_class(field.annotation)
            if below is not None and marker is None:
                inner.append((below, f"{prefix}{name}."))
            else:
                plain[name] = field, marker
        if plain:
            same = section in done
            done.add(section)
            title = f"`{prefix[:-1]}`" if prefix else "The run"
            yield f"\n## {title} {{ #{prefix.rstrip('.').replace('.', '-') or 'run'} }}\n"
            if same:
                yield "The keys are those of the table above that has the same names."
            yield from ("| key | default | values | meaning |", "|---|---|---|---|")
            for name, (field, marker) in plain.items():
                usual = f"`{default(field)}`" if marker is None else f"`kind: {getattr(field.default, 'kind', None)}`"
                usual = "none" if marker is not None and field.default == [] else usual
                values = f"each kind has its own keys: [{marker.registry.what}s](registries.md)" if marker else ""
                what = (field.description or "") if marker is None else f"{marker.registry.what}: its kind and options"
                yield f"| `{prefix}{name}` | {usual} | {values or allowed(field)} | {cell(what)} |"
        for one, place in inner:
            yield from tables(one, place)

    yield from tables(Config, "")


def allowed(field: Any) -> str:
    """What a key takes, in words."""
    named: KindOf | None = marker_of(field.rebuild_annotation(), KindOf)
    if named is not None:
        return f"a [{named.registry.what}](registries.md)"
    annotation = field.annotation
    words = {int: "integer", float: "number", bool: "true or false", str: "text", type(None): "null"}

    def spelled(one: Any) -> Iterator[str]:
        if get_origin(one) is Literal:
            yield from (f"`{str(choice).lower() if isinstance(choice, bool) else choice}`" for choice in get_args(one))
        elif get_origin(one) is list:
            yield f"list of {' or '.join(spelled(get_args(one)[0]))}"
        elif get_origin(one) is dict or one is dict:
            yield "mapping"
        elif one in words:
            yield words[one]
        else:
            for inner in get_args(one)[:1] if hasattr(one, "__metadata__") else get_args(one):
                yield from spelled(inner)

    bounds = {key: getattr(one, key) for one in field.metadata for key in ("ge", "gt", "le", "lt") if hasattr(one, key)}
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    kept = [f"{signs[key]} {value:g}" for key, value in bounds.items() if abs(value) < 1e6]
    return ", ".join(dict.fromkeys(spelled(annotation))) + (f", {', '.join(kept)}" if kept else "")


def cli() -> Iterator[str]:
    """Each command with its arguments, as ``orthogan COMMAND --help`` prints them."""
    for name, parser in parsers().items():
        yield f"\n## orthogan {name} {{ #{name} }}\n\n{parser.description}\n"
        yield f"```bash\n{(parser.epilog or '').removeprefix('Example: ').strip()}\n```\n"
        parser.format_help()  # fills in the names of the registries
        yield from ("| argument | meaning |", "|---|---|")
        for action in parser._actions:
            if action.help and action.help != argparse.SUPPRESS and "--help" not in action.option_strings:
                yield f"| {argument(action)} | {cell(action.help % vars(action))} |"


def argument(action: argparse.Action) -> str:
    """An option with its value, or a positional argument, as code."""
    value = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    if action.choices and not isinstance(action.metavar, str):
        value = "{" + ",".join(map(str, action.choices)) + "}"
    if not action.option_strings:
        repeated = " …" if action.nargs in ("+", "*") else ""
        return f"`{value}{repeated}`"
    return f"`{action.option_strings[-1]}{'' if action.nargs == 0 else f' {value}'}`"


def default(field: Any) -> str:
    """The default of a key, as YAML spells it."""
    if field.is_required():
        return ""
    return yaml.safe_dump(field.default, default_flow_style=True, width=10**6).removesuffix("...\n").strip()


def value(field: Any) -> str:
    """``=DEFAULT``, or nothing where the option must be given."""
    return "" if field.is_required() else f"={default(field)}"


def first_sentence(thing: Any) -> str:
    """The first paragraph of a docstring, on one line."""
    doc = inspect.getdoc(thing) or ""
    return " ".join(doc.split("\n\n")[0].split())


def cell(text: str) -> str:
    """``text`` within a table: no column ends in it, and double backquotes are code, as in Markdown."""
    parts = re.split(r"(``[^`]+``|`[^`]+`)", text.replace("|", "\\|").replace("\n", " "))
    return "".join(re.sub("``+", "`", part) if part[:1] == "`" else escaped(part) for part in parts)


def escaped(text: str) -> str:
    """``text`` of a terminal as Markdown."""
    return re.sub(r"([*_<>])", r"\\\1", text)


MAKERS: dict[str, Any] = {"api": api, "registry": registry, "config": config, "cli": cli}
