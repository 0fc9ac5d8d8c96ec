"""Code that is named as ``module:Class``: who may name it, and how it is imported.

Code that the user names (on the command line, in their own YAML, in Python) is imported. Code that a file names (a
model file, a run folder) is imported only with the consent of the user.
"""

from __future__ import annotations

import importlib
import inspect
import reprlib
import sys
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, TypeVar

from orthogan.errors import UserError
from orthogan.io.read import printable

Trust = bool | Collection[str]  # which code a file may name: True = any, False = none, or these ``module:Class``
Kind = TypeVar("Kind")
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 120
_SHORT.maxdict = _SHORT.maxlist = 12


class NeedsTrust(UserError):
    """A file names code that the user has not consented to."""


def require_trust(code: Mapping[str, tuple[str, dict[str, Any]]], source: object, trust: Trust) -> None:
    """Refuse code named by the file ``source`` without consent of the user.

    Args:
        code: as of ``orthogan.config.base.code_in``.

    Raises:
        NeedsTrust: naming each class, its options, and how to consent.
    """
    allowed = {trust} if isinstance(trust, str) else set() if isinstance(trust, bool) else set(trust)
    refused = {key: named for key, named in code.items() if trust is not True and named[0] not in allowed}
    if not refused:
        return
    short = {key: [printable(_SHORT.repr(value)) for value in named] for key, named in refused.items()}
    listing = "; ".join(f"{key} = {name}, options {options}" for key, (name, options) in short.items())
    raise NeedsTrust(
        f"{printable(source)} names code that is not part of orthogan: {listing}. Loading it would import and run "
        "this code. If you know the code and trust the file, add --trust (in Python: trust=True)"
    )


def import_named(name: str, key: str) -> Any:
    """Import the object named ``package.module:Name``; error messages mention ``key``.

    Only for names that the user gave or consented to, because importing a module runs it. A module that is not
    installed is searched in the current folder.

    Raises:
        UserError: the name is not of this form, or cannot be imported.
    """
    module, sign, attribute = name.partition(":")
    if not (sign and attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise UserError(f"{key} is {printable(repr(name))}: must be package.module:Name, such as my_nets:Generator")
    try:
        return getattr(_imported(module), attribute)
    except (Exception, SystemExit) as error:  # importing runs the user's own code
        reason = str(error) if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
        raise UserError(
            f"{key} is {name!r}: {printable(reason)}; it must be importable from where you start orthogan"
        ) from error


def _imported(module: str) -> Any:
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0] or "" in sys.path:
            raise
    sys.path.append("")  # last, so that files in the current folder do not hide installed modules
    return importlib.import_module(module)


def import_class(name: str, key: str, base: type[Kind]) -> type[Kind]:
    """Import the class named ``package.module:Class``, a subclass of ``base``; nothing is called.

    Raises:
        UserError: as ``import_named``, or it is something else.
    """
    found = import_named(name, key)
    if not (inspect.isclass(found) and issubclass(found, base)):
        raise UserError(f"{key} is {name!r}: {describe(found)}; it must name a subclass of {_title(base)}")
    return found


def import_made(name: str, key: str, base: type[Kind]) -> Kind | Callable[[], object]:
    """Import ``package.module:Name``: an instance of ``base``, or a class or function that creates one.

    A function is accepted only if it is written in Python, is not part of the standard library, and is not annotated to
    return something else.

    Raises:
        UserError: as ``import_named``, or it is something else.
    """
    found = import_named(name, key)
    if isinstance(found, base) or (inspect.isclass(found) and issubclass(found, base)):
        return found
    function = found.func if isinstance(found, partial) else found
    if inspect.isclass(function) and issubclass(function, base):
        return found
    if inspect.isfunction(function) and _may_return(function, base):
        return found
    raise UserError(
        f"{name}: {describe(found)}; it cannot be called to create a {_title(base)}: name a class, or a function "
        "that returns one"
    )


def _may_return(function: Callable[..., object], base: type) -> bool:
    if function.__module__.partition(".")[0] in sys.stdlib_module_names:
        return False
    returned: Any = function.__annotations__.get("return", base)
    if isinstance(returned, str):  # annotations as text; only names of module-level classes can be looked up safely
        returned = getattr(function, "__globals__", {}).get(returned, base)
    return not inspect.isclass(returned) or issubclass(returned, base)


def describe(found: object) -> str:
    """Describe an unexpected object, for messages."""
    if inspect.isclass(found):
        return f"this is the class {found.__module__}.{found.__qualname__}"
    return f"this is a {type(found).__name__}"


def _title(base: type) -> str:
    return f"{base.__module__.partition('.')[0]}.nn.Module" if base.__name__ == "Module" else base.__name__
