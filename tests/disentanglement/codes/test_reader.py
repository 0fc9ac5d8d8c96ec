"""The columns that an oracle reads, and their names."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import orthogan
from orthogan.disentanglement import OracleReader, factor_reader, train_oracle
from orthogan.disentanglement.codes.oracle import as_input
from orthogan.errors import UserError

QUICK = {"steps": 2, "batch_size": 8, "held_out": 20, "precision": "float32", "progress": False}


def test_faces_have_named_columns_and_no_color_of_what_may_be_absent() -> None:
    faces = orthogan.open_source("faces", resolution=32, channels=3, count=64)
    oracle = train_oracle(faces, **QUICK)
    reader = OracleReader(oracle, faces, least_accuracy=0)
    assert {"hair: short", "glasses", "beard", "hat", "mouth: sad", "skin: #ffdbac"} <= set(reader.names)
    assert not {"hat color", "glasses color", "accessories color"} & set(reader.groups)
    images = faces.read(np.arange(5))[0]
    found = reader.read(images)
    with torch.no_grad():
        logits = oracle.net(as_input(torch.from_numpy(images))).split(oracle.merging.sizes, 1)
    shares = {name: part.double().softmax(1).numpy() for name, part in zip(oracle.merging.names, logits, strict=True)}
    np.testing.assert_allclose(found[:, reader.names.index("glasses")], 1 - shares["glasses"][:, 0], atol=1e-6)
    np.testing.assert_allclose(found[:, reader.names.index("hair: short")], shares["hair"][:, 1], atol=1e-6)
    skin = [at for at, group in enumerate(reader.groups) if group == "skin"]
    np.testing.assert_allclose(found[:, skin], shares["skin"], atol=1e-6)
    with pytest.raises(UserError, match="use data of the size of the generator"):
        reader.read(images[:, :, :16, :16])


def test_ordered_factors_are_positions_and_weak_ones_are_dropped() -> None:
    sprites = orthogan.open_source("sprites", count=64, channels=1)
    oracle = train_oracle(sprites, **QUICK)
    reader = OracleReader(oracle, sprites, least_accuracy=0)
    assert reader.names == ("shape: 0", "shape: 1", "shape: 2", "scale", "orientation", "x", "y")
    images = sprites.read(np.arange(4))[0]
    with torch.no_grad():
        logits = oracle.net(as_input(torch.from_numpy(images))).split(oracle.merging.sizes, 1)[3]
    expected = logits.double().softmax(1).numpy() @ np.arange(6) / 5
    np.testing.assert_allclose(reader.read(images)[:, 5], expected, atol=1e-6)
    with pytest.raises(UserError, match=r"reads no factor with an accuracy of 1\.1"):
        factor_reader(sprites, oracle=oracle, least_accuracy=1.1)
