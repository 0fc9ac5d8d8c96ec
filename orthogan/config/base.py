"""What the sections of a config share.

Each room declares its own sections beside its code:

    class EmaConfig(Section):
        renamed: ClassVar = {"half_time": "half_life"}            # the old key is still read
        half_life: Count = Field(default=20_000, description="of G's weight average [images]")

A key that names something in a registry takes a registered name or the user's ``module:Name``:

    metrics: list[Annotated[str, KindOf(METRICS)]] = Field(default=["fid"], description="what to measure")

A section whose ``kind`` chooses its class, so that each kind has its own keys:

    class ConstraintConfig(Section):                              # keys of every kind
        kind: str = Field(default="none", description="…")

    CONSTRAINTS = Registry("constraint", "orthogan.weights")

    @CONSTRAINTS.register("stable_rank")
    class StableRank(ConstraintConfig):                           # the keys of this kind
        kind: str = "stable_rank"
        c: Share = Field(default=0.7, description="…")

    norm: Annotated[ConstraintConfig, OpenSection(CONSTRAINTS)] = ConstraintConfig()

Reading a config imports no ``module:Name``: such a section holds its keys as they are until ``resolved`` returns
the real one, after the user has consented.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    JsonValue,
    ValidationError,
    ValidationInfo,
    create_model,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from orthogan.errors import UserError
from orthogan.registry import Registry

# Upper bounds are far beyond any use. They keep a typing error from filling the memory or running forever, and every
# number within float32.
Count = Annotated[int, Field(ge=0, le=10**9)]
PositiveInt = Annotated[int, Field(ge=1, le=10**9)]
Iterations = Annotated[int, Field(ge=1, le=1000)]
Width = Annotated[int, Field(ge=1, le=1 << 16)]
BatchSize = Annotated[int, Field(ge=1, le=1 << 20)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Share = Annotated[float, Field(gt=0.0, le=1.0)]
Decay = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0, le=1e30)]
NotNegative = Annotated[float, Field(ge=0.0, le=1e30)]
Place = Annotated[str, AfterValidator(lambda path: _not_empty(path))]  # the path of a file or folder
Layers = Annotated[list[str], Field(max_length=1000)]
Options = dict[str, JsonValue]
SectionType = TypeVar("SectionType", bound="Section")
PLAIN = (bool, int, float, str, NoneType)  # types that YAML has


def _not_empty(path: str) -> str:
    if not path.strip():
        raise PydanticCustomError("empty_path", "expected a path; the current folder is '.'")
    return path


class Section(BaseModel):
    """Unknown keys and silent conversions are errors; a config never changes after it was read."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
    renamed: ClassVar[Mapping[str, str]] = {}  # old key -> new key
    only_for: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # task -> keys that no other task has
    task_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {}  # task -> {key: its default, where it is another one}
    exclusive: ClassVar[tuple[tuple[str, ...], ...]] = ()  # keys of which the one that is set last counts
    chooses_options: ClassVar[str] = ""  # the key to which the keys in ``options`` belong
    of_all_kinds: ClassVar[Mapping[str, Any]] = {}  # {option: default} that version 0.1 listed for every kind
    added_later: ClassVar[Collection[str]] = ()  # those of them that its first configs did not have
    flattened: ClassVar[tuple[str, ...]] = ()  # kinds whose options stood in a section of their own in version 0.1

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        above = [one.model_fields for one in cls.__mro__[1:] if issubclass(one, Section)]
        for name, field in cls.model_fields.items():  # who changes a default need not describe the key again
            if field.description is None:
                field.description = next((fields[name].description for fields in above if name in fields), None)

    @classmethod
    def read_old_keys(cls, tree: dict[str, Any]) -> dict[str, Any]:
        """``tree``, which may be of an older version, with the keys of today."""
        for old, new in cls.renamed.items():
            if old in tree:
                if new in tree:
                    raise ValueError(f"{old}: this is the old name of {new}, and both are set; remove {old}")
                tree = {new if key == old else key: value for key, value in tree.items()}
        if "of_all_kinds" in vars(cls) and cls.of_all_kinds and tree.get("kind", "") != "none":
            return tree  # it is read again by the class of its kind
        if not cls.of_all_kinds or cls.model_config.get("extra") == "allow":  # the options are not known yet
            return tree
        if not cls.of_all_kinds.keys() - set(cls.added_later) <= tree.keys():  # not written by that version: the user's
            return tree
        old = {key: default for key, default in cls.of_all_kinds.items() if key not in cls.model_fields}
        return {key: value for key, value in tree.items() if key not in old or value != old[key]}

    @classmethod
    def option_names(cls, choice: str) -> Collection[str] | None:
        """Return the keys that ``options`` may have for this value of ``chooses_options``; None: not known.

        Raises:
            UserError: there is no such value.
        """
        return None

    def unused(self) -> tuple[str, Collection[str]]:
        """Return the key that turns this section off, and the keys that have no effect then; none if it is on."""
        return "", ()

    def check_run(self, config: Any) -> None:
        """Refuse what does not go together with other sections of ``config``, of which this is one.

        Raises:
            ValueError: its message starts with the key.
        """

    @model_validator(mode="before")
    @classmethod
    def _read_old_keys(cls, tree: Any) -> Any:
        return cls.read_old_keys(dict(tree)) if isinstance(tree, Mapping) else tree


