"""The benchmark of evaluation at tiny sizes, and what it reads off known scores."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import timing
from benchmarks.bf16_noise import summary
from benchmarks.evaluation import arithmetic, features, gaussian_of, loop, main, merged_each_batch, neighbours

CPU = torch.device("cpu")
SUBJECT = Path("pretrained/sprites-sngan/generator.safetensors")
EXTRACTOR = "tests.fixtures.scored:Classifying"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "LEAST", 0.0)


def test_every_table_is_measured_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "below" / "out.json"
    sizes = ["--length", "12", "--rows", "40", "--streamed", "100", "--neighbours", "20", "--images", "16"]
    result = main([*sizes, "--rounds", "1", "--device", "cpu", "--extractor", EXTRACTOR, "--json", str(path)])
    assert json.loads(path.read_text()) == result
    assert [one["table"] for one in result["tables"]][:4] == ["arithmetic", "streaming", "neighbours", "loop"]
    assert set(result["tables"][0]["ratios"]) == {"ours", "torch-fidelity", "scipy sqrtm"}
    printed = capsys.readouterr().out
    for one in result["tables"]:
        assert one["text"] in printed
        assert all(len(seconds) == 1 for seconds in one["readings"]["seconds"].values())


def test_what_is_timed_computes_the_same() -> None:
    fid = arithmetic(60, 9, CPU)
    theirs = fid["torch-fidelity"]()
    assert isinstance(theirs, dict)
    value = theirs["frechet_inception_distance"]
    assert fid["ours"]() == pytest.approx(value, rel=1e-8)
    assert fid["scipy sqrtm"]() == pytest.approx(value, rel=1e-8)
    x = features(150, 6, 0, CPU)
    np.testing.assert_allclose(merged_each_batch(x, 64).numpy(), gaussian_of(x, 64).covariance, rtol=1e-9)
    found = [step() for step in neighbours(30, 5, CPU).values()]
    assert found[0] == found[1] == found[2]
    assert len(loop(16, SUBJECT, EXTRACTOR, False, CPU)["drawing"]()) == 1


def test_noise_compares_every_variant_on_the_same_latents(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--noise", "--images", "24", "--seeds", "2", "--device", "cpu", "--extractor", EXTRACTOR]
    (one,) = main(options)["tables"]
    assert {len(values) for scores in one["scores"].values() for values in scores.values()} == {2}
    assert one["scores"]["bf16 sampling"]["FD"] != one["scores"]["fp32"]["FD"]
    assert one["text"] in capsys.readouterr().out


def test_shifts_are_taken_seed_by_seed() -> None:
    found = {"fp32": {"FD": [10.0, 12.0, 14.0]}, "bf16 both": {"FD": [10.5, 11.5, 14.5]}}
    row = summary("FD", found)
    assert (row["mean"], row["spread"]) == (12.0, 2.0)
    assert row["shifts"]["bf16 both"]["mean"] == pytest.approx(0.5 / 3)
    assert row["shifts"]["bf16 both"]["rms / spread"] == pytest.approx(0.25)


def test_an_unknown_table_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--tables", "speed"])
    assert "speed unknown; there are arithmetic" in capsys.readouterr().err
