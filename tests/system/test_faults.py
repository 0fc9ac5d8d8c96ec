"""What disks, people and other processes do to a run: nothing is lost, and every stop is explained."""

from __future__ import annotations

import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from orthogan.errors import CannotWrite, Stopped, UserError
from orthogan.io import checkpoint
from orthogan.models.open import open_model
from orthogan.training import train
from orthogan.training.event_file import EventFile
from orthogan.training.resume import refuse_changes
from orthogan.training.stop import StopSignal
from tests.fixtures.forked import start, tiny_arguments
from tests.fixtures.runs import tensors, tiny

pytestmark = pytest.mark.slow

LOGS = ("log.jsonl", "metrics.jsonl")
SCORED = (
    "evaluation={every: 2, samples: 4, batch_size: 4, reference_samples: 8, "
    "extractor: 'tests.fixtures.extractor:Moments', background: false}"
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 3 of 5 steps, with scores, a best checkpoint and TensorBoard's curves; not to be touched."""
    run = tmp_path_factory.mktemp("base") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopSignal, "agree", lambda self, accelerator, step: step == 3)
        with pytest.raises(Stopped):
            resumed(run)
    return run


def resumed(run: Path, *overrides: str) -> Path:
    """The run taken to its end, from where it stands."""
    options = ("training.steps=5", "checkpoint.every=1", "logging.every=1", "logging.tensorboard=true", SCORED)
    return train(tiny(run, *options, *overrides))


@pytest.fixture(scope="module")
def end(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The tensors at the end of the run when nothing happens."""
    run = tmp_path_factory.mktemp("end") / "run"
    shutil.copytree(base, run, symlinks=True)
    return tensors(resumed(run), 5)


def assert_same_end(run: Path, end: dict[str, torch.Tensor]) -> None:
    found = tensors(run, 5)
    assert found.keys() == end.keys()
    assert [name for name in end if not torch.equal(found[name], end[name])] == []


def as_folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()
    (path / "inside").touch()


def as_loop(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    path.symlink_to(path)


def as_file(path: Path) -> None:
    shutil.rmtree(path)
    path.touch()


def high_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x80
    path.write_bytes(data)


HARMS: list[tuple[str, Callable[[Path], object]]] = [
    *((name, harm) for name in LOGS for harm in (as_folder, as_loop, high_bit, Path.unlink)),
    *(("best", harm) for harm in (as_folder, as_loop, Path.unlink)),
    *(("tensorboard", harm) for harm in (as_file, as_loop, shutil.rmtree)),
    ("config.yaml", high_bit),
    ("config.yaml", Path.unlink),
]


@pytest.mark.parametrize(("name", "harm"), HARMS, ids=[f"{name}-{harm.__name__}" for name, harm in HARMS])
def test_nothing_beside_the_checkpoints_stops_a_resume(
    base: Path, end: dict[str, torch.Tensor], tmp_path: Path, name: str, harm: Callable[[Path], object]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(base, run, symlinks=True)
    harm(run / name)
    resumed(run)
    assert_same_end(run, end)
    assert (run / "best").is_symlink()
    assert (run / "best").is_dir()


@pytest.mark.parametrize("harm", [as_file, as_loop, lambda path: (shutil.rmtree(path), path.symlink_to("gone"))])
def test_checkpoints_that_are_no_folder_are_refused_and_left(
    base: Path, tmp_path: Path, harm: Callable[[Path], object]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(base, run, symlinks=True)
    harm(run / "checkpoints")
    with pytest.raises(UserError, match=f"{run}/checkpoints: is a file or a broken link, not a folder"):
        resumed(run)
    assert os.path.lexists(run / "checkpoints")
    assert (run / "log.jsonl").read_bytes() == (base / "log.jsonl").read_bytes()


def test_damaged_checkpoints_are_moved_aside_and_the_run_ends_the_same(
    base: Path, end: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(base, run, symlinks=True)
    high_bit(checkpoint.checkpoint_folder(run, 3) / "state.json")
    (run / "checkpoints" / "step-000000005").mkdir()
    (run / "checkpoints" / "step-000000004").touch()
    resumed(run)
    assert_same_end(run, end)
    assert (run / "checkpoints" / "damaged-step-000000003").is_dir()


class Full:
    """No file may grow beyond ``size`` bytes, as on a full disk."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __enter__(self) -> None:
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.before[1]))

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)


