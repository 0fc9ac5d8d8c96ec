"""What a run reports: lines without a terminal, a bar on one, and curves and pictures in TensorBoard."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from orthogan.drawing.grid import save_png
from orthogan.training.pace import Pace
from orthogan.training.run_log import LOG, RunLog, seconds_of

LAYER = {"stable_rank_before": 3.0, "target": 2.0, "active": 1.0, "scale": 0.5}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Known(Pace):
    """A pace that does not depend on a clock."""

    seconds_per_step = 0.5

    def left(self, step: int) -> float | None:
        return (self.steps - step) * 0.5


def opened(run: Path, **options: bool) -> RunLog:
    return RunLog(run, start=0, steps=400, images_per_step=8, seconds=0.0, main=True, fresh=True, **options)


def events(run: Path) -> EventAccumulator:
    found = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    found.Reload()
    return found


def test_without_a_terminal_there_is_a_line_per_logging_interval(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, pace = opened(tmp_path, tensorboard=False), Known(400, {})
    for _ in range(5):
        log.advance(pace.left(5))
    log.estimate(5, pace)
    log.scalars(200, {"G/loss": 0.712, "D/loss": 1.3, "D/real": 4.0}, {"augment/p": 0.2}, pace)
    log.scalars(400, {"G/loss": 0.5}, {}, pace)
    log.close()
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0] == (
        "time: about 3 min 18 s for the remaining 395 steps on this machine "
        "(0.5 s per step, plus scores, pictures and checkpoints)"
    )
    assert lines[1].startswith("step 200 of 400: G/loss 0.712, D/loss 1.3; ")
    assert lines[1].endswith("about 1 min 40 s left")
    assert lines[2].startswith("step 400 of 400: G/loss 0.5; ")
    assert "left" not in lines[2]
    record = json.loads((tmp_path / LOG).read_text().splitlines()[0])
    assert (record["D/real"], record["augment/p"], record["images"]) == (4.0, 0.2, 1600)
    assert seconds_of(tmp_path) == pytest.approx(0.0, abs=600)


def test_on_a_terminal_there_is_a_bar_with_the_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    log, pace = opened(tmp_path, tensorboard=False), Known(400, {})
    log.scalars(100, {"G/loss": 0.5}, {}, pace)
    log.bar.n, log.bar.left = 100, pace.left(100)
    log.bar.refresh()
    log.close()
    assert "100/400 [00:00<02:30,  2.00 steps/s, G/loss=0.5]" in terminal.getvalue()
    assert "step 100 of" not in capsys.readouterr().out


def test_tensorboard_has_groups_and_pictures_and_the_spectrum_only_if_asked(tmp_path: Path) -> None:
    for spectra in (False, True):
        run = tmp_path / str(spectra)
        log = opened(run, tensorboard=True, spectra=spectra)
        save_png(Image.fromarray(np.full((20, 30, 3), 9, np.uint8)), run / "fakes_init.png")
        save_png(Image.fromarray(np.full((10, 10, 3), 9, np.uint8)), run / "reals.png")
        log.picture(0, run / "fakes_init.png")
        log.picture(7, run / "missing.png")
        log.scalars(10, {"G/loss": 0.5, "D/real": 4.0}, {"augment/p": 0.2})
        log.watch(10, {"overfit": 0.1})
        log.plot(10, {"score/FD": 9.0})
        log.spectrum(10, {"D.conv": LAYER})
        log.close()
        found = events(run)
        groups = {tag.split("/")[0] for tag in found.Tags()["scalars"]}
        assert groups == {"loss", "watch", "score"} | ({"spectrum"} if spectra else set())
        assert {"loss/G", "loss/D/real", "watch/augment/p", "watch/overfit"} <= set(found.Tags()["scalars"])
        assert [(e.step, e.value) for e in found.Scalars("watch/overfit")] == [(10, pytest.approx(0.1))]
        assert [(e.step, e.width, e.height) for e in found.Images("samples")] == [(0, 30, 20)]
        assert [(e.step, e.width) for e in found.Images("reals")] == [(0, 10)]
    records = [json.loads(line) for line in (run / LOG).read_text().splitlines()]
    assert {"watch/overfit": 0.1, "step": 10, "images": 80} in records
