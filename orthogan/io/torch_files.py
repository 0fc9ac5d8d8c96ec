"""Safe reading of other people's model files: pickles and files of ``torch.save``, without running anything in them.

Tensors, arrays and containers become values. Everything else stays a record of what the file says (``Named`` for a
class or function, ``Made`` for an object), which nothing imports or calls.
"""

from __future__ import annotations

import io
import math
import struct
import sys
import zipfile
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orthogan.errors import UserError
from orthogan.io.pickles import FROM_BUFFER, RECONSTRUCT, Machine, Made, Named, array_of, as_bytes, check_key
from orthogan.io.read import printable, read_regular
from orthogan.io.weights import LARGEST_VIEW, kind_of_archive, not_fetched

LARGEST_MODEL = 1 << 34  # bytes
MOST_NESTED = 3  # files within files; plain pickles of tensors hold each storage as a file of its own
MOST_DIMENSIONS = 16
_LEGACY = 0x1950A86A20F9469CFC6C  # first pickle of a file that torch.save wrote before version 1.6
_DTYPES = {
    "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool, "ComplexDouble": torch.complex128, "ComplexFloat": torch.complex64, "Untyped": torch.uint8,
}  # fmt: skip
_STORAGES = {
    (module, f"{name}Storage"): dtype
    for name, dtype in _DTYPES.items()
    for module in ("torch", "torch.cuda", "torch.storage")
}
# errors of the reader for files that are damaged, or made to do damage
_UNREADABLE = (
    ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError, RuntimeError, EOFError,
    struct.error, zipfile.BadZipFile, NotImplementedError, RecursionError,
)  # fmt: skip


def read_objects(path: Path) -> Any:
    """Read a pickle or a file of ``torch.save`` as plain values. Nothing is imported, called or executed.

    Tensors become CPU tensors, numpy arrays of numbers arrays, and ``OrderedDict`` a dict. Objects of other classes
    become ``Made``, and classes and functions ``Named``.

    Raises:
        UserError: it cannot be read, is damaged, or declares more than it contains.
    """
    data = read_regular(path, LARGEST_MODEL)
    if missed := not_fetched(data[:64]):
        raise UserError(f"{printable(path)}: {missed}")
    if data.startswith(b"PK") and (what := kind_of_archive(path)):
        raise UserError(f"{printable(path)}: not a file of torch.save: {what}")
    try:
        return _read(data, _Budget(len(data)), 0)
    except _UNREADABLE as error:
        reason = printable(str(error)[:200]) or type(error).__name__
        raise UserError(
            f"{printable(path)}: not a readable pickle or PyTorch file ({reason}); copy or download it again"
        ) from None


class _Budget:
    """How many bytes of tensors a file may describe: what it stores, and views that repeat stored numbers."""

    def __init__(self, size: int) -> None:
        self.stored, self.repeated = size, LARGEST_VIEW

    def store(self, size: int) -> None:
        self.stored -= size
        if size < 0 or self.stored < 0:
            raise ValueError("it declares more data than it contains")

    def repeat(self, size: int) -> None:
        self.repeated -= size
        if self.repeated < 0:
            raise ValueError(f"its tensors repeat their data to more than {LARGEST_VIEW >> 30} GiB")


def _read(data: bytes, budget: _Budget, depth: int) -> Any:
    if depth > MOST_NESTED:
        raise ValueError("it contains files nested too deeply")
    if data.startswith(b"PK"):
        return _read_zip(data, budget, depth)
    stream = io.BytesIO(data)
    first = _Objects(budget, depth, {}).run(stream)
    return _read_legacy(stream, budget, depth) if type(first) is int and first == _LEGACY else first


