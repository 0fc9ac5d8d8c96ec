"""JSON: values as it can hold them, and files of a record per line, where a damaged line costs that line alone."""

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
    """``value`` with arrays and tuples as lists and NaN and infinities as None, all the way down."""
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # an array or a number of numpy or torch
        return jsonable(value.tolist())
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json_lines(path: Path, check: Callable[[Record], object] = bool) -> tuple[list[Record], list[str]]:
    """The records of ``path``, and what was left out, one text per line of the file.

    Args:
        check: raises a KeyError, TypeError, ValueError or the like for a record that is not as it should be.

    Raises:
        UserError: the file cannot be read at all.
    """
    lines, problems = _parsed(path, check)
    return [record for _, record in lines], problems


def keep_json_lines(path: Path, wanted: Callable[[Record], bool]) -> None:
    """Leave in ``path`` only the records that are ``wanted``.

    Damaged lines are named on stderr, and the file as it was is kept as ``NAME.damaged``. What is not a file at all
    is set aside.

    Args:
        wanted: also raises a KeyError, TypeError, ValueError or the like for a record that is not as it should be.

    Raises:
        UserError: the file may not be read or written.
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
            f"orthogan: {printable(path)}: damaged lines are left out; the file as it was is {printable(copy.name)}\n"
            f"  {listing}",
            file=sys.stderr,
        )
    if after != before:
        write_bytes(path, after)


def _parsed(path: Path, check: Callable[[Record], object]) -> tuple[list[tuple[bytes, Record]], list[str]]:
    """The lines with their records, and what was left out."""
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