def test_a_full_disk_ends_the_run_with_what_is_safe(base: Path, end: dict[str, torch.Tensor], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(base, run, symlinks=True)
    with Full(20_000), pytest.raises(CannotWrite) as caught:
        resumed(run)
    message = str(caught.value)
    assert f"cannot write {run}/checkpoints" in message
    assert "the same command resumes the run; the checkpoint of step 3 is intact" in message
    assert not list((run / "checkpoints").glob(".writing-*"))
    assert not (run / ".lock").exists()
    resumed(run)
    assert_same_end(run, end)


def test_a_full_disk_before_the_first_checkpoint(tmp_path: Path) -> None:
    with Full(20_000), pytest.raises(CannotWrite, match="there is no checkpoint yet"):
        train(tiny(tmp_path / "run", "training.steps=3"))
    train(tiny(tmp_path / "run", "training.steps=3"))
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "spectrum" in line] == [0, 3]
    assert [line["step"] for line in lines if "D/loss" in line] == [2, 3]


def test_a_run_that_is_deleted_while_it_trains_is_not_called_intact(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(base, run, symlinks=True)
    monkeypatch.setattr(
        "orthogan.training.gan.task.GanTask.finish_step", lambda task, step: shutil.rmtree(run, ignore_errors=True)
    )
    with pytest.raises(CannotWrite, match="the same command starts again; there is no checkpoint any more"):
        resumed(run)


def test_pictures_and_curves_that_cannot_be_written_cost_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise CannotWrite("cannot write here: No space left on device")

    monkeypatch.setattr("orthogan.training.gan.task.save_png", refused)
    monkeypatch.setattr(EventFile, "scalar", refused)
    run = train(tiny(tmp_path / "run", "training.steps=3", "logging.tensorboard=true"))
    printed = capsys.readouterr().out
    assert printed.count("a picture could not be written") == 2
    assert printed.count("no more curves for TensorBoard") == 1
    assert checkpoint.newest(run) is not None
    assert "a picture could not be written" in (run / "log.jsonl").read_text()


def points(run: Path, tag: str) -> list[int]:
    """The steps [images] of TensorBoard's curve ``tag``, in the order in which it reads them."""
    found: list[int] = []
    for file in sorted((run / "tensorboard").iterdir()):
        for event in EventFileLoader(str(file)).Load():
            found += [event.step for value in event.summary.value if value.tag == tag]
    return found


def test_a_kill_costs_no_point_of_a_curve_before_the_checkpoint(tmp_path: Path) -> None:
    options = ("training.steps=6", "checkpoint.every=2", "logging.every=1", "logging.tensorboard=true")

    def die() -> None:
        from orthogan.training.gan.task import GanTask

        real = GanTask.finish_step

        def finish_step(self: GanTask, step: int) -> None:
            real(self, step)
            if step == 4:
                os.kill(os.getpid(), 9)

        GanTask.finish_step = finish_step

    assert start(tmp_path, tiny_arguments(tmp_path, *options), patch=die).end()[0] == -9
    assert (tmp_path / "run" / ".lock").exists()
    run = train(tiny(tmp_path / "run", *options))
    assert points(run, "loss/D") == [1, 2, 3, 4, 5, 6]
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "D/loss" in line] == [1, 2, 3, 4, 5, 6]
    assert not (run / ".lock").exists()


def test_curves_stay_in_order_when_the_clock_goes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = []
    for now in (2_000_000_000.0, 1_900_000_000.0, 1_900_000_001.0, 2_000_000_002.5):
        monkeypatch.setattr("orthogan.training.event_file.time.time", lambda now=now: now)
        file = EventFile(tmp_path, purge=0)
        file.close()
        names.append(file.path.name)
    assert names == sorted(names)
    assert len(set(names)) == 4


@pytest.mark.parametrize("at", [1, 2])
def test_a_run_that_ended_before_its_first_checkpoint_logs_nothing_twice(tmp_path: Path, at: int) -> None:
    config = tiny(tmp_path / "run", "training.steps=3", "logging.every=1", "logging.spectrum_every=1")

    class Killed(BaseException):
        pass

    def kill(self: StopSignal, accelerator: object, step: int) -> bool:
        if step == at:
            raise Killed
        return False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopSignal, "agree", kill)
        for _ in range(2):
            with pytest.raises(Killed):
                train(config)
    train(config)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "spectrum" in line] == [0, 1, 2, 3]
    assert [line["step"] for line in lines if "D/loss" in line] == [1, 2, 3]