class MayNameCode:
    """Marks a key that holds text which may be the user's ``module:Name``."""


class KindOf(MayNameCode):
    """Marks a key that takes the name of something in ``registry``, or ``module:Name``; aliases become the name."""

    def __init__(self, registry: Registry[Any]) -> None:
        self.registry = registry

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self._known, handler(source))

    def _known(self, name: str) -> str:
        return name if ":" in name else _look_up(lambda: self.registry.name_of(name))


class OpenSection:
    """Marks a section whose ``kind`` chooses one of the section classes that ``section_of`` finds in ``registry``.

    Args:
        section_of: a registered thing -> its section class; by default the thing is that class.
    """

    def __init__(self, registry: Registry[Any], section_of: Callable[[Any], type[Section]] = lambda kind: kind) -> None:
        self.registry, self.section_of = registry, section_of
        self.base: type[Section] = Section

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        self.base = source
        return core_schema.with_info_wrap_validator_function(
            self._read, handler(source), serialization=core_schema.simple_ser_schema("any")
        )

    def of(self, kind: str) -> type[Section]:
        """The section class of a kind, which is imported where it is ``module:Name``. Raises ``UserError``."""
        return self.section_of(self.registry.get(kind))

    def kinds(self) -> Iterator[tuple[str, type[Section]]]:
        """(name, section class) of the registered kinds."""
        return ((name, self.section_of(thing)) for name, thing in self.registry.items())

    def resolved(self, section: SectionType) -> SectionType:
        """``section`` in the class of its kind, which is imported where the user names it as ``module:Name``.

        Raises:
            UserError: it cannot be imported, or has other keys.
        """
        kind: str = getattr(section, "kind")  # noqa: B009
        if ":" not in kind or not isinstance(section, _unread(self.base)):
            return section
        try:
            return self.of(kind).model_validate(section.model_dump())  # pyright: ignore[reportReturnType]
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise UserError(f"{kind}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None

    def _read(self, value: Any, handler: Callable[[Any], Any], info: ValidationInfo) -> Any:
        if not isinstance(value, Mapping):
            return handler(value)
        tree = self.base.read_old_keys(dict(value))
        field = self.base.model_fields["kind"]
        kind = tree.get("kind", field.default)
        if not isinstance(kind, str):
            return handler(tree)
        if ":" in kind and not (info.context or {}).get("resolve"):
            return _unread(self.base).model_validate(tree)
        try:
            name = _look_up(lambda: self.registry.name_of(kind))
        except PydanticCustomError as error:
            details = InitErrorDetails(type=error, loc=("kind",), input=kind)
            raise ValidationError.from_exception_data(self.base.__name__, [details]) from None
        return _look_up(lambda: self.of(kind)).model_validate({**tree, "kind": name}, context=info.context)


@cache
def _unread(base: type[Section]) -> type[Section]:
    """A section with the keys of ``base`` and any others, of a kind that must not be imported yet."""
    return type(base.__name__, (base,), {"model_config": ConfigDict(extra="allow"), "__module__": base.__module__})


def _look_up(find: Callable[[], Any]) -> Any:
    try:
        return find()
    except UserError as error:
        raise PydanticCustomError("unknown_name", "{reason}", {"reason": str(error)}) from error


def section_of_options(function: Callable[..., Any], base: type[SectionType], *without: str) -> type[SectionType]:
    """A section with the keys of ``base`` and the keyword arguments of ``function`` as its own keys.

    Types, bounds, and descriptions are those of the annotations, such as
    ``k: Annotated[int, Field(ge=1, description="vectors")] = 2``. YAML has no tuples and no tensors, so tuples and
    sequences are lists, and an argument that takes numbers or tensors takes numbers. An argument of a type that is not
    known, or that YAML does not have, is not checked. One whose default is no YAML value, such as ``torch.float32``, is
    no key.

    Args:
        without: arguments that are no options.

    Raises:
        TypeError: an argument has the name of something that ``base`` has.
    """
    hints = hints_of(function)
    fields: dict[str, Any] = {}
    for name, one in inspect.signature(function).parameters.items():
        if name in without or one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            continue
        if name in base.model_fields or hasattr(base, name):
            raise TypeError(f"its option {name!r} has a reserved name; rename it")
        required = one.default is inspect.Parameter.empty
        default = ... if required else _as_list(one.default)
        if required or _in_yaml(default):
            fields[name] = (_type_in_yaml(hints.get(name, Any)), default)
    return create_model(base.__name__, __base__=base, __module__=base.__module__, **fields)


def _as_list(value: Any) -> Any:
    return [_as_list(one) for one in value] if isinstance(value, tuple) else value


def _in_yaml(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_in_yaml, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _in_yaml(one) for key, one in value.items())
    return type(value) in PLAIN


def _never_in_yaml(hint: Any) -> bool:
    return isinstance(hint, type) and not any(issubclass(one, hint) for one in (*PLAIN, list, dict))


def _type_in_yaml(hint: Any) -> Any:
    """``hint`` as values read from YAML have it; ``Any`` where there is no such type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in PLAIN or hint is None or origin is Literal:
        return hint
    if origin is Annotated:
        return Annotated[(_type_in_yaml(arguments[0]), *hint.__metadata__)]
    if origin in (Union, UnionType):
        known = [_type_in_yaml(one) for one in arguments if not _never_in_yaml(one)]
        return Union[tuple(known)] if known else Any  # noqa: UP007  # its types are not known here
    if origin is tuple and len(set(arguments) - {...}) == 1:
        size = None if ... in arguments else len(arguments)
        return Annotated[list[_type_in_yaml(arguments[0])], Field(min_length=size, max_length=size)]
    if origin in (list, Sequence):
        return list[_type_in_yaml(arguments[0])]
    if origin is dict:
        return dict[str, _type_in_yaml(arguments[1])] if arguments[0] is str else Any
    return hint if hint in (list, dict, JsonValue) or section_class(hint) is hint else Any


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The types of the arguments of ``function``; none of them if one cannot be resolved, such as an import for typing.

    Example:
        >>> from orthogan.config.base import hints_of
        >>> def good(weight: "float"): ...
        >>> def bad(weight: "float", image: "Missing"): ...
        >>> hints_of(good), hints_of(bad)
        ({'weight': <class 'float'>}, {})
    """
    try:
        return get_type_hints(function, include_extras=True)
    except Exception:  # evaluating annotations runs the user's own text
        return {}


def marker_of(annotation: Any, kind: type[SectionType] | type[Any]) -> Any:
    """The instance of ``kind`` in the metadata of an annotation, however deep; None where there is none."""
    if get_origin(annotation) is Annotated:
        found = next((one for one in annotation.__metadata__ if isinstance(one, kind)), None)
        if found is not None:
            return found
    return next((found for one in get_args(annotation) if (found := marker_of(one, kind)) is not None), None)


def literals(annotation: Any) -> list[str]:
    """The values of the ``Literal`` types in an annotation, as YAML spells them.

    Example:
        >>> from typing import Literal
        >>> from orthogan.config.base import literals
        >>> literals(list[Literal["a", "b"]] | Literal[True] | None)
        ['a', 'b', 'true']
    """
    if get_origin(annotation) is Literal:
        return [str(one).lower() if isinstance(one, bool) else str(one) for one in get_args(annotation)]
    return [one for inner in get_args(annotation) for one in literals(inner)]


def section_class(annotation: Any) -> type[Section] | None:
    """The section class in a type, such as that of the items of a list."""
    for one in (annotation, *get_args(annotation)):
        if isinstance(one, type) and get_origin(one) is None and issubclass(one, Section):
            return one
        if one is not annotation and get_args(one) and (found := section_class(one)) is not None:
            return found
    return None


def code_in(
    section: BaseModel, prefix: str = "", *, without: Collection[str] = ()
) -> dict[str, tuple[str, dict[str, Any]]]:
    """{dotted key: (``module:Name``, its options)} of what is not orthogan's own in a config or a section of it.

    Args:
        without: keys of sections that are left out.
    """
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for name, field in type(section).model_fields.items():
        if name in without:
            continue
        value, key = getattr(section, name), f"{prefix}{name}"
        marked = name == "kind" or marker_of(field.rebuild_annotation(), MayNameCode) is not None
        for i, one in enumerate(value if isinstance(value, list) else [value]):
            place = f"{key}.{i}" if isinstance(value, list) else key
            if isinstance(one, BaseModel):
                found |= code_in(one, f"{place}.", without=without)
            elif marked and isinstance(one, str) and ":" in one:
                options = getattr(section, "options", None) or section.model_extra or {}
                found[place] = one, options if name == "kind" else {}
    return found


def names_in(config: BaseModel) -> set[str]:
    """Every ``module:Name`` in ``config``: what a user who wrote it has consented to."""
    return {name for name, _ in code_in(config).values()}
