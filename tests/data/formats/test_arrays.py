from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthogan.data.formats.arrays import RowFile, consecutive
from orthogan.errors import UserError

ROWS = np.random.default_rng(0).integers(0, 256, (40, 7), np.uint8)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> RowFile:
    path = tmp_path_factory.mktemp("rows") / "rows.bin"
    path.write_bytes(b"head!" + ROWS.tobytes() + b"tail")
    return RowFile(path, offset=5, count=40, row_bytes=7)


@given(indices=st.lists(st.integers(0, 39), max_size=12))
def test_rows_come_in_the_order_asked_for(file: RowFile, indices: list[int]) -> None:
    np.testing.assert_array_equal(file.read(np.array(indices, np.int64)), ROWS[indices])


@given(indices=st.lists(st.integers(0, 6), max_size=4))
def test_consecutive_is_what_a_range_is(indices: list[int]) -> None:
    expected = bool(indices) and indices == list(range(indices[0], indices[0] + len(indices)))
    assert consecutive(np.array(indices, np.int64)) == expected


def test_a_range_is_one_read(file: RowFile, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    real = os.preadv

    def counted(handle: int, buffers: list[memoryview], place: int) -> int:
        reads.append(place)
        return real(handle, buffers, place)

    monkeypatch.setattr(os, "preadv", counted)
    np.testing.assert_array_equal(file.read(np.arange(3, 33)), ROWS[3:33])
    assert reads == [5 + 3 * 7]


def test_short_reads_are_completed(file: RowFile, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda handle, buffers, place: real(handle, [buffers[0][:3]], place))
    for indices in (np.array([9, 2]), np.arange(10, 14)):
        np.testing.assert_array_equal(file.read(indices), ROWS[indices])


@pytest.mark.parametrize("missing", ["preadv", "posix_fadvise"])
def test_systems_that_lack_a_call_read_the_same(file: RowFile, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, missing)
    np.testing.assert_array_equal(file.read(np.array([31, 0, 0])), ROWS[[31, 0, 0]])


def test_a_copy_opens_its_own_handle(file: RowFile) -> None:
    file.read(np.arange(2))
    copy = pickle.loads(pickle.dumps(file))
    np.testing.assert_array_equal(copy.read(np.array([4])), ROWS[[4]])
    assert len(copy) == 40


def test_files_that_are_gone_or_cut(tmp_path: Path) -> None:
    path = tmp_path / "rows.bin"
    path.write_bytes(ROWS.tobytes()[:-1])
    rows = RowFile(path, offset=0, count=40, row_bytes=7)
    with pytest.raises(UserError, match=r"rows\.bin: file is truncated: it ends after (280|279)"):
        rows.read(np.array([39, 3]))
    with pytest.raises(UserError, match=r"gone\.bin: cannot be read \(No such file"):
        RowFile(tmp_path / "gone.bin", offset=0, count=1, row_bytes=1).read(np.array([0]))
