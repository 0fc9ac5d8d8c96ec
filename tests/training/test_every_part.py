"""The small parts of training: schedule, average, watch, optimiser state, log."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from orthogan import load
from orthogan.config.files import load_config
from orthogan.config.schema import Config
from orthogan.errors import Diverged, UserError
from orthogan.evaluation import MetricResult
from orthogan.io.json_lines import keep_json_lines
from orthogan.training import dry_run, train
from orthogan.training.config import EmaConfig
from orthogan.training.ema import Ema
from orthogan.training.optimizer_state import load_optimizer, optimizer_tensors
from orthogan.training.resume import RunState
from orthogan.training.run_log import LOG, Means, RunLog
from orthogan.training.schedules import SCHEDULES, ScheduleConfig, factor, resolved
from orthogan.training.schedules.constant import Constant
from orthogan.training.schedules.fall import Cosine, Linear
from orthogan.training.schedules.step import Step
from orthogan.training.watch import FiniteWatch
from tests.fixtures.runs import tiny


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Constant(), [1, 1, 1, 1, 1]),
        (Linear(), [1, 0.75, 0.5, 0.25, 0]),
        (Linear(start=0.5), [1, 1, 1, 0.5, 0]),
        (Linear(final=0.2), [1, 0.8, 0.6, 0.4, 0.2]),
        (Cosine(), [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0]),
        (Linear(start=1.0), [1, 1, 1, 1, 1]),
        (Constant(warmup=0.5), [0, 0.5, 1, 1, 1]),
        (Linear(warmup=0.5, start=0.25), [0, 0.5, 2 / 3, 1 / 3, 0]),
        (Step(warmup=0.25, milestones=[0.75]), [0, 1, 1, 0.1, 0.1]),
    ],
)
def test_schedules(schedule: ScheduleConfig, expected: list[float]) -> None:
    assert [factor(schedule, i * 100, 400) for i in range(5)] == pytest.approx(expected)


@given(st.integers(0, 10_000), st.sampled_from([Linear, Cosine]), st.floats(0, 1), st.floats(0, 1))
def test_schedules_never_rise(images: int, kind: type[Linear], start: float, final: float) -> None:
    schedule = kind(start=start, final=final)
    now, later = factor(schedule, images, 10_000), factor(schedule, images + 100, 10_000)
    assert final - 1e-12 <= later <= now + 1e-12 <= 1 + 2e-12


@pytest.mark.parametrize(
    "kind", [{"kind": "constant"}, {"kind": "linear"}, {"kind": "cosine"}, {"kind": "step", "milestones": [0.5]}]
)
def test_schedules_of_version_0_1_which_list_the_options_of_all_kinds_are_read(kind: dict[str, Any]) -> None:
    old = {"warmup": 0.0, "start": 0.0, "final": 0.0, "milestones": [], "factor": 0.1, **kind}
    read, now = (Config.model_validate({"training": {"schedule": tree}}) for tree in (old, kind))
    assert read == now
    assert type(read.training.schedule) is SCHEDULES.get(kind["kind"])
    assert Config.model_validate(now.model_dump()) == now
    without_effect = {"kind": "constant", "start": 0.5, "final": 0.1}
    assert Config.model_validate({"training": {"schedule": without_effect}}) == Config()


OWN_SCHEDULES = """
def halves(done, parts: int = 2):
    return 0.5 ** int(done * parts)

def gap(done):
    return float("nan") if done == 0.5 else 1.0

def any_options(done, **options):
    return 1.0

def divides(done):
    return abs(1 / (done - 0.5))

def decays(done, decay=0.5):
    return decay

def below(done):
    return 0.5 - done

