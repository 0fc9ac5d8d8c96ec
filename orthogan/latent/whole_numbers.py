"""Whole numbers that a user gives: rows, classes, layers, seeds."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from orthogan.errors import UserError
from orthogan.io.read import shown


def whole_numbers(what: str, values: Any) -> list[int]:
    """``values`` as Python integers. Raises ``UserError`` for anything else, a mask of booleans included."""
    try:
        found = list(values)
        if isinstance(values, str) or any(isinstance(value, bool | np.bool_) for value in found):
            raise TypeError
        return [operator.index(value) for value in found]
    except TypeError:
        raise UserError(f"{what}={shown(values)}: expected whole numbers, such as [0, 2]") from None


def whole_number(what: str, value: Any) -> int:
    """The same for one number."""
    try:
        return int(operator.index(value))
    except TypeError:
        raise UserError(f"{what}={shown(value)}: expected a whole number") from None
