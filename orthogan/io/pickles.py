"""Safe reading of untrusted pickles, without running anything in them.

A pickle is a program for a small stack machine. Here the program only builds plain values. Imports become ``Named`` and
calls become ``Made``, which only record what the file says.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np

from orthogan.errors import UserError
from orthogan.io.read import printable

MOST_OPERATIONS = 5_000_000
_KEYS = (str, bytes, int, float, bool, type(None))  # of mappings and sets: the hash of a deep tuple overflows the stack
_DTYPE = re.compile(r"[|<>=]?[biuf][1248]")
RECONSTRUCT = {("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")}
FROM_BUFFER = {("numpy.core.numeric", "_frombuffer"), ("numpy._core.numeric", "_frombuffer")}


@dataclass(frozen=True)
class Named:
    """An object that a pickle would import."""

    module: str
    name: str

    @property
    def pair(self) -> tuple[str, str]:
        """(module, name)."""
        return self.module, self.name


@dataclass(eq=False)
class Made:
    """An object that a pickle would create by calling ``what``, a string for a persistent ID or an extension code."""

    what: Any
    arguments: Any = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)  # appended, or (key, value) pairs


def read_pickle(data: bytes, source: object) -> Any:
    """Read a pickle as plain values, ``Named`` and ``Made``. Nothing is imported or called.

    Strings of Python 2 are read as Latin-1.

    Raises:
        UserError: naming ``source``: it is not a complete pickle, or too large.
    """
    try:
        return Machine().run(data)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        reason = printable(str(error)[:200]) or type(error).__name__
        raise UserError(f"{printable(source)}: not a readable pickle of plain values ({reason})") from None


def array(value: Any, source: object) -> np.ndarray:
    """Return the numeric array that a ``Made`` of a pickle describes.

    Raises:
        UserError: naming ``source``: it does not describe an array.
    """
    try:
        return array_of(value)
    except (ValueError, TypeError, OverflowError, MemoryError, AttributeError):
        pass
    raise UserError(f"{printable(source)}: contains something other than the expected array of numbers")


def array_of(value: Any) -> np.ndarray:
    """As ``array``. Raises ValueError, TypeError, OverflowError, MemoryError or AttributeError."""
    if isinstance(value, Made) and isinstance(value.what, Named):
        if value.what.pair in RECONSTRUCT:
            _, shape, dtype, fortran, data = value.state
            return _array(data, dtype, shape, "F" if fortran else "C")
        if value.what.pair in FROM_BUFFER:
            data, dtype, shape, order = value.arguments
            return _array(data, dtype, shape, order)
    raise ValueError("it does not describe an array")


def _array(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    if dtype.what.pair != ("numpy", "dtype") or not _DTYPE.fullmatch(dtype.arguments[0]) or order not in ("C", "F"):
        raise ValueError("unknown number type")
    if not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ValueError("the shape of an array is invalid")
    kind = np.dtype(dtype.arguments[0])
    if dtype.state is not None and kind.itemsize > 1:
        kind = np.dtype(kind.str.replace(kind.str[0], {"<": "<", ">": ">", "|": "=", "=": "="}[dtype.state[1]]))
    return np.frombuffer(as_bytes(data), kind).reshape(shape, order=order)


def as_bytes(value: Any) -> bytes:
    """Return bytes as the protocols write them; before protocol 3 as Latin-1 text or as calls. Raises ValueError."""
    if isinstance(value, Made) and value.what == Named("_codecs", "encode"):
        value = value.arguments[0]
    elif isinstance(value, Made) and value.what in (Named("builtins", "bytes"), Named("__builtin__", "bytes")):
        return b"" if value.arguments == () else as_bytes(None)
    if isinstance(value, str):
        return value.encode("latin-1")
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    raise ValueError("expected bytes")


class Machine:
    """The stack of a pickle; each method below does one kind of operation. ``run`` reads one pickle of a stream."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.count = 0

    def run(self, data: bytes | BinaryIO) -> Any:
        """Read one pickle and return its value."""
        for operation, argument, _ in pickletools.genops(data):
            self.count += 1
            if self.count > MOST_OPERATIONS:
                raise ValueError(f"more than {MOST_OPERATIONS:,} operations")
            if operation.name == "STOP":
                return self.stack.pop()
            _OPERATIONS[operation.name](self, argument)
        raise ValueError("it is truncated")

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self.stack.append(value)

    def mark(self) -> None:
        """Begin a group of values."""
        self.marks.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        """Take the values of the current group."""
        items, self.stack = self.stack, self.marks.pop()
        return items

    def last(self, count: int) -> list[Any]:
        """Take the last ``count`` values."""
        if len(self.stack) < count:
            raise IndexError("an empty stack")
        items = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return items

    def extend(self, items: list[Any]) -> None:
        """Add items to the list, set or object on top of the stack."""
        target = self.stack[-1]
        if isinstance(target, set):
            target.update(map(check_key, items))
        else:
            (target.items if isinstance(target, Made) else _list(target)).extend(items)

    def set_items(self, flat: list[Any]) -> None:
        """Add keys and values, in turn, to the mapping or object on top of the stack."""
        target, pairs = self.stack[-1], list(zip(flat[::2], flat[1::2], strict=True))
        if isinstance(target, Made):
            target.items.extend(pairs)
        elif isinstance(target, dict):
            target.update((check_key(key), value) for key, value in pairs)
        else:
            raise TypeError("it adds items to a value that cannot hold any")

    def make(self, what: Any, arguments: Any) -> None:
        """Push the object that a call of ``what`` would create."""
        self.push(Made(what, arguments))

    def persistent(self, name: Any) -> None:
        """Push the object that is stored elsewhere under ``name``."""
        self.make("persistent id", (name,))

    def build(self, state: Any) -> None:
        """Set the state of the object on top of the stack."""
        if not isinstance(self.stack[-1], Made):
            raise TypeError("it sets the state of a value that has none")
        self.stack[-1].state = state

    def named(self, module: Any, name: Any) -> None:
        """Push what an import would find."""
        if not (isinstance(module, str) and isinstance(name, str)):
            raise TypeError("the name of a global is not a string")
        self.push(Named(module, name))

    def instance(self, argument: str) -> None:
        """Push an object as protocol 0 writes it."""
        module, _, name = argument.partition(" ")
        self.make(Named(module, name), tuple(self.since_mark()))

    def object(self) -> None:
        """Push an object as protocol 1 writes it."""
        what, *arguments = self.since_mark()
        self.make(what, tuple(arguments))


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("it adds items to a value that cannot hold any")
    return value


