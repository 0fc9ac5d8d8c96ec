"""Expected scores: found by config from anywhere, compared only between equal protocols, kept true to the configs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from orthogan.cli.main import main
from orthogan.config.files import load_config
from orthogan.config.read import shipped_configs
from orthogan.config.schema import Config
from orthogan.errors import UserError
from orthogan.evaluation import MetricResult
from orthogan.export import package
from orthogan.models.card import Curve, Point
from orthogan.training import dry_run, train
from orthogan.training.expected import (
    SUFFIX,
    Expected,
    curves_of,
    expected_files,
    find_expected,
    mean_curves,
    read_expected,
    what_matters,
    write_expected,
)
from tests.fixtures.runs import tiny

SCORED = [
    "training.steps=4",
    "evaluation.every=2",
    "evaluation.samples=16",
    "evaluation.extractor=tests.fixtures.extractor:Moments",
]
PROTOCOL = {"samples": 16, "reference": "sprites", "weights": "ema"}


def score(value: float, **protocol: object) -> MetricResult:
    return MetricResult("fid", value, "tiny", protocol=PROTOCOL | {"step": "2", "seconds": 1.0} | protocol)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty folders of shipped models and configs."""
    for name in ("models", "configs"):
        (tmp_path / "shelf" / name).mkdir(parents=True)
    monkeypatch.setattr("orthogan.models.shipped.shipped_folder", lambda: tmp_path / "shelf" / "models")
    monkeypatch.setattr("orthogan.training.expected.shipped_configs", lambda: tmp_path / "shelf" / "configs")
    return tmp_path / "shelf"


def run_of(folder: Path, *overrides: str) -> Config:
    config = tiny(folder, *SCORED, *overrides)
    train(config)
    return config


