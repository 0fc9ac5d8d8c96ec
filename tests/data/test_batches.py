from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.multiprocessing import active_children

from orthogan.data import Batches, ImageSource, batches
from orthogan.data.batches import fits
from orthogan.errors import UserError
from tests.fixtures.sets import array_source, opened


class Failing(ImageSource):
    """Raises a UserError for one index."""

    name, resolution, channels = "failing", 4, 1

    def __len__(self) -> int:
        return 8

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if 5 in indices:
            raise UserError("picture five.png is broken")
        return np.zeros((len(indices), 1, 4, 4), np.uint8), np.zeros(len(indices), np.int64)

    def fingerprint(self) -> str:
        return "0"


def test_an_epoch_holds_every_image_once() -> None:
    source = array_source(60, classes=4)
    batches = Batches(source, batch_size=12, seed=3)
    parts = [batches.at(position) for position in range(0, 60, 12)]
    images, labels = torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
    order = images[:, 0, 0, 0].argsort()
    assert torch.equal(images[order], torch.from_numpy(source.images))
    assert torch.equal(labels[order], torch.from_numpy(source.labels))
    assert not torch.equal(order, torch.arange(60))


def test_resident_stream_and_own_process_give_the_same_batches() -> None:
    source = array_source(50, classes=3)
    options = {"batch_size": 16, "seed": 9}
    with (
        Batches(source, **options, resident="device") as resident,
        Batches(source, **options, resident="stream", workers=2) as stream,
        Batches(source, **options, resident="stream", workers=0) as own,
    ):
        assert resident.resident
        assert not stream.resident
        # Sequential, across epochs; then back, then off the grid of batches.
        for position in (*range(0, 160, 16), 32, 48, 7, 23):
            images, labels = resident.at(position)
            assert images.dtype == torch.uint8
            assert labels.dtype == torch.int64
            for other in (stream, own):
                other_images, other_labels = other.at(position)
                assert torch.equal(images, other_images), position
                assert torch.equal(labels, other_labels), position


@pytest.mark.parametrize("resident", ["device", "stream"])
@pytest.mark.parametrize("position", [0, 5, 21])
def test_ranks_share_the_global_batch(resident: str, position: int) -> None:
    source = array_source(25)
    whole = Batches(source, batch_size=12, seed=1, resident="device").at(position)[0]
    options = {"batch_size": 12, "seed": 1, "world": 3, "resident": resident, "workers": 0}
    shares = [Batches(source, rank=rank, **options).at(position)[0] for rank in range(3)]
    assert [len(share) for share in shares] == [4, 4, 4]
    assert torch.equal(torch.cat(shares), whole)


def test_seeds_differ() -> None:
    source = array_source(40)
    assert not torch.equal(*(Batches(source, batch_size=40, seed=seed).at(0)[0] for seed in (0, 1)))


def test_batches_are_copies() -> None:
    source = array_source(8)
    for resident in ("device", "stream"):
        batches = Batches(source, batch_size=8, seed=0, resident=resident, workers=0)
        before = batches.at(0)[0].clone()
        batches.at(0)[0].zero_()
        assert torch.equal(batches.at(0)[0], before)


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_a_source_arrive_with_their_own_words(workers: int) -> None:
    with (
        Batches(Failing(), batch_size=8, seed=0, resident="stream", workers=workers) as batches,
        pytest.raises(UserError) as caught,
    ):
        batches.at(0)
    assert str(caught.value) == "picture five.png is broken"


def test_impossible_batches() -> None:
    source = array_source(10)
    with pytest.raises(UserError, match="10 images, fewer than a batch of 11"):
        Batches(source, batch_size=11, seed=0)
    with pytest.raises(UserError, match="batch size 9 cannot be divided evenly among 2"):
        Batches(source, batch_size=9, seed=0, world=2)
    with pytest.raises(UserError, match="auto, device or stream"):
        Batches(source, batch_size=2, seed=0, resident="ram")
    with pytest.raises(ValueError, match="negative"):
        Batches(source, batch_size=2, seed=0).at(-1)
    with pytest.raises(ValueError, match="rank 2 of 2"):
        Batches(source, batch_size=2, seed=0, rank=2, world=2)


