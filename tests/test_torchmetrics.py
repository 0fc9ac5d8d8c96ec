"""The torchmetrics adapter gives the values of orthogan, also in pieces and over processes."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchmetrics import MetricCollection

from orthogan import disentanglement
from orthogan.data import ArraySource
from orthogan.errors import UserError
from orthogan.evaluation import METRICS, evaluate
from orthogan.torchmetrics import CodeScore, ImageScore, torch_metric
from tests.fixtures.two_processes import both_finish

EXTRACTOR = "tests.fixtures.extractor:Moments"
draw = np.random.default_rng(0)
FAKES, REALS, HELD = (
    draw.integers(0, top, (n, 3, 8, 8)).astype(np.uint8) for n, top in ((60, 256), (50, 200), (48, 200))
)
LABELS = np.arange(60) % 2
FEATURES = [
    name for name, m in METRICS.items() if m.needs <= {"gaussian", "rows", "held_out"} and m.needs and not m.extractor
]


def filled(metric: Any, parts: int = 3, which: slice = slice(None)) -> Any:
    """Update with this share of the images, in several batches."""
    for images, labels, options in (
        (FAKES, LABELS, {"real": False}),
        (REALS, LABELS[:50], {"real": True}),
        (HELD, LABELS[:48], {"real": True, "held_out": True}),
    ):
        for batch, classes in zip(
            np.array_split(images[which], parts), np.array_split(labels[which], parts), strict=True
        ):
            metric.update(torch.from_numpy(batch), labels=torch.from_numpy(classes), **options)
    return metric


@pytest.mark.parametrize("name", FEATURES)
def test_every_metric_of_features_is_that_of_evaluate(name: str) -> None:
    options = {"kid_subset_size": 20}
    metric = filled(ImageScore(name, extractor=EXTRACTOR, options=options))
    names = ["a", "b"]
    sets = [ArraySource("x", x, labels=LABELS[: len(x)], class_names=names) for x in (FAKES, REALS)]
    (result,) = evaluate(
        *sets, metrics=name, extractor=EXTRACTOR, held_out=HELD, progress=False, samples=None, kid_subset_size=20
    )
    assert float(metric.compute()) == pytest.approx(result.value, rel=1e-6, abs=1e-9)
    metric.reset()
    assert float(filled(metric, parts=1).compute()) == pytest.approx(result.value, rel=1e-6, abs=1e-9)


def gathered(metrics: list[Any]) -> Any:
    """A metric whose states are those that torchmetrics' synchronization makes of the states of all processes."""
    synced = metrics[0].__class__(metrics[0].metric.name, extractor=EXTRACTOR)
    for state, reduction in synced._reductions.items():
        parts = [getattr(metric, state) for metric in metrics]
        if isinstance(parts[0], list):
            value: Any = torch.cat([row for part in parts for row in part])
        else:
            value = torch.stack(parts) if reduction is None else reduction(torch.stack(parts))
        setattr(synced, state, value)
    synced._update_count = 1
    return synced


@pytest.mark.parametrize("name", ["fid", "prdc", "kid_full", "class_fid"])
def test_the_states_of_processes_add_up(name: str) -> None:
    whole = float(filled(ImageScore(name, extractor=EXTRACTOR)).compute())
    parts = [filled(ImageScore(name, extractor=EXTRACTOR), which=slice(k, None, 3)) for k in range(3)]
    assert float(gathered(parts).compute()) == pytest.approx(whole, rel=1e-9, abs=1e-12)


def test_inception_score_and_parts() -> None:
    metric = ImageScore("isc", extractor="efficientnet-lite0", parts=True)
    metric.update(torch.from_numpy(FAKES[:20]), real=False)
    (result,) = evaluate(FAKES[:20], metrics="isc", extractor="efficientnet-lite0", progress=False)
    found = metric.compute()
    assert isinstance(found, dict)
    assert float(found["isc"]) == pytest.approx(result.value, rel=1e-5)
    assert float(found["std"]) == pytest.approx(result.std, rel=1e-3)


def test_collections_and_codes() -> None:
    generator = np.random.default_rng(1)
    factors = generator.integers(0, 4, (1600, 2))
    codes = factors + 0.3 * generator.normal(size=(1600, 2))
    metrics = MetricCollection({name: CodeScore(name) for name in ("mig", "sap")})
    for part in range(0, 1600, 400):
        metrics.update(torch.from_numpy(codes[part : part + 400]), torch.from_numpy(factors[part : part + 400]))
    found = metrics.compute()
    assert float(found["mig"]) == pytest.approx(disentanglement.mig(codes, factors).value)
    assert float(found["sap"]) == pytest.approx(disentanglement.sap(codes, factors).value)