def check_key(value: Any) -> Any:
    """Return ``value`` if it can be the key of a mapping. Raises TypeError."""
    if not isinstance(value, _KEYS):
        raise TypeError(f"a {type(value).__name__} is used as a key")
    return value


def _dict(flat: list[Any]) -> dict[Any, Any]:
    return {check_key(key): value for key, value in zip(flat[::2], flat[1::2], strict=True)}


_LITERALS = (
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING BINBYTES "
    "SHORT_BINBYTES BINBYTES8 BYTEARRAY8 UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8"
)
_OPERATIONS: dict[str, Callable[[Machine, Any], Any]] = {
    **dict.fromkeys(_LITERALS.split(), Machine.push),
    **dict.fromkeys(("PROTO", "FRAME"), lambda m, _: None),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), lambda m, index: m.memo.__setitem__(index, m.stack[-1])),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, index: m.push(m.memo[index])),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), lambda m, code: m.make("extension code", (code,))),
    "MEMOIZE": lambda m, _: m.memo.__setitem__(len(m.memo), m.stack[-1]),
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "MARK": lambda m, _: m.mark(),
    "POP": lambda m, _: m.stack.pop() if m.stack else m.since_mark(),
    "POP_MARK": lambda m, _: m.since_mark(),
    "DUP": lambda m, _: m.push(m.stack[-1]),
    "EMPTY_LIST": lambda m, _: m.push([]),
    "LIST": lambda m, _: m.push(m.since_mark()),
    "APPEND": lambda m, _: m.extend(m.last(1)),
    "APPENDS": lambda m, _: m.extend(m.since_mark()),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "TUPLE": lambda m, _: m.push(tuple(m.since_mark())),
    "TUPLE1": lambda m, _: m.push(tuple(m.last(1))),
    "TUPLE2": lambda m, _: m.push(tuple(m.last(2))),
    "TUPLE3": lambda m, _: m.push(tuple(m.last(3))),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "DICT": lambda m, _: m.push(_dict(m.since_mark())),
    "SETITEM": lambda m, _: m.set_items(m.last(2)),
    "SETITEMS": lambda m, _: m.set_items(m.since_mark()),
    "EMPTY_SET": lambda m, _: m.push(set()),
    "ADDITEMS": lambda m, _: m.extend(m.since_mark()),
    "FROZENSET": lambda m, _: m.push(frozenset(map(check_key, m.since_mark()))),
    "GLOBAL": lambda m, pair: m.named(*pair.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m.named(*m.last(2)),
    "REDUCE": lambda m, _: m.make(*m.last(2)),
    "NEWOBJ": lambda m, _: m.make(*m.last(2)),
    "NEWOBJ_EX": lambda m, _: (lambda what, positional, keywords: m.make(what, (positional, keywords)))(*m.last(3)),
    "INST": Machine.instance,
    "OBJ": lambda m, _: m.object(),
    "BUILD": lambda m, _: m.build(*m.last(1)),
    "PERSID": lambda m, name: m.persistent(name),
    "BINPERSID": lambda m, _: m.persistent(*m.last(1)),
}