def test_auto_streams_what_is_not_in_memory() -> None:
    assert not fits(Failing(), torch.device("cpu"))
    assert fits(array_source(4), torch.device("cpu"))


def test_device_residency_of_a_source_that_is_not_in_memory() -> None:
    class Counting(Failing):
        def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return np.tile(indices.astype(np.uint8)[:, None, None, None], (1, 1, 4, 4)), indices.copy()

    batches = Batches(Counting(), batch_size=8, seed=0, resident="device")
    images, labels = batches.at(0)
    assert torch.equal(images[:, 0, 0, 0].long(), labels)
    assert sorted(labels.tolist()) == list(range(8))


def test_workers_end_with_close_and_with_the_object() -> None:
    for forget in (False, True):
        batches = Batches(array_source(20), batch_size=4, seed=0, resident="stream", workers=1)
        batches.at(0)
        assert len(active_children()) == 1
        if forget:
            del batches
            gc.collect()
        else:
            batches.close()
            with pytest.raises(RuntimeError, match="closed"):
                batches.at(4)
        assert not active_children()


def test_workers_outlast_a_signal_to_the_whole_group() -> None:
    """Ctrl-C or a scheduler's SIGTERM must let the step be ended, for which batches are needed."""
    with Batches(array_source(20), batch_size=4, seed=0, resident="stream", workers=2) as batches:
        batches.at(0)  # answered by one worker; the other may still be starting
        for child in active_children():
            assert child.pid is not None
            os.kill(child.pid, signal.SIGTERM)
            os.kill(child.pid, signal.SIGINT)
        expected = Batches(array_source(20), batch_size=4, seed=0)
        for position in range(4, 80, 4):
            assert torch.equal(batches.at(position)[0], expected.at(position)[0])


@pytest.mark.slow
def test_program_that_never_closes_its_batches_ends() -> None:
    program = (
        "from tests.fixtures.sets import array_source\nfrom orthogan.data import Batches\n"
        "b = Batches(array_source(20), batch_size=4, seed=0, resident='stream', workers=1)\nb.at(0)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=600)


def test_array_source_survives_pickling() -> None:
    source = array_source(5, classes=2)
    copy = pickle.loads(pickle.dumps(source))
    assert copy.fingerprint() == source.fingerprint()


@pytest.mark.gpu
def test_batches_on_a_gpu_equal_those_on_the_cpu() -> None:
    source = array_source(50, classes=3)
    here = Batches(source, batch_size=16, seed=2)
    for resident in ("device", "stream"):
        with Batches(source, batch_size=16, seed=2, device="cuda", resident=resident) as there:
            for position in range(0, 96, 16):
                images, labels = there.at(position)
                assert images.is_cuda
                assert torch.equal(images.cpu(), here.at(position)[0])
                assert torch.equal(labels.cpu(), here.at(position)[1])


@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_small_and_large_batches_of_stored_rows_are_those_of_memory(
    limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small batches travel by a pipe, large ones in shared memory; channels-last as the file has them."""
    monkeypatch.setattr(batches, "BY_PIPE", limit)
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), np.uint8)
    np.save(tmp_path / "x.npy", images)
    np.save(tmp_path / "x.labels.npy", np.arange(50) % 4)
    expected = Batches(opened("array", tmp_path / "x.npy", 8, 3), batch_size=16, seed=2)
    assert expected.resident
    source = opened("array", tmp_path / "x.npy", 8, 3, in_memory_limit=0)
    with (
        Batches(source, batch_size=16, seed=2, workers=2) as stream,
        Batches(source, batch_size=16, seed=2, workers=0) as own,
    ):
        assert not stream.resident
        for position in (*range(0, 96, 16), 7):
            wanted = expected.at(position)
            for found in (stream.at(position), own.at(position)):
                assert torch.equal(found[0], wanted[0])
                assert torch.equal(found[1], wanted[1])
        stream.at(32)[0].zero_()  # is the caller's
        assert torch.equal(stream.at(48)[0], expected.at(48)[0])


def test_no_more_reader_processes_than_usable_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "cores", lambda: 1)
    source = array_source(8)
    with Batches(source, batch_size=4, seed=0, resident="stream", workers=16) as read:
        assert read._stream is not None
        assert read._stream._loader is not None
        assert read._stream._loader.num_workers == 1
