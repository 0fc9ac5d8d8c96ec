"""Control characters in what is printed are escaped; progress bars still move."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Callable

import pytest
from tqdm import tqdm

from orthogan.io.terminal import Plain, shell_word, text_table


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 中\ttext\n", "plain é 中\ttext\n"),
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b2J", r"\x9b2J"),
        ("a\x00b\x08\x7f", r"a\x00b\x08\x7f"),
        ("file\u202egnp.exe", r"file\u202egnp.exe"),
        ("\n\x1b[A\x1b[A", "\n\x1b[A\x1b[A"),
        ("name\x1b[A", r"name\x1b[A"),
        ("\r 50%", "\r 50%"),
    ],
)
def test_what_commands_a_terminal_is_escaped(text: str, shown: str) -> None:
    stream = io.StringIO()
    print(text, file=Plain(stream), end="")
    assert stream.getvalue() == shown


@pytest.mark.parametrize("make", [os.pipe, os.openpty])
@pytest.mark.parametrize("buffering", [1, -1])
def test_what_nobody_reads_any_more_is_dropped(make: Callable[[], tuple[int, int]], buffering: int) -> None:
    reader, writer = make()
    with open(writer, "w", buffering) as stream:
        plain = Plain(stream)
        print("one", file=plain, flush=True)
        assert os.read(reader, 100).rstrip() == b"one"
        os.close(reader)
        for _ in range(3):  # a closed terminal gives another error than a closed pipe
            print("x" * 10_000, file=plain, flush=True)
        assert os.readlink(f"/proc/self/fd/{writer}") == os.devnull  # for child processes, too


def test_a_full_disk_is_still_an_error() -> None:
    with pytest.raises(OSError, match="No space left"), open("/dev/full", "w", 1) as stream:
        Plain(stream).write("one\n")


@pytest.mark.parametrize("name", ["plain/a.png", "a b", "it's", '"', "-dash", "--out", "$HOME", "a;b", "é", "-a b"])
def test_a_path_is_one_word_for_the_shell_and_no_option(name: str) -> None:
    said = subprocess.run(["sh", "-c", f"printf '%s|' {shell_word(name)}"], capture_output=True, text=True, check=True)
    assert said.stdout in (f"{name}|", f"./{name}|")
    assert not said.stdout.startswith("-")


def test_progress_bars_are_as_they_were() -> None:
    written = []
    for wrap in (lambda stream: stream, Plain):
        stream = io.StringIO()
        for _ in tqdm(range(3), file=wrap(stream), position=1, bar_format="{n}/{total}", mininterval=0):
            pass
        written.append(stream.getvalue())
    assert written[0] == written[1]


def test_a_table_is_aligned_and_keeps_indents() -> None:
    rows = [["mig", "0.5", "a"], ["  random", "12.25", ""], ["", "", ""], ["é", "1", "note"]]
    assert text_table(rows, "lrl", ["metric", "value", "n"]).splitlines() == [
        "metric      value  n",
        "mig           0.5  a",
        "  random    12.25",
        "",
        "é               1  note",
    ]
