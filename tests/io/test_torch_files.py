"""Files of torch.save and pickles of other projects are read as values and inert records; nothing in them runs."""

from __future__ import annotations

import io
import math
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fickling.analysis import Severity, check_safety
from fickling.fickle import StackedPickle
from hypothesis import given, settings
from hypothesis import strategies as st
from picklescan.scanner import scan_pickle_bytes
from torch import nn

from orthogan.errors import UserError
from orthogan.io import pickles
from orthogan.io.pickles import Made, Named
from orthogan.io.torch_files import read_objects
from tests.fixtures.evil_pickles import EVIL


class Thing:
    """An object of a class that the file names."""

    def __init__(self) -> None:
        self.width = 3
        self.weight = torch.arange(4.0)


def content() -> dict[str, Any]:
    base = torch.arange(24, dtype=torch.float32)
    state = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).state_dict()
    return {
        "state": state,
        "view": base.view(2, 3, 4).transpose(0, 2)[1:],
        "shared": base[::5],
        "parameter": nn.Parameter(torch.ones(2)),
        "types": [torch.zeros(2, dtype=kind) for kind in (torch.bfloat16, torch.int64, torch.bool, torch.complex64)],
        "none": torch.empty(0, 3),
        "scalar": torch.tensor(2.5),
        "size": torch.Size([1, 2]),
        "ordered": OrderedDict(a=1),
        "array": np.arange(6, dtype=np.float32).reshape(2, 3),
        "number": np.float64(0.5),
        "text": "x",
    }


def same(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, torch.Tensor):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        assert torch.equal(ours, theirs)
    elif isinstance(theirs, np.ndarray):
        np.testing.assert_array_equal(ours, theirs)
    elif isinstance(theirs, Mapping):
        assert list(ours) == list(theirs)
        for key in theirs:
            same(ours[key], theirs[key])
    elif isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            same(a, b)
    else:
        assert ours == theirs


def saved(value: Any, *, new: bool = True) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=new)
    return stream.getvalue()