def test_the_card_of_a_model_that_the_config_trained(
    shelf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = run_of(tmp_path / "run")
    assert not find_expected(config)
    package(tmp_path / "run", shelf / "models" / "tiny-sprites")
    found = find_expected(tiny(tmp_path / "other", *SCORED, "seed=9", "logging.every=1", "evaluation.every=1"))
    assert found.origin == "card of tiny-sprites"
    assert "after 64 images (card of tiny-sprites; 16 fakes, EMA, sprites-96, 96 images" in found.target()
    for other in ("data.count=95", "training.steps=5", "optimizer.generator.lr=1e-3", "model.generator.channels=9"):
        assert not find_expected(tiny(tmp_path / "other", *SCORED, other))
    capsys.readouterr()
    run_of(tmp_path / "again", "seed=3")
    out = "".join(capsys.readouterr())
    assert "expected: FD" in out
    lines = [line for line in out.splitlines() if "expected at this point" in line]
    assert [line.split(":")[0] for line in lines] == ["step 2", "step 4"]
    assert all(line.endswith("(card of tiny-sprites)") for line in lines)


def test_the_length_matters_only_where_something_follows_it(tmp_path: Path) -> None:
    steady = tiny(tmp_path, "training.schedule.kind=constant")
    longer = tiny(tmp_path, "training.schedule.kind=constant", "training.steps=9")
    assert what_matters(steady) == what_matters(longer)
    falling = "model.discriminator.penalties=[{kind: srip, schedule: [[0, 1], [0.5, 0]]}]"
    for key in ("training.schedule.kind=cosine", "training.schedule.warmup=0.1", falling):
        one, two = (tiny(tmp_path, "training.schedule.kind=constant", key, f"training.steps={n}") for n in (8, 9))
        assert what_matters(one) != what_matters(two)


@pytest.mark.parametrize("key", ["threads=2", "device=cpu", "precision=fp32", "channels_last=false", "compile=default"])
def test_how_the_machine_computes_does_not_matter(tmp_path: Path, key: str) -> None:
    assert what_matters(tiny(tmp_path)) == what_matters(tiny(tmp_path, f"training.{key}"))


def test_scores_of_other_protocols_are_not_compared() -> None:
    curve = Curve(label=score(1.0).label, protocol=PROTOCOL, points=[Point(images=10, value=5.0, std=0.5)])
    expected = Expected("card of x", [curve])
    assert expected.note(score(4.0), 20) == f"expected at this point: {curve.label} 5 ± 0.5 (card of x)"
    assert expected.note(score(4.0), 5) == ""  # before the first point
    other = expected.note(score(4.0, samples=8), 20)
    assert other == "expected scores (card of x) are not comparable with this one: samples: 16 -> 8"
    assert expected.note(score(4.0, samples=8), 20) == ""  # said once
    assert expected.note(MetricResult("kid", 1.0, "tiny", protocol=PROTOCOL), 20) == ""
    assert not Expected()
    assert Expected().target() == ""


def test_curves_and_their_mean_over_seeds() -> None:
    one = curves_of([(2, score(10.0)), (0, score(30.0)), (4, score(float("nan"))), (2, score(7.0, samples=8))], 16)
    assert [[(p.images, p.value) for p in curve.points] for curve in one] == [[(0, 30.0), (32, 10.0)], [(32, 7.0)]]
    two = curves_of([(2, score(14.0)), (4, score(1.0))], 16)
    (mean,) = mean_curves([one, two])
    assert mean.points == [Point(images=32, value=12.0, std=2.8284)]
    assert mean.runs == 2


def test_a_file_beside_a_config(shelf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [tmp_path / f"run{seed}" for seed in (0, 1)]
    for seed, run in enumerate(runs):
        run_of(run, f"seed={seed}")
    file = shelf / "configs" / f"tiny{SUFFIX}"
    assert main(["expected", *map(str, runs), "--out", str(file), "--machine", "a test machine"]) == 0
    assert "±" in capsys.readouterr().out
    config = tiny(tmp_path / "new", *SCORED, "seed=7")
    found = find_expected(config)
    assert (found.origin, found.machine) == (file.name, "a test machine")
    values = [json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["value"] for run in runs]
    assert found.curves[0].points[-1].value == pytest.approx(sum(values) / 2, abs=1e-3)
    assert dry_run(config)["expected"] == found.target()
    file.write_text("{}")
    assert not find_expected(config)
    assert "warning: no expected scores" in capsys.readouterr().err


def test_a_file_beside_a_config_whose_data_must_have_a_path(shelf: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for i in range(20):
        Image.new("RGB", (32, 32), (10 * i, 0, 0)).save(images / f"{i}.png")
    place = f"data={{source: folder, path: {images}, resolution: 32, channels: 3, count: null}}"
    keys = [place, "training.threads=1"]
    run_of(tmp_path / "run", *keys)
    write_expected([tmp_path / "run"], shelf / "configs" / f"mine{SUFFIX}")
    assert find_expected(tiny(tmp_path / "new", *SCORED, place))
    assert find_expected(tiny(tmp_path / "new", *SCORED, place.replace(str(images), "moved")))
    assert not find_expected(tiny(tmp_path / "new", *SCORED))


def test_a_run_that_was_stopped_early_says_what_to_expect_until_there(
    shelf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, config = tmp_path / "run", run_of(tmp_path / "run")
    last = config.training.steps
    file = shelf / "configs" / f"tiny{SUFFIX}"
    words = ["expected", str(run), "--out", str(file)]
    assert main([*words, "--partial"]) == 0
    assert not read_expected(file).expected[0].partial  # it is finished
    shutil.rmtree(run / "checkpoints" / f"step-{last:09d}")
    assert main(words) == 2
    assert f"of {last}; finish it first, or add --partial" in capsys.readouterr().err
    assert main([*words, "--partial"]) == 0
    curve = read_expected(file).expected[0]
    assert (curve.partial, read_expected(file).seconds) == (True, None)
    end = curve.points[-1]
    assert end.images < config.images_per_step * last
    assert curve.at(end.images) == end
    assert curve.at(end.images + 1) is None
    assert "images, where the runs were stopped (" in find_expected(config).target()
    assert curve.model_copy(update={"partial": False}).at(end.images + 1) == end
    assert find_expected(tiny(tmp_path / "new", *SCORED, "seed=7"))


def test_runs_that_say_nothing_about_a_config_are_refused(tmp_path: Path) -> None:
    run_of(tmp_path / "a")
    run_of(tmp_path / "b", "optimizer.generator.lr=1e-3")
    run_of(tmp_path / "c", "evaluation.every=0")
    out = tmp_path / f"x{SUFFIX}"
    with pytest.raises(UserError, match=r"b: has another config than .*optimizer.generator.lr: 0.0002 -> 0.001"):
        write_expected([tmp_path / "a", tmp_path / "b"], out)
    with pytest.raises(UserError, match="two runs have the same random seed"):
        write_expected([tmp_path / "a", tmp_path / "a"], out)
    with pytest.raises(UserError, match="has no score yet"):
        write_expected([tmp_path / "c"], out)
    with pytest.raises(UserError, match="not a run with a complete checkpoint"):
        write_expected([tmp_path], out)
    assert not out.exists()


def test_every_file_beside_a_shipped_config_is_of_that_config() -> None:
    for file, found in expected_files():
        config = load_config(file.with_name(file.name.removesuffix(SUFFIX) + ".yaml"))
        expected = find_expected(config)
        assert found.expected
        assert expected, f"{file} was written for another config; write it anew with `orthogan expected`"
    assert shipped_configs().is_dir()
