"""Reals that the GAN never saw: none of them are among those it did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orthogan.data import open_configured, open_held_out
from orthogan.data.config import DataConfig
from orthogan.errors import UserError
from tests.fixtures.sets import solid


def test_other_sprites_are_other_sprites() -> None:
    data = DataConfig(source="sprites", channels=1, count=2000)
    seen, found = open_configured(data), open_held_out(data)
    assert seen.factors is not None
    assert found.factors is not None
    assert 1950 <= len(found) <= 2000
    assert not {tuple(row) for row in found.factors} & {tuple(row) for row in seen.factors}
    assert (found.resolution, found.channels, found.num_classes) == (32, 1, seen.num_classes)
    assert found.name != seen.name


def test_a_folder_called_train_has_its_test_beside_it(tmp_path: Path) -> None:
    for part, level in (("train", 10), ("test", 200)):
        (tmp_path / part).mkdir()
        for name in "ab":
            Image.fromarray(np.full((9, 9), level, np.uint8)).save(tmp_path / part / f"{name}.png")
    data = DataConfig(source="folder", path=str(tmp_path / "train"), resolution=8, channels=1)
    images, _ = open_held_out(data).read(np.array([0]))
    assert (images == 200).all()
    with pytest.raises(UserError, match="'folder' has only one part"):
        open_held_out(data.model_copy(update={"path": str(tmp_path / "test")}))


def test_unreadable_test_images_are_treated_as_the_config_says(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for k in range(4):
            solid(tmp_path / part / f"{k}.png", 9)
    (tmp_path / "test" / "2.png").write_bytes(b"")
    data = DataConfig(source="folder", path=str(tmp_path / "train"), resolution=8, channels=1, bad_limit=0.25)
    assert len(open_held_out(data)) == 3
    for change in ({"bad_limit": 0.2}, {"bad_images": "error"}):
        with pytest.raises(UserError, match=r"2\.png"):
            open_held_out(data.model_copy(update=change))


def test_the_test_part_is_opened(tmp_path: Path) -> None:
    data = DataConfig(source="cifar10", root=str(tmp_path), download=False)
    with pytest.raises(UserError, match="cifar10"):  # it is asked for, and not there
        open_held_out(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (DataConfig(source="sprites", channels=1), "'sprites' has only one part"),
        (DataConfig(source="cifar10", split="test"), "the test part, which the GAN was trained on"),
    ],
)
def test_what_has_no_unseen_part_is_refused(data: DataConfig, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_held_out(data)