def test_logs_of_a_run_without_its_checkpoints_are_kept(base: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(base, run, symlinks=True)
    shutil.rmtree(run / "checkpoints")
    resumed(run)
    for name in LOGS:
        assert (run / f"{name}.old").read_bytes() == (base / name).read_bytes()


FREE = {
    "longer": ("training.steps=5",),
    "ADA on": ("augment={kind: ada, interval: 1, images_to_one: 100}",),
    "DiffAugment on": ("augment.kind=diffaugment",),
    "average off": ("training.ema.half_life=0",),
}


@pytest.mark.parametrize("change", FREE.values(), ids=FREE)
def test_what_can_be_switched_needs_no_consent(
    tmp_path: Path, change: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(tiny(tmp_path / "run", "training.steps=3"))
    capsys.readouterr()
    train(tiny(run, "training.steps=4", *change))
    assert f"Resuming at step 3 of {5 if 'training.steps=5' in change else 4}" in capsys.readouterr().out
    if "training.steps=5" not in change:  # and back
        train(tiny(run, "training.steps=5"))
    assert checkpoint.verify(checkpoint.checkpoint_folder(run, 5))


def test_an_average_that_is_switched_on_begins_with_the_weights_of_then(tmp_path: Path) -> None:
    run = train(tiny(tmp_path / "run", "training.steps=3", "training.ema.half_life=0"))
    before = tensors(run, 3)
    train(tiny(run, "training.steps=4", "training.ema.half_life=1000000", "training.ema.warmup=0"))
    after = tensors(run, 4)
    averaged = {name: tensor for name, tensor in after.items() if name.startswith("generator-ema/")}
    floats = [name for name, tensor in averaged.items() if tensor.is_floating_point() and "running" not in name]
    assert len(floats) > 5
    for name in floats:
        old = before[name.replace("generator-ema/", "generator/")]
        torch.testing.assert_close(averaged[name], old, rtol=1e-3, atol=1e-3)


FIXED = [
    "model.generator.channels=16",
    "model.discriminator.channels=4",
    "model.generator.latent_dim=9",
    "model.discriminator.norm.kind=none",
    "model.generator.norm.kind=spectral",
    "model.generator.kind=dcgan",
    "data.channels=3",
    "data.resolution=64",
    "data.labels=true",
]


@pytest.mark.parametrize("change", FIXED)
def test_what_cannot_be_continued_is_refused_with_its_key_even_with_consent(
    base: Path, tmp_path: Path, change: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(base, run, symlinks=True)
    with pytest.raises(UserError, match=rf"{change.partition('=')[0]}: .* -> "):
        train(tiny(run, "training.steps=4", change, SCORED), allow_config_change=True)
    assert (run / "log.jsonl").read_bytes() == (base / "log.jsonl").read_bytes()


def test_tensors_that_do_not_fit_are_refused_with_the_keys_that_differ(base: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(base, run, symlinks=True)
    with pytest.raises(UserError, match=r"model\.discriminator\.norm\.layers: \[\] -> \['linear'\]"):
        train(
            tiny(run, "training.steps=4", "model.discriminator.norm.layers=[linear]", SCORED), allow_config_change=True
        )


def classes(folder: Path, *names: str) -> None:
    for index, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for number in range(20):
            image = np.full((32, 32, 3), 10 * index + number, dtype=np.uint8)
            Image.fromarray(image).save(folder / name / f"{number}.png")


CLASSED = ("data.source=folder", "data.count=null", "data.channels=3", "data.labels=true", "training.batch_size=4")


@pytest.mark.parametrize("change", ["renamed", "added", "removed"])
@pytest.mark.parametrize("version", [1, 2])
def test_other_classes_than_those_of_the_run_are_refused(
    tmp_path: Path, change: str, version: int, capsys: pytest.CaptureFixture[str]
) -> None:
    images, run = tmp_path / "images", tmp_path / "run"
    classes(images, "cat", "dog", "eel")
    options = (*CLASSED, f"data.path={images}")
    train(tiny(run, *options, "training.steps=3"))
    if version == 1:
        state = checkpoint.checkpoint_folder(run, 3) / "state.json"
        record = json.loads(state.read_text())
        del record["sha256"], record["state"]["data"]
        state.write_text(json.dumps(record | {"format": 1}))
    if change == "renamed":
        (images / "cat").rename(images / "zebra")
    elif change == "added":
        classes(images, "cow")
    else:
        shutil.rmtree(images / "dog")
    now = {"renamed": "dog, eel, zebra", "added": "cat, cow, dog, eel", "removed": "cat, eel"}[change]
    with pytest.raises(UserError, match=rf"cat, dog, eel.*{now}"):
        train(tiny(run, *options, "training.steps=4"), allow_config_change=True)
    if change == "renamed":  # and brought back
        (images / "zebra").rename(images / "cat")
        (images / "cat" / "0.png").unlink()
        train(tiny(run, *options, "training.steps=4"))
        assert version == 1 or "the data has 59 images, but the run started with 60" in capsys.readouterr().err


def test_another_number_of_threads_is_said(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(base, run, symlinks=True)
    monkeypatch.setattr("orthogan.training.resume.torch.get_num_threads", lambda: 7)
    resumed(run)
    assert "threads: 1 -> 7" in capsys.readouterr().err


@pytest.mark.parametrize("out", ["x" * 300, "x/" * 2600, "a\0b", "file/run", "file"])
def test_a_place_that_cannot_be_is_refused_by_name(tmp_path: Path, out: str) -> None:
    (tmp_path / "file").touch()
    before = sorted(tmp_path.iterdir())
    config = tiny(tmp_path / "run").model_copy(update={"out": str(tmp_path / out)})
    with pytest.raises(CannotWrite, match="cannot write"):
        train(config)
    assert sorted(tmp_path.iterdir()) == before


def test_a_run_that_fails_before_it_begins_leaves_no_folder(tmp_path: Path) -> None:
    config = tiny(tmp_path / "runs" / "run", "data.source=folder", "data.count=null", f"data.path={tmp_path}/gone")
    with pytest.raises(UserError, match="gone"):
        train(config)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("harm", ["all damaged", "no state"])
def test_whoever_reads_a_damaged_run_is_told_so_once(
    base: Path, tmp_path: Path, harm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(base, run, symlinks=True)
    folders = [folder for _, folder in checkpoint.steps(run)]
    for folder in folders if harm == "all damaged" else folders[-1:]:
        (folder / "state.json").unlink()
    before = sorted(path.name for path in run.rglob("*"))
    if harm == "all damaged":
        with pytest.raises(UserError, match="all checkpoints of this run are damaged"):
            _ = open_model(str(run)).generator
    else:
        _ = open_model(str(run)).generator
    assert capsys.readouterr().err.count("skipping a damaged checkpoint") == (
        len(folders) if harm == "all damaged" else 1
    )
    with pytest.raises(UserError, match=r"state\.json: missing"):
        open_model(str(folders[-1]))
    assert sorted(path.name for path in run.rglob("*")) == before  # a reader changes nothing


def test_a_config_of_another_version_is_refused_for_the_keys_that_differ(base: Path, tmp_path: Path) -> None:
    config, run = tiny(tmp_path / "run"), tmp_path / "run"
    old = config.model_dump()
    del old["optimizer"]["generator"]["kind"]  # version 0.1 had only Adam
    old["training"]["turbo"] = True
    with pytest.raises(UserError, match=r"another config(?s:.)*training\.turbo: True -> \(absent\)") as error:
        refuse_changes(old, config, run, allow=False)
    assert "--allow-config-change" in str(error.value)
    assert len(refuse_changes(old, config, run, allow=True)) == 2
    old["optimizer"]["generator"]["kind"] = "sgd"
    with pytest.raises(
        UserError, match=r"cannot be resumed with other values of:\s+optimizer\.generator\.kind: sgd -> adam"
    ):
        refuse_changes(old, config, run, allow=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_json_writes_otherwise_is_no_change(base: Path, tmp_path: Path, value: object) -> None:
    config = tiny(tmp_path / "run", "training.steps=3")
    discriminator = config.model.discriminator.model_copy(update={"options": {"x": value}})
    config = config.model_copy(update={"model": config.model.model_copy(update={"discriminator": discriminator})})
    folder = checkpoint.save(tmp_path / "run", 3, {}, {"config": config.model_dump(), "seconds": 1.0})
    assert refuse_changes(checkpoint.verify(folder)["config"], config, tmp_path / "run", allow=False) == []
