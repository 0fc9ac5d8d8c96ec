"""Arguments of functions: what is wrong with one is said in a sentence that names it.

@checked
def orthogonal(module: nn.Module, name: str = "weight", *, gain: float = 1.0): ...

orthogonal(layer, gain="x")        # WrongType: gain is 'x': expected a number
"""

from __future__ import annotations

import dis
import functools
import inspect
import operator
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from types import NoneType, TracebackType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from orthogan.errors import UserError, WrongType

Function = TypeVar("Function", bound=Callable[..., Any])
_RAISE = dis.opmap["RAISE_VARARGS"]


def shown(value: object, most: int = 120) -> str:
    """Return ``repr(value)``, truncated to ``most`` characters."""
    try:
        text = repr(value if not isinstance(value, str | bytes) else value[: most + 1])
    except (ValueError, RecursionError):  # an integer with thousands of digits, or a recursive value
        text = f"a very large {type(value).__name__}"
    return text if len(text) <= most else f"{text[:most]}…"


def integer(name: str, value: Any) -> int:
    """Return an integer argument, such as 3 or ``np.int64(3)``. Raises ``WrongType`` for anything else."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return int(operator.index(value))
    except TypeError:
        raise WrongType(f"{name} is {shown(value)}: expected an integer") from None


def is_whole_number(text: str) -> bool:
    """Return whether ``text`` is a whole number from 0 with at most 19 digits, so that ``int`` reads it quickly."""
    return bool(re.fullmatch(r"\d{1,19}", text.strip(), re.ASCII))


def integers(name: str, values: Any) -> list[int]:
    """Return integers as a list. Raises ``WrongType`` for anything else, including boolean masks."""
    try:
        found = list(values)
        if isinstance(values, str):
            raise TypeError
        return [integer(name, value) for value in found]
    except TypeError:
        raise WrongType(f"{name} is {shown(values)}: expected integers, such as [0, 2]") from None


def some_path(name: str, value: Any) -> Path:
    """Return a path. Raises ``WrongType`` for what is none, and ``UserError`` for an empty text.

    An empty text would mean the current folder, where nobody looks for what was written.
    """
    if not isinstance(value, str | os.PathLike):
        raise WrongType(f"{name} is {_seen(value)}: expected a path")
    if not str(value).strip():
        raise UserError(f"{name} is {str(value)!r}: expected a path; the current folder is '.'")
    return Path(value)


def words(name: str, value: Any) -> list[str]:
    """Return words that are given as a list, or as one string with commas; ``()`` and ``""`` are none.

    Raises:
        WrongType: it is something else.
        ValueError: there are only commas.
    """
    parts: list[Any] = (
        value.split(",") if isinstance(value, str) else list(value) if isinstance(value, Iterable) else [None]
    )
    if not all(isinstance(part, str) for part in parts):
        raise WrongType(f"{name} is {shown(value)}: expected text, or a list of it")
    found = [part.strip() for part in parts if part.strip()]
    if not found and len(parts) > 1:
        raise ValueError(f"{name}: {','.join(parts)!r} names nothing")
    return found


def checked(function: Function) -> Function:
    """Decorate a function, or a method such as ``__init__``, so that errors name an argument of a wrong type.

    Numbers and text are compared with the annotations before the call. All other arguments are compared only after the
    call failed with an error that orthogan did not raise itself, so that whatever works is accepted.

    Example:
        >>> from orthogan.arguments import checked
        >>> @checked
        ... def scaled(values: list[float], gain: float = 1.0) -> list[float]:
        ...     return [gain * value for value in values]
        ...
        >>> scaled(3)
        Traceback (most recent call last):
        orthogan.errors.WrongType: values is 3: expected a list of numbers
    """
    signature = inspect.signature(function)

    def problem(args: tuple[Any, ...], kwargs: Mapping[str, Any], *, strict: bool) -> str:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:  # Python's own message names the argument
            return ""
        for name, hint in _hints(function).items():
            if name in given and _differs(given[name], hint, strict):
                return f"{name} is {_seen(given[name])}: expected {_described(hint)}"
        return ""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if found := problem(args, kwargs, strict=False):
            raise WrongType(found)
        try:
            return function(*args, **kwargs)
        except UserError:
            raise
        except Exception as error:
            if not _raised_here(error.__traceback__) and (found := problem(args, kwargs, strict=True)):
                raise WrongType(found) from error
            raise

    return call  # pyright: ignore[reportReturnType]


@functools.cache
def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of the arguments; those that need a module that is not imported are left out."""
    found: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        hint = parameter.annotation
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or hint is parameter.empty:
            continue
        try:
            found[name] = eval(hint, getattr(function, "__globals__", {})) if isinstance(hint, str) else hint
        except Exception:
            continue
    return found


