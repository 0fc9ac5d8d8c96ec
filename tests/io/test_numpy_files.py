"""NumPy's files: plain arrays come out as they went in; pickles, damage and bombs are the user's error."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from orthogan.errors import UserError
from orthogan.io.numpy_files import Npz, read_npy


def npy(header: str, values: bytes = b"") -> bytes:
    """An .npy with any header text."""
    text = header.encode("latin-1") + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + values


def packed(path: Path, member: bytes, *, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("images.npy", member)
    return path


ARRAYS = [
    np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.array(7, np.int64),
    np.zeros((0, 3), np.float32),
    np.array([True, False]),
    np.array(["a", "écru"]),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{a.shape}")
def test_arrays_come_out_as_they_went_in(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "stored.npz", x=array, other=1)
    np.savez_compressed(tmp_path / "packed.npz", x=array)
    found = [read_npy(tmp_path / "a.npy")]
    for name in ("stored.npz", "packed.npz"):
        with Npz(tmp_path / name) as archive:
            assert archive.key(("y", "x")) == "x"
            assert archive.header("x")[:2] == (array.shape, array.dtype)
            found.append(archive.read("x"))
            offset = archive.offset("x")
            assert (offset is None) == (name == "packed.npz")
            if offset is not None:
                raw = (tmp_path / name).read_bytes()[offset : offset + array.nbytes]
                assert raw == array.tobytes("A")
    for copy in found:
        assert copy.dtype == array.dtype
        np.testing.assert_array_equal(copy, array)


BAD = {
    "empty": b"",
    "words": b"<!DOCTYPE html>",
    "header of 10^30": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (" + "1" + "0" * 30 + ",)}"),
    "unbalanced": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (3,"),
    "negative": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (-2, -2)}", b"1234"),
    "no shape": npy("{'descr': '|u1', 'fortran_order': False}"),
    "code": npy("__import__('os').system('false')"),
    "declares 10^15": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000,)}"),
    "cut": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (3,)}", b"12345678"),
    "no such type": npy("{'descr': 'spam', 'fortran_order': False, 'shape': (3,)}", b"123"),
    "without size": npy("{'descr': '|V0', 'fortran_order': False, 'shape': (3,)}"),
    "deep": npy("(" * 9000 + ")" * 9000),
    "version 9": b"\x93NUMPY\x09\x00\x01\x00 ",
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_array_is_the_users_error(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.npy").write_bytes(BAD[kind])
    with pytest.raises(UserError, match=r"a\.npy"):
        read_npy(tmp_path / "a.npy")
    with Npz(packed(tmp_path / "a.npz", BAD[kind])) as archive, pytest.raises(UserError, match=r"a\.npz"):
        archive.read("images")
    (tmp_path / "b.npz").write_bytes(BAD[kind])
    with pytest.raises(UserError, match=r"b\.npz: is damaged, or is not an \.npz file"):
        Npz(tmp_path / "b.npz")


def test_pickles_are_refused_in_our_own_words(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object))
    np.savez(tmp_path / "a.npz", x=np.array([{}], dtype=object))
    with pytest.raises(UserError, match="pickled objects, which are never loaded") as caught:
        read_npy(tmp_path / "a.npy")
    assert "allow_pickle" not in str(caught.value)
    with Npz(tmp_path / "a.npz") as archive, pytest.raises(UserError, match="pickled objects, which are never loaded"):
        archive.read("x")


def test_damage_inside_a_compressed_array_is_found(tmp_path: Path) -> None:
    values = io.BytesIO()
    np.save(values, np.random.default_rng(0).integers(0, 4, 20_000, np.uint8))
    path = packed(tmp_path / "a.npz", values.getvalue(), compression=zipfile.ZIP_DEFLATED)
    whole = path.read_bytes()
    for place in range(60, len(whole) - 200, 499):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        with Npz(path) as archive, pytest.raises(UserError, match=r"a\.npz"):
            archive.read("images")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orthogan.io.numpy_files.BOMB_BYTES", 1 << 24)
    np.savez_compressed(tmp_path / "a.npz", images=np.zeros(1 << 25, np.uint8))
    tracemalloc.start()
    with Npz(tmp_path / "a.npz") as archive, pytest.raises(UserError, match="32 MiB and is rejected as a possible"):
        archive.read("images")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 22