WRITERS: dict[str, Callable[[Any], bytes]] = {
    "zip": saved,
    "legacy": lambda value: saved(value, new=False),
    **{f"pickle {n}": lambda value, n=n: pickle.dumps(value, n) for n in (2, 4, 5)},
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
def test_plain_content_is_read_as_torch_reads_it(write: Callable[[Any], bytes], tmp_path: Path) -> None:
    file = tmp_path / "f.pth"
    written = content()
    file.write_bytes(write(written))
    same(read_objects(file), written)


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
def test_an_object_of_a_class_stays_a_record(write: Callable[[Any], bytes], tmp_path: Path) -> None:
    file = tmp_path / "f.pkl"
    file.write_bytes(write({"G": Thing(), "class": Thing}))
    found = read_objects(file)
    assert found["class"] == Named(Thing.__module__, "Thing")
    record = found["G"]
    assert isinstance(record, Made)
    assert found["class"] in (record.what, *record.arguments)
    assert record.state["width"] == 3
    assert torch.equal(record.state["weight"], torch.arange(4.0))


def in_zip(pickled: bytes, *, compress: int = zipfile.ZIP_STORED, **others: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compress) as archive:
        for name, data in {"data.pkl": pickled, "version": b"3\n", **others}.items():
            archive.writestr(f"f/{name.replace('__', '/')}", data)
    return stream.getvalue()


def nested(pickled: bytes) -> bytes:
    """A pickle of a tensor whose storage is a file of its own: ``torch.storage._load_from_bytes(pickled)``."""
    return b"\x80\x04ctorch.storage\n_load_from_bytes\nB" + struct.pack("<I", len(pickled)) + pickled + b"\x85R."


@pytest.mark.parametrize("where", [bytes, in_zip, nested], ids=["pickle", "zip", "nested"])
@pytest.mark.parametrize("evil", EVIL.values(), ids=EVIL.keys())
def test_nothing_in_a_file_runs(
    evil: bytes, where: Callable[[bytes], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "f.pkl"
    file.write_bytes(where(evil))
    monkeypatch.chdir(tmp_path)

    def called(*arguments: object, **keywords: object) -> None:
        raise AssertionError("called")

    def imported(name: str, *others: Any, bring: Callable[..., Any] = __import__, **keywords: Any) -> Any:
        return called() if name in ("os", "subprocess", "builtins") else bring(name, *others, **keywords)

    for name in ("os.system", "subprocess.Popen"):
        monkeypatch.setattr(name, called)
    monkeypatch.setattr("builtins.__import__", imported)
    try:
        found = read_objects(file)
    finally:
        monkeypatch.undo()
    found = found[0] if isinstance(found, list) else found
    assert isinstance(found, Made)
    assert os.listdir(tmp_path) == ["f.pkl"]


def names_in(value: Any) -> Iterator[tuple[str, str]]:
    """Yield every global in a tree of records."""
    if isinstance(value, Named):
        yield value.pair
    elif isinstance(value, Made):
        yield from names_in([value.what, value.arguments, value.state, value.items])
    elif isinstance(value, Mapping):
        yield from names_in([*value.keys(), *value.values()])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from names_in(item)


@pytest.mark.parametrize("name", [name for name in EVIL if name not in ("EXT1", "EXT4", "PERSID", "BINPERSID")])
def test_picklescan_and_fickling_find_what_we_keep_as_records(name: str, tmp_path: Path) -> None:
    file = tmp_path / "f.pkl"
    file.write_bytes(EVIL[name])
    scanned = scan_pickle_bytes(io.BytesIO(EVIL[name]), "f.pkl")
    assert {(found.module, found.name) for found in scanned.globals} == set(names_in(read_objects(file)))
    if name != "BUILD":  # object() is harmless
        assert scanned.issues_count
    if name not in ("BUILD", "NEWOBJ_EX"):  # fickling fails on the latter
        verdicts = [check_safety(one).severity for one in StackedPickle.load(io.BytesIO(EVIL[name]))]
        assert max(verdicts) > Severity.LIKELY_SAFE


def tensor(count: int, shape: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    """The pickle of a tensor over a storage of ``count`` numbers under the key 0."""

    def number(n: int) -> bytes:
        return b"\x8a\x08" + struct.pack("<q", n)

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    storage = (
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + number(count) + b"tQ"
    )
    call = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n("
    return call + storage + number(offset) + numbers(shape) + numbers(stride) + b"\x89}tR."


TEN = np.arange(10, dtype=np.float32).tobytes()
BOMBS = {
    "a storage larger than its entry": in_zip(tensor(1 << 40, (2,), (1,)), data__0=TEN),
    "a view beyond its storage": in_zip(tensor(10, (6,), (2,)), data__0=TEN),
    "an offset beyond its storage": in_zip(tensor(10, (2,), (1,), 9), data__0=TEN),
    "a negative stride": in_zip(tensor(10, (2,), (-1,), 5), data__0=TEN),
    "a negative offset": in_zip(tensor(10, (2,), (1,), -4), data__0=TEN),
    "one number repeated to terabytes": in_zip(tensor(10, (1 << 20, 1 << 20), (0, 0)), data__0=TEN),
    "a product that overflows": in_zip(tensor(10, (1 << 40, 1 << 40, 1 << 40), (0, 0, 0)), data__0=TEN),
    "too many dimensions": in_zip(tensor(10, (1,) * 20, (1,) * 20), data__0=TEN),
    "strides of another length": in_zip(tensor(10, (2, 2), (1,)), data__0=TEN),
    "a missing storage": in_zip(tensor(10, (2,), (1,))),
    "a compressed archive": in_zip(b"N." + b"\0" * 100_000, compress=zipfile.ZIP_DEFLATED),
    "bytes of another machine": in_zip(tensor(10, (2,), (1,)), data__0=TEN, byteorder=b"big"),
    "files in files": nested(nested(nested(nested(nested(b"N."))))),
    "a legacy file of terabytes": pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
    + pickle.dumps({"little_endian": True}, 2) + tensor(1 << 40, (2,), (1,)) + pickle.dumps(["0"], 2),
    "an array larger than its bytes": b"\x80\x02cnumpy.core.numeric\n_frombuffer\n(",
    "text of four gigabytes": b"X\xff\xff\xff\xffab.",
    "a long of two gigabytes": b"\x8b\xff\xff\xff\x7fab.",
    "an empty stack": b"R.",
    "not a pickle": b"hello there, this is text",
    "an empty file": b"",
}  # fmt: skip


@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS.keys())
def test_what_is_damaged_or_made_to_do_damage_is_refused_by_name(data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "f.pkl"
    file.write_bytes(data)
    with pytest.raises(UserError, match=r"f\.pkl"):
        read_objects(file)


def test_a_tensor_may_repeat_its_numbers_within_reason(tmp_path: Path) -> None:
    file = tmp_path / "f.pkl"
    file.write_bytes(in_zip(tensor(10, (3, 10), (0, 1)), data__0=TEN))
    assert torch.equal(read_objects(file), torch.arange(10.0).expand(3, 10))


def test_operations_and_references_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "f.pkl"
    laughs = b"]q\x00" + b"".join(
        b"](" + b"h" + bytes([i]) * 1 + (b"h" + bytes([i])) * 9 + b"eq" + bytes([i + 1]) for i in range(40)
    )
    file.write_bytes(laughs + b".")  # ten references to a list of ten references: 10^40 items, if they were copied
    assert len(read_objects(file)) == 10
    monkeypatch.setattr(pickles, "MOST_OPERATIONS", 100)
    with pytest.raises(UserError, match="more than 100 operations"):
        read_objects(file)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_every_cut_of_a_file_is_refused(new: bool, tmp_path: Path) -> None:
    whole = saved({"a": torch.arange(5.0), "b": OrderedDict(c=torch.ones(2))}, new=new)
    file = tmp_path / "f.pth"
    for cut in range(0, len(whole) - 1, max(1, math.ceil(len(whole) / 60))):
        file.write_bytes(whole[:cut])
        with pytest.raises(UserError, match=r"f\.pth"):
            read_objects(file)


WHOLE = {new: saved({"a": torch.arange(5.0), "b": [nn.Parameter(torch.ones(2))]}, new=new) for new in (True, False)}


@settings(max_examples=150, deadline=None)
@given(new=st.booleans(), place=st.integers(0, 2000), bytes_=st.binary(min_size=1, max_size=4))
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, new: bool, place: int, bytes_: bytes
) -> None:
    data = WHOLE[new]
    place %= len(data)
    file = tmp_path_factory.getbasetemp() / "fuzz.pth"
    file.write_bytes(data[:place] + bytes_ + data[place + len(bytes_) :])
    with suppress(UserError):
        read_objects(file)


def test_a_torchscript_program_and_a_pointer_are_named(tmp_path: Path) -> None:
    file = tmp_path / "f.pt"
    file.write_bytes(in_zip(b"N.", constants__pkl=b"", **{"constants.pkl": b"N."}))
    with pytest.raises(UserError, match="TorchScript program, which is never loaded"):
        read_objects(file)
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match="Git LFS pointer"):
        read_objects(file)