THINGS = [1, 2]
"""


def test_an_own_schedule_is_a_function_of_the_share_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_schedules.py").write_text(OWN_SCHEDULES)
    monkeypatch.syspath_prepend(tmp_path)
    keys = ["training.schedule={kind: 'own_schedules:halves', parts: 4, warmup: 0.5}"]
    read = load_config(None, keys).training.schedule
    schedule = resolved(read)
    assert [factor(schedule, i * 100, 400) for i in range(4)] == [0.0, 0.25, 0.25, 0.125]
    assert resolved(load_config(None, ["training.schedule.kind=own_schedules:any_options"]).training.schedule)
    same = "training.schedule={kind: step, milestones: [0.25, 0.5, 0.75], factor: 0.5, warmup: 0.5}"
    runs = [train(tiny(tmp_path / name, "training.steps=4", key)) for name, key in (("a", keys[0]), ("b", same))]
    mine, step = (load(run).state_dict() for run in runs)
    assert all(torch.equal(mine[name], step[name]) for name in step)
    for kind, message in (
        ("halves, parts: 1.5", r"training\.schedule\.parts is 1\.5"),
        ("gap", r"own_schedules:gap'.*nan at 0\.5 of the run.*finite"),
        ("below", r"own_schedules:below'.*-0\.5 at 1 of the run"),
        ("divides", r"own_schedules:divides'.*ZeroDivisionError at 0\.5 of the run"),
        ("decays", r"its option 'decay' has a reserved name"),
        ("THINGS", r"name a function \(done, \*\*options\)"),
        ("absent", r"has no attribute 'absent'"),
    ):
        name, _, options = kind.partition(", ")
        section = f"training.schedule={{kind: 'own_schedules:{name}'{', ' * bool(options)}{options}}}"
        for start in (train, dry_run):
            with pytest.raises(UserError, match=message):
                start(tiny(tmp_path / "other", section))
            assert not (tmp_path / "other").exists() or not list((tmp_path / "other").iterdir())


def test_average_halves_its_distance_in_one_half_life() -> None:
    net = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    ema = Ema(net, EmaConfig(half_life=1000, warmup=0.0))
    nn.init.ones_(net.weight)
    for step in range(10):
        ema.update(net, (step + 1) * 100, 100)
    assert ema.net.weight.item() == pytest.approx(0.5, rel=1e-6)
    assert not ema.net.weight.requires_grad


def test_average_warms_up_with_a_share_of_the_images_seen() -> None:
    ema = Ema(nn.Linear(1, 1), EmaConfig(half_life=1000, warmup=0.05))
    assert ema.decay(2000, 100) == pytest.approx(0.5)  # 5 % of 2,000 are 100 images
    assert ema.decay(10**6, 1000) == pytest.approx(0.5)
    assert ema.decay(100, 100) == pytest.approx(0.5**20)


def test_average_copies_buffers() -> None:
    net = nn.BatchNorm2d(2)
    ema = Ema(net, EmaConfig())
    net(torch.randn(4, 2, 3, 3))
    ema.update(net, 10, 10)
    torch.testing.assert_close(ema.net.running_mean, net.running_mean)
    assert ema.net.num_batches_tracked == net.num_batches_tracked


def watched(poison: str | None) -> FiniteWatch:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    watch = FiniteWatch()
    for step in range(4):
        net.zero_grad()
        loss = net(torch.ones(1, 2)).sum()
        loss.backward()
        assert net[1].weight.grad is not None
        if step == 2 and poison == "gradient":
            net[1].weight.grad[0, 0] = math.inf
        if step == 2 and poison == "loss":
            loss = loss * math.nan
        if step == 3 and poison:
            net[0].weight.grad = torch.full((2, 2), math.nan)  # a later consequence must not hide the cause
        watch.inspect("D", step, loss, net)
    return watch


def test_watch_names_the_first_phase_step_and_tensor() -> None:
    watched(None).check({})
    with pytest.raises(Diverged, match=r"phase D, step 2: not finite: the gradient of 1\.weight$"):
        watched("gradient").check({})
    with pytest.raises(Diverged, match=r"phase D, step 2: not finite: the loss$"):
        watched("loss").check({})


def test_watch_names_weights_and_buffers() -> None:
    net = nn.BatchNorm1d(3)
    assert net.running_var is not None
    net.running_var[1] = math.nan
    with pytest.raises(Diverged, match=r"weights of G: not finite: G\.running_var"):
        FiniteWatch().check({"G": net})


@pytest.mark.parametrize("fused", [False, True])
def test_optimizer_state_continues_bitwise(fused: bool) -> None:
    def stepped(net: nn.Module, optimizer: torch.optim.Optimizer, times: int, offset: int) -> None:
        for i in range(times):
            optimizer.zero_grad()
            x = torch.full((1, 2, 4, 4), float(i + offset))
            net(x).square().sum().backward()
            optimizer.step()

    def make() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 1, 1)).to(memory_format=torch.channels_last)
        return net, torch.optim.Adam(net.parameters(), lr=0.01, betas=(0.5, 0.9), fused=fused)

    straight, optimizer = make()
    stepped(straight, optimizer, 6, 0)
    first, first_optimizer = make()
    stepped(first, first_optimizer, 3, 0)
    saved = {k: t.clone().contiguous() for k, t in optimizer_tensors(first, first_optimizer).items()}
    second, second_optimizer = make()
    second.load_state_dict(first.state_dict())
    load_optimizer(second, second_optimizer, saved)
    stepped(second, second_optimizer, 3, 3)
    for a, b in zip(straight.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    moments = optimizer_tensors(second, second_optimizer)
    assert moments["0.weight/exp_avg"].stride() == second.get_parameter("0.weight").stride()


def test_means_fetch_and_start_anew() -> None:
    means = Means()
    for value in (1.0, 2.0, 6.0):
        means.add({"a": torch.tensor(value)})
    means.add({"b": torch.tensor(5.0)})
    assert means.fetch() == {"a": 3.0, "b": 5.0}
    assert means.fetch() == {}


def test_a_continued_log_forgets_what_happens_again(tmp_path: Path) -> None:
    lines = [json.dumps({"step": step}) for step in (10, 20, 30)]
    (tmp_path / LOG).write_text("\n".join([*lines, '{"step": 4']) + "\n")
    keep_json_lines(tmp_path / LOG, lambda record: record["step"] <= 20)
    log = RunLog(tmp_path, start=20, steps=50, images_per_step=8, seconds=9.0, main=True, tensorboard=False)
    log.scalars(30, {"D/loss": 0.5})
    log.close()
    records = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [r["step"] for r in records] == [10, 20, 30]
    assert records[-1]["images"] == 240
    assert records[-1]["seconds"] >= 9.0


def test_the_best_is_compared_under_its_own_label_only() -> None:
    state = RunState()
    state.update_best([MetricResult("fid", 300.0, "efficientnet-lite0")], "fid", 10)
    state.update_best([MetricResult("fid", 400.0, "efficientnet-lite0")], "fid", 20)
    assert state.best_is(10)
    state.update_best([MetricResult("isc", 1.0, "inception"), MetricResult("fid", 350.0, "inception")], "fid", 30)
    assert state.best == {"label": "FID", "value": 350.0, "step": 30}


@pytest.mark.parametrize(("start", "fresh", "kept"), [(0, True, []), (0, False, [0]), (20, False, [0, 10, 20])])
def test_curves_are_kept_up_to_the_step_that_a_run_continues_from(
    tmp_path: Path, start: int, fresh: bool, kept: list[int]
) -> None:
    def log(start: int, fresh: bool) -> RunLog:
        about = {"steps": 50, "images_per_step": 8, "seconds": 0.0, "main": True, "tensorboard": True}
        return RunLog(tmp_path, start=start, fresh=fresh, **about)

    first = log(0, True)
    for step in (0, 10, 20, 30):
        first.plot(step, {"a": float(step)})
    first.close()
    second = log(start, fresh)
    second.plot(40, {"a": 40.0})
    second.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("a")] == [(step, float(step)) for step in [*kept, 40]]