def test_metrics_that_need_networks_are_refused() -> None:
    for name in ("pixel_path_length", "lipschitz", "accuracy", "scorecard", "vp"):
        with pytest.raises(UserError):
            torch_metric(name)
    with pytest.raises(UserError, match="no codes"):
        CodeScore("mig").compute()
    metric = ImageScore("fid", extractor=EXTRACTOR)
    metric.update(torch.from_numpy(FAKES), real=False)
    with pytest.raises(UserError, match="reference"):
        metric.compute()


def test_the_running_mean_and_scatter_are_float64() -> None:
    metric = ImageScore("fid", extractor=EXTRACTOR)
    for batch in np.split(REALS, [7, 24]):  # shares that float32 does not hold
        metric.update(torch.from_numpy(batch), real=True)
    features, _ = metric.extractor(torch.from_numpy(REALS))
    exact = features.double()
    mean = exact.mean(0)
    torch.testing.assert_close(metric.real_mean, mean, rtol=1e-13, atol=1e-13)
    scatter = (exact - mean).T @ (exact - mean)
    torch.testing.assert_close(metric.real_scatter, scatter, rtol=1e-11, atol=1e-11)


TWO = """
import os, sys
import torch, torch.distributed as dist
from orthogan.torchmetrics import torch_metric
dist.init_process_group("gloo")
rank = dist.get_rank()
rng = torch.Generator().manual_seed(0)
reals = torch.randint(0, 256, (9, 3, 16, 16), dtype=torch.uint8, generator=rng)
fakes = torch.randint(0, 200, (8, 3, 16, 16), dtype=torch.uint8, generator=rng)
factors = torch.randint(0, 3, (900, 2), generator=rng)
codes = factors + 0.1 * torch.randn(900, 2, generator=rng)
# the last process has a part, or nothing at all
for name, share in (("fid", 0.5), ("fid", 1.0), ("kid_full", 0.5), ("kid_full", 1.0), ("mig", 0.5), ("mig", 1.0)):
    more = {} if name == "mig" else {"extractor": "efficientnet-lite0"}
    shared, alone = torch_metric(name, **more), torch_metric(name, sync_on_compute=False, **more)
    for metric in (shared, alone):
        for real, rows in ((True, codes if name == "mig" else reals), (False, factors if name == "mig" else fakes)):
            cut = int(share * len(rows))
            if metric is shared:
                rows = rows[:cut] if rank == 0 else rows[cut:]
            if name == "mig":
                kept = rows if real else (kept, rows)
            elif len(rows):
                metric.update(rows, real=real)
        if name == "mig" and len(kept[0]):
            metric.update(*kept)
    torch.testing.assert_close(shared.compute(), alone.compute(), rtol=1e-6, atol=1e-9)
"""


@pytest.mark.slow
def test_two_processes_are_one_also_if_one_of_them_has_nothing(tmp_path: Path) -> None:
    both_finish(TWO, tmp_path)


@pytest.mark.parametrize("name", ["fid", "kid_full", "isc"])
def test_floats_of_another_range_are_refused(name: str) -> None:
    options = {"real": False} if name == "isc" else {"real": True}
    extractor = "tests.fixtures.scored:Classifying" if name == "isc" else EXTRACTOR
    for change in (lambda x: x / 255, lambda x: x):
        metric = filled(ImageScore(name, extractor=extractor))
        metric.reset()
        for batch in np.array_split(FAKES, 3):
            metric.update(torch.from_numpy(batch), real=not options["real"])
            metric.update(change(torch.from_numpy(batch).float()), **options)
        with pytest.raises(UserError, match=r"floats without a negative value, but float images must be in \[-1, 1\]"):
            metric.compute()
    metric.reset()
    for batch in np.array_split(FAKES, 3):  # a batch may be without negative values
        metric.update(torch.from_numpy(batch), real=not options["real"])
        metric.update(torch.from_numpy(batch).float() / 127.5 - 1, **options)
    metric.update(torch.ones(1, 3, 8, 8), **options)
    metric.compute()


def test_metrics_are_pickled_with_their_state() -> None:
    for extractor in (EXTRACTOR, "efficientnet-lite0"):
        metric = ImageScore("prdc", extractor=extractor)
        metric.update(torch.from_numpy(FAKES[:12]), real=False)
        metric.update(torch.from_numpy(REALS[:12]), real=True)
        assert float(pickle.loads(pickle.dumps(metric)).compute()) == float(metric.compute())
