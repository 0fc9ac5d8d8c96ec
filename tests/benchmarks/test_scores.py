"""The benchmark of scores: all tools agree, and the table shows their differences."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import scores

pytest.importorskip("cleanfid")
pytest.importorskip("torchmetrics")


def test_all_tools_compute_the_same_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scores, "LENGTH", 12)  # far fewer than the images, so that no covariance is singular
    monkeypatch.setattr(scores, "_in_a_process", scores.one)
    path = tmp_path / "scores.json"
    result = scores.main(["--images", "150", "--rounds", "1", "--json", str(path)])
    assert result is not None
    assert result == json.loads(path.read_text())
    printed = capsys.readouterr().out
    assert all(table["text"] in printed for table in result["tables"])
    for table in result["tables"]:
        values = {tool: calls[0]["values"] for tool, calls in table["found"].items()}
        assert set(values) == set(scores.METRICS[table["metric"]])
        for found in values.values():
            assert found == pytest.approx(values["orthogan"], rel=1e-3, abs=1e-6)  # their KID is in float32


def test_the_command_for_one_score_prints_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scores, "LENGTH", 12)
    assert scores.main(["--images", "80", "--one", "precision and recall", "orthogan"]) is None
    assert set(json.loads(capsys.readouterr().out)) == {"values", "seconds", "mib"}


def test_the_table_shows_how_far_a_tool_is_off() -> None:
    found = {
        "orthogan": [{"values": {"FID": 2.0}, "seconds": 1.0, "mib": 10.0}],
        "other": [{"values": {"FID": 2.02}, "seconds": 3.0, "mib": 30.0}],
    }
    assert "| other | 2.02 | 0.01 | 3.00 | 3.00 (3.00–3.00) | 30 |" in scores.table(found)
