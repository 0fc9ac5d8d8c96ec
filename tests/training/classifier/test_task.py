"""A classifier in the GANs' loop: it learns, is scored, stored and resumed to the bit, and every method reaches it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from orthogan import weights
from orthogan.cli.main import main
from orthogan.config.files import load_config
from orthogan.config.schema import Config
from orthogan.data import open_configured, to_float
from orthogan.data.augment.crop import crop, crop_offsets
from orthogan.data.config import DataConfig
from orthogan.data.views import NoisyLabels, hold_out
from orthogan.errors import Stopped, UserError
from orthogan.evaluation.config import EvaluationConfig
from orthogan.evaluation.robustness.accuracy import accuracy
from orthogan.models.open import load_classifier, load_generator, open_model
from orthogan.rng import generator
from orthogan.training import dry_run, train
from orthogan.training.classifier.phases import ClassifierBatch, classifier_loss
from orthogan.training.classifier.task import ClassifierTask, open_sources
from orthogan.training.loop import update
from orthogan.training.precision import make_accelerator
from orthogan.training.schedules import factor
from orthogan.training.schedules.step import Step
from orthogan.training.watch import FiniteWatch
from tests.fixtures.overrides import flow, norm, one
from tests.fixtures.runs import ROOT, TINY_CLASSIFIER, environment, tensors, tiny_classifier

C = "model.classifier"
STEPS = ["training.steps=6", "logging.spectrum_every=3"]


def task_of(out: Path, *overrides: str) -> ClassifierTask:
    config = tiny_classifier(out, *overrides)
    return ClassifierTask(config, *open_sources(config), make_accelerator(config.training))


def records(run: Path, name: str = "log.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


def assert_same_bits(a: Path, b: Path, step: int = 6) -> None:
    whole, resumed = tensors(a, step), tensors(b, step)
    assert whole.keys() == resumed.keys()
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []


CASES = {
    "plain": ["data.crop=2", "data.flip=true", "data.label_noise=0.3", "loss.label_smoothing=0.1"],
    "nesterov": ["optimizer.classifier.nesterov=true", "training.schedule={kind: step, milestones: [0.5]}"],
    "adam": ["optimizer.classifier={kind: adam, lr: 0.001}", "training.schedule.kind=cosine"],
    "in parts": [f"{C}.kind=mlp", "training.accumulate=4"],
    "streamed": ["data.resident=stream", "data.workers=0", "data.crop=2"],
    "residual": [f"{C}.kind=resnet20"],
    "wide": [f"{C}.kind=wrn-10-1"],
    "spectral": [norm(C, "spectral")],
    "stable rank": [norm(C, "stable_rank", c=0.3)],
    "rotation": [norm(C, "rotation", ["!last"], method="cayley", block_size=40)],
    "ogd": [norm(C, "rotation", ["conv"], method="ogd", block_size=40)],
    "stochastic rotation": [norm(C, "rotation", ["conv"], sample=0.5, episode=2, block_size=40)],
    "orthogonal": [norm(C, "orthogonal", ["hidden"])],
    "penalty": [one(C, "penalties", kind="soft_orthogonality", weight=0.01, layers=["conv"], schedule=[[0.0, 1.0]])],
    "nearest orthogonal": [one(C, "gradient_transforms", kind="nearest_orthogonal", layers=["first"], every=2)],
    "muon": [one(C, "gradient_transforms", kind="nearest_orthogonal", layers=["conv"], momentum=0.9)],
    "optimal learning rate": [one(C, "gradient_transforms", kind="optimal_learning_rate", layers=["first"])],
    "whitening": [f"{C}.whitening={flow({'layers': ['stages.0.1'], 'groups': 2})}"],
}


@pytest.mark.parametrize("case", CASES)
def test_it_trains_and_resumes_to_the_bit(tmp_path: Path, case: str) -> None:
    overrides = [*STEPS, *CASES[case]]
    a, b = tmp_path / "a", tmp_path / "b"
    train(tiny_classifier(a, *overrides))
    shutil.copytree(a, b)
    shutil.rmtree(b / "checkpoints" / "step-000000006")
    train(tiny_classifier(b, *overrides))
    assert_same_bits(a, b)
    whole, before = tensors(a, 6), tensors(a, 3)
    assert any(not torch.equal(whole[name], before[name]) for name in whole if name.startswith("classifier/"))
    assert torch.isfinite(load_classifier(a)(torch.rand(2, 1, 32, 32))).all()


def test_it_beats_chance_and_keeps_the_best(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "sprites.yaml"
    config.write_text("task: classifier\n", encoding="utf-8")
    run, adapted = tmp_path / "run", [o for o in TINY_CLASSIFIER if not o.startswith("optimizer")]
    overrides = ["data.count=2000", "training.batch_size=32", "training.steps=200", f"{C}.channels=8"]
    overrides += ["evaluation={every: 50, at_start: true, samples: 100}", "checkpoint.every=50"]
    overrides += ["optimizer.classifier={kind: adam, lr: 0.005, weight_decay: 0.0}"]
    assert main(["train", str(config), *adapted, *overrides, f"out={run}"]) == 0
    printed = capsys.readouterr().out
    assert f"{run}: complete, 200 steps" in printed
    assert "best checkpoint:" in printed
    scores = records(run, "metrics.jsonl")
    assert [(r["metric"], r["protocol"]["step"]) for r in scores[:3:2]] == [("accuracy", "0"), ("accuracy", "50")]
    test = [r for r in scores if r["metric"] == "accuracy"]
    seen = [r for r in scores if r["metric"] == "train_accuracy"]
    assert max(r["value"] for r in test) > 0.42  # three shapes, so chance is 0.33, give or take 0.024
    assert {r["protocol"]["samples"] for r in test} == {400}
    assert {r["protocol"]["samples"] for r in seen} == {100}
    for one_test, one_seen in zip(test, seen, strict=True):
        assert one_test["parts"]["error"] == pytest.approx(1 - one_test["value"])
        assert one_seen["parts"]["gap"] == pytest.approx(one_seen["value"] - one_test["value"])
    best = max(test, key=lambda r: r["value"])
    first = next(r for r in test if r["value"] == best["value"])
    assert (run / "best").resolve().name == f"step-{int(first['protocol']['step']):09d}"
    net, source = (
        load_classifier(run / "best"),
        hold_out(open_configured(load_config(run / "config.yaml").data), 0.2)[1],
    )
    assert accuracy(net, source)[0] == best["value"]
    assert {"C/loss", "C/accuracy"} <= records(run)[0].keys() | records(run)[1].keys()
    assert (run / "training-images.png").is_file()
    assert not list(run.glob("fakes*"))


def test_what_is_stored_says_what_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    train(tiny_classifier(run, "training.steps=1", norm(C, "spectral", ["conv"])))
    saved = open_model(run).need("classifier").about
    assert (saved.num_classes, saved.class_names[0], saved.extra["step"]) == (3, "square", "1")
    assert saved.config.task == "classifier"
    file = tmp_path / "shared.safetensors"
    shutil.copy(open_model(run).path, file)
    x = torch.rand(2, 1, 32, 32)
    assert torch.equal(load_classifier(file)(x), load_classifier(run)(x))
    with pytest.raises(UserError, match="contains a classifier, but a generator is needed"):
        load_generator(run)
    assert main(["evaluate", str(run)]) == 2
    capsys.readouterr()
    for subject in (run, file):
        model = open_model(subject)
        assert model.title.endswith(("step-000000001", "shared.safetensors"))
        assert torch.equal(model.net(x), load_classifier(run)(x))
    assert main(["spectrum", str(run), "--json"]) == 0
    layers = json.loads(capsys.readouterr().out)["layers"]
    assert [layer["name"] for layer in layers][-2:] == ["hidden", "linear"]


def test_a_generator_is_no_classifier(tmp_path: Path) -> None:
    from tests.fixtures.runs import tiny as gan

    train(gan(tmp_path / "run", "training.steps=1"))
    with pytest.raises(UserError, match="contains a generator, but a classifier is needed"):
        load_classifier(tmp_path / "run")


def test_stop_and_resume_in_process_is_bitwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orthogan.training.stop import StopSignal

    options = ["training.steps=6", "evaluation.every=2", "data.crop=2"]
    train(tiny_classifier(tmp_path / "straight", *options))
    with monkeypatch.context() as patch:
        patch.setattr(StopSignal, "agree", lambda self, accelerator, step: step == 4)
        with pytest.raises(Stopped, match="after step 4"):
            train(tiny_classifier(tmp_path / "stopped", *options))
    train(tiny_classifier(tmp_path / "stopped", *options))
    assert_same_bits(tmp_path / "straight", tmp_path / "stopped")
    found = [
        [(r["label"], r["value"]) for r in records(tmp_path / n, "metrics.jsonl")] for n in ("straight", "stopped")
    ]
    assert found[0] == found[1]


@pytest.mark.slow
def test_two_processes_are_one(tmp_path: Path) -> None:
    empty = tmp_path / "empty.yaml"
    empty.touch()
    options = [*TINY_CLASSIFIER, "training.steps=3", "data.crop=2", "data.flip=true", "evaluation.every=3"]
    train(tiny_classifier(tmp_path / "one", *options))
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d"]
    start += ["--rdzv_endpoint", "localhost:0", str(ROOT / "train.py"), str(empty), *options, f"out={tmp_path / 'two'}"]
    done = subprocess.run(start, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    one_process, two = tensors(tmp_path / "one", 3), tensors(tmp_path / "two", 3)
    assert one_process.keys() == two.keys()
    for name, tensor in one_process.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-4, rtol=1e-3)
    scores = [records(tmp_path / name, "metrics.jsonl") for name in ("one", "two")]
    for a, b in zip(*scores, strict=True):
        assert (b["metric"], b["protocol"]["samples"]) == (a["metric"], a["protocol"]["samples"])
        assert b["parts"]["loss"] == pytest.approx(a["parts"]["loss"], rel=1e-4)


def test_a_batch_is_a_function_of_seed_and_step(tmp_path: Path) -> None:
    options = ["data.crop=3", "data.flip=true"]
    task, again = task_of(tmp_path, *options), task_of(tmp_path, *options)
    task.batch(0)  # what was asked before changes nothing
    assert torch.equal(task.batch(5).images, again.batch(5).images)
    assert not torch.equal(task.batch(5).images, task.batch(6).images)
    plain, other = task_of(tmp_path), task_of(tmp_path, *options, "seed=1")
    assert torch.equal(plain.batch(5).labels, task.batch(5).labels)
    assert not torch.equal(plain.batch(5).images, task.batch(5).images)
    assert not torch.equal(other.batch(5).images, task.batch(5).images)
    # undone by hand: each image is a cut or mirrored cut of the plain one
    padded = functional.pad(plain.batch(5).images, [3] * 4, value=-1.0)
    for before, after in zip(padded, task.batch(5).images, strict=True):
        cuts = [before[:, i : i + 32, j : j + 32] for i in range(7) for j in range(7)]
        assert any(torch.equal(cut, after) or torch.equal(cut.flip(2), after) for cut in cuts)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), padding=st.integers(0, 4), channels=st.sampled_from([1, 3]), side=st.integers(8, 11))
def test_a_crop_is_the_cut_that_its_offsets_say(seed: int, padding: int, channels: int, side: int) -> None:
    rng = generator("cpu", seed)
    images = torch.randint(256, (5, channels, side, side), generator=rng).to(torch.uint8)
    offsets = crop_offsets(5, padding, rng)
    assert int(offsets.min()) >= 0
    assert int(offsets.max()) <= 2 * padding
    found = crop(images, offsets, padding)
    assert found.dtype == torch.uint8
    padded = functional.pad(images, [padding] * 4)
    for picture, (top, left), cut in zip(padded, offsets.tolist(), found, strict=True):
        assert torch.equal(picture[:, top : top + side, left : left + side], cut)
    assert torch.equal(crop(images, torch.full((5, 2), padding), padding), images)


def test_every_cut_is_as_likely_and_wrong_offsets_are_refused() -> None:
    offsets = crop_offsets(9000, 1, generator("cpu", 0))
    counts = torch.bincount(offsets[:, 0] * 3 + offsets[:, 1], minlength=9)
    assert (counts - 1000).abs().max() < 150  # five standard deviations
    with pytest.raises(ValueError, match="one row of 2"):
        crop(torch.zeros(2, 1, 4, 4), torch.zeros(3, 2, dtype=torch.int64), 1)


@settings(max_examples=15, deadline=None)
@given(share=st.floats(0.0, 1.0), seed=st.integers(0, 50))
def test_label_noise_is_a_function_of_seed_and_image(share: float, seed: int) -> None:
    source = open_configured(load_config(None, ["data.source=sprites", "data.count=900", "data.channels=1"]).data)
    everything = np.arange(900)
    images, true = source.read(everything)
    noisy = NoisyLabels(source, share, seed)
    seen, labels = noisy.read(everything)
    assert np.array_equal(seen, images)
    order = np.random.default_rng(seed).permutation(900)[:50]
    assert np.array_equal(noisy.read(order)[1], labels[order])
    assert np.array_equal(NoisyLabels(source, share, seed).read(everything)[1], labels)
    assert set(labels.tolist()) <= {0, 1, 2}
    # a random label is the true one in a third of the cases
    expected = share * 2 / 3
    assert abs(float((labels != true).mean()) - expected) < 5 * (expected * (1 - expected) / 900) ** 0.5 + 1e-9


def test_label_noise_is_on_the_training_labels_alone(tmp_path: Path) -> None:
    source, test = open_sources(tiny_classifier(tmp_path, "data.label_noise=1.0"))
    clean, clean_test = open_sources(tiny_classifier(tmp_path))
    rows = np.arange(24)
    assert not np.array_equal(source.read(rows)[1], clean.read(rows)[1])
    assert np.array_equal(test.read(rows)[1], clean_test.read(rows)[1])
    assert source.fingerprint() != clean.fingerprint()


def test_what_is_held_out_is_the_same_for_every_seed_and_never_trained_on() -> None:
    source = open_configured(load_config(None, ["data.source=sprites", "data.count=50", "data.channels=1"]).data)
    rest, held = hold_out(source, 0.3)
    assert (len(rest), len(held)) == (35, 15)
    assert sorted([*rest.indices, *held.indices]) == list(range(50))
    assert np.array_equal(held.read(np.array([2]))[0], source.read(held.indices[[2]])[0])
    assert np.array_equal(held.indices, hold_out(source, 0.3)[1].indices)
    assert held.factors is not None
    assert held.factors.shape == (15, 5)
    with pytest.raises(UserError, match=r"data\.holdout is 0\.999"):
        hold_out(source, 0.999)


def test_the_loss_is_the_smoothed_cross_entropy(tmp_path: Path) -> None:
    net = task_of(tmp_path).net.eval().double()
    images, labels = torch.rand(6, 1, 32, 32, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2])
    loss, logs = classifier_loss(net, ClassifierBatch(images, labels), 0.3)
    with torch.no_grad():
        logs_of = net(images).log_softmax(1)
        target = 0.7 * functional.one_hot(labels, 3) + 0.1
        right = (logs_of.argmax(1) == labels).double().mean()
    torch.testing.assert_close(loss.detach().double(), -(target * logs_of).sum(1).mean(), atol=1e-6, rtol=1e-5)
    assert float(logs["C/accuracy"]) == pytest.approx(float(right))


def test_accuracy_counts_every_image_once_and_leaves_the_net_alone(tmp_path: Path) -> None:
    task = task_of(tmp_path, norm(C, "spectral", ["conv"]))
    before = {name: t.clone() for name, t in task.net.state_dict().items()}
    value, loss, count = accuracy(task.net, task.test, batch_size=7)
    assert task.net.training
    assert all(torch.equal(t, before[name]) for name, t in task.net.state_dict().items())
    images, labels = map(torch.from_numpy, task.test.read(np.arange(len(task.test))))
    with torch.no_grad():
        logits = task.net.eval()(to_float(images, dequantize=False))
    assert count == len(task.test) == 24
    assert value == float((logits.argmax(1) == labels).double().mean())
    assert loss == pytest.approx(float(functional.cross_entropy(logits, labels)), rel=1e-5)
    assert accuracy(task.net, task.source, samples=10)[2] == 10


def test_weight_decay_is_on_every_parameter(tmp_path: Path) -> None:
    steps = []
    for decay in (0.0, 0.1):
        task = task_of(tmp_path, f"optimizer.classifier={{lr: 1.0, momentum: 0.0, weight_decay: {decay}}}")
        before = {name: p.detach().clone() for name, p in task.net.named_parameters()}
        for phase in task.phases(0):
            update(phase, task, task.accelerator, FiniteWatch(), 0)
        steps.append({name: p.detach() - before[name] for name, p in task.net.named_parameters()})
    for name, start in before.items():
        torch.testing.assert_close(steps[1][name] - steps[0][name], -0.1 * start, atol=1e-4, rtol=1e-3)


def test_the_learning_rate_steps_at_the_milestones() -> None:
    schedule = Step(milestones=[0.4, 2 / 3], factor=0.1)
    total = 75_000 * 128
    rates = [factor(schedule, step * 128, total) for step in (0, 29_999, 30_000, 49_999, 50_000, 74_999)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_a_dry_run_says_what_acts(tmp_path: Path) -> None:
    facts = dry_run(tiny_classifier(tmp_path / "run", one(C, "penalties", kind="srip", layers=["hidden"])))
    assert facts["C srip on"] == "hidden"
    assert (facts["classes"], facts["phases"]) == ("3 (square, ellipse, heart)", "C")
    assert "24 images" in facts["test data"]
    assert facts["C/srip"] > 0
    assert not (tmp_path / "run").exists()


OW = f"{C}.norm={{kind: skew_orthogonal, layers: [first]}}"
ACTS = {
    "NOG + OW": ("gradient_transforms", ["nearest_orthogonal"], {"NearestOrthogonalGradient on"}),
    "OW + OLR": ("gradient_transforms", ["optimal_learning_rate"], {"OptimalLearningRate on"}),
    "NOG + OW + OLR": (
        "gradient_transforms",
        ["nearest_orthogonal", "optimal_learning_rate"],
        {"NearestOrthogonalGradient on", "OptimalLearningRate on"},
    ),
    "OW + a penalty": ("penalties", ["soft_orthogonality"], {"soft_orthogonality on"}),
}


@pytest.mark.parametrize("name", ACTS)
@pytest.mark.parametrize("words", [["first"], ["conv"], ["NAME"]])
def test_skew_orthogonal_convolutions_are_chosen_as_they_were_before(
    tmp_path: Path, name: str, words: list[str]
) -> None:
    key, kinds, facts = ACTS[name]
    kind = "resnet20"
    task = task_of(tmp_path / "plain", f"{C}.kind={kind}")
    words = [weights.select(task.net, "first")[0].name if word == "NAME" else word for word in words]
    expected = [found.name for found in weights.select(task.net, words)]
    asked = ", ".join(f"{{kind: {one}, layers: {words}}}" for one in kinds)
    skewed = task_of(tmp_path / "skewed", f"{C}.kind={kind}", OW, f"{C}.{key}=[{asked}]")
    described = skewed.conditioning.describe()
    assert described["BoundedSkew on"] == weights.select(task.net, "first")[0].name
    assert {described[fact] for fact in facts} == {", ".join(expected)}


REFUSED = {
    "training.d_steps_per_g_step: does not apply to task 'classifier', only to 'gan', so it cannot be 2": [
        "training.d_steps_per_g_step=2"
    ],
    "model.discriminator.norm.kind: does not apply to task 'classifier', only to 'gan', so it cannot be 'none'": [
        "model.discriminator.norm.kind=none"
    ],
    "loss.gradient_penalty.kind: does not apply to task 'classifier', only to 'gan', so it cannot be 'r1'": [
        "loss.gradient_penalty.kind=r1"
    ],
    "augment.kind: does not apply to task 'classifier', only to 'gan', so it cannot be 'ada'": ["augment.kind=ada"],
    "data.dequantize: does not apply to task 'classifier', only to 'gan', so it cannot be true": [
        "data.dequantize=true"
    ],
    "training.ema.half_life: does not apply to task 'classifier', only to 'gan', so it cannot be 9": [
        "training.ema.half_life=9"
    ],
    "data.holdout: 'sprites' has no test split": ["data.holdout=0.0"],
    "data.crop: does not apply to task 'gan', only to 'classifier', so it cannot be 2": [
        "task=gan",
        "data.crop=2",
        "data.holdout=0.0",
    ],
    "nesterov: needs a momentum": ["optimizer.classifier={nesterov: true, momentum: 0.0}"],
    "unknown key 'optimizer.classifier.beta1'; it is an option of kind 'adam'": ["optimizer.classifier.beta1=0.5"],
    "unknown key 'optimizer.classifier.nesterov'; it is an option of kind 'sgd'": [
        "optimizer.classifier={kind: adam, nesterov: true}"
    ],
    "training.schedule.milestones: field required": ["training.schedule.kind=step"],
    "training.schedule.milestones is []: list should have at least 1 item": [
        "training.schedule={kind: step, milestones: []}"
    ],
    "unknown key 'training.schedule.milestones'; it is an option of kind 'step'": [
        "training.schedule.milestones=[0.5]"
    ],
    "unknown key 'training.schedule.start'; it is an option of kind 'cosine' or 'linear'": [
        "training.schedule={kind: step, milestones: [0.5], start: 0.5}"
    ],
    "has batch norms": ["training.accumulate=2"],
    "labels: 'celeba' has no classes": ["data.source=celeba"],
    "has 0 classes, but a classifier needs": ["data.source=array", "data.path={array}", "data.count=null"],
    "would not learn": [norm(C, "spectral"), one(C, "gradient_transforms", kind="optimal_learning_rate")],
    "matches nothing in the batch norms": [f"{C}.whitening.layers=[norms.*]"],
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_makes_no_sense_is_refused_with_the_reason(tmp_path: Path, message: str) -> None:
    np.savez(tmp_path / "array.npz", images=np.zeros((9, 32, 32, 1), np.uint8))
    with pytest.raises(UserError) as caught:
        task_of(tmp_path, *(o.replace("{array}", str(tmp_path / "array.npz")) for o in REFUSED[message]))
    assert message in str(caught.value)


def test_accuracy_is_no_metric_of_a_gan() -> None:
    with pytest.raises(UserError, match=r"evaluation\.metrics: 'accuracy' needs the classifier"):
        load_config(None, ["evaluation={metrics: [accuracy], best: accuracy}"])


def test_the_defaults_are_those_of_the_task_however_the_config_is_made() -> None:
    written = load_config(None, ["task=classifier", "data.flip=true", "evaluation.every=7"])
    built = Config(task="classifier", data=DataConfig(flip=True), evaluation=EvaluationConfig(every=7))
    assert built.model_dump() == written.model_dump() | {"out": None}
    assert (written.data.labels, written.data.flip, written.data.dequantize) == (True, True, False)
    assert (written.evaluation.best, written.evaluation.every, written.training.ema.half_life) == ("accuracy", 7, 0)
    assert Config.model_validate(written.model_dump()) == written
    assert Config().evaluation.metrics == ["fid"]


CONFIGS = ["cifar10/resnet18", "cifar10/resnet110", "cifar10/vgg19", "cifar10/alexnet", "cifar10/densenet100"]
CONFIGS += ["cifar10/wrn-28-10", "cifar100/wrn-28-2"]
CONFIGS += ["fashion-mnist/cnn-cpu", "fashion-mnist/wrn-cpu", "fashion-mnist/alexnet-cpu"]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_shipped_configs_pass_a_dry_run(tmp_path: Path, name: str) -> None:
    options = ["data.source=sprites", "data.count=60", "data.holdout=0.2", f"{C}.channels=4", "training.batch_size=8"]
    config = load_config(
        ROOT / "configs" / f"{name}.yaml", [*options, f"out={tmp_path / 'run'}", "training.device=cpu"]
    )
    facts = dry_run(config)
    assert facts["C parameters"] > 0
    assert f"{config.data.resolution} px" in facts["data"]
