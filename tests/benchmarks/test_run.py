"""The tables of the race: who takes part, ratios and targets on numbers that are known, and the time to a distance."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu, run, time_to_fd
from benchmarks.rivals import AbsentError, Race
from benchmarks.run import chosen, contenders, main, parsed, recorded, step_table, step_targets, variant_targets
from benchmarks.setting import Setting
from benchmarks.time_to_fd import Budget, Run
from benchmarks.timing import Readings


def raced(**seconds: list[float]) -> Race:
    """Readings of contenders by name (an underscore for a blank)."""
    named = {name.replace("_", " "): values for name, values in seconds.items()}
    peak = {name: [3 << 20] for name in named}
    readings = Readings(named, dict.fromkeys(named, 1), peak, [0.5, 0.5])
    return Race(readings, {name: {"rss built": 1 << 20} for name in named})


def test_every_contender_of_ours_has_a_valid_config(tmp_path: Path) -> None:
    from benchmarks.ours import config_of

    for name, contender in contenders([], run.CONFIGS["srngan32"]).items():
        if contender["kind"] == "orthogan":
            assert config_of(Setting(), contender["overrides"], str(tmp_path / name)).training.batch_size == 64
    for overrides in run.VARIANTS.values():
        config_of(Setting(), overrides, str(tmp_path))


def test_peers_join_by_name_and_absolute_path() -> None:
    found = contenders([("mimicry", "somewhere")], [])
    assert found["mimicry"] == {"kind": "mimicry", "path": str(Path("somewhere").absolute())}
    assert {"orthogan", "plain", "plain bf16 channels_last"} <= set(found)
    assert recorded(found) == {**found, "mimicry": {"kind": "mimicry"}}  # a path is of one machine


def test_patterns_choose_and_exclude() -> None:
    names = ["plain", "plain bf16", "orthogan"]
    assert chosen("", names) == names
    assert chosen("plain*,!*bf16", names) == ["plain"]
    with pytest.raises(ValueError, match="'studio' matches no contender; there are plain"):
        chosen("studio", names)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--peer", "mimicry"], "write NAME=PATH"),
        (["--peer", "other=/x"], "write NAME=PATH"),
        (["--peer", "lightweight-gan=/x"], "with --tables time-to-peer"),
        (["--tables", "steps"], "there is no steps; choose out of step"),
        (["--rounds", "0"], "--rounds is 0: at least 1"),
        (["--steps", "0"], "--steps is 0: at least 1"),
        (["--only", "x"], "'x' matches no contender"),
        (["--data", "cifar"], "there is no cifar"),
    ],
)
def test_wrong_options_are_named(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(options)
    assert message in capsys.readouterr().err


def test_images_a_second_are_compared_round_by_round_with_the_fastest_peer() -> None:
    found = raced(
        orthogan=[1.0, 2.0], plain=[8.0, 8.0], plain_bf16=[4.0, 4.0], mimicry=[9.0, 18.0], studiogan=[20.0, 20.0]
    )
    table = step_table(found, Setting())
    assert "reals/s over plain | reals/s over mimicry" in table
    assert "| orthogan | 1.500 | 1.000–2.000 | 213 | 3 (+2) | 6.00 (4.00–8.00) | 9.00 (9.00–9.00) |" in table


def test_targets_are_met_by_the_median(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "fast_bf16", lambda _: True)
    found = raced(orthogan=[1.0, 1.0], plain=[8.0, 8.0], plain_bf16=[0.5, 0.7], mimicry=[6.0, 6.0])
    peer, plain = step_targets(found, "cpu")
    assert (peer["median"], peer["met"]) == (6.0, False)
    assert "mimicry: at least 7" in peer["target"]
    assert (plain["min"], plain["max"], plain["met"]) == (0.5, 0.7, False)
    assert step_targets(found, "cuda")[0]["met"]
    monkeypatch.setattr(run, "fast_bf16", lambda _: False)
    assert len(step_targets(found, "cpu")) == 1


def test_the_cost_of_a_variant_is_over_the_step_without_it() -> None:
    srn, nog = variant_targets(raced(sn=[1.0, 2.0, 1.0], srn=[1.02, 2.04, 3.0], nog=[1.1, 2.2, 1.1]))
    assert (srn["median"], srn["met"]) == (1.02, True)
    assert (nog["median"], nog["met"]) == (pytest.approx(1.1), False)


def test_main_writes_each_table_and_names_the_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entered: dict[str, list[str]] = {}

    def played(who: dict[str, Any], setting: Setting, *, title: str, **_: Any) -> Race:
        entered[title] = list(who)
        assert (setting.channels, setting.generator_channels, setting.generator_batch) == (8, 16, 6)
        found = raced(**{name.replace(" ", "_"): [1.0, 1.0] for name in who if name != "mimicry"})
        found.absent["mimicry"] = "no module named x"
        return found

    monkeypatch.setattr(run, "race", played)
    path = tmp_path / "below" / "out.json"
    options = ["--channels", "8", "--batch", "3", "--peer", f"mimicry={tmp_path}", "--device", "cpu"]
    extra = ["--only", "orthogan,plain,mimicry,mine", "--contender", "mine", "training.ema.half_life=9"]
    result = main([*options, *extra, "--json", str(path)])
    assert entered == {"step": ["orthogan", "plain", "mimicry", "mine"], "variants": list(run.VARIANTS)}
    assert json.loads(path.read_text()) == result
    assert result["tables"][0]["contenders"]["mine"]["overrides"] == ["training.ema.half_life=9"]
    printed = capsys.readouterr().out
    assert "- mimicry: no module named x" in printed
    assert "srn over sn alone" in printed


def test_the_level_is_crossed_where_an_exponential_crosses_it() -> None:
    one = Run(seed=0)
    for seconds, reals, distance in ((10.0, 100, 80.0), (20.0, 200, 20.0), (30.0, 300, 50.0)):
        one.add(seconds, reals, distance, level=40.0)
    assert one.seconds == pytest.approx(15.0)
    assert one.reals == pytest.approx(150.0)
    at_once, never = Run(seed=0), Run(seed=0)
    at_once.add(10.0, 100, 30.0, level=40.0)
    assert (at_once.seconds, at_once.reals) == (10.0, 100)
    never.add(10.0, 100, math.nan, level=40.0)
    assert never.seconds is None


class Falling:
    """A contender whose distance halves with every score; the plain one takes four times as long."""

    def __init__(self, contender: Any, setting: Setting, log: Path, *, parts: bool) -> None:
        self.slow, self.distance = contender["kind"] == "plain", 200.0

    def hear(self) -> dict[str, Any]:
        return {"ready": {}}

    def ask(self, word: dict[str, Any]) -> dict[str, Any]:
        if "steps" in word:
            return {"seconds": 4.0 if self.slow else 1.0}
        self.distance /= 2
        return {"fd": self.distance}

    def close(self) -> None: ...


def test_both_train_to_the_level_that_a_pilot_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.rivals.Rival", Falling)
    budget = Budget(seconds=1000.0, seeds=2, every=256, samples=10)
    found = time_to_fd.time_to_fd("sprites", budget, device="cpu", keys=[], logs=tmp_path)
    assert found["level"] == pytest.approx(1.05 * 200 / 2**4)
    assert "a pilot" in found["chosen"]
    (target,) = found["targets"]
    assert (target["median"], target["met"]) == (pytest.approx(0.25), True)
    assert "| orthogan | 8 ± 0 |" in found["text"]
    assert "2 of 2" in found["text"]
    short = time_to_fd.time_to_fd("sprites", Budget(7.0, 1, 60.0, every=256), device="cpu", keys=[], logs=tmp_path)
    assert "| plain | – | – | 0 of 1, the others not within 7 s |" in short["text"]
    assert short["chosen"] == "given by --level"


def test_a_set_that_is_not_here_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Absent(Falling):
        def hear(self) -> dict[str, Any]:
            raise AbsentError("fashion-mnist: there is nothing")

    monkeypatch.setattr("benchmarks.rivals.Rival", Absent)
    found = time_to_fd.time_to_fd("fashion-mnist", Budget(), device="cpu", keys=[], logs=tmp_path)
    assert found["absent"] == {"fashion-mnist": "fashion-mnist: there is nothing"}
    assert found["targets"] == []


def test_the_gpu_part_is_rehearsed_and_one_failure_does_not_cost_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def played(who: dict[str, Any], setting: Setting, **_: Any) -> Race:
        return raced(**{name.replace(" ", "_"): [1.0, 1.0] for name in who})

    def broken(_: gpu.Scale) -> None:
        raise RuntimeError("no evaluation today")

    monkeypatch.setattr(gpu, "race", played)
    monkeypatch.setattr(gpu, "evaluation", broken)
    result = gpu.main(["--rehearse", "--out", str(tmp_path)])
    (path,) = tmp_path.glob("gpu-*.json")
    assert json.loads(path.read_text()) == json.loads(json.dumps(result))
    assert list(result["failed"]) == ["evaluation"]
    assert set(result["steps"]) == {"small", "large"}
    small, large = result["work"]
    assert large["flops"] > small["flops"] > 0
    assert large["floor"] > 0
    share = next(one for one in result["targets"] if "share of its floor at least" in one["target"])
    assert share["median"] == pytest.approx(large["floor"])
    assert len(result["losses"]["fp32"]["D/loss"]) == gpu.REHEARSAL.losses * 5
    assert "no evaluation today" in capsys.readouterr().out


def test_the_gpu_part_begins_nothing_after_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = gpu.main(["--rehearse", "--out", str(tmp_path), "--minutes", "-1"])
    assert all("not begun" in reason for reason in result["failed"].values())
    assert result["targets"] == []
