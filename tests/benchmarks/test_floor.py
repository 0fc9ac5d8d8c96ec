"""The operations and bytes of a step are counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import floor
from benchmarks.floor import Least, Work, counted, floor_in_turns
from benchmarks.setting import Setting


def test_forward_and_backward_are_counted_with_what_they_read_and_write() -> None:
    a = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    b = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    with Work() as work:
        (a @ b).sum().backward()
    # the product, and its two gradients of the same size
    assert work.flops == 3 * 2 * 2 * 3 * 5
    assert work.bytes == 3 * 8 * (6 + 15 + 10)


def test_convolutions_and_their_transposes_are_counted() -> None:
    x = torch.randn(2, 3, 4, 4)
    with Work() as work, torch.no_grad():
        nn.Conv2d(3, 5, 3, padding=1)(x)
    assert work.flops == 2 * 2 * 16 * 27 * 5
    with Work() as work, torch.no_grad():
        nn.ConvTranspose2d(3, 5, 4, stride=2, padding=1)(x)
    assert work.flops == 2 * 2 * 16 * 16 * 3 * 5


def test_the_floor_is_the_longer_of_arithmetic_and_traffic() -> None:
    ceilings = {"bf16": 100.0, "copy": 10.0}
    assert Least(200.0, 5.0).seconds(ceilings, "bf16") == pytest.approx(2.0)
    assert (Least(200.0, 5.0) + Least(0.0, 45.0)).seconds(ceilings, "bf16") == pytest.approx(5.0)


TINY = Setting(channels=4, generator_channels=8, batch=4, generator_batch=8, n_dis=2, images=16)


def test_the_phases_of_a_step_are_counted_once_each_and_all_d_updates_together() -> None:
    work, precision = counted(TINY, ["training.precision=fp32"])
    once, _ = counted(Setting(**{**vars(TINY), "n_dis": 1}), ["training.precision=fp32"])
    assert precision == "fp32"
    assert work.keys() == once.keys()
    assert work["D"].flops == pytest.approx(2 * once["D"].flops)
    assert work["G"].flops == pytest.approx(once["G"].flops)


@pytest.mark.parametrize("amx", [False, True])
def test_the_minimum_is_compared_with_the_step_in_the_same_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, amx: bool
) -> None:
    rates = iter([{"copy": 1e9, "fp32": 1.0, "bf16": 8.0}, {"copy": 1e9, "fp32": 1.0, "bf16": 4.0}])
    seconds = iter([9.0, 2.0, 4.0])  # the first one warms up

    class Ready:
        def hear(self) -> dict[str, Any]:
            return {"ready": {}}

    @contextmanager
    def started(contenders: dict[str, Any], *_: object) -> Iterator[dict[str, Any]]:
        yield {name: Ready() for name in contenders}

    monkeypatch.setattr(floor, "started", started)
    monkeypatch.setattr(floor, "counted", lambda *_: ({"D": Least(6.0, 1.0), "G": Least(2.0, 1.0)}, "bf16"))
    monkeypatch.setattr(floor, "ceilings", lambda _: next(rates))
    monkeypatch.setattr(floor, "at_once", lambda *_: next(seconds))
    monkeypatch.setattr(floor.torch.cpu, "_is_amx_tile_supported", lambda: amx)
    contender = {"kind": "orthogan", "overrides": []}
    found = floor_in_turns(contender, TINY, rounds=2, steps=3, warm_up=1, logs=tmp_path)
    assert found["readings"]["seconds"] == {"orthogan": [2.0, 4.0], "minimum": [1.0, 2.0]}
    assert "minimum over step: 0.50 (0.50–0.50)" in found["text"]
    assert [target["met"] for target in found["targets"]] == [False] * amx
