"""JSON conversion, and files with one record per line, in which a damaged line does not affect the others."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orthogan.io.read import printable, read_regular
from orthogan.io.write import free_name, set_aside, write_bytes

Record = dict[str, Any]
LIMIT = 1 << 33  # [bytes]
DAMAGE = (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)


def jsonable(value: Any) -> Any:
    """Convert ``value`` recursively: arrays and tuples to lists, NaN and infinities to None."""
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # an array or number of NumPy or torch
        return jsonable(value.tolist())
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json_lines(path: Path, check: Callable[[Record], object] = bool) -> tuple[list[Record], list[str]]:
    """Return the records of ``path``, and messages for damaged lines.

    Args:
        check: raises a KeyError, TypeError, ValueError or similar for an invalid record.

    Raises:
        UserError: the file cannot be read.
    """
    lines, problems = _parsed(path, check)
    return [record for _, record in lines], problems


def keep_json_lines(path: Path, wanted: Callable[[Record], bool]) -> None:
    """Keep only the ``wanted`` records in ``path``.

    Damaged lines are reported on stderr, and the original file is kept as ``NAME.damaged``. Anything that is not a file
    is moved aside.

    Args:
        wanted: also raises a KeyError, TypeError, ValueError or similar for an invalid record.

    Raises:
        UserError: the file cannot be read or written.
    """
    if not os.path.lexists(path):
        return
    if not path.is_file():
        set_aside(path, "it is not a file")
        return
    verdicts: list[bool] = []
    lines, problems = _parsed(path, lambda record: verdicts.append(wanted(record)))
    before = read_regular(path, LIMIT)
    after = b"".join(raw + b"\n" for (raw, _), good in zip(lines, verdicts, strict=True) if good)
    if problems:
        copy = write_bytes(free_name(path.with_name(f"{path.name}.damaged")), before)
        listing = "\n  ".join(problems)
        print(
            f"orthogan: {printable(path)}: damaged lines are removed; the original file is kept as "
            f"{printable(copy.name)}\n  {listing}",
            file=sys.stderr,
        )
    if after != before:
        write_bytes(path, after)


def _parsed(path: Path, check: Callable[[Record], object]) -> tuple[list[tuple[bytes, Record]], list[str]]:
    """Return the lines with their records, and messages for damaged lines."""
    found, problems = [], []
    for number, raw in enumerate(read_regular(path, LIMIT).split(b"\n"), 1):
        if not raw.strip():
            continue
        try:
            record = json.loads(raw)
            if not isinstance(record, dict):
                raise TypeError("not a record")
            check(record)
        except DAMAGE as error:
            problems.append(f"line {number}: {printable(error)}")
            continue
        found.append((raw, record))
    return found, problems
