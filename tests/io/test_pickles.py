"""Pickles are read without running them: every operation that could import or call something gives a record."""

from __future__ import annotations

import os
import pickle
import pickletools
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orthogan.errors import UserError
from orthogan.io.pickles import _OPERATIONS, Made, Named, array, read_pickle
from tests.fixtures.evil_pickles import EVIL

PLAIN = [
    None, True, False, 0, -1, 2**70, 1.5, "text", "\xe9\u4e2d", b"\x00\xff", bytearray(b"ab"), [], [1, [2]],
    (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), {}, {"a": [1], 2: None}, {1, 2}, frozenset((1,)),
    list(range(3000)), "x" * 300, b"y" * 300,
]  # fmt: skip


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("value", PLAIN, ids=lambda value: repr(value)[:20])
def test_plain_values_are_read_as_pickle_reads_them(value: object, protocol: int) -> None:
    written = pickle.dumps(value, protocol)
    if b"_codecs" in written or b"builtins" in written or b"__builtin__" in written:
        pytest.skip("this protocol writes it as a call")
    found = read_pickle(written, "x")
    assert found == value
    assert type(found) is type(value)
    assert read_pickle(pickletools.optimize(written), "x") == value


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dtype", ["u1", "i8", "<f4", ">i2", "?"])
def test_arrays_are_read_as_numpy_reads_them(dtype: str, protocol: int) -> None:
    values = np.arange(24).reshape(2, 3, 4).astype(dtype)
    for written in (values, np.asfortranarray(values), values[:0]):
        found = array(read_pickle(pickle.dumps(written, protocol), "x"), "x")
        np.testing.assert_array_equal(found, written)
        assert found.dtype == written.dtype


@pytest.mark.parametrize(
    "value", [np.array(["a"]), np.array([object()]), np.zeros(2, "M8[s]"), np.float64(1), 3, OrderedDict()]
)
def test_what_is_no_array_of_numbers_is_refused(value: object) -> None:
    with pytest.raises(UserError, match=r"f\.bin.*array of numbers"):
        array(read_pickle(pickle.dumps(value, 2), "f.bin"), "f.bin")


@pytest.mark.parametrize("content", EVIL.values(), ids=EVIL.keys())
def test_nothing_in_a_pickle_runs(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def called(*arguments: object, **keywords: object) -> None:
        raise AssertionError("called")

    monkeypatch.setattr(os, "system", called)
    monkeypatch.setattr("subprocess.Popen", called)
    monkeypatch.setattr("builtins.__import__", called)
    try:
        found = read_pickle(content, "x")
    finally:
        monkeypatch.undo()
    found = found[0] if isinstance(found, list) else found
    assert isinstance(found, Made)
    assert isinstance(found.what, Named | Made | str)
    assert list(tmp_path.iterdir()) == []


def test_every_operation_of_pickle_is_known_or_refused() -> None:
    known = {operation.name for operation in pickletools.opcodes}
    assert known - set(_OPERATIONS) == {"STOP", "NEXT_BUFFER", "READONLY_BUFFER"}  # the last two need other files
    with pytest.raises(UserError, match=r"x: not a readable pickle.*NEXT_BUFFER"):
        read_pickle(b"\x80\x05\x97.", "x")


def test_a_deep_pickle_neither_overflows_the_stack_nor_becomes_a_key() -> None:
    deep = read_pickle(b"\x80\x02)" + b"\x85" * 50_000 + b".", "x")
    assert isinstance(deep, tuple)
    for content in (b"}" + b")" + b"\x85" * 50_000 + b"Ns.", b"\x80\x04\x8f(" + b")" + b"\x85" * 50_000 + b"\x90."):
        with pytest.raises(UserError, match="tuple is used as a key"):
            read_pickle(content, "x")


WHOLE = pickle.dumps({"data": np.zeros((2, 5), np.uint8), "labels": [1, 2], "s": ("a", 1.5, None, {3})}, 2)


@settings(max_examples=300, deadline=None)
@given(content=st.binary(max_size=60), place=st.integers(0, len(WHOLE) - 1), new=st.binary(min_size=1, max_size=3))
@example(content=b"", place=0, new=b".")
def test_any_bytes_are_read_or_refused(content: bytes, place: int, new: bytes) -> None:
    for text in (content, WHOLE[:place], WHOLE[:place] + new + WHOLE[place + len(new) :]):
        with suppress(UserError):
            found: Any = read_pickle(text, "file")
            array(found.get("data") if isinstance(found, dict) else found, "file")
