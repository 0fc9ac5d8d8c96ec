"""Files of JSON lines: a damaged line costs that line, is named, and the file as it was is kept."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from orthogan.io.json_lines import Record, keep_json_lines, read_json_lines

RECORDS: list[Record] = [{"step": step, "loss": 0.5, "name": "ü"} for step in range(4)]
TEXT = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in RECORDS).encode()


def wanted(record: Record) -> bool:
    return record["step"] <= 2


def test_only_what_is_wanted_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "log.jsonl"
    keep_json_lines(file, wanted)
    assert not file.exists()
    file.write_bytes(TEXT)
    keep_json_lines(file, wanted)
    assert read_json_lines(file) == (RECORDS[:3], [])
    assert capsys.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == [file]


def test_a_flipped_bit_anywhere_costs_at_most_the_lines_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    length = TEXT.index(b"\n") + 1
    for position in range(len(TEXT)):
        for bit in (position % 7, 7):
            data = bytearray(TEXT)
            data[position] ^= 1 << bit
            file.write_bytes(data)
            found, problems = read_json_lines(file, wanted)
            others = [
                record for i, record in enumerate(RECORDS) if i != position // length and i != (position + 1) // length
            ]
            assert all(record in found for record in others)
            assert len(found) >= 3 or problems


DAMAGED = {
    "no UTF-8": b"\xff\n",
    "no JSON": b"{\n",
    "no record": b"[1]\n",
    "a key less": b'{"steq": 1}\n',
    "a text for a number": b'{"step": "1"}\n',
    "deep": b"[" * 100_000 + b"\n",
    "cut short": b'{"step": 2, "lo',
}


@pytest.mark.parametrize("line", DAMAGED.values(), ids=DAMAGED)
def test_damaged_lines_are_named_and_kept_aside(
    tmp_path: Path, line: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "log.jsonl"
    for turn in ("log.jsonl.damaged", "log.jsonl.damaged-2"):
        file.write_bytes(TEXT + line)
        keep_json_lines(file, wanted)
        assert read_json_lines(file) == (RECORDS[:3], [])
        assert (tmp_path / turn).read_bytes() == TEXT + line
        error = capsys.readouterr().err
        assert "line 5" in error
        assert str(file) in error
        assert turn in error


def folder(path: Path) -> None:
    path.mkdir()
    (path / "inside").touch()


@pytest.mark.parametrize(
    "obstacle",
    [folder, lambda path: path.symlink_to(path), lambda path: path.symlink_to("gone"), os.mkfifo],
    ids=["folder", "loop", "dangling", "pipe"],
)
def test_what_is_no_file_is_set_aside(
    tmp_path: Path, obstacle: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "log.jsonl"
    obstacle(file)
    keep_json_lines(file, wanted)
    assert not os.path.lexists(file)
    assert os.path.lexists(tmp_path / "damaged-log.jsonl")
    assert "damaged-log.jsonl" in capsys.readouterr().err