def _raised_here(trace: TracebackType | None) -> bool:
    """Whether an error comes from a ``raise`` statement of orthogan, which is about what the user gave."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or not str(trace.tb_frame.f_globals.get("__name__")).startswith("orthogan"):
        return False
    return trace.tb_frame.f_code.co_code[trace.tb_lasti] == _RAISE


def _differs(value: Any, hint: Any, strict: bool) -> bool:
    """Whether ``value`` is certainly not what ``hint`` asks for; without ``strict``, only for numbers and text."""
    origin, inside = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _differs(value, inside[0], strict)
    if origin in (Union, UnionType):
        return all(_differs(value, one, strict) for one in inside)
    if hint is None or hint is NoneType:
        return value is not None
    if hint is Any or hint is bool:
        return False
    if hint is int:
        return not _is_integer(value, strict)
    if hint is float:
        return not _is_number(value)
    if hint is str:
        return not isinstance(value, str | os.PathLike)
    if not strict:
        return False
    if origin is Literal:
        return value not in inside
    if isinstance(origin, type) and issubclass(origin, Collection | Iterable):
        if isinstance(value, str) or not isinstance(value, Iterable):
            return True
        of = inside[0] if inside and not issubclass(origin, Mapping) else Any
        return isinstance(value, list | tuple | range) and any(_differs(one, of, True) for one in list(value)[:1000])
    if origin is not None and callable(hint):
        return origin.__name__ == "Callable" and not callable(value)
    if isinstance(hint, type) and not getattr(hint, "_is_protocol", False):
        return not isinstance(value, hint)
    return False


def _is_integer(value: Any, strict: bool) -> bool:
    try:
        operator.index(value)
    except TypeError:
        return not strict and isinstance(value, float) and value.is_integer()
    return not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool | str | bytes | complex):
        return False
    try:
        float(value)
    except OverflowError:
        return True
    except (TypeError, ValueError, RuntimeError):  # RuntimeError: a tensor of several numbers
        return False
    return True


def _seen(value: Any) -> str:
    """Describe a wrong value: small ones as they are, others by their type."""
    if isinstance(value, bool | int | float | complex | str | bytes | None | list | tuple | dict | set):
        return shown(value)
    kind = value if isinstance(value, type) else type(value)
    return f"{'the class' if kind is value else 'of type'} {_named(kind)}"


def _named(kind: type) -> str:
    """Return the name of a class as users import it."""
    module = kind.__module__
    if module.startswith(("torch.nn.modules.", "torch.optim.")):
        module = ".".join(module.split(".")[:2])
    elif not module.startswith("torch."):
        module = module.partition(".")[0]
    return kind.__qualname__ if module in ("builtins", "__main__") else f"{module}.{kind.__qualname__}"


def _article(noun: str) -> str:
    """Return the indefinite article of a noun."""
    return "an" if noun[0].lower() in "aeio" else "a"


def _described(hint: Any, several: bool = False) -> str:
    """Describe what an annotation asks for; ``several``: in the plural."""
    origin, inside = get_origin(hint), get_args(hint)
    if origin is Annotated:  # a text beside the type describes it better
        return next((note for note in inside[1:] if isinstance(note, str)), "") or _described(inside[0], several)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_described(one, several) for one in inside))
    if origin is Literal:
        return f"{'one of ' * (len(inside) > 1)}{', '.join(map(repr, inside))}"
    if hint is None or hint is NoneType:
        return "None"
    if hint in (int, float, str, bool):
        one, many = {
            int: ("an integer", "integers"),
            float: ("a number", "numbers"),
            str: ("text", "texts"),
            bool: ("True or False", "True or False"),
        }[hint]
        return many if several else one
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "mappings" if several else "a mapping"
    if isinstance(origin, type) and issubclass(origin, Collection | Iterable):
        of = f" of {_described(inside[0], True)}" if inside and not isinstance(inside[0], TypeVar) else ""
        return f"{'lists' if several else 'a list'}{of}"
    if getattr(origin, "__name__", "") == "Callable":
        return "functions" if several else "a function"
    if isinstance(hint, type):
        return f"objects of type {_named(hint)}" if several else f"{_article(_named(hint))} {_named(hint)}"
    return str(hint).replace("typing.", "").replace("collections.abc.", "")
