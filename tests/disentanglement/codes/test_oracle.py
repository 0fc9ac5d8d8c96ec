"""The oracle: it learns what can be seen, says how well, and comes back from the cache as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orthogan.data import ArraySource, open_source
from orthogan.disentanglement import (
    FactorClassifier,
    TrainingRecipe,
    load_oracle,
    oracle_for,
    save_oracle,
    train_oracle,
)
from orthogan.disentanglement.codes import oracle as cache_module
from orthogan.errors import UserError
from tests.fixtures.quadrants import NAMES, labelled, taught

QUICK = TrainingRecipe(steps=80, batch_size=64)


@pytest.fixture(scope="module")
def oracle() -> FactorClassifier:
    return taught()


def test_it_reads_factors_that_the_pictures_show(oracle: FactorClassifier) -> None:
    assert oracle.merging.names == NAMES
    assert min(oracle.accuracy.values()) > 0.97
    assert oracle.kept() == [0, 1, 2, 3]
    fresh = labelled(copies=1, seed=9)
    answers, sure = oracle.read(fresh.images)
    assert (answers == fresh.factors).mean() > 0.97
    assert sure.dtype == np.float32
    assert 0.9 < sure.mean() <= 1
    assert not oracle.net.training


def test_a_factor_that_cannot_be_seen_is_at_chance_and_not_kept() -> None:
    source = labelled(copies=3)
    assert source.factors is not None
    factors = np.hstack([source.factors[:, :2], np.random.default_rng(1).integers(0, 4, (len(source), 1))])
    blind = ArraySource("b", source.images, factors=factors, factor_names=("nw", "ne", "luck"), factor_sizes=(3, 3, 4))
    oracle = train_oracle(blind, steps=60, batch_size=64, progress=False)
    assert oracle.accuracy["luck"] < 0.6
    assert oracle.chance["luck"] < 0.6
    assert oracle.kept() == [0, 1]


def test_the_same_seed_gives_the_same_oracle_and_leaves_the_global_state() -> None:
    before = torch.random.get_rng_state()
    first, second, other = (
        train_oracle(labelled(copies=1), steps=3, batch_size=16, seed=seed, progress=False) for seed in (0, 0, 1)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    weights: list[Any] = [oracle.net.head[0].weight for oracle in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_what_is_held_out_is_not_trained_on() -> None:
    read: list[np.ndarray] = []

    class Watched(ArraySource):
        def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            read.append(indices)
            return super().read(indices)

    base = labelled(copies=2)
    watched = Watched("w", base.images, factors=base.factors, factor_names=NAMES, factor_sizes=(3,) * 4)
    train_oracle(watched, steps=20, batch_size=32, progress=False)
    trained, held = set(np.concatenate(read[:20])), set(read[20])
    assert len(held) == len(base) // 10
    assert not trained & held


def test_images_of_another_size_are_refused(oracle: FactorClassifier) -> None:
    with pytest.raises(ValueError, match="open the data at the resolution"):
        oracle.read(np.zeros((1, 1, 16, 16), np.uint8))
    with pytest.raises(ValueError, match="uint8"):
        oracle.read(np.zeros((1, 1, 4, 4), np.float32))


def test_too_few_images_and_damaged_numbers_are_refused() -> None:
    few = labelled(copies=1)
    with pytest.raises(ValueError, match="an oracle needs 20 images"):
        train_oracle(few, batch_size=1, progress=False)
    with pytest.raises(ValueError, match="precision='half'"):
        train_oracle(few, precision="half", progress=False)
    with pytest.raises(ValueError, match="its factors are not known"):
        train_oracle(ArraySource("plain", few.images), progress=False)


def test_a_saved_oracle_answers_the_same(oracle: FactorClassifier, tmp_path: Path) -> None:
    path = save_oracle(tmp_path / "o.safetensors", oracle)
    again = load_oracle(path)
    images = labelled(copies=1, seed=3).images
    for mine, theirs in zip(oracle.read(images), again.read(images), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert again.as_dict() == oracle.as_dict()
    assert again.merging == oracle.merging
    assert again.teaching == QUICK
    json.dumps(again.as_dict(), allow_nan=False)


def test_damaged_and_foreign_files_are_named(oracle: FactorClassifier, tmp_path: Path) -> None:
    path = save_oracle(tmp_path / "o.safetensors", oracle)
    content = bytearray(path.read_bytes())
    content[-5] ^= 4  # in a weight
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"o\.safetensors: damaged"):
        load_oracle(path)
    path.write_bytes(content[:200])
    with pytest.raises(UserError, match=r"o\.safetensors: damaged"):
        load_oracle(path)


def test_the_cache_trains_once_for_the_same_data_and_again_for_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ORTHOGAN_CACHE", str(tmp_path))
    trained: list[int] = []
    train = cache_module.train_oracle

    def counted(*args: object, **options: object) -> FactorClassifier:
        trained.append(1)
        return train(*args, **options)

    monkeypatch.setattr(cache_module, "train_oracle", counted)
    teaching = TrainingRecipe(steps=2, batch_size=16)
    source = labelled(copies=1)
    first = oracle_for(source, teaching=teaching, progress=False)
    again = oracle_for(source, teaching=teaching, progress=False)
    assert len(trained) == 1
    assert again.as_dict() == first.as_dict()
    oracle_for(source, teaching=replace(teaching, seed=1), progress=False)
    # the same pictures with other factors are other data
    assert source.factors is not None
    turned = ArraySource(
        "quadrants", source.images, factors=source.factors[:, ::-1].copy(), factor_names=NAMES, factor_sizes=(3,) * 4
    )
    oracle_for(turned, teaching=teaching, progress=False)
    assert len(trained) == 3
    for path in tmp_path.glob("oracle-*.safetensors"):
        path.write_bytes(b"damaged")
    oracle_for(source, teaching=teaching, progress=False)
    assert len(trained) == 4
    assert "training the oracle again, " in capsys.readouterr().err


def test_coloured_sprites_are_read_without_their_whole_table() -> None:
    source = open_source("sprites-colour", resolution=32, channels=3)
    oracle = train_oracle(source, steps=4, batch_size=32, held_out=40, progress=False)
    assert oracle.merging.names == ("shape", "scale", "orientation", "x", "y", "hue", "background")
    assert set(oracle.accuracy) == set(oracle.merging.names)