def _read_zip(data: bytes, budget: _Budget, depth: int) -> Any:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
            raise ValueError("it is compressed, which files of torch.save are not")
        if sum(entry.file_size for entry in entries.values()) > len(data):
            raise ValueError("it declares more data than it contains")
        root = next(name for name in entries if name.endswith("data.pkl")).removesuffix("data.pkl")
        order = archive.read(f"{root}byteorder") if f"{root}byteorder" in entries else b"little"
        if order != sys.byteorder.encode():
            raise ValueError("it was written on a machine with another byte order")

        def load(key: str, dtype: torch.dtype, count: int) -> Tensor:
            return _numbers(archive.read(f"{root}data/{key}"), dtype, count)

        return _Objects(budget, depth, {}, load).run(archive.read(f"{root}data.pkl"))


def _read_legacy(stream: io.BytesIO, budget: _Budget, depth: int) -> Any:
    """Read the rest of a file of older versions of torch.save: pickles, then the numbers of each storage."""
    version, system = (_Objects(budget, depth, {}).run(stream) for _ in range(2))
    if version != 1001 or system.get("little_endian") is not (sys.byteorder == "little"):
        raise ValueError("it was written by a version of PyTorch or on a machine that is not supported")
    storages: dict[str, Tensor] = {}
    left = len(stream.getbuffer()) - stream.tell()

    def load(key: str, dtype: torch.dtype, count: int) -> Tensor:
        if count * dtype.itemsize > left:
            raise ValueError("it declares more data than it contains")
        return torch.empty(count, dtype=dtype)  # filled below

    found = _Objects(budget, depth, storages, load).run(stream)
    for key in _Objects(budget, depth, {}).run(stream):
        (count,) = struct.unpack("<q", stream.read(8))
        storage = storages[key]
        if count != storage.numel():
            raise ValueError("a storage has two different sizes")
        storage.copy_(_numbers(stream.read(storage.nbytes), storage.dtype, count))
    return found


def _numbers(data: bytes, dtype: torch.dtype, count: int) -> Tensor:
    if len(data) != count * dtype.itemsize:
        raise ValueError("a storage is truncated")
    return torch.frombuffer(bytearray(data), dtype=dtype) if count else torch.empty(0, dtype=dtype)


