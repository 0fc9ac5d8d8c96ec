"""The time to a peer's distance: alternation, the level, and the ratio on curves with known crossings."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from benchmarks.ours import config_of
from benchmarks.rivals import ROOT, AbsentError
from benchmarks.setting import Setting
from benchmarks.time_to_fd import Budget, Run
from benchmarks.time_to_peer import CONFIGS, SHARE, reached, table, time_to_peer


def test_the_ratio_is_that_of_the_times_to_the_best_distance_of_the_peer() -> None:
    peer = Run(0, curve=[(100.0, 10, 80.0), (200.0, 20, 40.0), (300.0, 30, 60.0)])
    ours = Run(0, curve=[(10.0, 100, 80.0), (20.0, 200, 20.0)])
    assert reached(ours, peer) == pytest.approx(15.0 / 200.0)  # 40 lies halfway between 80 and 20 on a log scale
    never = Run(0, curve=[(50.0, 100, 41.0)])
    assert reached(never, peer) is None
    text = table([{"orthogan": ours, "mimicry": peer}], "mimicry", [reached(ours, peer)])
    assert "| 0 | 200, 20, 40.0 | 20, 200, 20.0 | 0.075 |" in text
    assert "not reached" in table([{"orthogan": never, "mimicry": peer}], "mimicry", [None])


class Halving:
    """A contender whose distance halves every 30 seconds of its own time (orthogan: every 2 seconds)."""

    asked: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, contender: Any, setting: Setting, log: Path, *, parts: bool) -> None:
        self.contender, self.spent = contender, 0.0
        self.step = 0.5 if contender["kind"] == "orthogan" else 10.0
        Halving.asked.append(dict(contender))

    def hear(self) -> dict[str, Any]:
        return {"ready": {"reals per step": 16 if self.contender["kind"] == "orthogan" else 128}}

    def ask(self, word: dict[str, Any]) -> dict[str, Any]:
        if "steps" in word:
            self.spent += self.step * word["steps"]
            return {"seconds": self.step}
        return {"fd": 1000 * 0.5 ** (self.spent / (2 if self.contender["kind"] == "orthogan" else 30))}

    def close(self) -> None: ...


def test_the_two_alternate_and_the_peer_trains_by_its_own_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.rivals.Rival", Halving)
    monkeypatch.setattr(Halving, "asked", [])
    peer = {"kind": "pytorch-gan-collections", "path": "somewhere"}
    budget = Budget(seconds=120.0, seeds=2, samples=10, every=64)
    found = time_to_peer("faces", peer, budget, device="cpu", logs=tmp_path, images=64)
    for pair in found["runs"]:
        theirs, ours = pair["pytorch-gan-collections"]["curve"], pair["orthogan"]["curve"]
        assert [(seconds, reals) for seconds, reals, _ in theirs] == [(30, 384), (60, 768), (90, 1152), (120, 1536)]
        assert ours[-1][0] == pytest.approx(SHARE * 120)
        assert ours[-1][1] == 16 * 2 * ours[-1][0]
    assert found["ratios"] == [pytest.approx(2 / 30)] * 2  # both halve at a constant rate
    (target,) = found["targets"]
    assert target["met"] is True
    assert Halving.asked[1]["recipe"] == "configs/SNGAN_CIFAR10_CNN.txt"
    assert Halving.asked[0]["config"].endswith("configs/demo.yaml")


def test_a_peer_that_cannot_train_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Absent(Halving):
        def hear(self) -> dict[str, Any]:
            raise AbsentError("no module named absl")

    monkeypatch.setattr("benchmarks.rivals.Rival", Absent)
    found = time_to_peer("faces", {"kind": "mimicry", "path": "x"}, Budget(seeds=1), device="cpu", logs=tmp_path)
    assert found["absent"] == {"mimicry": "no module named absl"}
    assert (found["targets"], found["text"]) == ([], "")


@pytest.mark.parametrize("data", list(CONFIGS))
def test_the_recipe_of_a_data_set_is_a_shipped_config(data: str, tmp_path: Path) -> None:
    file = ROOT / "configs" / CONFIGS[data]
    config = config_of(Setting(data=data, seed=3), ["data.channels=3"], str(tmp_path / "run"), str(file))
    assert (config.seed, config.training.batch_size, config.loss.kind) == (3, 16, "relativistic")
    assert config.evaluation.every == 0
    assert not config.evaluation.at_start
