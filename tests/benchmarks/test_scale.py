from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import data, scale, timing
from benchmarks.scale import BASE, FACTORS, Point, points, straight_line, training_table


def test_one_factor_moves_at_a_time() -> None:
    found = points(BASE, FACTORS)
    assert len(found) == sum(map(len, FACTORS.values()))
    for factor, point in found:
        others = {key for key in ("batch", "width", "resolution", "processes") if key != factor}
        assert all(getattr(point, key) == getattr(BASE, key) for key in others)
    assert ("batch", Point(batch=512)) in found
    assert ("processes", Point(processes=2)) in found


def test_the_line_through_the_times_of_a_reduction() -> None:
    nbytes = [1e4, 1e6, 1e8]
    latency, bandwidth = straight_line(nbytes, [2e-4 + b / 3e9 for b in nbytes])
    assert latency == pytest.approx(2e-4)
    assert bandwidth == pytest.approx(3e9)


def test_rates_are_images_by_seconds_and_a_point_that_failed_is_named() -> None:
    done = {"factor": "batch", "point": {"batch": 16}, "images": 80, "seconds": [2.0, 4.0, 1.0]}
    rows = [done | {"peak MiB": 900.4, "before MiB": 300.0}, {"factor": "width", "point": {"width": 9}, "failed": "x"}]
    assert training_table(rows).splitlines()[2:] == [
        "| batch | 16 | 40.0 | 20.0–80.0 | 900 | 300 |",
        "| width | 9 | failed | | | |",
    ]


def test_quick_run_on_two_processes_measures_steps_memory_and_the_mean_of_gradients(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "below" / "scale.json"
    result = scale.main(["--quick", "--steps", "1", "--only", "processes,reduce", "--json", str(path)])
    assert json.loads(path.read_text())["training"] == result["training"]
    (row,) = result["training"]
    assert row["point"] == {"batch": 4, "width": 4, "resolution": 32, "processes": 2}
    assert (len(row["seconds"]), row["images"]) == (1, 20)
    assert row["peak MiB"] >= row["before MiB"] > 0
    reduced = result["reduce"]
    assert (reduced["processes"], reduced["bytes"]) == (2, [40_000, 400_000])
    assert all(min(seconds) > 0 for seconds in reduced["seconds"])
    assert "bandwidth" in capsys.readouterr().out


def test_unknown_factor(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        scale.main(["--only", "depth"])
    assert "--only: depth is none of batch, width, resolution, processes, reduce" in capsys.readouterr().err


def test_every_way_of_reading_is_measured_beside_a_raw_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "REST", 0.0)
    rows = data.rows_case(tmp_path, 16, 1 << 18, 2 * data.BATCH, [0, 1], 1)
    assert set(rows["ratios"]) == {
        "raw, in order",
        "raw, one by one",
        "raw, told ahead",
        "raw, told ahead, 1 processes",
        "npy, workers 0",
        "npy, workers 1",
        "h5 in block, workers 0",
        "h5 in chunks, workers 0",
    }
    assert rows["ratios"]["raw, one by one"]["median"] == 1.0
    pictures = data.pictures_case(tmp_path, ("png", 12, 16), 8, data.BATCH, [0, 1], 1)
    assert {r["to"] for r in pictures["ratios"].values()} == {"bare loop, 1 processes"}
    for table in (rows, pictures):
        assert all(ratio["min"] > 0 for ratio in table["ratios"].values())
        assert all(len(seconds) == 1 for seconds in table["readings"]["seconds"].values())


def test_what_a_streaming_process_holds_is_measured(tmp_path: Path) -> None:
    found = data.memory_case(tmp_path, 16, 1 << 19, 1)
    small, large = found["sets"]
    assert large["images"] > 3 * small["images"]
    assert small["held MiB"] > 0
    assert found["growth MiB"] == large["held MiB"] - small["held MiB"]


def test_ratios_of_rates_are_above_one_for_what_is_faster() -> None:
    found = timing.Readings({"slow": [2.0, 4.0], "fast": [1.0, 1.0]})
    table = data._table("t", found, 100, 1e6, {"slow": "slow", "fast": "slow"})
    assert (table["ratios"]["fast"]["min"], table["ratios"]["fast"]["max"]) == (2.0, 4.0)
    assert "| fast | 100 | 100.0 | 3.00 | 2.00–4.00 |" in table["text"]