class _Objects(Machine):
    """A machine that also builds tensors, arrays and ordered dictionaries.

    Args:
        storages: filled with the storages by key.
        load: returns the numbers of the storage of this key, type and size; None if there are no storages.
    """

    def __init__(
        self,
        budget: _Budget,
        depth: int,
        storages: dict[str, Tensor],
        load: Callable[[str, torch.dtype, int], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.budget, self.depth, self.storages, self.load = budget, depth, storages, load

    def make(self, what: Any, arguments: Any) -> None:
        rule = _RULES.get(what.pair) if isinstance(what, Named) and isinstance(arguments, tuple) else None
        self.push(Made(what, arguments) if rule is None else rule(self, what, arguments))

    def build(self, state: Any) -> None:
        top = self.stack[-1]
        if isinstance(top, Made) and isinstance(top.what, Named) and top.what.pair in RECONSTRUCT:
            try:
                found = array_of(Made(top.what, top.arguments, state))
            except (ValueError, TypeError, AttributeError):  # of texts or objects: stays a record
                super().build(state)
                return
            self.stack[-1] = found
            # the array was noted in the memo a few operations ago, before it had a state
            for index, value in islice(reversed(self.memo.items()), 64):
                if value is top:
                    self.memo[index] = found
        elif isinstance(top, Made):
            super().build(state)
        elif not isinstance(top, dict | list | set | Tensor | np.ndarray):
            raise TypeError("it sets the state of a value that has none")

    def persistent(self, name: Any) -> None:
        if isinstance(name, tuple) and name[:1] == ("module",):  # a class with its source, which is not looked at
            self.push(name[1])
        elif isinstance(name, tuple) and len(name) in (5, 6) and name[0] == "storage" and self.load is not None:
            self.push(self.storage(*name[1:]))
        else:
            super().persistent(name)

    def storage(self, kind: Named, key: Any, _: Any, count: Any, view: Any = None) -> Tensor:
        dtype = _STORAGES[kind.pair]
        if not (isinstance(key, str) and type(count) is int and count >= 0):
            raise ValueError("a storage is invalid")
        if key not in self.storages:
            self.budget.store(count * dtype.itemsize)
            assert self.load is not None
            self.storages[key] = self.load(key, dtype, count)
        found = self.storages[key]
        if found.dtype != dtype:
            found = found.view(dtype)
        if view is not None:
            _, start, size = view
            found = found[_size(start) : _size(start) + _size(size)]
        return found

    def tensor(self, storage: Any, offset: Any, shape: Any, stride: Any, dtype: torch.dtype | None = None) -> Tensor:
        if not isinstance(storage, Tensor) or storage.dim() != 1 or len(shape) != len(stride):
            raise ValueError("a tensor is invalid")
        if len(shape) > MOST_DIMENSIONS:
            raise ValueError(f"a tensor has {len(shape)} dimensions")
        shape, stride = tuple(map(_size, shape)), tuple(map(_size, stride))
        flat = storage if dtype is None else storage.view(dtype)
        last = _size(offset) + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        count = math.prod(shape)
        if count and last >= flat.numel():
            raise ValueError("a tensor is larger than its storage")
        if count > flat.numel():
            self.budget.repeat(count * flat.element_size())
        return flat.as_strided(shape, stride, flat.storage_offset() + offset) if count else flat.new_empty(shape)


def _size(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 48:
        raise ValueError("a size is invalid")
    return value


def _dictionary(machine: _Objects, what: Named, arguments: tuple[Any, ...]) -> dict[Any, Any]:
    pairs = arguments[0] if arguments else []
    if isinstance(pairs, Mapping):
        return dict(pairs)
    return {check_key(key): value for key, value in pairs}


def _tensor(machine: _Objects, what: Named, arguments: tuple[Any, ...]) -> Tensor:
    storage, offset, shape, stride, *_ = arguments
    return machine.tensor(storage, offset, shape, stride)


def _tensor_of_type(machine: _Objects, what: Named, arguments: tuple[Any, ...]) -> Tensor:
    storage, offset, shape, stride, _, _, kind, *_ = arguments
    dtype = getattr(torch, kind.name, None) if kind.module == "torch" else None
    if not isinstance(dtype, torch.dtype):
        raise ValueError("unknown number type")
    return machine.tensor(storage, offset, shape, stride, dtype)


def _parameter(machine: _Objects, what: Named, arguments: tuple[Any, ...]) -> Tensor:
    if not isinstance(arguments[0], Tensor):
        raise ValueError("no parameter")
    return arguments[0]


def _subclass(machine: _Objects, what: Named, arguments: tuple[Any, ...]) -> Any:
    function, _, inner, *_ = arguments
    rule = _RULES.get(function.pair) if isinstance(function, Named) else None
    if rule is not None and rule in (_tensor, _tensor_of_type):
        return rule(machine, function, inner)
    return Made(what, arguments)


def _nested(machine: _Objects, what: Named, arguments: tuple[Any, ...]) -> Any:
    return _read(as_bytes(arguments[0]), machine.budget, machine.depth + 1)


def _buffer(machine: _Objects, what: Named, arguments: tuple[Any, ...]) -> Any:
    try:
        return array_of(Made(what, arguments))
    except (ValueError, TypeError, AttributeError):
        return Made(what, arguments)


def _scalar(machine: _Objects, what: Named, arguments: tuple[Any, ...]) -> Any:
    try:
        return array_of(Made(Named("numpy.core.numeric", "_frombuffer"), (arguments[1], arguments[0], (), "C"))).item()
    except (ValueError, TypeError, AttributeError):
        return Made(what, arguments)


def _tuple(machine: _Objects, what: Named, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(arguments[0]) if arguments else ()


# What is built from which calls. Each is a function of our own; the names are only compared.
_RULES: dict[tuple[str, str], Callable[[_Objects, Named, tuple[Any, ...]], Any]] = {
    ("collections", "OrderedDict"): _dictionary,
    ("torch", "Size"): _tuple,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor_of_type,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _subclass,
    ("torch.storage", "_load_from_bytes"): _nested,
    **dict.fromkeys(FROM_BUFFER, _buffer),
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
}
