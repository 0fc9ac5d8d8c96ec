"""Columns of one protocol each, failures counted, differences on equal seeds."""

from __future__ import annotations

from pathlib import Path

import pytest

from orthogan.errors import UserError
from orthogan.studies.table import Entry
from orthogan.studies.values import CIRCUMSTANCES, Value, differing, standing
from tests.fixtures.tables import entry, table


def test_protocols_that_agree_share_a_column_and_circumstances_do_not_count() -> None:
    a = {"samples": 100, "seed": 0, "seconds": 3.0, "device": "cpu", "torch": "2.9", "orthogan": "1", "step": "8"}
    b = {"samples": 100, "seed": 5, "seconds": 9.0, "device": "cuda", "torch": "2.10", "orthogan": "2", "step": "9"}
    found = table([entry("a", 0, 1.0, a), entry("b", 0, 2.0, b)])
    assert [column.name for column in found.columns] == ["error"]
    assert found.columns[0].protocol == {"samples": 100}
    assert set(a) - set(standing(a)) <= set(CIRCUMSTANCES)


def test_unlike_protocols_are_refused_by_the_names_of_the_keys() -> None:
    entries = [
        entry("a", 0, 1.0, {"samples": 100, "extractor": "inception"}),
        entry("a", 1, 1.0, {"samples": 100, "extractor": "inception"}),
        entry("b", 0, 2.0, {"samples": 50, "extractor": "vgg16"}),
    ]
    with pytest.raises(UserError) as refused:
        table(entries)
    message = str(refused.value)
    for part in ("error: measured under different protocols", "samples: 100 in 2 runs", "50 in 1 run,", "runs/b/0"):
        assert part in message
    assert "extractor: inception in 2 runs" in message


def test_a_key_that_one_protocol_lacks_is_a_difference() -> None:
    assert differing([{"samples": 10}, {"samples": 10, "truncation": 0.7}]) == ["truncation"]


def test_split_columns_are_named_by_what_differs_and_nothing_is_compared_across_them() -> None:
    entries = [entry("a", 0, 1.0, {"samples": 100}), entry("b", 0, 2.0, {"samples": 50})]
    found = table(entries, split=True)
    assert [column.name for column in found.columns] == ["error (samples 100)", "error (samples 50)"]
    assert all(column.difference("b", "a").n == 0 for column in found.columns)
    assert found.column("error") is None


def test_numbers_of_unlike_machines_get_columns_of_their_own_without_refusal() -> None:
    entries = [entry("a", 0, 1.0, place={"threads": "1"}), entry("b", 0, 2.0, place={"threads": "2"})]
    assert [column.name for column in table(entries).columns] == ["error (threads 1)", "error (threads 2)"]


def test_failures_are_counted_and_are_in_no_mean() -> None:
    entries = [
        entry("a", 0, 1.0),
        entry("a", 1, 3.0),
        entry("a", 2, 999.0, status="diverged", reason="nan"),
        Entry("a", 3, Path("x"), "error", "killed"),
        Entry("a", 4, Path("y"), "error", "killed"),
    ]
    found = table(entries)
    assert found.failures("a") == "1 diverged, 2 error"
    assert found.columns[0].estimate("a").values == (1.0, 3.0)
    assert len(found.of("a")) == 5


def test_a_number_given_twice_under_two_protocols_is_in_two_columns() -> None:
    few, many = Value(3.0, "lower", {"samples": 10}), Value(2.0, "lower", {"samples": 1000})
    one = Entry("a", 0, Path("a"), numbers=(("FID", few), ("FID", many)))
    assert [c.estimate("a").mean for c in table([one], split=True).columns] == [3.0, 2.0]
