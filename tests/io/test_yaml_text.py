"""YAML from anywhere: a plain value, or one error that names the source; never much time or memory."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from time import process_time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orthogan.errors import UserError
from orthogan.io.yaml_text import parse_yaml

BOMB = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
REFUSED = {
    "list as a key": "? [a]\n: b",
    "list as a key, in braces": "{[a]: b}",
    "mapping as a key": "{{a: 1}: b}",
    "key given twice": "a: 1\na: 2",
    "key given twice, once as a number": "1: 1\n'1': 2",
    "digits": "a: " + "9" * 4301,
    "hexadecimal digits": "a: 0x" + "f" * 100_000,
    "date": "2026-13-45",
    "tag int": "!!int abc",
    "tag float": "!!float abc",
    "tag bool": "!!bool maybe",
    "tag map": "!!map 3",
    "tag seq": "!!seq 3",
    "tag timestamp": "!!timestamp x",
    "tag binary": "!!binary é",
    "tag of Python": "!!python/object/apply:os.system [echo]",
    "tag of nobody": "!last",
    "levels in brackets": "[" * 500,
    "closed levels in brackets": "[" * 100 + "]" * 100,
    "levels by indent": "\n".join(" " * i + "a:" for i in range(500)),
    "aliases": BOMB,
    "alias of itself": "&a [*a]",
    "alias of its parent": "a: &a {b: {c: *a}}",
    "alias of nothing": "*a",
    "base 60": "1:30:45",
    "base 60, float": "1:30.5",
    "base 8": "010",
    "base 8, negative": "-0777",
    "NUL": "a: \x00",
    "lone surrogate": "a: \udcff",
    "bytes that are not UTF-8": b"a: \xff\xfe\xfa",
    "unbalanced": "a: [1",
    "two documents": "a: 1\n---\nb: 2",
    "merge key": "a: &a {b: 1}\nc: {<<: *a}",
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_a_plain_value_is_refused_with_the_source(text: str | bytes) -> None:
    start = process_time()
    with pytest.raises(UserError, match=r"^here\.yaml: ") as caught:
        parse_yaml(text, "here.yaml")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert process_time() - start < 120  # some would otherwise take hours


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("# a comment", None),
        ("2e-4", 2e-4),
        ("1E5", 1e5),
        ("-1.5", -1.5),
        ("0", 0),
        ("0.5", 0.5),
        ("-0", 0),
        ("0x10", 16),
        ("1_000", 1000),
        ("'010'", "010"),
        ("1:30:45 hours", "1:30:45 hours"),
        ("2026-11-28", datetime.date(2026, 11, 28)),
        ("{no: no, 010: [yes, a]}", {"no": False, "010": [True, "a"]}),
        ("a: &x {b: 1}\nc: *x", {"a": {"b": 1}, "c": {"b": 1}}),
        (b"a: \xc3\xa9", {"a": "é"}),
    ],
)
def test_what_is_read(text: str | bytes, value: object) -> None:
    assert parse_yaml(text, "here") == value


@given(
    st.one_of(
        st.text(max_size=200),
        st.binary(max_size=200),
        st.text(alphabet="&*!?|>-:,[]{}'\"#%@` \n\t0123456789aeE.xo_<=~", max_size=200),
    )
)
@example("<<: *a")
@example("%YAML 9.9\n---\na")
@example("a: !<tag:yaml.org,2002:int> ''")
def test_any_text_is_a_value_or_a_user_error(text: str | bytes) -> None:
    try:
        parse_yaml(text, "here")
    except UserError as error:
        said = str(error)
        assert said.startswith("here: ")


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        (b"a:\n\tb: 1\n", "; indent with spaces instead of tabs"),
        ("# \u00e9".encode("latin-1"), "; save the file as UTF-8"),
        (b"a: [1\n", "line 2, column 1: ^"),
        ("a: !last\n", " at line 1, column 4: a: !last ^"),
        (
            b"a: &a {}\nb: {<<: *a}\n",
            "line 2: merge keys (<<) are not supported; write out the keys that it stands for",
        ),
    ],
)
def test_files_of_other_editors_get_a_cure(text: str | bytes, cure: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_yaml(text, "mine.yaml")
    assert str(caught.value).endswith(cure)


@pytest.mark.parametrize("encode", [lambda t: t.encode("utf-8-sig"), lambda t: t.encode("utf-16"), str.encode])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_and_marks_of_windows(encode: Callable[[str], bytes], end: str) -> None:
    assert parse_yaml(encode(f"a: 1{end}b:{end}  c: \u00e9 # x{end}"), "mine.yaml") == {"a": 1, "b": {"c": "\u00e9"}}
